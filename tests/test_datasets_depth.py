"""Data sets of depth and normals: miniature trees in the published layouts are read into metres, our axes and class ids."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from genpercept import plugins
from genpercept.datasets import hypersim as hypersim_module
from genpercept.metrics._protocols import DEPTH_PROTOCOLS, NORMALS_PROTOCOLS
from genpercept.types import Sample

h5py = pytest.importorskip("h5py")

H, W = 6, 8
NAMES = ("hypersim", "vkitti2", "kitti", "nyuv2", "scannet", "diode", "eth3d")
SHARED = Path(__file__).parents[2] / "shared" / "reference"
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
    return plugins.find("datasets", name)


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
    """Colour 0.1 with a lamp of 9 in one corner pixel, where nothing was hit; a floor (2), at (0, 0) nothing."""
    colour = np.full((H, W, 3), 0.1, np.float16)
    colour[-1, -1] = 9
    hit = np.ones((H, W), np.int32)
    hit[-1, -1] = -1
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
    (root / hypersim_module.SPLIT_CSV).write_text("\n".join([head, *rows]) + "\n")
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
    normals[0, 0], normals[2, 3] = 0, -SLANTED
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
every_tree = pytest.mark.parametrize("build", TREES, ids=lambda f: f.__name__)
Builder = Callable[[Path], Tree]

# What holds for each ------------------------------------------------------------------------------------------------------


@every_tree
def test_a_layout_is_read(build: Builder, tmp_path: Path) -> None:
    tree = build(tmp_path)
    entries = tree.plugin.index(tree.root, tree.split)
    assert len(entries) == tree.count and entries[0].name
    s = tree.plugin.load(pickle.loads(pickle.dumps(entries[0])))
    assert s.name == entries[0].name and s.image.shape == (3, H, W) and s.image.dtype == torch.float32
    assert float(s.image.min()) >= 0 and float(s.image.max()) <= 1
    if build not in (hypersim, nyuv2_mat):
        assert float(s.image[1, 3, 3]) == pytest.approx(0.2, abs=0.005)
    if s.depth is not None:
        assert s.valid is not None and s.depth.dtype == torch.float32 and s.valid.dtype == torch.bool
        depths = (2, 2) if build is hypersim else (2.5, 4)
        assert (float(s.depth[1, 2]), float(s.depth[3, 3])) == pytest.approx(depths, rel=1e-3)
        assert bool(s.valid[1, 2]) and bool(s.valid[0, 0]) == (build is hypersim)
    if s.normals is not None:
        np.testing.assert_allclose(s.normals[:, 2, 3], SLANTED, atol=0.01)
        np.testing.assert_allclose(s.normals.norm(dim=0)[3], 1, atol=1e-5)
    assert s.depth is not None or s.normals is not None
    provided = [f for f in ("depth", "normals", "class_ids", "valid", "intrinsics") if getattr(s, f) is not None]
    assert set(provided) <= set(tree.plugin.about.provides)


@every_tree
def test_errors_name_the_file(build: Builder, tmp_path: Path) -> None:
    tree = build(tmp_path)
    entry = tree.plugin.index(tree.root, tree.split)[0]
    content = tree.label.read_bytes()
    tree.label.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=tree.label.name) as caught:
        tree.plugin.load(entry)
    assert "\n" not in str(caught.value)
    tree.label.unlink()
    with pytest.raises(ValueError, match=tree.label.name):
        tree.plugin.load(entry)


@pytest.mark.parametrize("name", NAMES)
def test_refusals(name: str, tmp_path: Path) -> None:
    plugin, about = find(name), find(name).about
    with pytest.raises(ValueError, match=f"unknown option of data set '{name}' 'split_lst'.*'split_list'"):
        plugin.with_options(split_lst="x")
    with pytest.raises(ValueError, match=f"'tset': choose one of {', '.join(about.splits)}"):
        plugin.index(tmp_path, "tset")
    with pytest.raises(ValueError, match="needs its folder"):
        plugin.index(None, "all")
    with pytest.raises(ValueError, match="no such folder"):
        plugin.index(tmp_path / "nowhere", "all")
    (tmp_path / "holiday").mkdir()
    with pytest.raises(ValueError, match=r"expected .* found holiday/\. Layout: "):
        plugin.index(tmp_path, "all")
    (tmp_path / "list.txt").write_text("only\n")
    with pytest.raises(ValueError, match=r"list\.txt"):
        plugin.with_options(split_list=tmp_path / "list.txt").index(tmp_path, "all")


@pytest.mark.parametrize("name", NAMES)
def test_what_it_says_of_itself(name: str) -> None:
    about = find(name).about
    assert find(name).licence == about.licence and about.url.startswith("http") and about.obtain and about.layout
    for task, protocol in about.protocols.items():
        known = NORMALS_PROTOCOLS if task == "normals" else DEPTH_PROTOCOLS
        assert task == "segmentation" or protocol in known
    assert ("class_ids" in about.provides and name != "vkitti2") == (about.classes == "nyu40")


LISTS = {
    "nyuv2": ("nyu_labeled_filename_list_test.txt", "test", 654),
    "kitti": ("kitti_eigen_test_files_with_gt.txt", "test", 652),
    "eth3d": ("eth3d_eth3d_filename_list.txt", "train", 454),
    "scannet": ("scannet_scannet_val_sampled_list_800_1.txt", "val", 800),
    "diode": ("diode_diode_val_all_filename_list.txt", "val", 771),
    "hypersim": ("hypersim_filename_list_val_filtered.txt", "val", 7370),
}


@pytest.mark.skipif(not (SHARED / "splits").is_dir(), reason="the public lists are not here")
@pytest.mark.parametrize("name", LISTS)
def test_public_lists(name: str, tmp_path: Path) -> None:
    file, split, count = LISTS[name]
    path = SHARED / "splits" / file
    plugin = find(name).with_options(split_list=str(path))
    first = next(row for row in map(str.split, path.read_text().splitlines()) if "None" not in row)
    (tmp_path / "ai_003_010").mkdir()  # Hypersim asks what its scenes look like
    with pytest.raises(ValueError, match="its first file is not there"):
        plugin.index(tmp_path, split)
    rgb(tmp_path / first[0])
    entries = plugin.index(tmp_path, split)
    assert len(entries) == count == len({e.name for e in entries})
    assert entries[0].image == tmp_path / first[0]
    if name in ("nyuv2", "eth3d", "scannet", "diode"):
        assert entries[0].depth == tmp_path / first[1]


# What is special ----------------------------------------------------------------------------------------------------------


def test_hypersim_colour_classes_and_lens(tmp_path: Path) -> None:
    tree = hypersim(tmp_path)
    s = tree.first()
    assert s.class_ids is not None and s.intrinsics is not None and s.valid is not None
    assert float(s.image[0, 2, 2]) == pytest.approx(0.8, abs=1e-3)  # the lamp, where nothing was hit, does not count
    assert float(s.image[0, -1, -1]) == 1
    assert [int(s.class_ids[0, x]) for x in (0, 1, 2)] == [-1, 39, 1] and s.class_ids.dtype == torch.int64
    assert bool(s.valid.all()) and "lens" not in s.meta
    focal = STRAIGHT_FOCAL
    np.testing.assert_allclose(s.intrinsics, [[focal, 0, W / 2], [0, focal, H / 2], [0, 0, 1]], rtol=1e-6)
    depth = tree.first(labels=["depth"])
    assert depth.depth is not None and depth.normals is None and depth.class_ids is None
    # A shifted and tilted lens, as ai_037_002's: points X = distance * ray / |ray| of a wall at z = -2.
    m = np.array([[0.58, 0, -0.07], [0, 0.43, 0.09], [0, 0.02, -1.004]])
    u, v = np.meshgrid((np.arange(W) + 0.5) / W * 2 - 1, 1 - (np.arange(H) + 0.5) / H * 2)
    rays = np.einsum("ij,jhw->hwi", m, np.stack([u, v, np.ones_like(u)]))
    points = rays * (-2 / rays[..., 2:])
    head = ",".join(["scene_name", *(f"M_cam_from_uv_{i}{j}" for i in range(3) for j in range(3))])
    numbers = ",".join(str(x) for x in m.ravel())
    (tmp_path / hypersim_module.CAMERA_CSV).write_text(f"{head}\nai_001_001,{numbers}\n")
    hypersim_module._cameras.cache_clear()
    hdf5(tree.label, dataset=np.linalg.norm(points, axis=-1))
    s = tree.first()
    assert s.depth is not None and s.intrinsics is not None and s.meta["lens"] == "tilted"
    np.testing.assert_allclose(s.depth, 2, rtol=1e-6)
    # On the row of the horizon (v = 0) the tilt does nothing, and the nearest pinhole projects points to their pixels.
    x, y, z = rays[..., 0] / -m[2, 2], -rays[..., 1] / -m[2, 2], 1
    px = s.intrinsics.numpy() @ np.stack([x, y, np.full_like(x, z)]).reshape(3, -1)
    np.testing.assert_allclose(px[0].reshape(H, W), np.broadcast_to(np.arange(W) + 0.5, (H, W)), atol=1e-5)
    np.testing.assert_allclose(px[1].reshape(H, W)[:, 0], np.arange(H) + 0.5, atol=1e-5)


def test_hypersim_leaves_broken_frames_out(tmp_path: Path) -> None:
    tree = hypersim(tmp_path)
    distance = wall_distance(2, STRAIGHT_FOCAL)
    distance[3, 3] = np.nan
    hdf5(tree.label, dataset=distance)
    with pytest.raises(ValueError, match=r"depth_meters\.hdf5: 1 pixels are NaN or infinite"):
        tree.first()
    s = tree.first(nan_depth="mask")
    assert s.valid is not None and s.depth is not None
    assert not s.valid[3, 3] and float(s.depth[3, 3]) == 0 and int(s.valid.sum()) == H * W - 1
    hdf5(tree.label, dataset=np.zeros((H, W)))
    with pytest.raises(ValueError, match="no pixel has a depth above 0"):
        tree.first()
    colour = tree.plugin.index(tree.root, "val")[0].image
    for value, message in ((np.inf, "NaN or infinity"), (0.0, "all zero")):
        hdf5(colour, dataset=np.full((H, W, 3), value, np.float16))
        with pytest.raises(ValueError, match=rf"frame\.0000\.color\.hdf5: .*{message}"):
            tree.first()
    (tmp_path / hypersim_module.SPLIT_CSV).unlink()
    with pytest.raises(ValueError, match=f"no {hypersim_module.SPLIT_CSV}"):
        tree.plugin.index(tmp_path, "val")
    assert len(tree.plugin.index(tmp_path, "all")) == 2


def test_vkitti2(tmp_path: Path) -> None:
    tree = vkitti2(tmp_path, size=(375, 1242))
    assert [e.name for e in tree.plugin.index(tmp_path, "train")] == ["Scene20/clone/Camera_1/00003"]
    (tmp_path / "Scene01/clone/intrinsic.txt").write_text(
        "frame cameraID K[0,0] K[1,1] K[0,2] K[1,2]\n3 0 1 1 1 1\n3 1 725.0087 725.0087 620.5 187\n"
    )
    classes = np.zeros((375, 1242, 3), np.uint8)
    classes[23:, 13], classes[23:, 14] = (255, 127, 80), (210, 0, 200)
    ids = png(tmp_path / "Scene01/clone/frames/classSegmentation/Camera_1/classgt_00003.png", classes)
    s = tree.first()
    assert s.depth is not None and s.valid is not None and s.intrinsics is not None and s.class_ids is not None
    assert s.depth[0, 0].isinf() and float(s.depth[0, 1]) == 600 and not s.valid[0, :2].any() and bool(s.valid[0, 2])
    assert bool(tree.first(max_depth=600).valid[0, 1])  # type: ignore[index]
    assert s.intrinsics.tolist()[0] == pytest.approx([725.0087, 0, 620.5])
    names = list(
        find("vkitti2").__class__.__module__ and __import__("genpercept.datasets.vkitti2", fromlist=["x"]).CLASSES
    )
    assert [names[int(s.class_ids[30, x])] for x in (13, 14)] == ["car", "terrain"] and int(s.class_ids[30, 15]) == -1
    c = tree.first(crop="benchmark")
    assert c.image.shape == (3, 352, 1216) and c.depth is not None and c.valid is not None and c.valid.all()
    assert c.class_ids is not None and c.intrinsics is not None and int(c.class_ids[0, 0]) == names.index("car")
    assert (float(c.intrinsics[0, 2]), float(c.intrinsics[1, 2])) == (607.5, 164)
    with pytest.raises(ValueError, match="crop of vkitti2 'benchmrk': did you mean 'benchmark'"):
        tree.plugin.with_options(crop="benchmrk")
    classes[0, 0] = 1
    png(ids, classes)
    with pytest.raises(ValueError, match=r"classgt_00003.png: colour \(1, 1, 1\)"):
        tree.first()


def test_kitti(tmp_path: Path) -> None:
    tree = kitti(tmp_path)
    s = tree.first()
    assert s.intrinsics is not None and s.intrinsics.tolist() == [[720, 0, 610], [0, 730, 170], [0, 0, 1]]
    with pytest.raises(ValueError, match="give split_list"):
        tree.plugin.index(tmp_path, "test")
    drive = "2011_09_26_drive_0002_sync"
    rows = [
        f"2011_09_26/{drive}/image_02/data/{n}.png {d} 721.5377"
        for n, d in (("0000000072", "None"), ("0000000069", "x"))
    ]
    rows[1] = rows[1].replace(" x ", f" {drive}/proj_depth/groundtruth/image_02/0000000069.png ")
    (tmp_path / "list.txt").write_text("\n".join(rows))
    plugin = tree.plugin.with_options(split_list=tmp_path / "list.txt")
    (entry,) = plugin.index(tmp_path, "test")  # the row without ground truth is dropped, the drive is found under val
    assert entry.depth == tree.label and plugin.load(entry).meta["focal"] == 721.5377
    moved = tmp_path / "annotated"
    (tmp_path / "data_depth_annotated").rename(moved)
    assert len(tree.plugin.with_options(depth_root=moved).index(tmp_path, "val")) == 1


def test_nyuv2_mat(tmp_path: Path) -> None:
    tree = nyuv2_mat(tmp_path)
    s = tree.first()
    assert s.name == "000002" and s.class_ids is not None and s.valid is not None and s.intrinsics is not None
    assert s.image[:, 4, 5].tolist() == [0, 1, 0] and float(s.image.sum()) == 1
    assert int(s.class_ids[1, 2]) == 20 and int(s.class_ids[0, 1]) == -1
    assert bool(tree.first(depth="filled").valid.all())  # type: ignore[union-attr]
    assert float(s.intrinsics[0, 0]) == pytest.approx(518.8579 * W / 640, rel=1e-5)
    assert [e.number for e in tree.plugin.index(tmp_path, "train")] == [0, 1]
    (tmp_path / "list.txt").write_text("test/office/rgb_0003.png test/office/depth_0003.png\n")
    listed = tree.plugin.with_options(split_list=tmp_path / "list.txt")
    assert [e.number for e in listed.index(tmp_path, "test")] == [2]  # numbered from 1
    (tmp_path / "classMapping40.mat").unlink()
    assert tree.first().class_ids is None
    (tmp_path / "splits.mat").write_bytes(b"not one")
    from genpercept.datasets import nyuv2

    nyuv2._matlab.cache_clear()
    with pytest.raises(ValueError, match=r"splits\.mat: not a MATLAB file"):
        tree.plugin.index(tmp_path, "test")


def test_nyuv2_depth_with_normals(tmp_path: Path) -> None:
    root, normals = tmp_path / "depth", tmp_path / "normals"
    tree = nyuv2_pngs(root)
    assert float(tree.first(depth="filled").depth[0, 0]) == 1.5  # type: ignore[index]
    facing = png(normals / "000000_normal.png", painted(np.array([0.0, 0.0, 1.0])))  # of rgb_0001: numbered from 0
    s = tree.first(normals=normals)
    assert s.normals is not None and s.valid is None and s.depth is not None
    np.testing.assert_allclose(s.normals[:, 3, 3], [0, 0, 1], atol=0.01)  # a wall that faces the camera
    assert s.normals[:, 0, 0].tolist() == [0, 0, 0]
    facing.unlink()
    npy(facing.with_suffix(".npy"), np.broadcast_to(SLANTED, (H, W, 3)))
    np.testing.assert_allclose(tree.first(normals=normals).normals[:, 3, 3], SLANTED, atol=1e-6)  # type: ignore[index]


def test_scannet(tmp_path: Path) -> None:
    tree = scannet(tmp_path)
    names = [e.name for e in tree.plugin.index(tmp_path, "val")]
    assert names == ["scene0406_02/300", "scene0406_02/1000"]  # by number, though not padded
    assert len(tree.plugin.with_options(every=2).index(tmp_path, "val")) == 1
    s = tree.first()  # colour has twice the size of depth, and so its intrinsics
    assert s.intrinsics is not None and s.intrinsics.tolist() == [[10, 0, 4], [0, 11, 3], [0, 0, 1]]
    (tmp_path / "scans/scene0406_02/intrinsic/intrinsic_depth.txt").write_text("9 0 4 0\n0 9 3 0\n0 0 1 0\n0 0 0 1\n")
    assert float(tree.first().intrinsics[0, 0]) == 9  # type: ignore[index]
    with pytest.raises(ValueError, match=r"scannetv2_test\.txt: no such file"):
        tree.plugin.index(tmp_path, "test")


def test_scannet_normals(tmp_path: Path) -> None:
    s = scannet_framenet(tmp_path / "framenet").first()
    assert s.valid is not None and not s.valid[5, 5] and not s.valid[0, 0] and int(s.valid.sum()) == H * W - 2
    with pytest.raises(ValueError, match="test frames"):
        find("scannet").index(scannet_dsine(tmp_path / "dsine").root, "train")


def test_diode(tmp_path: Path) -> None:
    tree = diode(tmp_path)
    s = tree.first()
    assert s.normals is not None and s.intrinsics is not None and s.normals[:, 0, 0].tolist() == [0, 0, 0]
    assert float(s.intrinsics[1, 1]) == pytest.approx(927.06 * H / 768)
    mask = tree.label.with_name(tree.label.name.replace("_depth", "_depth_mask"))
    npy(mask, np.full((H, W), 0.5))
    with pytest.raises(ValueError, match=r"_depth_mask\.npy: values other than 0 and 1"):
        tree.first()
    npy(mask, np.ones((H, W + 1)))
    with pytest.raises(ValueError, match="6 x 9 pixels, but its image has 6 x 8"):
        tree.first()


def test_eth3d(tmp_path: Path) -> None:
    tree = eth3d(tmp_path)
    s = tree.first()
    assert s.intrinsics is not None and s.intrinsics.tolist() == [[5, 0, 4], [0, 6, 3], [0, 0, 1]]
    assert s.meta["camera"]["model"] == "THIN_PRISM_FISHEYE" and len(s.meta["camera"]["parameters"]) == 12
    exif = Image.Exif()
    exif[0x0112] = 6  # turned on the screen, but the depth goes with the stored pixels
    rgb(tmp_path / "office/images/dslr_images/DSC_0219.JPG", exif=exif)
    assert tree.first().image.shape == (3, H, W)
    tree.label.write_bytes(b"\0" * 8)
    with pytest.raises(ValueError, match=r"DSC_0219\.JPG: 8 bytes; .* 6 x 8 pixels has 192"):
        tree.first()


# Real files ---------------------------------------------------------------------------------------------------------------

real = pytest.mark.skipif(not (SHARED / "samples").is_dir(), reason="the real samples are not here")


def at(s: Sample, *pixels: tuple[int, int]) -> list[float]:
    assert s.depth is not None
    return [float(s.depth[y, x]) for y, x in pixels]
