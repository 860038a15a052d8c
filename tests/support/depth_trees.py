"""Miniatures of the data sets of depth and normals, in each layout they are published in. Tests build them in tmp_path."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from genpercept.core.values import Sample
from genpercept.data import DATASETS
from genpercept.data.hypersim import SPLIT_CSV

h5py = pytest.importorskip("h5py")

H, W = 6, 8
NAMES = ("hypersim", "vkitti2", "kitti", "nyuv2", "scannet", "diode", "eth3d")
SLANTED = np.array([0.48, 0.6, 0.64])  # a unit normal in our axes: to the right, up and towards the viewer


@dataclass
class Tree:
    """A miniature of a data set: where it is, a split of it, and the label file of its first entry."""

    plugin: Any
    root: Path
    split: str
    label: Path
    count: int = 1

    def first(self, **options: Any) -> Sample:
        plugin = self.plugin.with_options(**options)
        return plugin.load(plugin.index(self.root, self.split)[0])


def find(name: str) -> Any:
    return DATASETS.find(name)


def rgb(path: Path, value: int = 51, size: tuple[int, int] = (H, W), **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), value, np.uint8)).save(path, **options)
    return path


def png(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return path


def npy(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, values)
    return path


def hdf5(path: Path, **arrays: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for key, values in arrays.items():
            file[key] = values
    return path


def stored(unit: float, hole: int = 0) -> np.ndarray:
    """uint16 depth: 2.5 m at (1, 2), elsewhere 4 m, nothing at (0, 0)."""
    values = np.full((H, W), 4 * unit, np.uint16)
    values[1, 2], values[0, 0] = 2.5 * unit, hole
    return values


def painted(normal: np.ndarray) -> np.ndarray:
    """An 8-bit picture of one normal, unknown (black) at (0, 0)."""
    values = np.broadcast_to(((normal + 1) * 127.5).round().astype(np.uint8), (H, W, 3)).copy()
    values[0, 0] = 0
    return values


# Miniatures ---------------------------------------------------------------------------------------------------------------


def frame_of_hypersim(scene: Path, frame: int, distance: np.ndarray) -> Path:
    """Colour 0.1 with a sky of 9 in the last row, where nothing was hit; a floor (2), at (0, 0) nothing."""
    colour = np.full((H, W, 3), 0.1, np.float16)
    colour[-1] = 9
    hit = np.ones((H, W), np.int32)
    hit[-1] = -1
    normals = np.broadcast_to(SLANTED, (H, W, 3)).astype(np.float16).copy()
    normals[2, 3] = -SLANTED
    semantic = np.full((H, W), 2, np.int16)
    semantic[0, 0], semantic[0, 1] = -1, 40
    final, geometry = (scene / f"images/scene_cam_00_{kind}_hdf5" for kind in ("final", "geometry"))
    hdf5(final / f"frame.{frame:04d}.color.hdf5", dataset=colour)
    for kind, values in (("render_entity_id", hit), ("normal_cam", normals), ("semantic", semantic)):
        hdf5(geometry / f"frame.{frame:04d}.{kind}.hdf5", dataset=values)
    return hdf5(geometry / f"frame.{frame:04d}.depth_meters.hdf5", dataset=distance)


def wall_distance(depth: float, focal: float, size: tuple[int, int] = (H, W)) -> np.ndarray:
    """From the camera to a wall that faces it, at `depth` metres, for a straight lens."""
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    return depth * np.sqrt(((x - size[1] / 2) / focal) ** 2 + ((y - size[0] / 2) / focal) ** 2 + 1)


STRAIGHT_FOCAL = W / 2 * np.sqrt(3)  # 60 degrees across


def hypersim(root: Path) -> Tree:
    scene = root / "ai_001_001"
    label = frame_of_hypersim(scene, 0, wall_distance(2, STRAIGHT_FOCAL))
    frame_of_hypersim(scene, 1, wall_distance(2, STRAIGHT_FOCAL))
    rows = ["ai_001_001,cam_00,0,True,,val", "ai_001_001,cam_00,1,False,people,", "ai_009_009,cam_00,0,True,,val"]
    head = "scene_name,camera_name,frame_id,included_in_public_release,exclude_reason,split_partition_name"
    (root / SPLIT_CSV).write_text("\n".join([head, *rows]) + "\n")
    return Tree(find("hypersim"), root, "val", label)


def hypersim_pngs(root: Path) -> Tree:
    rgb(root / "val/ai_003_010/rgb_cam_00_fr0000.png")
    label = png(root / "val/ai_003_010/depth_plane_cam_00_fr0000.png", stored(1000))
    npy(root / "val/ai_003_010/normal_cam_cam_00_fr0000.npy", np.broadcast_to(SLANTED, (H, W, 3)))
    return Tree(find("hypersim"), root, "val", label)


def vkitti2(root: Path, rgb_base: str = "", depth_base: str = "", size: tuple[int, int] = (H, W)) -> Tree:
    for scene in ("Scene01", "Scene20"):
        frames = f"{scene}/clone/frames"
        rgb(root / rgb_base / frames / "rgb/Camera_1/rgb_00003.jpg", size=size)
        values = np.full(size, 400, np.uint16)
        values[1, 2], values[0, 0], values[0, 1] = 250, 65535, 60000
        png(root / depth_base / frames / "depth/Camera_1/depth_00003.png", values)
    label = root / depth_base / "Scene01/clone/frames/depth/Camera_1/depth_00003.png"
    return Tree(find("vkitti2"), root, "val", label)


def kitti(root: Path, base: str = "data_depth_annotated/val/", split: str = "val") -> Tree:
    drive = "2011_09_26_drive_0002_sync"
    rgb(root / f"2011_09_26/{drive}/image_02/data/0000000069.png")
    label = png(root / f"{base}{drive}/proj_depth/groundtruth/image_02/0000000069.png", stored(256))
    numbers = "7.2e+02 0 6.1e+02 4.5e+01 0 7.3e+02 1.7e+02 2.1e-01 0 0 1 2.7e-03"
    (root / "2011_09_26/calib_cam_to_cam.txt").write_text(f"calib_time: 09-Jan-2012\nP_rect_02: {numbers}\n")
    return Tree(find("kitti"), root, split, label)


def nyuv2_mat(root: Path) -> Tree:
    from scipy.io import savemat

    images = np.zeros((3, 3, W, H), np.uint8)
    images[2, 1, 5, 4] = 255  # frame 2, green, column 5, row 4
    depths = np.full((3, W, H), 4, np.float32)
    depths[2, 2, 1] = 2.5
    raw = depths.copy()
    raw[:, 0, 0] = 0
    labels = np.zeros((3, W, H), np.uint16)
    labels[2, 2, 1] = 3
    label = hdf5(root / "nyu_depth_v2_labeled.mat", images=images, depths=depths, rawDepths=raw, labels=labels)
    savemat(root / "splits.mat", {"trainNdxs": np.array([[1], [2]]), "testNdxs": np.array([[3]])})
    savemat(root / "classMapping40.mat", {"mapClass": np.array([[40, 4, 21]])})
    return Tree(find("nyuv2"), root, "test", label)


def nyuv2_pngs(root: Path) -> Tree:
    rgb(root / "test/kitchen_0004/rgb_0001.png")
    label = png(root / "test/kitchen_0004/depth_0001.png", stored(1000))
    png(root / "test/kitchen_0004/filled_0001.png", stored(1000, hole=1500))
    return Tree(find("nyuv2"), root, "test", label)


def nyuv2_bts(root: Path) -> Tree:
    rgb(root / "official_splits/test/kitchen/rgb_00000.jpg")
    label = png(root / "official_splits/test/kitchen/sync_depth_00000.png", stored(1000))
    return Tree(find("nyuv2"), root, "test", label)


def nyuv2_normals(root: Path) -> Tree:
    rgb(root / "test/000000_img.png")
    return Tree(find("nyuv2"), root, "test", png(root / "test/000000_normal.png", painted(SLANTED * [-1, 1, 1])))


def scannet(root: Path) -> Tree:
    scene = root / "scans/scene0406_02"
    rgb(scene / "color/300.jpg", size=(2 * H, 2 * W))
    rgb(scene / "color/1000.jpg", size=(2 * H, 2 * W))
    label = png(scene / "depth/300.png", stored(1000))
    png(scene / "depth/1000.png", stored(1000))
    (scene / "intrinsic").mkdir()
    (scene / "intrinsic/intrinsic_color.txt").write_text("20 0 8 0\n0 22 6 0\n0 0 1 0\n0 0 0 1\n")
    (root / "scannetv2_val.txt").write_text("scene0406_02\nscene0011_00\n")
    return Tree(find("scannet"), root, "val", label, count=2)


def scannet_framenet(root: Path) -> Tree:
    stem = root / "scene0016_02/frame-000010"
    rgb(Path(f"{stem}-color.png"))
    mask = np.full((H, W), 255, np.uint8)
    mask[5, 5] = 0
    png(Path(f"{stem}-orient-mask.png"), mask)
    return Tree(find("scannet"), root, "all", png(Path(f"{stem}-normal.png"), painted(SLANTED * [-1, 1, 1])))


def scannet_dsine(root: Path) -> Tree:
    rgb(root / "scene0532_00/000000_img.png")
    label = npy(root / "scene0532_00/000000_normal.npy", np.broadcast_to(SLANTED, (H, W, 3)).astype(np.float32))
    return Tree(find("scannet"), root, "test", label)


def diode(root: Path, base: str = "val/") -> Tree:
    stem = root / f"{base}indoors/scene_00021/scan_00189/00021_00189_indoors_200_010"
    rgb(Path(f"{stem}.png"))
    depth = np.full((H, W, 1), 4, np.float32)
    depth[1, 2] = 2.5
    mask = np.ones((H, W), np.float32)
    mask[0, 0] = 0
    npy(Path(f"{stem}_depth_mask.npy"), mask)
    normals = np.broadcast_to(SLANTED, (H, W, 3)).astype(np.float32).copy()
    normals[0, 0], normals[0, 1, 0], normals[2, 3] = 0, np.nan, -SLANTED
    npy(Path(f"{stem}_normal.npy"), normals)
    return Tree(find("diode"), root, "val", npy(Path(f"{stem}_depth.npy"), depth))


def eth3d(root: Path, listed: bool = False) -> Tree:
    image = rgb(root / ("rgb/" if listed else "") / "office/images/dslr_images/DSC_0219.JPG")
    depth = np.full((H, W), 4, np.float32)
    depth[1, 2], depth[0, 0] = 2.5, np.inf
    base = root / ("depth/office_dslr_depth/office" if listed else "office")
    label = base / "ground_truth_depth/dslr_images/DSC_0219.JPG"
    label.parent.mkdir(parents=True)
    label.write_bytes(depth.tobytes())
    calibration = image.parents[2] / "dslr_calibration_jpg"
    calibration.mkdir()
    camera = f"0 THIN_PRISM_FISHEYE {2 * W} {2 * H} 10 12 8 6 .1 0 0 0 0 0 0 0"
    (calibration / "cameras.txt").write_text(f"# Camera list\n{camera}\n")
    pose = "7 1 0 0 0 0 0 0 0 dslr_images/DSC_0219.JPG\n1.5 2.5 -1\n"
    (calibration / "images.txt").write_text(f"# Image list\n{pose}")
    return Tree(find("eth3d"), root, "train", label)


def eth3d_listed(root: Path) -> Tree:
    return eth3d(root, listed=True)


def vkitti2_archives(root: Path) -> Tree:
    return vkitti2(root, "vkitti_2.0.3_rgb", "vkitti_2.0.3_depth")


def vkitti2_short(root: Path) -> Tree:
    return vkitti2(root, "rgb", "depth")


def kitti_archive(root: Path) -> Tree:
    return kitti(root, "", "test")


def diode_bare(root: Path) -> Tree:
    return diode(root, "")


TREES = (
    *(hypersim, hypersim_pngs, vkitti2, vkitti2_archives, vkitti2_short, kitti, kitti_archive, nyuv2_mat, nyuv2_pngs),
    *(nyuv2_bts, nyuv2_normals, scannet, scannet_framenet, scannet_dsine, diode, diode_bare, eth3d, eth3d_listed),
)
Builder = Callable[[Path], Tree]
