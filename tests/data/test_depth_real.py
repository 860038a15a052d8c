"""Data sets of depth and normals: the field's split lists, and real files where they are at hand (see MANIFEST.md there)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genpercept.core.values import Sample
from genpercept.data import hypersim as hypersim_module
from tests.support.depth_trees import find, hdf5, png, rgb
from tests.support.paths import REFERENCE

LISTS = {
    "nyuv2": ("nyu_labeled_filename_list_test.txt", "test", 654),
    "kitti": ("kitti_eigen_test_files_with_gt.txt", "test", 652),
    "eth3d": ("eth3d_eth3d_filename_list.txt", "train", 454),
    "scannet": ("scannet_scannet_val_sampled_list_800_1.txt", "val", 800),
    "diode": ("diode_diode_val_all_filename_list.txt", "val", 771),
    "hypersim": ("hypersim_filename_list_val_filtered.txt", "val", 7370),
}


@pytest.mark.skipif(not (REFERENCE / "splits").is_dir(), reason="the public lists are not here")
@pytest.mark.parametrize("name", LISTS)
def test_public_lists(name: str, tmp_path: Path) -> None:
    file, split, count = LISTS[name]
    path = REFERENCE / "splits" / file
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


# Real files ---------------------------------------------------------------------------------------------------------------

real = pytest.mark.skipif(not (REFERENCE / "samples").is_dir(), reason="the real samples are not here")


def at(s: Sample, *pixels: tuple[int, int]) -> list[float]:
    assert s.depth is not None
    return [float(s.depth[y, x]) for y, x in pixels]


def linked(source: str, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(REFERENCE / "samples" / source)
    return target


@real
def test_real_kitti(tmp_path: Path) -> None:
    drive = "2011_09_26_drive_0009_sync"
    for n in ("0000000005", "0000000050", "0000000100"):
        linked(f"kitti/metric3d_kitti_demo/rgb/{n}.png", tmp_path / f"2011_09_26/{drive}/image_02/data/{n}.png")
        target = tmp_path / f"train/{drive}/proj_depth/groundtruth/image_02/{n}.png"
        linked(f"kitti/metric3d_kitti_demo/depth/{n}.png", target)
    entries = find("kitti").index(tmp_path, "train")
    s = find("kitti").load(entries[0])
    assert len(entries) == 3 and s.image.shape == (3, 375, 1242) and s.valid is not None
    assert at(s, (189, 771), (257, 1078), (336, 821)) == [56.41796875, 12.4609375, 6.90234375]
    assert int(s.valid.sum()) == 90839 and not s.valid[0, 0]


@real
def test_real_nyuv2(tmp_path: Path) -> None:
    scene = tmp_path / "test/kitchen"
    linked("nyuv2/metric3d_nyu_demo/rgb/rgb_00000.jpg", scene / "rgb_00000.jpg")
    linked("nyuv2/metric3d_nyu_demo/depth/sync_depth_00000.png", scene / "sync_depth_00000.png")
    s = find("nyuv2").load(find("nyuv2").index(tmp_path, "test")[0])
    assert at(s, (100, 200), (240, 320), (400, 500)) == pytest.approx([3.929, 3.015, 2.799])
    assert s.valid is not None and int(s.valid.sum()) == 225121 and s.intrinsics is not None
    assert float(s.intrinsics[0, 0]) == pytest.approx(518.8579)


@real
def test_real_hypersim(tmp_path: Path) -> None:
    """The published rays of this scene's lens make its planes flatter than a straight lens's do."""
    scene = tmp_path / "ai_037_002"
    frame = "images/scene_cam_00_geometry_hdf5/frame.0000.depth_meters.hdf5"
    linked(f"hypersim/ai_037_002/{frame}", scene / frame)
    hdf5(
        scene / "images/scene_cam_00_final_hdf5/frame.0000.color.hdf5", dataset=np.full((768, 1024, 3), 0.1, np.float16)
    )

    def flatness(matrix: Any) -> tuple[list[float], float]:
        entry = find("hypersim").index(tmp_path, "all")[0]
        s = find("hypersim").load(entry)
        assert entry.rays == matrix and s.valid is not None and bool(s.valid.all()) and s.depth is not None
        rays = hypersim_module.camera_rays(matrix, (768, 1024))
        points = (rays / -rays[..., 2:] * s.depth.numpy()[..., None])[96:672]
        tiles = points.reshape(6, 96, 8, 128, 3).transpose(0, 2, 1, 3, 4).reshape(48, -1, 3)
        tiles -= tiles.mean(1, keepdims=True)
        thickness = np.sqrt(np.linalg.eigvalsh(tiles.transpose(0, 2, 1) @ tiles)[:, 0].clip(0) / tiles.shape[1])
        return at(s, (100, 100), (384, 512), (700, 900)), float(thickness.min())

    straight, bent = flatness(hypersim_module.STRAIGHT)
    assert straight == pytest.approx([6.71103, 7.88281, 3.41787], rel=1e-5)
    lens = ((0.579607251426182, 0.0, -0.06955286861651404), (0.0, 0.4346865334657201, 0.09273312506660672))
    lens = (*lens, (0.0, 0.004054126980668954, -1.003909173803896))
    head = ",".join(["scene_name", *(f"M_cam_from_uv_{i}{j}" for i in range(3) for j in range(3))])
    numbers = ",".join(str(x) for row in lens for x in row)
    (tmp_path / hypersim_module.CAMERA_CSV).write_text(f"{head}\nai_037_002,{numbers}\n")
    shifted, flat = flatness(lens)
    assert shifted == pytest.approx([6.38190, 7.83149, 3.57686], rel=1e-5)
    assert flat < 0.8 * bent


@real
def test_real_scannet_colour(tmp_path: Path) -> None:
    scene = tmp_path / "scene0711_00"
    linked("scannet_rgb_only/scene0711_00_frame-001680.jpg", scene / "color/001680.jpg")
    png(scene / "depth/001680.png", np.full((480, 640), 1500, np.uint16))  # there is no real depth to be had here
    s = find("scannet").load(find("scannet").index(tmp_path, "all")[0])
    assert s.image.shape == (3, 480, 640) and at(s, (0, 0)) == [1.5]
