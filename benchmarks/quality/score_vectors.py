"""`genpercept score` on vectors whose figures public evaluation codes have given: how far ours are from theirs.

python benchmarks/quality/score_vectors.py FOLDER         FOLDER: depth_small, normals, seg, dis, matting, anomaly (.npz and
                                                  .json), pose.json, pose_dt.json, pose_gt_coco4.json

Every case goes through files and the command's own reading of them: arrays as npy, masks, mattes and class ids as
PNG, keypoints as COCO's JSON. Exit code 0 when all figures are within their tolerances.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2]))  # where `benchmarks` lies
from benchmarks._page import made
from genpercept.commands.score import run as score

Figures = dict[str, Any]


@dataclass(frozen=True)
class Check:
    """Figures `ours` of one case against `theirs`, under keys {ours: theirs}. Deviations are relative where `rel` is.

    absolute: what a relative tolerance allows besides, for figures that are 0 but for rounding.
    """

    against: str
    case: str
    ours: Figures
    theirs: Figures
    keys: dict[str, str]
    tolerance: float
    rel: bool = False
    absolute: float = 0.0

    def deviation(self) -> tuple[float, bool]:
        """The worst one over the keys, and whether all are tolerable."""
        worst, fine = 0.0, True
        for ours, theirs in self.keys.items():
            a, b = number(self.ours[ours]), number(self.theirs[theirs])
            if math.isnan(a) or math.isnan(b):
                fine &= math.isnan(a) and math.isnan(b)
                continue
            gap = abs(a - b)
            allowed = self.tolerance * (abs(b) if self.rel else 1) + self.absolute
            fine &= gap <= allowed
            if self.rel and gap <= self.absolute:
                continue
            worst = max(worst, gap / abs(b) if self.rel and b else gap)
        return worst, fine


def number(value: Any) -> float:
    """Of our JSON or theirs: null, "nan" and a reference that raised are NaN."""
    return float("nan") if value is None or isinstance(value, dict) else float(value)


class Desk:
    """A folder for files of one case, and the command over them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, role: str, name: str, array: np.ndarray, png: bool) -> None:
        path = self.folder / role / f"{name}.{'png' if png else 'npy'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if png:
            Image.fromarray(array).save(path)
        else:
            np.save(path, array)

    def run(self, task: str, pred: str = "pred", gt: str = "gt", **options: Any) -> Figures:
        """What `score` prints; every figure NaN where it refuses the prediction."""
        out = io.StringIO()
        paths = {key: self.folder / options.pop(key) for key in ("valid", "trimap") if key in options}
        with contextlib.redirect_stdout(out), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # bad ground truth inside DIODE's mask
            score.main(task, self.folder / pred, self.folder / gt, **paths, details=True, **options)
        return json.loads(out.getvalue())


def load(folder: Path, name: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    content = json.loads((folder / f"{name}.json").read_text())
    with np.load(folder / f"{name}.npz") as file:
        return content, {key: file[key] for key in file.files}


MARIGOLD = {
    "abs_rel": "abs_relative_difference",
    "sq_rel": "squared_relative_difference",
    "rmse": "rmse_linear",
    "rmse_log": "rmse_log",
    "log10": "log10",
    **{f"delta{k}": f"delta{k}_acc" for k in (1, 2, 3)},
    "i_rmse": "i_rmse",
    "silog": "silog_rmse",
}


def depth(folder: Path, desk: Callable[[], Desk]) -> Iterator[Check]:
    content, arrays = load(folder, "depth_small")
    for case, entry in content["cases"].items():
        files = desk()
        for role in ("pred", "gt", "mask"):
            files.save(role, case, arrays[f"{case}/{role}"], png=False)
        options = {key: entry[key] for key in ("min_depth", "max_res")}
        options |= {"max_depth": float(entry["max_depth"]), "align": None if entry["alignment"] else "none"}
        try:
            ours = files.run("depth", valid="mask", mask_only=case.startswith("diode"), **options)
        except ValueError as error:
            if "exception" not in entry["marigold"]:
                raise
            assert "NaN" in str(error)
            yield Check("refused, where Marigold raises", case, {}, {}, {}, 0)
            continue
        yield Check("Marigold", case, ours, entry["marigold"], MARIGOLD, 1e-5, rel=True, absolute=5e-6)


DSINE_ANGLES = {"mean": "mean", "median": "median", "rmse": "rmse"}
DSINE_SHARES = dict(zip(("a5", "a7_5", "a11_25", "a22_5", "a30"), ("a1", "a2", "a3", "a4", "a5"), strict=True))


def normals(folder: Path, desk: Callable[[], Desk]) -> Iterator[Check]:
    content, arrays = load(folder, "normals")

    def saved(cases: list[str]) -> Desk:
        files = desk()
        for case in cases:
            for role in ("pred", "gt", "mask"):
                files.save(role, case, arrays[f"{case}/{role}"], png=False)
        return files

    for case, entry in content["cases"].items():
        if f"{case}/pred" in arrays and "dsine" in entry:
            figures = saved([case]).run("normals", valid="mask")
            yield Check("DSINE, degrees", case, figures, entry["dsine"], DSINE_ANGLES, 0.02)
            yield Check("DSINE, percent", case, figures, entry["dsine"], DSINE_SHARES, 0.1)
    # The file lacks the arrays of one of the three images whose pooled figures it states: ours come from what it has.
    there = {case: entry for case, entry in content["cases"].items() if f"{case}/pred" in arrays}
    files, pixels = saved(list(there)), [entry["n_valid"] for entry in there.values()]

    def over_all(weights: list[int] | None) -> Figures:
        rows = [entry["dsine"] for entry in there.values()]
        means = {key: float(np.average([row[key] for row in rows], weights=weights)) for key in rows[0]}
        return means | {"rmse": float(np.sqrt(np.average([row["rmse"] ** 2 for row in rows], weights=weights)))}

    kept = {key: theirs for key, theirs in DSINE_ANGLES.items() if key != "median"}  # medians cannot be pooled
    pooled, averaged = files.run("normals", valid="mask"), files.run("normals", valid="mask", protocol="marigold")
    yield Check("DSINE, degrees", "all pixels pooled", pooled, over_all(pixels), kept, 0.02)
    yield Check("DSINE, percent", "all pixels pooled", pooled, over_all(pixels), DSINE_SHARES, 0.1)
    yield Check("DSINE, degrees", "mean of images", averaged, over_all(None), {"mean": "mean"}, 0.02)
    yield Check("DSINE, percent", "mean of images", averaged, over_all(None), DSINE_SHARES, 0.1)


def segmentation(folder: Path, desk: Callable[[], Desk]) -> Iterator[Check]:
    content, arrays = load(folder, "seg")
    for case, entry in content["cases"].items():
        files = desk()
        for i in range(entry["n_images"]):
            for role in ("pred", "gt"):
                files.save(role, str(i), arrays[f"{case}/{role}{i}"], png=True)
        ours = files.run("segmentation", num_classes=entry["num_classes"])
        theirs = entry["mmseg"]
        keys = {"miou": "mIoU_nanmean", "macc": "mAcc_nanmean", "aacc": "aAcc"}
        yield Check("mmsegmentation", case, ours, theirs, keys, 1e-7)
        rows = [
            ({f"{i}": v for i, v in enumerate(values)})
            for values in (ours["details"]["iou_per_class"], theirs["IoU_per_class"])
        ]
        yield Check("mmsegmentation, per class", case, *rows, {key: key for key in rows[1]}, 1e-7)


def dis(folder: Path, desk: Callable[[], Desk]) -> Iterator[Check]:
    content, arrays = load(folder, "dis")
    for case, entry in content["cases"].items():
        files = desk()
        for role in ("pred", "gt"):
            files.save(role, case, arrays[f"{case}/{role}"], png=True)
        ours, theirs = files.run("dis"), entry["pysodmetrics"]
        keys = {"max_f": "maxF", "mae": "MAE", "s_measure": "S", "e_measure": "meanE"}
        yield Check("PySODMetrics F, E, S, MAE", case, ours, theirs, keys, 1e-6)
        yield Check("PySODMetrics weighted F", case, ours, theirs, {"weighted_f": "wF"}, 1e-3)
        yield Check("DIS authors HCE", case, ours, entry["dis_official"], {"hce": "HCE"}, 0)
        other = files.run("dis", protocol="pysodmetrics")
        yield Check("PySODMetrics HCE", case, other, theirs, {"hce": "HCE"}, 0)


def matting(folder: Path, desk: Callable[[], Desk]) -> Iterator[Check]:
    content, arrays = load(folder, "matting")
    for case, entry in content["cases"].items():
        files = desk()
        for role in ("pred", "gt", "trimap"):
            files.save(role, case, arrays[f"{case}/{role}"], png=True)
        p3m, mmagic = entry["p3m_whole_and_trimap"], entry["mmagic_masked_pred"]
        whole, known = files.run("matting"), files.run("matting", protocol="p3m_trimap", trimap="trimap")
        dim = files.run("matting", protocol="dim", trimap="trimap")
        sums = ("sad", "mad", "mse")
        yield Check("P3M SAD, MAD, MSE", case, whole, p3m, {k: k.upper() for k in sums}, 1e-9)
        yield Check("P3M SAD, MAD, MSE, trimap", case, known, p3m, {k: f"{k.upper()}_trimap" for k in sums}, 1e-9)
        yield Check("P3M GRAD, relative", case, whole, p3m, {"grad": "GRAD"}, 1e-4, rel=True)
        yield Check("P3M CONN", case, whole, p3m, {"conn": "CONN"}, 1e-6)
        yield Check("mmagic SAD, MSE", case, dim, mmagic, {"sad": "SAD", "mse": "MattingMSE"}, 1e-9)
        keys = {"grad": "GradientError", "conn": "ConnectivityError"}
        yield Check("mmagic GRAD, CONN", case, dim, mmagic, keys, 1e-6)
        matlab = entry["dim_matlab_via_octave_masked_pred"]
        keys = {"sad": "SAD", "mse": "MSE", "grad": "GRAD"}
        yield Check("DIM MATLAB SAD, MSE, GRAD, relative", case, dim, matlab, keys, 1e-6, rel=True, absolute=1e-12)
        has_153 = bool((arrays[f"{case}/pred"] == 153).any() or (arrays[f"{case}/gt"] == 153).any())
        single = "DIM MATLAB CONN, relative" + (", some alpha = 153" if has_153 else "")
        yield Check(single, case, dim, matlab, {"conn": "CONN"}, 0.25 if has_153 else 0.02, rel=True, absolute=1e-9)


def anomaly(folder: Path, desk: Callable[[], Desk]) -> Iterator[Check]:
    content, arrays = load(folder, "anomaly")
    for case, entry in content["cases"].items():
        files = desk()
        for i, (scores, mask) in enumerate(zip(arrays[f"{case}/map"], arrays[f"{case}/mask"], strict=True)):
            files.save("pred", f"{i:03d}", scores, png=False)
            files.save("gt", f"{i:03d}_mask", mask * 255, png=True)
        ours = files.run("anomaly")
        keys = {"pixel_auroc": "sklearn_pixel_auroc", "image_auroc": "sklearn_image_auroc_max_score"}
        yield Check("scikit-learn AUROC", case, ours, entry, keys, 1e-9)
        yield Check(
            "official AUPRO, all thresholds", case, ours, entry, {"aupro": "aupro_mvtec_official_all_thr"}, 1e-3
        )


def pose(folder: Path, desk: Callable[[], Desk]) -> Iterator[Check]:
    cases = json.loads((folder / "pose.json").read_text())["cases"]
    found = json.loads((folder / "pose_dt.json").read_text())
    for case, theirs in cases.items():
        files = desk()
        (files.folder / "dt.json").write_text(json.dumps(found[case]))
        ours = files.run("pose", "dt.json", str((folder / "pose_gt_coco4.json").resolve()))
        keys = {"ap": "AP", "ap50": "AP50", "ap75": "AP75", "ap_m": "APm", "ap_l": "APl"}
        yield Check("pycocotools AP", case, ours, theirs, keys, 1e-12)
        keys = {"ar": "AR", "ar50": "AR50", "ar75": "AR75", "ar_m": "ARm", "ar_l": "ARl"}
        yield Check("pycocotools AR", case, ours["details"], theirs, keys, 1e-12)


FILES = {
    "depth_small": depth,
    "normals": normals,
    "dis": dis,
    "matting": matting,
    "seg": segmentation,
    "pose": pose,
    "anomaly": anomaly,
}


NOTES = """
MATLAB's CONN differs only where some alpha is 153: 153 / 255 = 0.6 is one of its levels, and in its single precision that
alpha lies on it, in double precision below. Four of those five cases are within 2.1 %, and the fifth was made to show it: the
tolerance of 25 % is for that one. mmagic, in double precision, agrees with ours on the same cases to 1e-15.

Tied scores: AUPRO follows the official code's rule, so that it agrees on the case with nine levels, too."""


def table(checks: dict[str, list[Check]]) -> tuple[list[str], bool]:
    """The page in Markdown, a line for each kind of figure in each file, and whether all are within tolerance."""
    lines = [
        "# `score` on the vectors of public evaluation codes",
        "",
        f"{made(__file__)}. Every case is written to files (arrays as npy, masks, mattes and class ids as PNG,",
        "keypoints as COCO's JSON), scored by `genpercept score`, and compared with the figures that the public code gave for",
        "it. Deviations are absolute unless it says relative. NaN is equal to NaN alone; a reference that raised for want of a",
        "region counts as NaN.",
        "",
        "| file | against | cases | worst deviation (case) | tolerance | ok |",
        "| --- | --- | ---: | --- | ---: | --- |",
    ]
    all_fine = True
    for name, found in checks.items():
        for against in dict.fromkeys(c.against for c in found):
            group = [c for c in found if c.against == against]
            each = [(c.deviation(), c) for c in group]
            (worst, _), where = max(each, key=lambda e: e[0][0])
            fine = all(good for (_, good), _ in each)
            all_fine &= fine
            at = f" ({where.case})" if worst or not where.keys else ""
            lines.append(
                f"| {name} | {against} | {len(group)} | {worst:.1e}{at} | {where.tolerance:g} | {'yes' if fine else 'NO'} |"
            )
    return lines, all_fine


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder of the vectors")
    folder = parser.parse_args().folder
    with tempfile.TemporaryDirectory() as temporary:
        count = iter(range(10**6))

        def desk() -> Desk:
            path = Path(temporary) / str(next(count))
            path.mkdir()
            return Desk(path)

        checks = {name: list(run(folder, desk)) for name, run in FILES.items()}
    lines, fine = table(checks)
    print("\n".join([*lines, NOTES]))
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
