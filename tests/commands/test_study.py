"""Studies: what a file may say, which runs it gives, the statistics, the report, and two tiny arms from end to end."""

from __future__ import annotations

import _thread
import json
import math
import os
import resource
import subprocess
import sys
import threading
import time
import tomllib
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import psutil
import pytest
from PIL import Image

from genpercept import GenPerceptPipeline
from genpercept.commands.study import chart, execute, job, page, paired, report
from genpercept.commands.study import plan as study
from genpercept.commands.study.measure import Inference, _predict
from genpercept.core import locks, said
from genpercept.training import recipe as recipes
from tests.support.paths import SD_TINY
from tests.support.planes import planes
from tests.support.studies import RECIPE

STUDY = """
name = "tiny"
about = "Two arms."
base = "recipe.toml"
seeds = [0, 1]
labels = [4, 2]
metrics = ["abs_rel", "delta1"]
[[test]]
name = "folder"
title = "planes"
root = "DATA"
split = "all"
[[arm]]
name = "one step"
[[arm]]
name = "Gaussian"
labels = [2]
set = { paradigm = "stochastic_multi_step", paradigm_options = { spacing = "trailing" } }
inference = [
    { steps = 2, ensemble_size = 2, ensembling = { solver = "least_squares" } },
    { name = "leading", steps = 1, options = { spacing = "leading" } },
]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A study's file beside its recipe and six images of slanted planes."""
    planes(tmp_path / "data", 6, (16, 16))
    (tmp_path / "recipe.toml").write_text(RECIPE.replace("DATA", str(tmp_path / "data")))
    (tmp_path / "tiny.toml").write_text(STUDY.replace("DATA", str(tmp_path / "data")))
    return tmp_path / "tiny.toml"


# ---- the format ------------------------------------------------------------------------------------------------------


def test_runs_are_arms_by_labels_and_seeds(file: Path) -> None:
    jobs = study.plan(study.load(file), ["steps=7"])
    assert [j.folder for j in jobs] == [
        *(f"one-step_4-labels_seed-{seed}" for seed in (0, 1)),
        *(f"one-step_2-labels_seed-{seed}" for seed in (0, 1)),
        *(f"gaussian_2-labels_seed-{seed}" for seed in (0, 1)),
    ]
    last = jobs[-1]
    assert (last.recipe.seed, last.recipe.data[0].count, last.recipe.steps) == (1, 2, 7)
    assert last.recipe == recipes.load(last.base, last.overrides)  # so that `genpercept train` does the same
    assert last.images() == 7 * 2


def test_selection_by_name_or_folder_name(file: Path) -> None:
    plan = study.load(file)
    jobs = study.plan(plan)
    assert {j.arm for j in study.select(plan, jobs, "gaussian", "")} == {"Gaussian"}
    assert [(j.labels, j.seed) for j in study.select(plan, jobs, "one step,Gaussian", "1")] == [(4, 1), (2, 1), (2, 1)]
    for arms, seeds, says in (("lora", "", "there are one-step, gaussian"), ("", "3", "only 0, 1")):
        with pytest.raises(ValueError, match=says):
            study.select(plan, jobs, arms, seeds)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('name = "Gaussian"', 'name = "One-Step"', "two arms have the folder name one-step"),
        ("labels = [2]\n", "labels = [3]\n", "Gaussian: none of its labels"),
        ("labels = [4, 2]", "labels = [0]", "labels: must be at least 1"),
        ("metrics =", 'reference = "LoRA"\nmetrics =', "reference: 'LoRA' is no arm"),
        (
            'name = "leading", steps = 1',
            "steps = 2, ensemble_size = 2",
            "two inferences are called 2 steps, ensemble of 2",
        ),
        ('{ spacing = "leading" }', '{ spacin = "leading" }', "did you mean 'spacing'"),
        ('name = "one step"', 'name = "one step"\ninference = [{ ensemble_size = 3 }]', "one_step draws no noise"),
        ('name = "one step"', 'name = "one step"\ninference = [{ steps = 3 }]', "takes exactly 1 step"),
        ('title = "planes"', 'titel = "planes"', "did you mean 'title'"),
    ],
)
def test_wrong_studies(file: Path, old: str, new: str, says: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    with pytest.raises(ValueError) as error:
        study.plan(study.load(file))
    assert says in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("value", [{"a.b": [0.5, 1e-5], "c": {}}, 'it\'s "so"', True, [["x"], 3]])
def test_toml_values_are_read_back(value: Any) -> None:
    assert tomllib.loads(f"v = {study.toml(value)}")["v"] == value


def test_names_are_found_by_scale() -> None:
    assert study.load(study.find("paradigms", "mini")).labels and not study.load(study.find("paradigms", "full")).labels
    with pytest.raises(ValueError, match=r"no study 'paradigm' of scale mini: did you mean 'paradigms'"):
        study.find("paradigm", "mini")


def test_the_mini_study_takes_three_hours_at_most() -> None:
    plan = study.load(study.find("paradigms", "mini"))
    rates = plan.rates.images, plan.rates.passes
    assert 3600 < execute.wall_seconds(study.plan(plan), *rates, at_once=2) <= 3 * 3600


def test_dry_run(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """16 images a run at 2 images/s; measuring 6 images: 2 calls each, or 2 x 3 + 2 of the Gaussian arm, at 4 calls/s."""
    rates = ["study.rates={images = 2, passes = 4}", "steps=8", "study.test.0.count=6"]
    assert study.main(str(file), tmp_path / "out", overrides=rates, arms="gaussian", at_once=2, dry_run=True) == 0
    said = capsys.readouterr().out
    assert "Gaussian, 2 labels: 2 x 8 steps, 0:00:20 each" in said and "about 0:00:20 with 2 at once" in said
    assert not (tmp_path / "out").exists()


# ---- statistics ------------------------------------------------------------------------------------------------------

NAMES = ["a", "b", "c"]


def test_mean_by_hand() -> None:
    """Images (1, 2, 6) and (3, 4, 8): seed averages 2, 3, 7, mean 4, variance 7, standard error sqrt(7 / 3)."""
    found = paired.mean({0: (NAMES, [1, 2, 6]), 1: (NAMES, [3, 4, 8])})
    assert found is not None and found.images == 3
    assert (found.value, found.seeds, found.seed_error) == (4, {0: 3, 1: 5}, 1)
    assert found.error == pytest.approx(math.sqrt(7 / 3))


def test_difference_is_paired_by_image_and_seed() -> None:
    """Differences 0.5, 0.5, 0.5 and 1.5, 0.5, -0.5: averages 1, 0.5, 0, standard error 0.5 / sqrt(3); seeds 0.5 and 0.5."""
    ours = {0: (NAMES, [1.5, 10.5, 100.5]), 1: (NAMES, [2.5, 10.5, 99.5]), 7: (NAMES, [0, 0, 0])}
    reference = {0: (NAMES, [1, 10, 100]), 1: (NAMES, [1, 10, 100])}
    found = paired.difference(ours, reference)
    assert found is not None and found.value == pytest.approx(0.5) and found.error == pytest.approx(0.5 / math.sqrt(3))
    assert found.seeds == pytest.approx({0: 0.5, 1: 0.5}) and found.seed_error == pytest.approx(0)


def test_images_without_a_figure_do_not_count() -> None:
    nan = float("nan")
    found = paired.mean({0: (NAMES, [1, nan, 3])})
    assert found is not None and (found.value, found.images, found.error, found.seed_error) == (2, 2, 1, None)
    assert paired.mean({0: (NAMES, [nan] * 3)}) is None
    assert paired.difference({0: (NAMES, [1, 2, 3])}, {1: (NAMES, [1, 2, 3])}) is None
    with pytest.raises(ValueError, match="same images"):
        paired.difference({0: (NAMES, [1, 2, 3])}, {0: (["a", "c", "b"], [1, 2, 3])})


def test_curve_after_a_stop(tmp_path: Path) -> None:
    rows = [{"step": 2, "loss": 1.0}, {"step": 4, "loss": 0.9}, {"step": 4, "loss": 0.8}]
    (tmp_path / "log.jsonl").write_text('{"step": 6, "lo\n' + "".join(json.dumps(row) + "\n" for row in rows))
    assert job.curve(tmp_path / "log.jsonl") == [rows[0], rows[2]]


# ---- the report ------------------------------------------------------------------------------------------------------


def scores(values: dict[str, list[float]], curve: float = 0.5, date: str = "2026-11-21") -> str:
    figures = {way: {"planes": {"name": NAMES, "abs_rel": v, "delta1": v}} for way, v in values.items()}
    train = {"step": 2, "seconds": 60.0, "skipped": 1}
    rows = [{"step": step, "loss": 1.0, "abs_rel": curve / step} for step in (1, 2)]
    made = {"date": date, "machine": "2 cores of X"}
    return json.dumps({"train": train, "measure_seconds": 30.0, "curve": rows, "figures": figures, **made})


def test_every_image_has_its_own_noise() -> None:
    """The same picture twice: other answers from noise, the same ones without, and all of them again for the same seed."""
    image, way = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8), Inference(steps=1)
    answers: dict[str, list[Any]] = {}
    for paradigm in ("stochastic_multi_step", "one_step"):
        pipe = GenPerceptPipeline.from_base(SD_TINY, "depth", paradigm=paradigm, resolution=0)
        once, again, other = (_predict(pipe, [image, image], range(2), way, seed, 2) for seed in (0, 0, 1))
        answers[paradigm] = [once[0].raw, once[1].raw, other[0].raw]
        for a, b in zip(once, again, strict=True):
            np.testing.assert_array_equal(a.raw, b.raw)
    first, second, other_seed = answers["stochastic_multi_step"]
    assert np.abs(first - second).max() > 1e-3 and np.abs(first - other_seed).max() > 1e-3
    first, second, _ = answers["one_step"]
    np.testing.assert_allclose(first, second, atol=1e-5)


def test_report(file: Path, tmp_path: Path) -> None:
    plan = study.load(file, ["study.labels=[2]"])
    jobs = study.plan(plan)
    one, gaussian = [j for j in jobs if j.arm == "one step"], [j for j in jobs if j.arm == "Gaussian"]
    ways = [way.title for way in gaussian[0].inference]
    assert ways == ["2 steps, ensemble of 2", "leading"]
    written = {
        one[0].folder: scores({"its own steps": [0.1, 0.2, 0.3]}),
        one[1].folder: scores({"its own steps": [0.3, 0.4, 0.5]}),
        gaussian[0].folder: scores({ways[0]: [0.2, 0.2, 0.5], ways[1]: [0.5, 0.6, 0.7]}, 0.8, "2026-11-22"),
    }
    for folder, text in written.items():
        (tmp_path / "out" / folder).mkdir(parents=True)
        (tmp_path / "out" / folder / job.SCORES).write_text(text)
    result = report.collect(tmp_path / "out", jobs, report.settings(plan), {gaussian[1].folder: "error: no memory"})
    written_page, data, picture = page.write(tmp_path / "out", result | {"metric": "depth"})
    text = written_page.read_text()
    assert "Made by `genpercept study` (2026-11-21 to 2026-11-22; 2 cores of X): 3 runs" in text
    assert "| one step | 0.300 ± 0.058 |" in text
    assert "| Gaussian: 2 steps, ensemble of 2 | +0.100 ± 0.058 |" in text  # 0.1, 0, 0.2 over seed 0 alone
    assert "| Gaussian: leading | +0.400 ± 0.000 |" in text
    assert "Failed: gaussian_2-labels_seed-1 (error: no memory)." in text and "Not run" not in text
    assert "| one step | 2 | 2 | 4 | 2.0 | 2 |" in text and f"]({picture.name})" in text
    stored = json.loads(data.read_text())
    assert stored["curves"][1]["points"] == [
        {"step": 1, "loss": 1.0, "abs_rel": 0.8},
        {"step": 2, "loss": 1.0, "abs_rel": 0.4},
    ]
    with Image.open(picture) as drawn:
        colours = {c for _, c in drawn.convert("RGB").getcolors(1 << 20) or []}
    assert {(0, 114, 178), (213, 94, 0)} <= colours  # both lines are there


def test_the_same_points_give_the_same_bytes(tmp_path: Path) -> None:
    panels = [
        chart.Panel("200 labels", {f"arm {i}": [(100, 0.2 + i), (4000, 0.1 + i)] for i in range(9)}),
        chart.Panel(""),
    ]
    drawn = []
    for name, setting in (("a", {}), ("b", {"lines.linewidth": 9.0, "figure.dpi": 30})):  # as a matplotlibrc might
        with matplotlib.rc_context(setting):
            chart.draw(tmp_path / f"{name}.png", panels, "optimiser steps", "AbsRel")
        drawn.append((tmp_path / f"{name}.png").read_bytes())
    assert drawn[0] == drawn[1] and b"Software" not in drawn[0]
    panels[0].lines["arm 3"].append((5000, 3.0))
    chart.draw(tmp_path / "c.png", panels, "optimiser steps", "AbsRel")
    assert (tmp_path / "c.png").read_bytes() != drawn[0]
    looks = [chart._look(place, True) for place in range(21)]
    assert all(looks.count(look) == 1 for look in looks)  # the colours come again, with other dashes and marks
    with pytest.raises(ValueError, match="nothing to draw"):
        chart.draw(tmp_path / "d.png", [chart.Panel("")], "x")


def test_without_matplotlib_the_table_is_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    curves = [{"labels": None, "arm": "one", "points": [{"step": 1, "abs_rel": 0.5}, {"step": 2, "abs_rel": 0.4}]}]
    study = {"name": "s", "about": "", "metrics": ["abs_rel"], "reference": "one", "test": []}
    result = {"metric": "depth", "study": study, "rows": [], "runs": [], "curves": curves, "failed": {}, "missing": []}
    text, data = page.write(tmp_path, result)
    assert text.is_file() and json.loads(data.read_text())["curves"] == curves and "![" not in text.read_text()
    assert capsys.readouterr().err == "no chart: matplotlib is not installed: pip install 'genpercept[plot]'\n"


# ---- running ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_arms_from_end_to_end(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run that fails is reported and the other counts; --resume does what is missing and leaves the rest as it is."""
    out = tmp_path / "out"
    few = ["study.seeds=[0]", "study.labels=[2]", "study.keep_models=false"]
    broken = file.parent / "data" / "depth" / "1.npy"
    good = broken.read_bytes()
    broken.write_bytes(b"no depth")
    assert study.main(str(file), out, overrides=few, arms="one-step") == 2
    assert "1.npy" in (out / "tiny.md").read_text()
    broken.write_bytes(good)
    with pytest.raises(ValueError, match="--resume"):
        study.main(str(file), out, overrides=few)
    with pytest.raises(ValueError, match="other settings"):
        study.main(str(file), out, resume=True, overrides=[*few, "optim.lr=1"])
    capsys.readouterr()
    assert study.main(str(file), out, resume=True, overrides=[*few, "speed.threads=1"], at_once=2) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[0].startswith("AbsRel") and table[1].split()[:2] == ["arm", "planes"] and str(out / "tiny.md") in table
    result = json.loads((out / "tiny.json").read_text())
    rows = {(row["arm"], row["inference"]): row["figures"]["planes"]["abs_rel"] for row in result["rows"]}
    told = said.told.result  # what --json prints
    assert told["exit_code"] == 0 and json.loads(json.dumps(told["rows"])) == result["rows"]
    assert len(rows) == 3 and result["missing"] == [] and result["failed"] == {}
    assert all(cell["mean"]["images"] == 6 and cell["mean"]["value"] > 0 for cell in rows.values())
    assert sum("difference" in cell for cell in rows.values()) == 2
    assert [p["step"] for p in result["curves"][0]["points"]] == [1, 2]
    folder = out / "gaussian_2-labels_seed-0"
    assert not any((folder / name).exists() for name in ("model", "best", "checkpoints"))
    before = (folder / job.SCORES).stat().st_mtime_ns
    assert study.main(str(file), out, resume=True, overrides=few) == 0
    assert (folder / job.SCORES).stat().st_mtime_ns == before


def test_an_interrupted_study_stops_its_runs(file: Path, tmp_path: Path) -> None:
    """Ctrl-C on the study ends its runs after their current step, with a checkpoint from which --resume goes on."""
    endless = ["steps=100000", "validation.every=0", "logging.seconds=0.01"]
    jobs = study.plan(study.load(file, ["study.seeds=[0]"]), endless)[:1]
    (tmp_path / "out").mkdir()
    folder = tmp_path / "out" / jobs[0].folder

    def interrupt() -> None:
        log, begin = folder / job.LOG, time.monotonic()
        while time.monotonic() - begin < 300:
            time.sleep(0.05)
            if log.exists() and "/100000" in log.read_text():
                _thread.interrupt_main()
                return

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt), locks.own(tmp_path / "out", "study"):
        execute.claim(tmp_path / "out", jobs, False)
        execute.execute(tmp_path / "out", jobs, say=lambda line: None)
    assert "go on with --resume" in (folder / job.LOG).read_text()
    assert list((folder / "checkpoints").glob("step-*")) and not execute.finished(tmp_path / "out", jobs[0])


def test_a_run_whose_folder_cannot_be_written_stops_the_study(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runs that wait would fail as well; one that fails otherwise does not stop them."""
    jobs = study.plan(study.load(file))[:3]
    out, begun = tmp_path / "out", []
    line = (
        "error: RUN: the checkpoint of step 2 could not be written (No space left on device), and training has stopped"
    )

    def start(out: Path, job_: execute.Job, at_once: int) -> subprocess.Popen[bytes]:
        folder = out / job_.folder
        folder.mkdir()
        (folder / job.LOG).write_text(line)
        begun.append(job_.folder)
        return subprocess.Popen(
            [sys.executable, "-c", f"import sys; sys.exit({[2, job.CANNOT_WRITE][len(begun) - 1]})"]
        )

    monkeypatch.setattr(execute, "_start", start)
    with (
        pytest.raises(ValueError, match="study has stopped; 0 of 3 runs are finished") as error,
        locks.own(out, "study"),
    ):
        execute.execute(out, jobs, say=lambda text: None)
    assert begun == [jobs[0].folder, jobs[1].folder] and line in str(error.value) and "--resume" in str(error.value)
    assert "\n" not in str(error.value)


def test_two_studies_in_one_folder_are_refused(tmp_path: Path) -> None:
    with (
        locks.own(tmp_path / "out", "study"),
        pytest.raises(ValueError, match=rf"in use by process {os.getpid()} on .*\(study\)"),
        locks.own(tmp_path / "out", "study"),
    ):
        pass


def test_what_a_kill_left_of_a_finished_run_is_removed(file: Path, tmp_path: Path) -> None:
    """Between its scores and the removal of what they were made from."""
    jobs = study.plan(study.load(file, ["study.keep_models=false"]))[:1]
    folder = tmp_path / "out" / jobs[0].folder
    for name in ("checkpoints/step-0000002", "model"):
        (folder / name).mkdir(parents=True)
    (folder / job.JOB).write_text(json.dumps(jobs[0].content()))
    (folder / job.SCORES).write_text("{}")
    execute.claim(tmp_path / "out", jobs, True)
    assert sorted(path.name for path in folder.iterdir()) == [job.JOB, job.SCORES]


@pytest.mark.slow
def test_a_killed_study_goes_on_and_a_full_disk_stops_it(file: Path, tmp_path: Path) -> None:
    """Its run ends with it. With files of 20 KB at most, the first checkpoint is the last line."""
    out = tmp_path / "out"
    words = [sys.executable, "-m", "genpercept", "study", str(file), "--out", str(out), "--resume"]
    words += [text for key in ("study.seeds=[0]", "study.labels=[2]") for text in ("--set", key)]
    small = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (20_000, 20_000))
    full = subprocess.run(words, preexec_fn=small, capture_output=True, text=True, check=False, timeout=600)
    last = full.stderr.splitlines()[-1]
    assert full.returncode == 2 and "could not be written (File too large)" in last and "study has stopped" in last
    assert "Traceback" not in full.stderr
    run = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    while not list(out.rglob("step-*")) and run.poll() is None:
        time.sleep(0.02)
    below = psutil.Process(run.pid).children(recursive=True)
    run.kill()
    run.wait(20)
    assert not psutil.wait_procs(below, timeout=20)[1]
    assert subprocess.run(words, check=False, timeout=600).returncode == 0
    assert all(
        execute.finished(out, each) for each in study.plan(study.load(file, ["study.seeds=[0]", "study.labels=[2]"]))
    )
    assert not list(out.rglob(".*"))
