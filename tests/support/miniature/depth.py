"""Whole data sets of depth, normals and classes in miniature: every split, in the layout that they are published in.

Of Virtual KITTI 2, KITTI and NYUv2 the frames have their true size, which crops of the protocols are defined for.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from tests.support.miniature.scene import SKY, Scene, scene

_DAY, _FRAME = "2011_09_26", (375, 1242)


def png(path: Path, values: np.ndarray) -> None:
    """An image of any format, by the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def npy(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, values)


def text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def hdf5(path: Path, **arrays: np.ndarray) -> None:
    import h5py

    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for key, values in arrays.items():
            file[key] = values


def stored(depth: np.ndarray, unit: float, unknown: int = 0) -> np.ndarray:
    """Metres as uint16 of `unit` steps a metre; the sky becomes `unknown`."""
    return np.where(np.isfinite(depth), np.minimum(depth, 100) * unit, unknown).astype(np.uint16)


def painted(normals: np.ndarray) -> np.ndarray:
    """x left, y up, z towards the viewer in 8 bits, as DSINE ships them."""
    turned = normals * np.array([-1, 1, 1])
    return np.where(np.abs(normals).sum(-1, keepdims=True) > 0, (turned + 1) * 127.5, 0).round().astype(np.uint8)


# ---- trained on -----------------------------------------------------------------------------------------------------------


def hypersim(root: Path) -> None:
    """Three scenes, one a split. Of the training frames one has NaN in its depth and one is all black: both are left out."""
    rows = []
    for split, name, frames in (("train", "ai_001_001", 8), ("val", "ai_003_010", 3), ("test", "ai_004_001", 3)):
        for frame in range(frames):
            s = scene(1000 * len(split) + frame)
            _hypersim_frame(root / name, frame, s, broken=split == "train" and frame in (2, 5))
            rows.append(f"{name},cam_00,{frame},True,,{split}")
        rows.append(f"{name},cam_00,{frames},False,people,{split}")
    head = "scene_name,camera_name,frame_id,included_in_public_release,exclude_reason,split_partition_name"
    text(root / "metadata_images_split_scene_v1.csv", "\n".join([head, *rows]) + "\n")
    matrix = [3**-0.5, 0, 0, 0, 3**-0.5 * 0.75, 0, 0, 0, -1]
    head = ",".join(["scene_name", *(f"M_cam_from_uv_{i}{j}" for i in range(3) for j in range(3))])
    names = ("ai_001_001", "ai_003_010", "ai_004_001")
    cameras = [",".join([name, *(repr(float(v)) for v in matrix)]) for name in names]
    text(root / "metadata_camera_parameters.csv", "\n".join([head, *cameras]) + "\n")


def _hypersim_frame(folder: Path, frame: int, s: Scene, broken: bool) -> None:
    colour = ((s.image / 255.0) ** 2.2).astype(np.float16)
    distance = s.distance.astype(np.float16)
    if broken:
        distance[3, 4] = np.nan
        if frame % 2:
            colour[:] = 0
    final, geometry = (folder / f"images/scene_cam_00_{kind}_hdf5" for kind in ("final", "geometry"))
    classes = np.array([2, 1, 1, 5, 7, -1], np.int16)[s.parts]  # NYU-40's floor, wall, wall, chair, table; none
    hdf5(final / f"frame.{frame:04d}.color.hdf5", dataset=colour)
    hdf5(geometry / f"frame.{frame:04d}.depth_meters.hdf5", dataset=distance)
    hdf5(geometry / f"frame.{frame:04d}.normal_cam.hdf5", dataset=s.normals.astype(np.float16))
    hdf5(geometry / f"frame.{frame:04d}.semantic.hdf5", dataset=classes)
    hdf5(geometry / f"frame.{frame:04d}.render_entity_id.hdf5", dataset=s.parts.astype(np.int32))


def vkitti2(root: Path) -> None:
    """Scene01 is val's, Scene02 and Scene20 are train's; two cameras, two conditions."""
    for number, name in enumerate(("Scene01", "Scene02", "Scene20")):
        for condition in ("clone", "fog"):
            lines = ["frame cameraID K[0,0] K[1,1] K[0,2] K[1,2]"]
            for camera in (0, 1):
                s = scene(50 + 10 * number + camera, _FRAME, street=True)
                frames = f"{name}/{condition}/frames"
                png(root / f"vkitti_2.0.3_rgb/{frames}/rgb/Camera_{camera}/rgb_00003.jpg", s.image)
                depth = root / f"vkitti_2.0.3_depth/{frames}/depth/Camera_{camera}/depth_00003.png"
                png(depth, stored(s.depth, 100, unknown=65535))
                lines.append(f"3 {camera} {s.focal} {s.focal} {_FRAME[1] / 2} {_FRAME[0] / 2}")
            text(root / f"vkitti_2.0.3_textgt/{name}/{condition}/intrinsic.txt", "\n".join(lines) + "\n")


def taskonomy(root: Path) -> None:
    """As published: three buildings, one a split by the public CSV."""
    rows = ["id,train,val,test"]
    for number, (building, views) in enumerate((("allensville", 6), ("beechwood", 3), ("darden", 3))):
        rows.append(f"{building}," + ",".join(str(int(i == number)) for i in range(3)))
        for view in range(views):
            s = scene(300 + 10 * number + view, (96, 96))
            stem = f"point_3_view_{view}_domain_"
            for domain, values in (
                ("rgb", s.image),
                ("depth_zbuffer", stored(s.depth, 512, unknown=65535)),
                ("normal", ((s.normals * [1, -1, 1] + 1) * 127.5).round().astype(np.uint8)),
            ):
                png(root / domain / building / f"{stem}{domain}.png", values)
            info = root / "point_info" / building / f"{stem}point_info.json"
            text(info, json.dumps({"field_of_view_rads": np.pi / 3}))
    for subset in ("tiny", "fullplus"):
        text(root / f"train_val_test_{subset}.csv", "\n".join(rows) + "\n")


def cityscapes(root: Path) -> None:
    """A city a split, classes and disparity, and two frames of each snippet around an annotated one, which is its twentieth."""
    for number, (split, city, frames) in enumerate((("train", "aachen", 5), ("val", "bonn", 3), ("test", "berlin", 2))):
        for sequence in range(frames):
            snippet = f"{split}/{city}/{city}_{sequence:06d}"
            for frame, kind in ((19, ""), (18, "_sequence"), (19, "_sequence")):
                s = scene(400 + 30 * number + 5 * sequence + frame, (96, 192), street=True)
                stem = f"{snippet}_{frame:06d}"
                png(root / f"leftImg8bit{kind}/{stem}_leftImg8bit.png", s.image)
                d = np.where(np.isfinite(s.depth), 0.2 * s.focal / s.depth * 256 + 1, 0)
                png(root / f"disparity{kind}/{stem}_disparity.png", d.astype(np.uint16))
                if not kind:
                    ids = np.array([7, 11, 11, 26, 24, 23], np.uint8)[s.parts]  # road, building, car, person, sky
                    png(root / f"gtFine/{stem}_gtFine_labelIds.png", ids)
                    camera = {"fx": s.focal, "fy": s.focal, "u0": 96.0, "v0": 48.0}
                    about = {"extrinsic": {"baseline": 0.2}, "intrinsic": camera}
                    text(root / f"camera/{stem}_camera.json", json.dumps(about))


def kitti(root: Path) -> None:
    """Recordings, annotated depth of train and val, for test the public evaluation's archive and list. LiDAR is sparse."""
    bases = (("data_depth_annotated/train/", "0001", 4), ("data_depth_annotated/val/", "0002", 2), ("", "0009", 2))
    for number, (base, drive, frames) in enumerate(bases):
        name = f"{_DAY}_drive_{drive}_sync"
        for frame in range(frames):
            s = scene(500 + 10 * number + frame, _FRAME, street=True)
            png(root / f"{_DAY}/{name}/image_02/data/{frame:010d}.png", s.image)
            hit = np.random.default_rng(frame).random(_FRAME) < 0.05
            depth = np.where(hit, stored(s.depth, 256), 0).astype(np.uint16)
            png(root / f"{base}{name}/proj_depth/groundtruth/image_02/{frame:010d}.png", depth)
    name = f"{_DAY}_drive_0009_sync"
    frames = [
        f"{_DAY}/{name}/image_02/data/{i:010d}.png {name}/proj_depth/groundtruth/image_02/{i:010d}.png" for i in (0, 1)
    ]
    text(root / "eigen_test_files_with_gt.txt", "\n".join(f"{frame} 721.5377" for frame in frames) + "\n")
    f, (h, w) = 721.5, _FRAME
    text(root / f"{_DAY}/calib_cam_to_cam.txt", f"P_rect_02: {f} 0 {w / 2} 45 0 {f} {h / 2} 0.2 0 0 1 0.003\n")


# ---- scored on ------------------------------------------------------------------------------------------------------------


def nyuv2(root: Path) -> None:
    """The original .mat files: 3 frames for train, 3 for test, with 13 of the labels."""
    from scipy.io import savemat

    scenes = [scene(600 + i, (480, 640)) for i in range(6)]
    images = np.stack([s.image.transpose(2, 1, 0) for s in scenes])
    depths = np.stack([s.depth.T for s in scenes])
    raw = depths.copy()
    raw[:, :4, :4] = 0
    labels = np.stack([s.parts.T + 1 for s in scenes]).astype(np.uint16)
    hdf5(root / "nyu_depth_v2_labeled.mat", images=images, depths=depths, rawDepths=raw, labels=labels)
    savemat(root / "splits.mat", {"trainNdxs": np.array([[1], [2], [3]]), "testNdxs": np.array([[4], [5], [6]])})
    savemat(root / "classMapping40.mat", {"mapClass": np.array([[2, 1, 1, 5, 7, 40]])})


def nyuv2_normals(root: Path) -> None:
    """As DSINE ships them."""
    for i in range(3):
        s = scene(650 + i, (480, 640))
        png(root / f"test/{i:06d}_img.png", s.image)
        png(root / f"test/{i:06d}_normal.png", painted(s.normals))


def scannet(root: Path) -> None:
    """SensReader's export of two scenes, with the official lists and the field's list of frames."""
    listed = []
    for number, (name, split) in enumerate((("scene0000_00", "train"), ("scene0011_00", "val"))):
        folder = root / "scans" / name
        for frame in range(0, 90, 30):
            s = scene(700 + 10 * number + frame, (96, 128))
            large = np.asarray(Image.fromarray(s.image).resize((162, 121)))
            png(folder / f"color/{frame}.jpg", large)
            png(folder / f"depth/{frame}.png", stored(s.depth, 1000))
            if split == "val":
                listed.append(f"{name}/color/{frame}.jpg {name}/depth/{frame}.png")
        matrix = f"{s.focal} 0 64 0\n0 {s.focal} 48 0\n0 0 1 0\n0 0 0 1\n"
        text(folder / "intrinsic/intrinsic_depth.txt", matrix)
        text(root / f"scannetv2_{split}.txt", f"{name}\n")
    text(root / "scannet_val_sampled_list_800_1.txt", "\n".join(listed) + "\n")


def scannet_normals(root: Path) -> None:
    """FrameNet's test frames as DSINE ships them."""
    for i in range(3):
        s = scene(750 + i)
        png(root / f"scene0532_00/{i:06d}_img.png", s.image)
        png(root / f"scene0532_00/{i:06d}_normal.png", painted(s.normals))


def diode(root: Path) -> None:
    for part in ("train", "val"):
        for kind, number in (("indoors", 21), ("outdoor", 22)):
            s = scene(800 + number + len(part), street=kind == "outdoor")
            name = f"{number:05d}_00189_{kind}_200_010"
            stem = root / f"{part}/{kind}/scene_{number:05d}/scan_00189/{name}"
            png(Path(f"{stem}.png"), s.image)
            known = s.parts != SKY
            npy(Path(f"{stem}_depth.npy"), np.where(known, s.depth, 0).astype(np.float32)[..., None])
            npy(Path(f"{stem}_depth_mask.npy"), known.astype(np.float32))
            npy(Path(f"{stem}_normal.npy"), s.normals)


def eth3d(root: Path) -> None:
    """Two scenes; raw float32 under the image's name, and the calibration."""
    for number, name in enumerate(("courtyard", "office")):
        s = scene(850 + number, (80, 120))
        png(root / name / "images/dslr_images/DSC_0219.JPG", s.image)
        depth = root / name / "ground_truth_depth/dslr_images/DSC_0219.JPG"
        depth.parent.mkdir(parents=True)
        depth.write_bytes(s.depth.astype("<f4").tobytes())
        camera = f"0 THIN_PRISM_FISHEYE 120 80 {s.focal} {s.focal} 60 40 0 0 0 0 0 0 0 0"
        text(root / name / "dslr_calibration_jpg/cameras.txt", f"# Camera list\n{camera}\n")
        pose = "7 1 0 0 0 0 0 0 0 dslr_images/DSC_0219.JPG\n1.5 2.5 -1\n"
        text(root / name / "dslr_calibration_jpg/images.txt", f"# Image list\n{pose}")
