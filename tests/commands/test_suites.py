"""`genpercept evaluate --suite` on miniatures of every set in its published layout, and predictions in files beside it."""

from __future__ import annotations

import csv
import html
import json
import math
import re
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genpercept.commands.evaluate import predictions, sets, stored, suites
from genpercept.commands.files.inputs import name_results
from genpercept.core import classes
from genpercept.pipeline.loading import load
from genpercept.pipeline.pipeline import GenPerceptPipeline
from tests.support import depth_trees, suite_trees
from tests.support.commands import invoke
from tests.support.other_trees import taskonomy
from tests.support.paths import SD_TINY

# Results of a suite's own set, which the title of a table tells.
TITLES = {name: [part.title for part in suites.load(name).set] for name in suites.names()}


@pytest.fixture(scope="module")
def loaded() -> Any:
    """Models, each loaded once."""
    return cache(lambda name, options: load(name, device="cpu", **dict(options)))


@pytest.fixture(autouse=True)
def loaded_once(monkeypatch: pytest.MonkeyPatch, loaded: Any) -> None:
    def once(name: str, **options: Any) -> Any:
        kept = {k: v for k, v in options.items() if k not in ("device", "torch_dtype", "allow_pickle")}
        return loaded(name, tuple(kept.items()))

    monkeypatch.setattr(predictions.loading, "load", once)


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model of Hypersim's classes, as none is embedded: random weights."""
    folder = tmp_path_factory.mktemp("rooms") / "model"
    GenPerceptPipeline.from_base(SD_TINY, "segmentation").save_pretrained(folder)
    return str(folder)


def evaluated(out: Path, *words: str | Path) -> list[dict[str, Any]]:
    """The results of one `genpercept evaluate`."""
    fixed = ("--workers", "0", "--device", "cpu", "--processing-resolution", "32", "--out", out)
    done = invoke("evaluate", *words, *fixed)
    assert done.exception is None and done.return_value == 0, done.exception or done.output
    return json.loads((out / "results.json").read_text())["results"]


# ---- every suite -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", suites.names())
def test_every_suite_to_its_tables(name: str, tmp_path: Path, rooms: str) -> None:
    suite_trees.TREES[name](tmp_path / "root")
    models = ["--model", rooms] if name == "segmentation" else []
    results = evaluated(tmp_path / "out", "--suite", name, "--root", tmp_path / "root", "--count", "4", *models)
    assert [r["set"] for r in results] == TITLES[name]
    for result in results:
        assert result["count"] >= 1 and not result["skipped"], result["set"]
        assert any(value is not None for value in result["figures"].values()), result["set"]
    page, shown = (tmp_path / "out/report.html").read_text(), (tmp_path / "out/results.md").read_text()
    for row in suites.load(name).paper:
        said = f"{row.method} [{row.source}]"
        assert html.escape(said) in page and said in shown
    processed = {r["post_processing"] for r in results}
    if name in ("dis5k", "matting"):
        assert (
            processed
            == {
                "dis5k": {"min-max, then 1 from 0.5 on and 0 below"},
                "matting": {"min-max, then 1 above 0.95 and 0 below 0.1"},
            }[name]
        )
        assert "Post-processing: min-max, then 1" in page and "post-processing" in shown
        assert "post-processing" in (tmp_path / "out/results.tex").read_text()
    else:
        assert processed == {""} and "ost-processing" not in page + shown


def test_every_suite_has_a_miniature() -> None:
    assert sorted(suite_trees.TREES) == suites.names()


def test_suites_that_no_embedded_model_can_answer_say_so(tmp_path: Path) -> None:
    """Before any folder is looked for, in one line: the sets, why, and what to pass."""
    done = invoke("evaluate", "--suite", "segmentation", "--out", tmp_path / "out")
    line = str(done.exception)
    assert isinstance(done.exception, ValueError) and "\n" not in line
    assert "no embedded model can answer Hypersim (labels the classes of nyu40), ADE20K" in line and "--model" in line
    assert not (tmp_path / "out").exists()
    for name in suites.names():
        if name != "segmentation":
            done = invoke("evaluate", "--suite", name, "--out", tmp_path / "out")
            assert "needs its folder" in str(done.exception), name


# ---- by class, category and part -------------------------------------------------------------------------------------


def broken_down(out: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((out / "breakdowns.csv").read_text().splitlines()))


def table(page: str, title: str) -> list[list[str]]:
    """The cells of the table under a heading of the page."""
    section = page.split(f"<h2>{html.escape(title)}</h2>")[1].split("</section>")[0]
    rows = re.findall(r"<tr>(.*?)</tr>", section)
    return [[html.unescape(c) for c in re.findall(r"<t[hd]>(.*?)</t[hd]>", row)] for row in rows]


def test_classes_by_name(tmp_path: Path, rooms: str) -> None:
    """IoU of each class, counted by hand from the predictions that are kept."""
    suite_trees.segmentation(tmp_path)
    out = tmp_path / "out"
    (result,) = evaluated(out, "--suite", "segmentation", "--dataset", "hypersim", "--root", tmp_path, "--model", rooms)
    (one,) = result["breakdowns"]
    assert one["what"] == "class" and list(one["rows"]) == list(classes.find("nyu40").names)
    known_rows = {n: row for n, row in one["rows"].items() if row["iou"] is not None}
    (file,) = (out / "predictions").glob("*/*.npz")
    predicted, true = np.load(file)["values"], np.full((6, 8), 1)  # id 2 of Hypersim is floor, ours 1
    true[0, 0], true[0, 1] = -1, 39
    known = true >= 0
    names = classes.find("nyu40").names
    for i in {int(v) for v in (*predicted[known], 1, 39)}:
        hit, either = (predicted == i) & (true == i), ((predicted == i) | (true == i)) & known
        assert one["rows"][names[i]]["iou"] == pytest.approx(hit.sum() / either.sum()), names[i]
    assert result["figures"]["miou"] == pytest.approx(np.mean([row["iou"] for row in known_rows.values()]))
    rows = table((out / "report.html").read_text(), "Hypersim, by class")
    assert rows[0] == ["class", "IoU ↑", "recall ↑"]
    assert [(row[0], row[1]) for row in rows[1:]] == [(n, f"{r['iou']:.3f}") for n, r in known_rows.items()]
    lines = {row["name"]: float(row["iou"]) for row in broken_down(out)}
    assert lines == {n: r["iou"] for n, r in known_rows.items()}
    assert "| floor |" in (out / "results.md").read_text()


def test_dis5k_by_set_is_each_set_alone(tmp_path: Path) -> None:
    suite_trees.dis5k(tmp_path)
    results = {r["set"]: r for r in evaluated(tmp_path / "out", "--suite", "dis5k", "--root", tmp_path)}
    (one,) = results["DIS-TE (1-4)"]["breakdowns"]
    assert one["what"] == "set" and list(one["rows"]) == [f"DIS-TE{i}" for i in range(1, 5)]
    for name, row in one["rows"].items():
        assert row == pytest.approx(results[name]["figures"]), name
    assert not results["DIS-VD"]["breakdowns"]


def test_scenes_of_diode_by_kind(tmp_path: Path) -> None:
    suite_trees.depth(tmp_path)
    (result,) = evaluated(tmp_path / "out", "--suite", "depth-zero-shot", "--dataset", "diode", "--root", tmp_path)
    (one,) = result["breakdowns"]
    assert one["what"] == "kind of scene" and set(one["rows"]) == {"indoors", "outdoor"}
    mean = np.mean([row["abs_rel"] for row in one["rows"].values()])
    assert result["figures"]["abs_rel"] == pytest.approx(mean)


# ---- a model per category --------------------------------------------------------------------------------------------


@pytest.fixture
def fitted(tmp_path: Path) -> Path:
    """A folder with a model per category, which differ: the embedded one as it is, and with other weights."""
    pipe: Any = load("mini/anomaly", device="cpu")
    named = {}
    for i, category in enumerate(suite_trees.CATEGORIES):
        pipe.vae.decoder.conv_out.weight.data += 0.02 * i
        pipe.save_pretrained(tmp_path / "fit" / category / "model")
        named[category] = f"{category}/model"
    (tmp_path / "fit/fit.json").write_text(json.dumps({"categories": named}))
    return tmp_path / "fit"


def test_a_model_per_category_and_their_mean(fitted: Path, tmp_path: Path) -> None:
    """The folder of a fit, and a path with {category}: each category's figures are those of its own model alone."""
    suite_trees.anomaly(tmp_path)
    suite = ("--suite", "anomaly", "--root", tmp_path)
    (whole,) = evaluated(tmp_path / "out", *suite, "--model", fitted, "--baselines")[-1:]
    (one,) = whole["breakdowns"]
    assert one["what"] == "category" and tuple(one["rows"]) == suite_trees.CATEGORIES and whole["count"] == 12
    for category, row in one["rows"].items():
        options = ("--model", fitted / category / "model", "--option", f"mvtec_ad.category={category}")
        (alone,) = evaluated(tmp_path / category, *suite, *options)
        assert alone["figures"] == row, category
    for key, value in whole["figures"].items():
        assert value == pytest.approx(np.mean([row[key] for row in one["rows"].values()])), key
    assert len({row["pixel_auroc"] for row in one["rows"].values()}) == 3
    (again,) = evaluated(tmp_path / "again", *suite, "--model", fitted / "{category}/model", "--no-keep-predictions")
    assert again["figures"] == whole["figures"] and len(again["examples"]) == 3
    assert table((tmp_path / "again/report.html").read_text(), "MVTec AD, by category")[1][0] == "bottle"


def test_categories_without_a_model_are_named(fitted: Path, tmp_path: Path) -> None:
    suite_trees.anomaly(tmp_path)
    file = fitted / "fit.json"
    file.write_text(json.dumps({"categories": {"bottle": "bottle/model"}}))
    where = ("--root", tmp_path, "--device", "cpu", "--out", tmp_path / "out")
    for words, line in (
        (("--suite", "anomaly", "--model", fitted), "no model for category 'carpet'"),
        (("--suite", "anomaly", "--model", tmp_path / "none/{category}"), "no folder fits it"),
    ):
        assert line in str(invoke("evaluate", *words, *where).exception)
    file.write_text("[]")
    assert "fit.json: expected" in str(invoke("evaluate", "--suite", "anomaly", "--model", fitted, *where).exception)


# ---- predictions in files --------------------------------------------------------------------------------------------

STEMS: dict[str, tuple[Callable[[Path], None], str, str, str]] = {  # what repeats: suite, its set, images, task
    "mvtec_ad": (suite_trees.anomaly, "anomaly", "*/test/*/*.png", "anomaly"),
    "dis5k": (suite_trees.dis5k, "dis5k", "DIS5K/DIS-TE*/im/*.jpg", "dis"),
    "diode": (suite_trees.depth, "depth-zero-shot", "val/*/*/*/*.png", "depth"),
}


@pytest.mark.parametrize("name", STEMS)
def test_predicted_files_score_as_the_model_does(name: str, tmp_path: Path) -> None:
    """`predict` on a data set's own folders, whose stems repeat; then the files, joined again by their paths."""
    build, suite, images, task = STEMS[name]
    build(tmp_path)
    where = ("--suite", suite, "--dataset", "te" if name == "dis5k" else name, "--root", tmp_path)
    (direct,) = evaluated(tmp_path / "direct", *where)
    files = ("--processing-resolution", "32", "--device", "cpu", "--format", "npy", "--out", tmp_path / "files")
    done = invoke("predict", tmp_path / name / images, "--model", f"mini/{task}", *files)
    assert done.return_value == 0, done.output
    (joined,) = evaluated(tmp_path / "joined", *where, "--predictions", tmp_path / "files")
    assert joined["count"] == direct["count"] > 1
    for key, value in direct["figures"].items():
        assert joined["figures"][key] == pytest.approx(value, rel=1e-6, abs=1e-6), key
    assert joined["post_processing"] == direct["post_processing"] and len(joined["examples"]) >= 2
    if name == "mvtec_ad":
        root = tmp_path / "mvtec_ad"
        done = invoke("score", "anomaly", "--pred", tmp_path / "files", "--gt", root, "--details")
        scored = json.loads(done.output)
        assert {k: scored[k] for k in direct["figures"]} == pytest.approx(direct["figures"], rel=1e-6, abs=1e-6)
        assert sorted(scored["details"]["categories"]) == list(suite_trees.CATEGORIES)


def test_files_that_do_not_say_whose_they_are(tmp_path: Path) -> None:
    suite_trees.anomaly(tmp_path)
    where = ("--suite", "anomaly", "--root", tmp_path, "--out", tmp_path / "out", "--workers", "0")
    flat, other = tmp_path / "flat", tmp_path / "other"
    for folder in (flat, other):
        folder.mkdir()
    np.save(flat / "000_anomaly.npy", np.zeros(suite_trees.SIZE, np.float32))
    error = str(invoke("evaluate", *where, "--predictions", flat).exception)
    assert "000_anomaly.npy: the prediction of 'bottle/test/cut/000' or of 'bottle/test/good/000'?" in error
    np.save(other / "x_anomaly.npy", np.zeros((2, 2), np.float32))
    assert "no prediction of data set 'mvtec_ad'" in str(invoke("evaluate", *where, "--predictions", other).exception)
    np.save(other / "x_depth.npy", np.zeros((2, 2), np.float32))
    assert "those of anomaly, depth: say --task" in str(invoke("evaluate", *where, "--predictions", other).exception)
    for category in suite_trees.CATEGORIES:
        (other / category / "test/cut").mkdir(parents=True)
        np.save(other / category / "test/cut/000_anomaly.npy", np.random.default_rng(0).random(suite_trees.SIZE))
    words = (*where, "--predictions", other, "--task", "anomaly")
    assert "sample 'bottle/test/cut/001': no prediction of it in" in str(invoke("evaluate", *words).exception)


def test_the_longest_path_counts() -> None:
    class Entry:
        name = "bottle/test/cut/000"
        image = Path("/data/mvtec/bottle/test/cut/000.png")

    names = list(stored.names(Entry()))
    assert names.index("bottle/test/cut/000") < names.index("cut/000") < names.index("000")
    assert names[:2] == ["data/mvtec/bottle/test/cut/000", "data/mvtec/bottle/test/cut/000_png"]


def test_nothing_is_a_number_where_nothing_is_known() -> None:
    """What JSON holds of a class that does not occur comes back as NaN."""
    from genpercept.metrics import METRICS
    from genpercept.tasks import TASKS

    details = {"iou_per_class": [0.5, None, *[math.nan] * 38], "acc_per_class": [None, 1.0, *[1.0] * 38]}
    found = METRICS.find("segmentation").breakdown(details, TASKS.find("segmentation"))
    assert found is not None and list(found.rows) == list(classes.find("nyu40").names)
    assert math.isnan(found.rows["wall"]["acc"]) and math.isnan(found.rows["floor"]["iou"])


REPEATED: dict[str, tuple[Callable[[Path], Any], str, str, str]] = {  # layout: tree, split, a folder of it, its twin
    "kitti": (depth_trees.kitti, "val", "2011_09_26/2011_09_26_drive_0002_sync", "2011_09_26_drive_0005_sync"),
    "vkitti2": (depth_trees.vkitti2, "all", "Scene01", "Scene06"),
    "scannet": (depth_trees.scannet, "all", "scans/scene0406_02", "scene0011_00"),
    "nyuv2": (depth_trees.nyuv2_pngs, "test", "test/kitchen_0004", "office_0001"),
    "hypersim": (depth_trees.hypersim_pngs, "val", "val/ai_003_010", "ai_010_003"),
    "diode": (depth_trees.diode, "val", "val/indoors/scene_00021", "scene_00022"),
    "eth3d": (depth_trees.eth3d, "all", "office", "terrace"),
    "taskonomy": (lambda root: [taskonomy(root, name, 3) for name in ("allensville", "beechwood")], "all", "", ""),
    "mvtec_ad": (lambda root: suite_trees.anomaly(root), "test", "", ""),
    "dis5k": (lambda root: suite_trees.dis5k(root), "test", "", ""),
}


@pytest.mark.parametrize("name", REPEATED)
def test_results_of_repeated_stems_are_joined_with_their_samples(name: str, tmp_path: Path) -> None:
    """Two scenes, drives or buildings with frames of the same names, as `predict` names them, in every data set."""
    build, split, folder, twin = REPEATED[name]
    build(tmp_path)
    root = tmp_path / name if (tmp_path / name).is_dir() else tmp_path
    if folder:
        for path in [p for p in root.rglob(Path(folder).name) if p.is_dir()]:  # images and labels may lie apart
            shutil.copytree(path, path.with_name(twin))
    data = sets.open_set(sets.SetSpec(name, name, root, split))
    images = [entry.image for entry in data.entries]
    assert len({image.stem for image in images}) < len(images)
    for image, result in zip(images, name_results(images), strict=True):
        file = tmp_path / "files" / f"{result}_depth.npy"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(str(image))
    _, found = stored.opened(tmp_path / "files", None)
    joined = [path.read_text() for path in stored.joined(found, tmp_path / "files", data) if path is not None]
    assert joined == [str(image) for image in images]
