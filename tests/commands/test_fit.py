"""`genpercept fit anomaly` end to end on a miniature of MVTec AD: three categories, each figure counted again by others."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from sklearn.metrics import roc_auc_score

import genpercept
from genpercept.core import files
from genpercept.data import DATASETS
from genpercept.metrics import METRICS
from tests.support import mvtec_tree
from tests.support.commands import invoke
from tests.support.paths import SD_TINY

RATES = (0.3, 0.02)
HELD_OUT = 0.4
KEYS = ("pixel_auroc", "image_auroc", "aupro")


def words(root: Path, out: Path, *more: str) -> list[str | Path]:
    sets = ("steps=1", "loader.batch_size=2", "optim.accumulation=1", "precision=fp32", "resolution=64", "seed=3")
    sets += ("augment.sizes=[[64, 64]]", "speed.checkpointing=false", "logging.tensorboard=false")
    common = ["--model", str(SD_TINY), "--held-out", str(HELD_OUT), "--image-rate", str(RATES[0])]
    common += ["--pixel-rate", str(RATES[1]), *(word for text in sets for word in ("--set", text))]
    return ["fit", "anomaly", "--root", root, "--out", out, *common, *more]


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """The data, the folder of results, and what was printed."""
    home = tmp_path_factory.mktemp("fit")
    root, out = mvtec_tree.write(home / "mvtec"), home / "out"
    result = invoke(*words(root, out))
    assert result.exception is None and result.return_value == 0, result.output
    return root, out, result.output


def overlap_curve(maps: np.ndarray, masks: np.ndarray, limit: float = 0.3) -> float:
    """AUPRO, threshold by threshold: every normal score is one, and a pixel is found when it lies above it."""
    regions = []
    for p, g in zip(maps, masks, strict=True):
        labels: Any = ndimage.label(g, np.ones((3, 3)))
        regions += [np.sort(p[labels[0] == k]) for k in range(1, labels[1] + 1)]
    normal = np.sort(maps[~masks])
    share = np.mean([1 - np.searchsorted(r, normal, "right") / r.size for r in regions], axis=0)
    rate = 1 - np.arange(1, normal.size + 1) / normal.size
    x, y = np.append(rate[::-1], 1.0), np.append(share[::-1], 1.0)
    grid = np.append(x[x < limit], limit)
    return float(np.trapezoid(np.interp(grid, x, y), grid) / limit)


@cache
def predicted(root: Path, out: Path, category: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Maps and masks (N, H, W) of a category, by its model and straight from the files."""
    folder = root / category / ("train/good" if split == "val" else "test")
    paths = sorted(folder.glob("*.png" if split == "val" else "*/*.png"))
    if split == "val":  # two of five, evenly spaced: written out
        paths = [paths[i] for i in (0, 3, 5, 8)]
    masks = [root / category / "ground_truth" / p.parent.name / f"{p.stem}_mask.png" for p in paths]
    pipe = genpercept.load(out / category / "model")
    maps = [p.values for p in pipe([np.asarray(Image.open(p)) for p in paths])]
    truth = [np.asarray(Image.open(m)) > 0 if m.is_file() else np.zeros((64, 64), bool) for m in masks]
    return np.stack(maps), np.stack(truth)


def test_every_figure_is_that_of_an_independent_calculation(fitted: tuple[Path, Path, str]) -> None:
    root, out, printed = fitted
    results = files.read_json(out / "fit.json")
    assert results["categories"] == {name: f"{name}/model" for name in mvtec_tree.CATEGORIES}
    found: dict[str, list[float]] = {}
    for category, row in results["results"].items():
        maps, masks = predicted(root, out, category, "test")
        assert maps.shape == masks.shape == (12, 64, 64) and row["test_images"] == {"good": 4, "anomalous": 8}
        scores, bad = maps.max((1, 2)), masks.any((1, 2))
        good = predicted(root, out, category, "val")[0]
        limit, pixel = row["thresholds"]["image_threshold"], row["thresholds"]["pixel_threshold"]
        # of 4 held-out images one may be above, of 16,384 pixels 327; one step lower there would be more
        assert row["held_out_images"] == 4 and limit == np.sort(good.max((1, 2)))[2]
        assert (good > pixel).sum() <= int(RATES[1] * good.size) < (good >= pixel).sum()
        figures = {
            "pixel_auroc": roc_auc_score(masks.ravel(), maps.ravel()),
            "image_auroc": roc_auc_score(bad, scores),
            "aupro": overlap_curve(maps, masks),
            "false_alarms": float((scores[~bad] > limit).mean()),
            "found": float((scores[bad] > limit).mean()),
        }
        assert row["figures"] == pytest.approx(figures, abs=1e-9), category
        shown = next(line for line in printed.splitlines() if line.startswith(f"{category} ") and "0." in line)
        assert [float(x) for x in shown.split()[1:]] == pytest.approx([*figures.values(), limit], abs=6e-4)
        for key, value in figures.items():
            found.setdefault(key, []).append(value)
    assert results["mean"] == pytest.approx({key: np.mean(values) for key, values in found.items()})
    assert "mean of 3" in printed
    whole = METRICS.find("anomaly")()  # all categories in one metric, as `evaluate` has them
    for category in results["categories"]:
        for i, (one, mask) in enumerate(zip(*predicted(root, out, category, "test"), strict=True)):
            whole.update(one, mask, name=f"{category}/{i}")
    assert whole.compute() == pytest.approx({key: results["mean"][key] for key in KEYS}, abs=1e-9)


def test_held_out_images_are_not_trained_on(fitted: tuple[Path, Path, str]) -> None:
    root, out, _ = fitted
    (data,) = json.loads((out / "wood" / "recipe.json").read_text())["data"]
    assert data["split"] == "train" and data["options"] == {"category": "wood", "held_out": HELD_OUT}
    mvtec = DATASETS.find("mvtec_ad").with_options(category="wood", held_out=HELD_OUT)
    split = {name: {e.name for e in mvtec.index(root, name)} for name in ("train", "val")}
    assert len(split["train"]) == 6 and len(split["val"]) == 4 and not split["train"] & split["val"]


def test_a_finished_category_is_left_as_it_is(fitted: tuple[Path, Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    root, out, printed = fitted
    before = (out / "fit.json").read_bytes()
    monkeypatch.setattr("genpercept.training.loop.main", lambda *args, **kwargs: pytest.fail("trained again"))
    again = invoke(*words(root, out, "--resume"))
    assert again.exception is None and again.output.count("done before") == 3, again.output
    assert (out / "fit.json").read_bytes() == before and again.output.splitlines()[-6:] == printed.splitlines()[-6:]
    refused = {
        (): "fit.json: is there already: go on with --resume",
        ("--resume", "--set", "optim.lr=1e-3"): r"fit.json: of other settings \(overrides\)",
        ("--resume", "--set", "data.0.count=3"): "--set data.0.count=3: the data of every category are set here",
        ("--resume", "--categories", "cabel"): "unknown category of .*mvtec 'cabel': did you mean 'cable'",
        ("--resume", "--recipe", "mini/dis"): "trains dis, which judges no images",
    }
    for more, message in refused.items():
        error = invoke(*words(root, out, *more)).exception
        assert isinstance(error, ValueError) and re.search(message, str(error)), error


def test_predict_says_whether_an_image_is_anomalous(fitted: tuple[Path, Path, str], tmp_path: Path) -> None:
    """Score, threshold and verdict beside the map, and an overlay that outlines what is above the pixels' threshold."""
    root, out, _ = fitted
    limits = files.read_json(out / "fit.json")["results"]["wood"]["thresholds"]
    result = invoke("predict", root / "wood/test/blot", "--model", out / "wood/model", "--out", tmp_path, "--format",
                    "npy,overlay")  # fmt: skip
    assert result.exception is None, result.output
    for i in range(4):
        meta = files.read_json(tmp_path / f"{i:03d}_anomaly.json")["meta"]
        values = np.load(tmp_path / f"{i:03d}_anomaly.npy")
        assert {k: meta[k] for k in limits} == limits and meta["image_score"] == values.max()
        assert meta["anomalous"] == bool(values.max() > limits["image_threshold"])
        assert meta["defect_share"] == pytest.approx((values > limits["pixel_threshold"]).mean())
        over = np.asarray(Image.open(tmp_path / f"{i:03d}_anomaly_overlay.png"))
        assert over.shape == (64, 64, 3)
        above = values > limits["pixel_threshold"]
        rim = above & ~ndimage.binary_erosion(above, border_value=1)
        assert np.array_equal((over == (60, 255, 255)).all(-1), rim)


def test_the_whole_folder_predicts_and_is_evaluated(fitted: tuple[Path, Path, str], tmp_path: Path) -> None:
    """Each image by the model of its category; joined with the ground truth and evaluated, the figures are fit's own."""
    root, out, _ = fitted
    results = files.read_json(out / "fit.json")
    wanted = {key: results["mean"][key] for key in KEYS}
    pattern = str(root / "*/test/*/*.png")
    result = invoke("predict", pattern, "--model", out, "--out", tmp_path / "maps", "--format", "npy")
    assert result.exception is None and result.return_value == 0, result.output
    for category, row in results["results"].items():
        meta = files.read_json(tmp_path / f"maps/{category}/test/good/000_anomaly.json")["meta"]
        assert meta["image_threshold"] == row["thresholds"]["image_threshold"]
        assert meta["request"]["model"] == str(out / category / "model")
    scored = invoke("score", "anomaly", "--pred", tmp_path / "maps", "--gt", root)
    assert scored.exception is None, scored.output
    figures = json.loads(scored.output)
    assert {key: figures[key] for key in KEYS} == pytest.approx(wanted, abs=1e-9)
    stray = tmp_path / "elsewhere/a.png"
    stray.parent.mkdir()
    stray.write_bytes((root / "wood/test/good/000.png").read_bytes())
    result = invoke("predict", stray, "--model", out, "--out", tmp_path / "stray")
    assert (
        result.return_value == 2 and "lies in no folder named after a category of --model: cable, grid" in result.output
    )

    words = ("--dataset", "mvtec_ad", "--root", root, "--split", "test", "--workers", "0", "--out", tmp_path / "table")
    table = invoke("evaluate", "--model", out, *words)
    assert table.exception is None, table.output
    (cell,) = files.read_json(tmp_path / "table/results.json")["results"]
    assert {key: cell["figures"][key] for key in KEYS} == pytest.approx(wanted, abs=1e-9)
