"""`genpercept evaluate` of the families that are no GenPercept: DepthFM, GeoWizard's two tasks at once, DepthMaster.

The real command, on a data set of two scenes, with the tiny checkpoints of tests/golden.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest
import torch
from PIL import Image

import genpercept
from genpercept.commands.evaluate import cell, sets
from genpercept.commands.evaluate.sets import SetSpec
from genpercept.data import DATASETS
from genpercept.imaging.prediction import Prediction
from genpercept.metrics import METRICS
from genpercept.models.backbones.sd21_joint import JointUNet
from genpercept.tasks import TASKS
from tests.support.commands import Call
from tests.support.depthmaster import checkpoint
from tests.support.paths import GOLDEN

SIZE, NAMES = (40, 48), ("s0", "s1")
DEPTHFM = ("-m", GOLDEN / "depthfm" / "depthfm-v1.ckpt", "--base", GOLDEN / "depthfm" / "base", "--allow-pickle")
GEOWIZARD = ("-m", GOLDEN / "geowizard", "--steps", "2")
BOTH = (*GEOWIZARD, "-t", "depth,normals")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, depth and normals of smooth scenes, as the data set `folder` reads them."""
    root, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for kind in ("images", "depth", "normals"):
        (root / kind).mkdir()
    for i, name in enumerate(NAMES):
        ramp = np.linspace(1, 3 + i, SIZE[0])[:, None] + rng.random(SIZE) * 0.3
        Image.fromarray(rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)).save(root / "images" / f"{name}.png")
        np.save(root / "depth" / f"{name}.npy", ramp.astype(np.float32))
        normals = np.stack([*rng.normal(0, 0.4, (2, *SIZE)), np.ones(SIZE)], -1)
        np.save(root / "normals" / f"{name}.npy", normals.astype(np.float32))
    return root


def evaluated(call: Call, folder: Path, out: Path, *words: Any) -> dict[str, dict[str, Any]]:
    """Results by task, of models that are no baselines."""
    common = ("--dataset", f"folder={folder}", "--processing-resolution", "0", "--workers", "0", "--device", "cpu")
    code, told, err = call("evaluate", *common, "-o", out, *words)
    assert code == 0, err
    assert "AbsRel" in told or "mean" in told.lower()
    return {
        one["task"]: one for one in json.loads((out / "results.json").read_text())["results"] if not one["baseline"]
    }


def figures(task: str, folder: Path, pipe: Any, **options: Any) -> dict[str, float]:
    """Of the Python pipeline's own predictions, from the noise that `evaluate` takes for each name."""
    view, data = pipe.answering(task), sets.open_set(SetSpec("folder", "folder", folder))
    metric = cell.rules_of(view.task_plugin, data).metric()
    for entry in data.entries:
        sample = data.dataset.load(entry)
        if view.paradigm().stochastic:
            options["generator"] = torch.Generator().manual_seed(crc32(f"0 {sample.name}".encode()))
        found = view(sample.image, processing_resolution=0, **options)
        metric.update(found, **view.task_plugin.truth(sample), name=sample.name)
    return metric.compute()


def test_depthfm(call: Call, folder: Path, tmp_path: Path) -> None:
    """Its figures are those of its predictions, each from the noise of its name; an ensemble has others."""
    (one,) = evaluated(call, folder, tmp_path / "one", *DEPTHFM, "--baselines").values()
    pipe = genpercept.load(DEPTHFM[1], base=DEPTHFM[3], allow_pickle=True, device="cpu")
    assert one["figures"] == pytest.approx(figures("depth", folder, pipe), rel=1e-5)
    assert one["count"] == len(NAMES) and one["about_model"]["family"] == "depthfm"
    (three,) = evaluated(call, folder, tmp_path / "three", *DEPTHFM, "--ensemble-size", "3").values()
    assert three["figures"]["abs_rel"] != one["figures"]["abs_rel"]
    rescaled = (*DEPTHFM, "--family", "depthfm,attention=rescaled")
    (other,) = evaluated(call, folder, tmp_path / "rescaled", *rescaled).values()
    assert other["figures"]["abs_rel"] != pytest.approx(one["figures"]["abs_rel"], rel=1e-4)


def test_depthmaster(call: Call, folder: Path, tmp_path: Path) -> None:
    """The root of disparity is aligned as such: against sqrt(1 / depth), not against disparity."""
    model = checkpoint(tmp_path / "depthmaster")
    (one,) = evaluated(call, folder, tmp_path / "out", "-m", model, "--baselines").values()
    pipe = genpercept.load(model, device="cpu")
    assert one["task"] == "disparity" and one["about_model"]["family"] == "depthmaster"
    assert one["figures"] == pytest.approx(figures("disparity", folder, pipe), rel=1e-5)
    (files,) = (tmp_path / "out" / "predictions").glob("*/s0-*.npz")
    assert Prediction.load(files).kind == "root_disparity_affine"


def test_geowizards_tasks_out_of_one_run(
    call: Call, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both tables, each to the digit what its task alone gives, at the price of one of them."""
    seen: list[int] = []
    forward = JointUNet.forward_features

    def counted(self: Any, x: Any, *args: Any, **more: Any) -> Any:
        seen.append(len(x))
        return forward(self, x, *args, **more)

    monkeypatch.setattr(JointUNet, "forward_features", counted)
    both = evaluated(call, folder, tmp_path / "both", *BOTH, "--baselines")
    assert sum(seen) == len(NAMES) * 2 and list(both) == ["depth", "normals"]
    assert both["normals"]["timing"]["predicted"] == 0 and both["depth"]["timing"]["predicted"] == len(NAMES)
    for task in both:
        alone = evaluated(call, folder, tmp_path / task, *GEOWIZARD, "-t", task)[task]
        assert alone["figures"] == both[task]["figures"] and alone["samples"] == both[task]["samples"]
    pipe = genpercept.load(GOLDEN / "geowizard", task="depth", device="cpu")
    for task, one in both.items():
        assert one["figures"] == pytest.approx(figures(task, folder, pipe, num_inference_steps=2), rel=1e-5)
    page = (tmp_path / "both" / "report.html").read_text()
    assert "Ranked by AbsRel and" in page

    seen.clear()
    again = evaluated(call, folder, tmp_path / "both", *BOTH, "--baselines", "--resume")
    assert not seen and {task: one["figures"] for task, one in again.items()} == {
        task: one["figures"] for task, one in both.items()
    }
    for path in (tmp_path / "both" / "predictions" / both["normals"]["predictions"]).glob("s1-*.npz"):
        path.unlink()
    evaluated(call, folder, tmp_path / "both", *BOTH, "--baselines", "--resume")
    assert sum(seen) == 2, "the one that was gone, and nothing else"


def test_geowizard_without_predictions_kept(call: Call, folder: Path, tmp_path: Path) -> None:
    words = (*BOTH, "--no-keep-predictions", "--count", "1")
    first = evaluated(call, folder, tmp_path / "out", *words)
    again = evaluated(call, folder, tmp_path / "out", *words, "--resume")
    assert {k: v["figures"] for k, v in first.items()} == {k: v["figures"] for k, v in again.items()}


def test_predictions_of_both_tasks_in_one_folder(call: Call, folder: Path, tmp_path: Path) -> None:
    """What `predict --task depth,normals` wrote: the figures of its files."""
    words = ("--format", "npz", "--device", "cpu", "--processing-resolution", "0", "-o", tmp_path / "files")
    code, _, err = call("predict", folder / "images", *BOTH, *words)
    assert code == 0, err
    found = evaluated(call, folder, tmp_path / "out", "--predictions", tmp_path / "files", "-t", "depth,normals")
    assert list(found) == ["depth", "normals"] and {one["count"] for one in found.values()} == {len(NAMES)}
    depth = METRICS.find("depth")()
    data = DATASETS.find("folder")
    for entry in data.index(folder, "all"):
        sample = data.load(entry)
        prediction = Prediction.load(tmp_path / "files" / f"{sample.name}_depth.npz")
        depth.update(prediction, **TASKS.find("depth").truth(sample), name=sample.name)
    assert found["depth"]["figures"]["abs_rel"] == pytest.approx(depth.compute()["abs_rel"], rel=1e-6)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("-m", "mini/depth", "-t", "depth,normals"), "answers depth, not normals"),
        (("-t", "depth,normals"), "no embedded model answers several tasks at once"),
        (("-m", GOLDEN / "geowizard", "-t", "depth,matting"), "answers depth, normals, not matting"),
        (("-m", "{category}", "-t", "depth,normals"), "no folder fits it|a model per category"),
    ],
)
def test_what_is_refused(words: tuple[Any, ...], message: str, call: Call, folder: Path, tmp_path: Path) -> None:
    common = ("--dataset", f"folder={folder}", "-o", tmp_path / "out", "--device", "cpu")
    code, _, err = call("evaluate", *common, *words)
    assert code == 2 and any(part in err for part in message.split("|")), err
    assert "Traceback" not in err and len(err.strip().splitlines()) == 1
    shutil.rmtree(tmp_path / "out", ignore_errors=True)


def test_labels_that_the_set_has_not_are_named_before_the_network_runs(
    call: Call, folder: Path, tmp_path: Path
) -> None:
    root = tmp_path / "data"
    shutil.copytree(folder, root)
    shutil.rmtree(root / "normals")
    words = ("--dataset", f"folder={root}", "-o", tmp_path / "out", "--device", "cpu", *BOTH)
    code, _, err = call("evaluate", *words)
    assert code == 2 and "does normals, which needs normals" in err, err
    assert not list((tmp_path / "out").rglob("*.npz"))
