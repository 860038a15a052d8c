"""`score` on the tests' golden maps, `evaluate` with the embedded models, `data list`, `check`, `preview`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bits import inputs
from bits.command import genpercept
from bits.embedded import MODELS
from bits.entries import Entries

DEPTH: dict[str, tuple[str, ...]] = {
    "plain": ("--per-image",),
    "median": ("--align", "median"),
    "ransac": ("--align", "ransac", "--max-depth", "10"),
    "none": ("--align", "none"),
    "in-disparity": ("--space", "disparity", "--min-depth", "0.5"),
    "small": ("--max-res", "32", "--details"),
    **{name: ("--protocol", name) for name in ("scannet", "eth3d", "diode", "hypersim", "middlebury", "synthetic")},
}
CROPPED = {"nyu": (480, 640), "kitti": (375, 1242), "kitti_garg": (375, 1242), "vkitti": (375, 1242)}


def run(entries: Entries) -> None:
    inputs.golden()
    inputs.labelled()
    for task, scored in SCORED.items():
        with entries.case(f"score/{task}"):
            for name, words in scored(Path("maps") / task).items():
                say(entries, f"score/{task}/{name}", "score", task, *words)
    for name, words in EVALUATED.items():
        evaluate(entries, name, *words)
    say(entries, "data/list", "data", "list")
    say(entries, "data/list-json", "data", "list", "--json")
    say(entries, "data/check", "data", "check", "data", "--out", "sheets/folder")
    say(entries, "data/check-opencv", "data", "check", "data", "--normals-axes", "opencv", "--depth-scale", "500")
    for place in ("indoor", "outdoor", "closeup", "mixed"):
        words = ("synthetic", "--split", f"test/{place}:8", "--option", "size=[48, 64]")
        say(entries, f"data/check-{place}", "data", "check", *words, "--out", f"sheets/{place}")
        say(entries, f"data/preview-{place}", "data", "preview", *words, "--out", f"sheets/{place}/preview.png")
    words = ("folder", "--root", "data", "--split", "all")
    say(entries, "data/preview-folder", "data", "preview", *words, "--out", "sheets/folder/preview.png")
    entries.folder("data/sheets", Path("sheets"))


def say(entries: Entries, name: str, *words: str | Path) -> None:
    """What a command prints, but for durations; also of one that refuses."""
    with entries.case(name):
        entries.json(name, genpercept(*words).timeless)


# ---- score


def depth(root: Path) -> dict[str, tuple[str | Path, ...]]:
    """The golden maps one by one, all of one size under protocols, and large ones for the crops."""
    cases = json.loads((inputs.GOLDEN / "metrics_depth.json").read_text())["cases"]
    maps = inputs.arrays("metrics_depth")
    asked: dict[str, tuple[str | Path, ...]] = {}
    for case, about in cases.items():
        files = _write(root / "one", case, {part: maps[f"{case}/{part}"] for part in ("pred", "gt", "mask")})
        limits = ("--min-depth", str(about["min_depth"]), "--max-depth", str(about["max_depth"]))
        align = "least_squares" if about["alignment"] else "none"
        asked[f"case-{case}"] = (*_named(files), "--align", align, *limits)
    for case in ("basic_odd_size", "gt_zero_invalid", "checkerboard_mask", "clip_active"):
        files = _write(root / "some", case, {part: maps[f"{case}/{part}"] for part in ("pred", "gt", "mask")})
    asked |= {name: (*_named({k: p.parent for k, p in files.items()}), *words) for name, words in DEPTH.items()}
    for name, size in CROPPED.items():
        gt = np.random.default_rng(size).uniform(0.5, 60, size).astype(np.float32)
        files = _write(root / name, "a", {"pred": np.sqrt(gt), "gt": gt, "mask": gt < 50})
        asked[name] = (*_named(files), "--protocol", name)
    return asked


def disparity(root: Path) -> dict[str, tuple[str | Path, ...]]:
    maps = inputs.arrays("metrics_depth")
    gt = maps["basic_odd_size/gt"]
    files = _write(root, "a", {"pred": 0.3 / (gt + 0.1), "gt": gt})
    scaled = _write(
        root / "scaled", "a", {"pred": (20000 / (gt + 1)).astype(np.uint16), "gt": (gt * 256).astype(np.uint16)}
    )
    return {"plain": _named(files), "scaled": (*_named(scaled), "--pred-scale", "65535", "--gt-scale", "256")}


def normals(root: Path) -> dict[str, tuple[str | Path, ...]]:
    maps = inputs.arrays("metrics_normals")
    asked: dict[str, tuple[str | Path, ...]] = {}
    for case in ("noise", "opposite", "gt_zero_vectors_masked", "gt_from_uint8_png"):
        parts = {part: np.moveaxis(maps[f"{case}/{part}"], 0, -1) for part in ("pred", "gt")}
        files = _write(root, case, parts | {"mask": maps[f"{case}/mask"]})
        asked[f"case-{case}"] = _named(files)
    folders = _named({key: path.parent for key, path in files.items()})
    return asked | {"pixels": (*folders, "--per-image"), "images": (*folders, "--protocol", "marigold")}


def segmentation(root: Path) -> dict[str, tuple[str | Path, ...]]:
    cases = json.loads((inputs.GOLDEN / "metrics_seg.json").read_text())["cases"]
    maps = inputs.arrays("metrics_seg")
    asked: dict[str, tuple[str | Path, ...]] = {}
    for case, about in cases.items():
        for i in range(about["n_images"]):
            files = _write(root / case, f"i{i}", {part: maps[f"{case}/{part}{i}"] for part in ("pred", "gt")})
        folders = _named({key: path.parent for key, path in files.items()})
        asked[case] = (*folders, "--num-classes", str(about["num_classes"]), "--details", "--per-image")
    return asked


def dis(root: Path) -> dict[str, tuple[str | Path, ...]]:
    maps = inputs.arrays("metrics_dis")
    asked: dict[str, tuple[str | Path, ...]] = {}
    for case in sorted({key.partition("/")[0] for key in maps}):
        gt = maps[f"{case}/gt"]
        thin = np.unpackbits(maps[f"{case}/skeleton"])[: gt.size].reshape(gt.shape).astype(np.uint8) * 255
        files = _write(root / case, "a", {"pred": maps[f"{case}/pred"], "gt": gt})
        beside = _write(root / case, "a", {"skeleton": thin})
        asked[f"case-{case}"] = (*_named(files), "--skeleton", beside["skeleton"])
        asked[f"other-{case}"] = (*_named(files), "--protocol", "pysodmetrics")
    return asked


def matting(root: Path) -> dict[str, tuple[str | Path, ...]]:
    maps = inputs.arrays("metrics_matting")
    asked: dict[str, tuple[str | Path, ...]] = {}
    for case in sorted({key.partition("/")[0] for key in maps}):
        files = _write(root / case, "a", {part: maps[f"{case}/{part}"] for part in ("pred", "gt")})
        trimap = _write(root / case, "a", {"trimap": maps[f"{case}/trimap"]})["trimap"]
        asked[f"case-{case}"] = _named(files)
        for protocol in ("p3m_trimap", "dim"):
            asked[f"{protocol}-{case}"] = (*_named(files), "--trimap", trimap, "--protocol", protocol)
    return asked


def anomaly(root: Path) -> dict[str, tuple[str | Path, ...]]:
    maps = inputs.arrays("metrics_anomaly")
    asked: dict[str, tuple[str | Path, ...]] = {}
    for case in sorted({key.partition("/")[0] for key in maps}):
        for i, (scores, mask) in enumerate(zip(maps[f"{case}/map"], maps[f"{case}/mask"], strict=True)):
            kind = "crack" if mask.any() else "good"
            _write(root / case, f"{i:03d}", {"pred": scores, "gt": mask * np.uint8(255)}, f"wood/{kind}")
        folders = ("--pred", root / case / "pred", "--gt", root / case / "gt")
        asked[case] = (*folders, "--details", "--per-image")
        asked[f"{case}-limit"] = (*folders, "--fpr-limit", "0.05")
    return asked


def pose(root: Path) -> dict[str, tuple[str | Path, ...]]:
    """People of all sizes, crowds, joints that nobody marked, misses and strangers, as COCO writes them."""
    draw = np.random.default_rng(5)
    truth: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for number in range(24):
        size = float(np.exp(draw.uniform(np.log(15), np.log(200))))
        joints = np.concatenate([draw.uniform(0, 500, 2) + draw.random((17, 2)) * size, draw.choice(3, (17, 1))], 1)
        box = [*joints[:, :2].min(0).tolist(), *np.ptp(joints[:, :2], axis=0).tolist()]
        common = {"image_id": number // 4, "category_id": 1}
        about = {"id": number + 1, "area": size**2 / 2, "bbox": box, "iscrowd": int(number % 9 == 8)}
        marked = {"keypoints": joints.ravel().tolist(), "num_keypoints": int((joints[:, 2] > 0).sum())}
        truth.append(common | about | marked)
        for _ in range(int(draw.choice([0, 1, 1, 2]))):
            seen = joints + draw.normal(0, draw.choice([0.5, 3, 9]), joints.shape) * [1, 1, 0]
            found.append(common | {"keypoints": seen.ravel().tolist(), "score": float(draw.integers(0, 8)) / 8})
    pictures = [{"id": i, "file_name": f"{i}.jpg", "width": 640, "height": 640} for i in range(6)]
    people = {"images": pictures, "annotations": truth, "categories": [{"id": 1, "name": "person"}]}
    root.mkdir(parents=True)
    (root / "gt.json").write_text(json.dumps(people), encoding="utf-8")
    (root / "pred.json").write_text(json.dumps(found), encoding="utf-8")
    return {"coco": ("--pred", root / "pred.json", "--gt", root / "gt.json", "--details", "--per-image")}


SCORED = {f.__name__: f for f in (depth, disparity, normals, segmentation, dis, matting, anomaly, pose)}


def _write(root: Path, name: str, parts: dict[str, np.ndarray], below: str = "") -> dict[str, Path]:
    """Each part as a file in a folder of its own: 8 and 16 bits as PNG, masks as black and white, the rest as npy."""
    files = {}
    for part, array in parts.items():
        folder = root / part / below
        folder.mkdir(parents=True, exist_ok=True)
        pixels = array * np.uint8(255) if array.dtype == bool else array
        files[part] = folder / f"{name}.{'png' if pixels.dtype.kind == 'u' else 'npy'}"
        if pixels.dtype.kind == "u":
            Image.fromarray(pixels).save(files[part])
        else:
            np.save(files[part], pixels)
    return files


def _named(files: dict[str, Path]) -> tuple[str | Path, ...]:
    words = {"pred": "--pred", "gt": "--gt", "mask": "--valid"}
    return tuple(word for key, path in files.items() for word in (words[key], path))


# ---- evaluate

_SCENES = (
    "--dataset",
    "synthetic",
    "--split",
    "test/mixed",
    "--count",
    "4",
    "--option",
    "size=[48, 64]",
    "--baselines",
)
_FOLDER = ("--dataset", "folder=data", "--model", "mini/depth", "--model", "mini/normals")
EVALUATED: dict[str, tuple[str, ...]] = {
    **{name: ("--model", f"mini/{name}", *_SCENES) for name in MODELS},
    "folder": (*_FOLDER, "--baselines", "--split", "all", "--processing-resolution", "64"),
    "folder-flip": (*_FOLDER, "--split", "all", "--flip-test", "--batch-size", "2"),
    "folder-images": (*_FOLDER[:2], "--model", "mini/normals", "--split", "all", "--protocol", "marigold"),
    "folder-workers": (*_FOLDER, "--split", "all", "--workers", "1", "--baselines"),
    "noise": ("--model", "noisy", "--dataset", "folder=data", "--split", "all", "--steps", "2", "--ensemble-size", "2"),
}


def evaluate(entries: Entries, name: str, *words: str) -> None:
    """The table, and everything in the folder; results.json but for times and versions."""
    if name == "noise":
        from genpercept import GenPerceptPipeline

        noisy = GenPerceptPipeline.from_base(inputs.BASE, "depth", paradigm="stochastic_multi_step", resolution=64)
        noisy.save_pretrained("noisy")
    workers = () if "--workers" in words else ("--workers", "0")
    say(entries, f"evaluate/{name}/table", "evaluate", *words, *workers, "--device", "cpu", "--out", f"out/{name}")
    with entries.case(f"evaluate/{name}/files"):
        entries.folder(f"evaluate/{name}/files", Path("out") / name)
