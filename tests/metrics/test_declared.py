"""What metrics declare is true, and is all that score, evaluate, training and studies need: a stranger's metric will do."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

from genpercept import GenPerceptPipeline
from genpercept.commands.evaluate import baselines, columns, pictures, predictions
from genpercept.commands.evaluate import run as evaluate
from genpercept.commands.score import run as score
from genpercept.commands.study import plan as study
from genpercept.commands.study.measure import HeldOut, Inference, measure
from genpercept.core.values import Geometry, Sample, Target
from genpercept.data import DATASETS
from genpercept.imaging.prediction import Prediction
from genpercept.metrics import METRICS, Baseline, Column, MetricPlugin, PerPixel, down, up
from genpercept.metrics import score as score_arrays
from genpercept.tasks import TASKS, Task
from genpercept.tasks._task import TaskOptions
from genpercept.training import recipe as recipes
from genpercept.training.stages.finetune import FinetuneStage
from tests.support.paths import SD_TINY
from tests.support.strangers import Install

SIZE = (24, 32)
RNG = np.random.default_rng(3)


def plugin_of(name: str) -> MetricPlugin[Any]:
    try:
        plugin = METRICS.find(name)
        plugin().compute()
    except ModuleNotFoundError as error:
        pytest.skip(str(error))
    return plugin


def task_of(name: str) -> Any:
    """A task with that metric; of classes as the samples have them."""
    task: Any = TASKS.find(name)
    return task.with_options(classes="synthetic") if name == "segmentation" else task


def labelled() -> Sample:
    """A sample with every label: a disc before a slope, one person."""
    y, x = np.indices(SIZE)
    disc = np.hypot(y - 12, x - 14) < 6
    depth = np.where(disc, 2.0, 4 + y / 8).astype(np.float32)
    normals = np.stack([np.where(disc, 0.0, 0.6), np.zeros(SIZE), np.where(disc, 1.0, 0.8)]).astype(np.float32)
    joints = np.concatenate([RNG.uniform(4, 20, (1, 17, 2)), np.full((1, 17, 1), 2)], -1).astype(np.float32)
    labels = {"depth": depth, "normals": normals, "class_ids": disc.astype(np.int64), "mask": disc, "defect": disc}
    labels |= {"alpha": disc.astype(np.float32), "keypoints": joints, "boxes": np.array([[2, 2, 22, 22]], np.float32)}
    sample = Sample("s", torch.rand(3, *SIZE, generator=torch.Generator().manual_seed(0)))
    for key, value in labels.items():
        setattr(sample, key, torch.from_numpy(value))
    return sample


def perfect(name: str, gt: np.ndarray) -> np.ndarray:
    """The truth as a prediction of that metric."""
    if name == "disparity":
        return 1 / gt
    return gt.astype(np.float32) if name in ("dis", "anomaly") else gt


def spoilt(name: str, answer: np.ndarray) -> np.ndarray:
    """The same with a third of it wrong."""
    if name == "pose":
        return answer + np.array((9.0, -9.0, 0.0)) * (np.arange(17) % 3 == 0)[:, None]
    if name == "normals":
        return answer + (RNG.random(SIZE) < 0.3)[..., None] * np.array((1.5, 0.0, 0.0))
    other = {"segmentation": 1 - answer, "depth": answer * 3, "disparity": answer * 3}.get(name, 1 - answer * 0.9)
    return np.where(RNG.random(SIZE) < 0.3, other, answer)


# ---- ours ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METRICS.names())
def test_directions_are_those_in_which_the_truth_is_better(name: str) -> None:
    """Every declared figure is one of the metric's, and the truth beats a spoilt truth in each that can tell them apart."""
    plugin, task = plugin_of(name), task_of(name)
    truth = task.truth(labelled())
    answers = {"truth": perfect(name, np.asarray(truth["gt"]))}
    answers["spoilt"] = spoilt(name, answers["truth"])
    figures, both = {}, plugin()
    for key, answer in answers.items():
        alone = plugin()
        for metric in (alone, both):
            metric.update(answer, **truth, name=key)
        figures[key] = alone.compute()
    declared = {column.key: column for column in (*plugin.columns, *plugin.others)}
    assert declared.keys() == both.compute().keys()
    assert {key for key in declared if plugin.watches(key)} <= declared.keys()
    assert any(plugin.watches(key) for key in declared)
    told_apart = 0
    for key, column in declared.items():
        good, bad = figures["truth"][key], figures["spoilt"][key]
        if math.isfinite(good) and math.isfinite(bad) and good != bad:
            told_apart += 1
            assert (good > bad) == column.higher, key
    assert told_apart >= 2
    rows = both.rows if name != "pose" else {key: {"ap": figures[key]["ap"]} for key in figures}
    assert columns.ranked(name, rows) == ["truth", "spoilt"]


@pytest.mark.parametrize("name", METRICS.names())
def test_baselines_answer_for_a_sample_and_the_truth_beats_them(name: str, tmp_path: Path) -> None:
    plugin, task, sample = plugin_of(name), task_of(name), labelled()
    truth, first = task.truth(sample), plugin.ranking()
    known = tmp_path / "known.npz"
    baselines.fit(known, [baselines.observe(task, sample)])
    best = plugin().update(perfect(name, np.asarray(truth["gt"])), **truth, name="s")[first.key]
    assert baselines.titles(name)
    for title in baselines.titles(name):
        answer = baselines.predict(task, title, known, sample)
        assert answer.kind == task.kind and answer.kind in plugin.kinds
        value = plugin().update(answer, **truth, name="s")[first.key]
        assert value == best or (best > value) == first.higher, title


@pytest.mark.parametrize("name", METRICS.names())
def test_the_direction_of_a_figure_is_known_where_it_is_declared(name: str) -> None:
    plugin = plugin_of(name)
    assert plugin.column("no such figure") == Column(
        "no such figure", "no such figure", "no such figure", 4, None, "no such figure"
    )
    assert plugin.column(plugin.columns[0].key) is plugin.columns[0]


# ---- a stranger's ----------------------------------------------------------------------------------------------------


class Errors(PerPixel):
    keys = ("rmse", "psnr")

    def measure(self, pred: np.ndarray, gt: np.ndarray) -> dict[str, float]:
        mse = float(np.mean(np.square(pred - gt, dtype=np.float64)))
        return {"rmse": mse**0.5, "psnr": float(-10 * np.log10(max(mse, 1e-10)))}


class Albedo(MetricPlugin[Errors]):
    name = "albedo"
    metric = Errors
    columns = (down("rmse", "RMSE"), up("psnr", "PSNR", digits=1))
    note = "In units of white."
    baselines = (
        Baseline("grey", lambda task, known, sample: np.full((*SIZE, 3), 0.5, np.float32)),
        Baseline(
            "mean colour",
            lambda task, known, sample: np.broadcast_to(known["sum"] / known["count"], (*SIZE, 3)).astype(np.float32),
            fitted=True,
        ),
    )

    def observe(self, task: Task, sample: Sample) -> Mapping[str, np.ndarray]:
        return {"sum": task.truth(sample)["gt"].mean((0, 1)), "count": np.array(1)}


class Bare(MetricPlugin[Errors]):
    """Declares nothing."""

    name = "bare"
    metric = Errors


TINT = np.array((1.0, 0.7, 0.4), np.float32)


@dataclass(frozen=True)
class AlbedoTask(TaskOptions):
    """Colours made of the label alpha."""

    metric: str = "albedo"

    name = "albedo"
    kind = "intrinsics"  # three channels in [0, 1]
    spaces = ("image",)
    labels = ("alpha",)
    head = "vae"
    losses: ClassVar[Mapping[str, Mapping[str, float]]] = {"image": {"mse": 1.0}}

    def encode(self, sample: Sample, space: str = "image") -> Target:
        map_CHW = sample.label("alpha").float()[None] * torch.from_numpy(TINT)[:, None, None]
        return Target(map_CHW[None] * 2 - 1, torch.ones(1, 1, *map_CHW.shape[-2:], dtype=torch.bool))

    def decode(self, raw: torch.Tensor, geometry: Geometry) -> Prediction:
        values = geometry.invert((raw.float().clamp(-1, 1) + 1) / 2)[0].permute(1, 2, 0)
        return Prediction(values.cpu().numpy(), self.kind)

    def truth(self, sample: Sample) -> dict[str, Any]:
        return {"gt": sample.label("alpha").numpy()[..., None] * TINT}


@pytest.fixture
def package(install: Install) -> None:
    """An installed package with a task and metrics of its own."""
    metrics = {"albedo": Albedo(), "bare": Bare(), "old": lambda **options: Errors()}
    install({"genpercept.tasks": {"albedo": AlbedoTask()}, "genpercept.metrics": metrics})


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Images and alpha as `folder` reads them: brighter from one to the next."""
    root = tmp_path / "data"
    for part in ("images", "alpha"):
        (root / part).mkdir(parents=True)
    for i in range(4):
        alpha = np.clip(np.linspace(0, 0.3 + 0.2 * i, SIZE[1])[None] + RNG.random(SIZE) * 0.1, 0, 1)
        grey = np.repeat(np.rint(255 * alpha).astype(np.uint8)[..., None], 3, -1)
        Image.fromarray(grey).save(root / "images" / f"s{i}.png")
        np.save(root / "alpha" / f"s{i}.npy", alpha.astype(np.float32))
    return root


def evaluated(data: Path, out: Path, monkeypatch: pytest.MonkeyPatch, task: Task) -> dict[str, Any]:
    """results.json of an untrained model of that task on the folder, with baselines."""
    pipe = GenPerceptPipeline.from_base(SD_TINY, task.name, resolution=0)
    monkeypatch.setattr(type(pipe), "task_plugin", property(lambda self: task))
    monkeypatch.setattr(predictions.loading, "load", lambda name, **options: pipe)
    evaluate.main(["a model"], [f"folder={data}"], out, baselines=True, workers=0, device="cpu")
    return json.loads((out / "results.json").read_text())


def test_evaluate(package: None, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Baselines, best and worst by the declared direction, table and report."""
    found = evaluated(data, tmp_path / "out", monkeypatch, AlbedoTask())
    models = {one["model"]: one for one in found["results"]}
    assert list(models) == ["baseline: grey", "baseline: mean colour", "a model"]
    figures = {name: one["figures"] for name, one in models.items()}
    assert figures["baseline: mean colour"]["rmse"] < figures["baseline: grey"]["rmse"]
    assert figures["baseline: mean colour"]["psnr"] > figures["baseline: grey"]["psnr"]
    ranks = {e["rank"]: e["name"] for e in models["a model"]["examples"]}
    errors = {s["name"]: s["figures"]["rmse"] for s in models["a model"]["samples"]}
    assert errors[ranks["best"]] == min(errors.values()) < max(errors.values()) == errors[ranks["worst"]]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<th>RMSE ↓</th><th>PSNR ↑</th>" in page and "In units of white." in page and "Ranked by RMSE." in page
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", page)
    assert len(captions) == 3 * 4 and sum("absolute error, bright" in c for c in captions) == 3
    assert r"PSNR $\uparrow$" in (tmp_path / "out" / "results.tex").read_text()


def test_nothing_is_ranked_in_an_undeclared_direction(
    package: None, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = {"a": {"rmse": 0.1}, "b": {"rmse": 0.2}}
    calls: list[Any] = []
    monkeypatch.setattr(predictions.Predictor, "predict", lambda *given: calls.append(given))
    for attempt in (
        lambda: columns.ranked("bare", rows),
        lambda: evaluated(data, tmp_path / "out", monkeypatch, AlbedoTask(metric="bare")),
    ):
        with pytest.raises(ValueError, match="metric 'bare' does not declare its figures") as error:
            attempt()
        assert "\n" not in str(error.value)
    assert not calls, "the network ran before it was refused"
    assert [(c.title, c.arrow, c.shown(0.5)) for c in columns.columns("bare", rows["a"])] == [("rmse", "", "0.5000")]
    monkeypatch.setattr(Bare, "columns", (Column("rmse", "RMSE", "RMSE", 3, None),))
    with pytest.raises(ValueError, match="does not declare which way 'rmse' is better"):
        columns.ranked("bare", rows)


def test_a_plugin_that_declares_nothing_at_all_is_refused(package: None) -> None:
    with pytest.raises(
        ValueError, match="metric 'old': its plugin is a function; make it an instance of a subclass of"
    ):
        METRICS.find("old")


def test_score_on_files(package: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What `predict` writes finds its partner and is read: npz exactly, 16-bit colours by their upper bytes."""
    truths = [RNG.random((*SIZE, 3), np.float32) for _ in range(2)]
    preds = [np.clip(t + RNG.normal(0, 0.1, t.shape), 0, 1).astype(np.float32) for t in truths]
    wanted = score_arrays("albedo", preds, truths)
    assert wanted["rmse"] == pytest.approx(0.1, abs=0.02)
    for suffix, tolerance in ((".npz", 1e-12), (".png", 5e-3)):
        pred, gt = tmp_path / f"pred{suffix}", tmp_path / f"gt{suffix}"
        pred.mkdir(), gt.mkdir()
        for i in range(2):
            Prediction(preds[i], "intrinsics").save(pred / f"a{i}_albedo.png", [suffix[1:], "color"])
            np.save(gt / f"a{i}.npy", truths[i])
        assert score.main("albedo", pred, gt, per_image=True) == 0
        got = json.loads(capsys.readouterr().out)
        assert {key: got[key] for key in wanted} == pytest.approx(wanted, rel=tolerance)
        assert list(got["per_image"]) == ["a0", "a1"] and got["empty"] == []
    (tmp_path / "valid").mkdir()
    for i in range(2):
        Image.fromarray(np.zeros(SIZE, np.uint8)).save(tmp_path / "valid" / f"a{i}.png")
    score.main("albedo", pred, gt, tmp_path / "valid")
    got = json.loads(capsys.readouterr().out)
    assert got["rmse"] is None and got["empty"] == ["a0", "a1"]
    for options, message in (
        ({"trimap": pred}, "albedo takes no --trimap"),
        ({"gt_scale": 2.0}, "albedo has no --pred-scale and --gt-scale: they are of depth and disparity"),
        ({"protocol": "any"}, "unknown protocol 'any'"),
        ({"gamma": 2}, "unknown option 'gamma'"),
    ):
        with pytest.raises(ValueError, match=message):
            score.main("albedo", pred, gt, **options)


def test_whole_numbers_are_fractions_of_what_their_bits_hold(tmp_path: Path) -> None:
    eight = RNG.integers(0, 256, (*SIZE, 3)).astype(np.uint8)
    Image.fromarray(eight).save(tmp_path / "a.png")
    np.testing.assert_array_equal(Albedo().read_gt(tmp_path / "a.png"), eight / 255)
    sixteen = RNG.integers(0, 65536, SIZE).astype(np.uint16)
    Image.fromarray(sixteen).save(tmp_path / "b.png")
    np.testing.assert_array_equal(Albedo().read_gt(tmp_path / "b.png"), sixteen / 65535)
    scores = RNG.normal(5, 3, SIZE).astype(np.float32)
    Prediction(scores, "anomaly").save(tmp_path / "c.png", ["png"])  # whose text says how to get the values back
    np.testing.assert_allclose(Albedo().read_gt(tmp_path / "c.png"), scores, atol=1e-3)
    np.save(tmp_path / "d.npy", sixteen.astype(np.int64))
    with pytest.raises(ValueError, match=r"d.npy: holds int64 values"):
        Albedo().read_gt(tmp_path / "d.npy")


def test_validation_in_training_reports_its_figures(package: None, data: Path) -> None:
    settings = {
        "stage": "finetune",
        "task": "albedo",
        "model": {"base": str(SD_TINY)},
        "data": [{"name": "folder", "root": str(data), "split": "all", "size": SIZE}],
        "validation": {"split": "all", "count": 2},
        "loader": {"batch_size": 2},
    }
    figures, picture = FinetuneStage(recipes.parse(settings), lambda line: None).validate(2)
    assert list(figures) == ["loss", "rmse", "psnr"] and picture is not None
    assert figures["psnr"] == pytest.approx(-20 * math.log10(figures["rmse"]), abs=3)
    bare = FinetuneStage(recipes.parse(settings | {"task_options": {"metric": "bare"}}), lambda line: None)
    assert bare.validate(2)[0] == figures  # all, where none are declared


def test_a_study_measures_and_titles_them(package: None, data: Path, tmp_path: Path) -> None:
    """Figures image by image as the metric gives them; by default a study asks for the first two of the table."""
    pipe = GenPerceptPipeline.from_base(SD_TINY, "albedo", resolution=0)
    pipe.save_pretrained(tmp_path / "model")
    held = HeldOut(name="folder", root=data, split="all", title="mine")
    found = measure(tmp_path / "model", [held], [Inference()], ["psnr", "rmse"])["its own steps"]["mine"]
    task = AlbedoTask()
    samples = [DATASETS.find("folder").load(entry) for entry in DATASETS.find("folder").index(data, "all")]
    rows = [Errors().update(pipe(s.image), **task.truth(s)) for s in samples]
    assert found["rmse"] == pytest.approx([row["rmse"] for row in rows], rel=1e-4)
    assert found["psnr"] == pytest.approx([row["psnr"] for row in rows], rel=1e-4)
    with pytest.raises(ValueError, match="metrics: albedo has no delta1; it has rmse, psnr"):
        measure(tmp_path / "model", [held], [Inference()], ["delta1"])
    recipe = f'task = "albedo"\nstage = "finetune"\nsteps = 1\n[model]\nbase = "{SD_TINY}"\n'
    recipe += '[[data]]\nname = "folder"\nroot = "x"\n'
    (tmp_path / "recipe.toml").write_text(recipe)
    (tmp_path / "mine.toml").write_text('name = "mine"\nbase = "recipe.toml"\n[[arm]]\nname = "one"\n')
    assert study.load(tmp_path / "mine.toml").metrics == ("rmse", "psnr")
    mean = {"value": 0.25, "error": 0.0123456, "seeds": {0: 0.25}, "seed_error": None, "images": 4}
    row = {"labels": None, "arm": "one", "inference": "", "ways": 1}
    row["figures"] = {"mine": {key: {"mean": mean} for key in ("rmse", "psnr")}}
    about = {"name": "mine", "about": "", "metrics": ["rmse", "psnr"], "test": []}
    result = {"metric": "albedo", "study": about, "rows": [row], "runs": [], "failed": {}, "missing": []}
    page = study.page.markdown(result)
    assert "**rmse ↓**" in page and "**psnr ↑**" in page and "| one | 0.250 ± 0.012 |" in page


def test_pictures_by_the_kind_of_prediction() -> None:
    """The default: truth in the prediction's colours, and the difference; the prediction alone where the truth is no such."""
    image, errors = np.zeros((*SIZE, 3), np.uint8), Errors()
    soft = RNG.random(SIZE, np.float32)
    ids = RNG.integers(0, 4, SIZE)
    legend = {"colours": [[0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255]]}
    for prediction, truth, words in (
        (Prediction(soft, "mask"), soft > 0.5, "absolute error"),
        (Prediction(np.stack([soft] * 3, -1), "intrinsics"), np.stack([soft / 2] * 3, -1), "absolute error"),
        (Prediction(ids, "class_ids", meta=legend), np.where(soft > 0.5, ids, 0), "bright: wrong"),
    ):
        panels = Albedo().panels(prediction, {"gt": truth, "valid": soft > 0.2}, image, errors, "s")
        assert [w for _, w in panels[:2]] == ["prediction", "truth, the same colours"] and words in panels[2][1]
        assert all(picture.size == SIZE[::-1] for picture, _ in panels)
        assert np.asarray(panels[1][0])[soft <= 0.2].tolist() == [[128, 128, 128]] * int((soft <= 0.2).sum())
    metres = {"gt": 5 + soft}
    assert len(Albedo().panels(Prediction(soft, "depth_affine"), metres, image, errors, "s")) == 1
    joints = np.ones((1, 17, 3), np.float32)
    assert len(Albedo().panels(Prediction(joints, "keypoints"), {"gt": joints}, image, errors, "s")) == 2


def test_panels_of_the_page_begin_with_the_image(package: None) -> None:
    sample = labelled()
    task = AlbedoTask()
    shown = pictures.panels(task, sample, Prediction(task.truth(sample)["gt"], task.kind), Errors())
    assert shown[0][1] == "image, 32 x 24" and len(shown) == 4
    assert np.asarray(shown[3][0]).max() < 16, "the truth itself has no error"
