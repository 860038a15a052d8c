"""Data sets of depth and normals: miniature trees in the published layouts are read into metres, our axes and class ids."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from genpercept.data import files_of
from genpercept.data import hypersim as hypersim_module
from genpercept.data import nyuv2 as nyuv2_module
from genpercept.data.vkitti2 import CLASSES
from genpercept.metrics._protocols import DEPTH_PROTOCOLS, NORMALS_PROTOCOLS
from tests.support.depth_trees import (
    NAMES,
    SLANTED,
    STRAIGHT_FOCAL,
    TREES,
    Builder,
    H,
    W,
    diode,
    eth3d,
    find,
    hdf5,
    hypersim,
    kitti,
    npy,
    nyuv2_mat,
    nyuv2_pngs,
    painted,
    png,
    rgb,
    scannet,
    scannet_dsine,
    scannet_framenet,
    vkitti2,
    wall_distance,
)
from tests.support.opened import opened

every_tree = pytest.mark.parametrize("build", TREES, ids=lambda f: f.__name__)

# What holds for each ------------------------------------------------------------------------------------------------------


@every_tree
def test_a_layout_is_read(build: Builder, tmp_path: Path) -> None:
    tree = build(tmp_path)
    entries = tree.plugin.index(tree.root, tree.split)
    assert len(entries) == tree.count and entries[0].name
    with opened(tree.root) as read:
        s = tree.plugin.load(pickle.loads(pickle.dumps(entries[0])))
    assert read and read <= set(files_of(entries[0]))  # or cached latents would not see them change
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


# What is special ----------------------------------------------------------------------------------------------------------


def test_hypersim_colour_classes_and_lens(tmp_path: Path) -> None:
    tree = hypersim(tmp_path)
    s = tree.first()
    assert s.class_ids is not None and s.intrinsics is not None and s.valid is not None
    assert float(s.image[0, 2, 2]) == pytest.approx(0.8, abs=1e-3)  # the sky, where nothing was hit, does not count
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
    # The nearest pinhole is that lens without its tilt: it projects the rays, their z as at the centre, to their pixels.
    flat = np.stack([rays[..., 0], -rays[..., 1], np.full((H, W), -m[2, 2])]) / -m[2, 2]
    px = s.intrinsics.numpy() @ flat.reshape(3, -1)
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


def test_hypersim_which_frames(tmp_path: Path) -> None:
    tree = hypersim(tmp_path)  # frame 1 is not in the public release, ai_009_009 was not fetched
    for split in ("val", "all"):
        assert [e.name for e in tree.plugin.index(tmp_path, split)] == ["ai_001_001/cam_00_fr0000"]
    with pytest.raises(ValueError, match="expected frames of split 'train'"):
        tree.plugin.index(tmp_path, "train")
    with pytest.raises(ValueError, match="expected frames of split 'val'"):
        tree.plugin.with_options(exclude="ai_001_001/cam_00").index(tmp_path, "val")
    with pytest.raises(ValueError, match="exclude 'cam_00' of hypersim: write ai_VVV_NNN"):
        tree.plugin.with_options(exclude=["cam_00"])
    (tmp_path / "list.txt").write_text("ai_001_001/rgb_cam_00_fr0001.png ai_001_001/depth_plane_cam_00_fr0001.png\n")
    entries = tree.plugin.with_options(split_list=tmp_path / "list.txt").index(tmp_path, "val")
    assert [e.name for e in entries] == ["ai_001_001/cam_00_fr0001"] and entries[0].original


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
    names = list(CLASSES)
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
    nyuv2_module._matlab.cache_clear()
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
    tree = scannet_framenet(tmp_path / "framenet")
    s = tree.first()
    assert s.valid is not None and not s.valid[5, 5] and not s.valid[0, 0] and int(s.valid.sum()) == H * W - 2
    assert s.intrinsics is not None and float(s.intrinsics[1, 1]) == pytest.approx(578.73 * H / 480)
    with Image.open(tree.label) as image:  # the archive's sign is not known: the opposite reads as the same
        stored = np.array(image)
    png(tree.label, np.where(stored.any(-1, keepdims=True), 255 - stored, 0).astype(np.uint8))
    again = tree.first()
    assert s.normals is not None and again.normals is not None
    np.testing.assert_allclose(again.normals.numpy(), s.normals.numpy(), atol=0.02)
    with pytest.raises(ValueError, match="test frames"):
        find("scannet").index(scannet_dsine(tmp_path / "dsine").root, "train")


def test_diode(tmp_path: Path) -> None:
    tree = diode(tmp_path)
    s = tree.first()
    assert s.normals is not None and s.intrinsics is not None and not s.normals[:, 0, :2].any()  # zero, NaN: unknown
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
