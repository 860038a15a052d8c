"""A run's state: all of it comes back, on any number of processes; a finished run rests; another recipe is another run."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from genpercept.training import loop
from genpercept.training import recipe as recipes
from genpercept.training.optim.schedule import Average
from genpercept.training.recipe import Ema, Section
from genpercept.training.run import claim, launch
from genpercept.training.run.background import Background
from genpercept.training.run.state import Checkpoints, State, read_checkpoint
from tests.support import normed
from tests.support.bases import edit
from tests.support.processes import together


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="module")
def whole(work: Path) -> Path:
    """An UperNet's run of six steps that nobody stopped, with checkpoints of steps 3 and 6."""
    assert loop.main(normed.write(work, "upernet", 6, 3), [], work / "whole") == 0
    return work / "whole"


def recipe_of(work: Path) -> Path:
    return work / "upernet.toml"


def begun(whole: Path, out: Path, step: int = 3) -> Path:
    """The same run as it was after so many steps, killed there."""
    out.mkdir()
    shutil.copy(whole / "recipe.json", out)
    name = Checkpoints.name(step)
    shutil.copytree(whole / "checkpoints" / name, out / "checkpoints" / name)
    return out


def files(run: Path) -> dict[str, tuple[bytes, int]]:
    return {str(p.relative_to(run)): (p.read_bytes(), p.stat().st_mtime_ns) for p in run.rglob("*") if p.is_file()}


# What comes back ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", sorted(normed.TASKS))
def test_a_resumed_run_has_every_tensor_of_one_that_nobody_stopped(
    work: Path, whole: Path, tmp_path: Path, head: str
) -> None:
    """Batch norms' running statistics among them: in the checkpoint, in its average and in the model."""
    path = normed.write(work, head, 6, 3)
    if head != "upernet":
        whole = tmp_path / "whole"
        assert loop.main(path, [], whole) == 0
    out = begun(whole, tmp_path / "killed")
    assert loop.main(path, [], out, resume=True) == 0
    want, found = normed.tensors(whole), normed.tensors(out)
    assert want.keys() == found.keys() and [k for k in want if not torch.equal(want[k], found[k])] == []
    for end in ("running_mean", "running_var", "num_batches_tracked"):
        kept = [name for name in want if name.endswith(end)]
        assert {name.split()[0].split("/")[0] for name in kept} >= {"weights", "model"}
        assert all(want[name].any() for name in kept)


def test_a_resumed_run_drops_out_as_one_that_nobody_stopped(tmp_path: Path) -> None:
    """torch's generator is keyed by the step, for bases that have dropout."""
    path = normed.write(tmp_path, "pose", 4, 2)
    edit(tmp_path / "dinov2" / "config.json", hidden_dropout_prob=0.5)
    assert loop.main(path, [], tmp_path / "whole") == 0
    out = begun(tmp_path / "whole", tmp_path / "killed", 2)
    torch.rand(7)
    assert loop.main(path, [], out, resume=True) == 0
    want, found = normed.tensors(tmp_path / "whole"), normed.tensors(out)
    assert all(torch.equal(want[k], found[k]) for k in want)
    edit(tmp_path / "dinov2" / "config.json", hidden_dropout_prob=0.0)
    assert loop.main(path, [], tmp_path / "plain") == 0
    assert not all(torch.equal(want[k], x) for k, x in normed.tensors(tmp_path / "plain").items())


def test_checkpoints_without_statistics_are_refused(work: Path, whole: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    out = begun(whole, tmp_path / "old")
    path = out / "checkpoints" / "step-0000003" / "weights.safetensors"
    save_file({k: v for k, v in load_file(path).items() if "running" not in k and "tracked" not in k}, path)
    state = path.with_name("state.json")
    state.write_text(json.dumps({k: v for k, v in json.loads(state.read_text()).items() if k != "checksums"}))
    with pytest.raises(ValueError, match=r"did not save running statistics, such as head\..*train anew"):
        loop.main(recipe_of(work), [], out, resume=True)


def test_statistics_are_averaged_as_weights_are() -> None:
    """decay 0.5 without warm-up: 0.5 x old + 0.5 x new; the count is the live one's; swapping twice changes nothing."""
    norm = nn.BatchNorm1d(1)
    average = Average(norm.state_dict(keep_vars=True), Ema(decay=0.5, warmup=False))
    norm(torch.tensor([[2.0], [4.0]]))  # momentum 0.1: mean 0.1 x 3, variance 0.9 + 0.1 x 2
    average.update(0)
    assert norm.running_mean is not None and norm.running_var is not None
    assert float(average.shadow["running_mean"]) == pytest.approx(0.15)
    assert float(average.shadow["running_var"]) == pytest.approx(0.5 + 0.5 * 1.1)
    assert "num_batches_tracked" not in average.shadow
    average.swap()
    assert float(norm.running_mean) == pytest.approx(0.15) and int(norm.num_batches_tracked or 0) == 1
    average.swap()
    assert float(norm.running_mean) == pytest.approx(0.3) and float(norm.running_var) == pytest.approx(1.1)


def test_the_model_has_the_averaged_statistics(whole: Path) -> None:
    checkpoint = Checkpoints(whole, 2).list()[-1]
    average = load_file(checkpoint / "average.safetensors")
    [saved] = [load_file(path) for path in (whole / "model" / "head").glob("*.safetensors")]
    names = [name for name in saved if "running" in name]
    assert names and all(torch.equal(saved[name], average[f"head.{name}"]) for name in names)


def test_a_finished_run_is_left_as_it_is(work: Path, whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(whole)
    assert loop.main(recipe_of(work), [], whole, resume=True) == 0
    assert files(whole) == before
    assert capsys.readouterr().err == f"{whole}: the run is done since step 6; nothing is changed\n"


def test_a_finished_run_without_its_model_writes_it_again(work: Path, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "model")
    assert loop.main(recipe_of(work), [], tmp_path / "run", resume=True) == 0
    want, found = normed.tensors(whole), normed.tensors(tmp_path / "run")
    assert want.keys() == found.keys() and all(torch.equal(want[k], found[k]) for k in want)


# Several processes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "processes", "environment"),
    [
        pytest.param("upernet", 2, {}, id="two", marks=pytest.mark.slow),
        pytest.param("upernet", 4, {}, id="one sample each"),
        pytest.param("pose", 2, {}, id="pose"),
        pytest.param("upernet", 2, normed.FSDP, id="sharded", marks=pytest.mark.slow),
    ],
)
def test_processes_train_as_one(
    work: Path, tmp_path: Path, head: str, processes: int, environment: dict[str, str]
) -> None:
    """Batches of four in one process and in several: losses, gradients' work on the weights, and statistics.

    With SGD's scale-free cousin Adam a gradient of zero, as of a bias before a batch norm, is rounding and moves by lr: those
    are left out by a large eps.
    """
    path = normed.write(work, head, 6, 3)
    settings = ["optim.eps=1e-3", "checkpoint.every=0"]
    assert normed.record(path, tmp_path / "one", settings) == 0
    together(
        processes, lambda: normed.record(path, tmp_path / "several", settings), tmp_path / "several.log", environment
    )
    one, several = (json.loads((tmp_path / run / "losses.json").read_text()) for run in ("one", "several"))
    assert len(one) == 6 and several == pytest.approx(one, rel=1e-5)
    want, found = normed.tensors(tmp_path / "one"), normed.tensors(tmp_path / "several")
    assert want.keys() == found.keys() and sum("running_var" in name for name in want) > 2
    for name in want:
        torch.testing.assert_close(found[name], want[name], rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
    logs = [json.loads((tmp_path / run / "log.jsonl").read_text()) for run in ("one", "several")]
    assert logs[1]["loss"] == pytest.approx(logs[0]["loss"], rel=1e-4)  # in eval mode: by the statistics


SETS = """[[validation.sets]]
domain = "outdoor"
count = 3
size = [28, 42]
[[validation.sets]]
title = "rooms"
domain = "indoor"
count = 2
size = [28, 42]
[checkpoint]
"""


@pytest.mark.slow
def test_processes_with_workers_and_sets_go_on_as_they_were(work: Path, tmp_path: Path) -> None:
    """Two processes, each fed by a process, and zero-shot sets: as one process; and killed after step 3, as if nobody had."""
    path = normed.write(tmp_path, "upernet", 6, 3)
    path.write_text(path.read_text().replace("[checkpoint]\n", SETS, 1))
    settings = ["optim.eps=1e-3", "loader.workers=1", "validation.every=2"]
    assert normed.record(path, tmp_path / "one", settings) == 0
    together(2, lambda: normed.record(path, tmp_path / "two", settings), tmp_path / "two.log")
    out = begun(tmp_path / "two", tmp_path / "killed")
    together(2, lambda: loop.main(path, settings, out, resume=True), tmp_path / "killed.log")
    one, two, again = (normed.tensors(tmp_path / run) for run in ("one", "two", "killed"))
    assert two.keys() == again.keys() and all(torch.equal(two[name], again[name]) for name in two)
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
    figures = [validated(tmp_path / run) for run in ("one", "two", "killed")]
    assert {"outdoor/miou", "rooms/miou"} <= figures[0][6].keys()
    assert figures[1].keys() == {2, 4, 6} and figures[2] == {step: figures[1][step] for step in (4, 6)}
    for step in (2, 4, 6):
        assert figures[1][step] == pytest.approx(figures[0][step], rel=1e-4, abs=1e-6)


def validated(run: Path) -> dict[int, dict[str, float]]:
    """The figures of each validation, by its step."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return {
        line["step"]: {k: v for k, v in line.items() if isinstance(v, float) and "second" not in k}
        for line in lines
        if any(k.startswith("rooms/") for k in line)
    }


# Changed recipes ----------------------------------------------------------------------------------------------------------


OTHER_RUNS = [
    *('task="depth"', "seed=1", "data.0.count=5", "loader.batch_size=2", 'optim.kind="adam"', "lora.rank=4"),
    *("model.head_config={hidden_size = 16}", 'learn.denoiser="frozen"', "loss={cross_entropy = 2.0}", "ema.decay=0.5"),
    *('task_options={classes = "nyu40"}', "augment.flip=0.0", "data.0.size=[42, 42]"),
]


@pytest.mark.parametrize("setting", OTHER_RUNS)
def test_what_makes_another_run_is_refused(work: Path, whole: Path, setting: str) -> None:
    key = setting.split("=")[0]
    before = files(whole)
    with pytest.raises(ValueError, match=rf"goes on with the recipe it began with, and {key}\S* .* -> .* another run"):
        loop.main(recipe_of(work), [setting], whole, resume=True)
    assert files(whole) == before


def test_what_may_change_must_be_said_again(work: Path, whole: Path) -> None:
    with pytest.raises(ValueError, match=r"steps 6 -> 9: changed since .* \(--set steps=9\), .* \(--set steps=6\)"):
        loop.main(normed.write(work, "upernet", 9, 3), [], whole, resume=True)
    normed.write(work, "upernet", 6, 3)


def test_a_change_holds_from_its_step_on_and_is_recorded(
    work: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = begun(whole, tmp_path / "run")
    said = ["steps=5", "optim.weight_decay=0.5", 'validation={every=1, count=1, split="train"}']
    assert loop.main(recipe_of(work), said, out, resume=True) == 0
    lines = [json.loads(line) for line in (out / "changes.jsonl").read_text().splitlines()]
    assert lines[0] == {"step": 3, "key": "steps", "was": 6, "now": 5} and {line["step"] for line in lines} == {3}
    assert {line["key"] for line in lines} == {
        *("steps", "optim.weight_decay", "validation.every", "validation.count", "validation.pictures")
    }
    assert "from here on steps 6 -> 5, " in capsys.readouterr().err
    kept = json.loads((out / "recipe.json").read_text())
    assert kept["steps"] == 5 and kept["seed"] == 0
    optimiser = read_checkpoint(Checkpoints(out, 2).list()[-1])[3]
    assert {group["weight_decay"] for group in optimiser["param_groups"]} == {0.5}
    assert loop.main(recipe_of(work), said, out, resume=True) == 0  # done, by what was said


def test_a_finished_run_goes_further_with_its_best_figure(work: Path, whole: Path, tmp_path: Path) -> None:
    """The last validation comes after the last checkpoint: what it found is not forgotten."""
    shutil.copytree(whole, tmp_path / "run")
    done = json.loads((whole / "done.json").read_text())
    last = json.loads((whole / "log.jsonl").read_text().splitlines()[-1])
    assert done["best"] == last["loss"]
    assert read_checkpoint(Checkpoints(whole, 2).list()[-1])[0].best is None
    training = loop.Training(recipes.load(recipe_of(work), ["steps=7"]), tmp_path / "run", resume=True)
    assert training.state.step == 6 and training.state.best == last["loss"]


def test_the_keys_that_may_change_are_the_recipes() -> None:
    for key in (*claim.MAY_CHANGE, *claim.UNHEEDED):
        section: type[Section] = recipes.Recipe
        for name in key.split("."):
            if name == "N":
                continue
            assert name in section.model_fields, key
            field = section.model_fields[name]
            section = recipes.section_of(field.annotation) or section


def test_comparing_recipes() -> None:
    a = {"seed": 0, "data": [{"root": "x", "count": 1}], "loss": {"l1": 1.0}, "name": "a"}
    b = {"seed": 0, "data": [{"root": "y", "count": 1}, {"root": "z"}], "loss": {}, "name": "b"}
    found = {change.key: (change.was, change.now) for change in claim.changes(a, b)}
    assert found == {"data.0.root": ("x", "y"), "data.1.root": (None, "z"), "loss.l1": (1.0, None)}


# Processes that are gone --------------------------------------------------------------------------------------------------


def test_what_was_launched_ends_with_its_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    """A launcher killed outright cannot tell its processes, which would train on beside the resumed run."""
    read, write = os.pipe()
    launcher = os.fork()
    if launcher == 0:
        monkeypatch.setenv("GENPERCEPT_LAUNCHER", str(os.getpid()))
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            launch.end_with_launcher()
            os.write(write, b"x")
        time.sleep(60)
        os._exit(0)
    os.close(write)  # the pipe ends when the last of the two is gone
    assert os.read(read, 1) == b"x"
    os.kill(launcher, signal.SIGKILL)
    os.waitpid(launcher, 0)
    assert select.select([read], [], [], 20)[0] and os.read(read, 1) == b""
    os.close(read)


# Beside the step ----------------------------------------------------------------------------------------------------------


def test_work_beside_the_step_is_one_at_a_time_and_its_errors_are_told() -> None:
    gate, order = threading.Event(), []
    background = Background()

    def first() -> None:
        gate.wait(30)
        order.append("first")

    background.start(first)
    assert order == []  # it has not been waited for
    threading.Timer(0.05, gate.set).start()
    background.start(lambda: order.append("second"))
    background.wait()
    assert order == ["first", "second"]

    def fails() -> None:
        raise KeyError("x")

    background.start(fails)
    with pytest.raises(KeyError):
        background.wait()
    background.wait()  # told once


def test_a_checkpoint_holds_the_step_at_which_it_was_asked_for(
    work: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps go on while it is written; it is what was there when it was begun. The run's end waits for it."""
    training = loop.Training(recipes.load(recipe_of(work), ["checkpoint.every=3"]), tmp_path / "run", resume=False)
    gate, save, seen = threading.Event(), Checkpoints.save, []

    def held(self: Checkpoints, state: State, *parts: Any) -> Path:
        assert gate.wait(60)
        return save(self, state, *parts)

    step = training.step

    def counted(batches: Any) -> dict[str, float]:
        figures = step(batches)
        seen.append((training.state.step, training.saving.checkpoints.list()))
        if training.state.step == 5:
            gate.set()
        return figures

    monkeypatch.setattr(Checkpoints, "save", held)
    training.step = counted  # type: ignore[method-assign]
    assert training.run() == 0
    assert seen[4] == (5, [])  # the checkpoint of step 3 was still being written
    one, other = (read_checkpoint(run / "checkpoints" / "step-0000003") for run in (whole, tmp_path / "run"))
    assert other[0].step == 3 and all(torch.equal(one[1][k], other[1][k]) for k in one[1])
    assert all(torch.equal(one[2][k], other[2][k]) for k in one[2])
    want, found = normed.tensors(whole), normed.tensors(tmp_path / "run")
    assert all(torch.equal(want[k], found[k]) for k in want)
