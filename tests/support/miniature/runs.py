"""Cases run to the end, several side by side: each command in a process forked from one that has imported everything."""

from __future__ import annotations

import json
import os
import shutil
import signal
import struct
import sys
import time
import traceback
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from genpercept.commands.evaluate import suites
from genpercept.training import recipe as recipes
from tests.support.miniature import cases as _cases
from tests.support.miniature.cases import EVERY, STEPS, Case

_LIMIT = 400.0  # seconds of a command
# Where a set of this name lies, for a suite on this task: one folder holds one layout
_ROOTS = {("normals", "nyuv2"): "nyuv2_normals", ("normals", "scannet"): "scannet_normals"}
Words = list[str]
Script = Generator[Words, tuple[int, str], None]


class Failed(Exception):
    """A stage did not do what it should; one line."""


@dataclass
class Row:
    """What became of a case. stage: where it stands or failed; line: why; accepted: by its dry run. work: CPU seconds."""

    name: str
    seconds: float = 0.0
    stage: str = ""
    line: str = ""
    accepted: bool = False
    done: bool = False
    work: dict[str, float] = field(default_factory=dict)
    replaced: list[str] = field(default_factory=list)


def preload() -> None:
    """Import what the commands import when they run, so that forks need not."""
    import diffusers.models  # noqa: F401
    import h5py  # noqa: F401
    import tensorboard.compat.proto  # noqa: F401
    import torch
    import torch.utils.tensorboard
    from diffusers import AutoencoderKL, PixArtTransformer2DModel, UNet2DConditionModel  # noqa: F401
    from transformers import CLIPModel, CLIPTextModel, CLIPTokenizer, Dinov2Model  # noqa: F401

    import genpercept.commands.cli
    import genpercept.commands.evaluate.run
    import genpercept.commands.export.run
    import genpercept.commands.predict.run
    import genpercept.commands.study.job
    import genpercept.training.loop
    import genpercept.training.stages.finetune  # noqa: F401

    torch.set_num_threads(1)


def run_all(
    chosen: Sequence[Case],
    known: Sequence[Case],
    work: Path,
    jobs: int = 1,
    say: Callable[[Row], None] = lambda row: None,
    brief: bool = False,
) -> list[Row]:
    """A row for each of `chosen`. What they start from, of `known`, is trained before. `brief`: no resume, no suite."""
    names = {case.name: case for case in known}
    wanted = {case.name for case in chosen}
    before = {case.name: _cases.needs(case, list(names)) for case in chosen}
    waiting = list(chosen)
    for case in waiting:  # grows: what is needed is trained, too
        for name in before[case.name]:
            if name in names and name not in before:
                before[name] = _cases.needs(names[name], list(names))
                waiting.append(names[name])
    rows = {case.name: Row(case.name) for case in waiting}
    running: dict[int, tuple[Case, Script, float, Path]] = {}
    over: set[str] = set()

    def finish(case: Case) -> None:
        over.add(case.name)
        if case.name in wanted:
            say(rows[case.name])

    while waiting or running:
        while len(running) < jobs:
            ready = next((c for c in waiting if over.issuperset(set(before[c.name]) & set(rows))), None)
            if ready is None:
                break
            waiting.remove(ready)
            row = rows[ready.name]
            bad = [name for name in before[ready.name] if name not in rows or rows[name].stage == "train"]
            if bad:
                row.stage, row.line = "base", f"needs {', '.join(bad)}, which there is not"
                finish(ready)
                continue
            script = _script(ready, row, work, brief or ready.name not in wanted)
            begin = time.monotonic()
            if not _next(script, None, ready, row, begin, running, work):
                finish(ready)
        for pid in list(running):
            case, script, begin, log = running[pid]
            found, status, used = os.wait4(pid, os.WNOHANG)
            late = not found and time.monotonic() - log.with_suffix(".pid").stat().st_mtime > _LIMIT
            if late:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            if found or late:
                del running[pid]
                rows[case.name].work[rows[case.name].stage] = used.ru_utime + used.ru_stime
                answer = (os.waitstatus_to_exitcode(status) if found else -9, log.read_text(errors="replace"))
                if not _next(script, answer, case, rows[case.name], begin, running, work):
                    finish(case)
        time.sleep(0.02)
    return [rows[case.name] for case in chosen]


def _next(
    script: Script,
    answer: tuple[int, str] | None,
    case: Case,
    row: Row,
    begin: float,
    running: dict[int, tuple[Case, Script, float, Path]],
    work: Path,
) -> bool:
    """Go on with a case: start its next command, if there is one."""
    try:
        words = next(script) if answer is None else script.send(answer)
    except StopIteration:
        row.done, row.stage = True, ""
    except Failed as error:
        row.line = str(error)
    except (ValueError, OSError) as error:
        row.line = " ".join(str(error).split())
    else:
        log = work / "logs" / f"{case.slug}-{row.stage.replace(' ', '-')}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.with_suffix(".pid").write_text("")
        running[_fork(words, work, log)] = (case, script, begin, log)
        return True
    row.seconds = time.monotonic() - begin
    return False


def _fork(words: Words, work: Path, log: Path) -> int:
    """The id of a process that runs `genpercept WORD...` in `work`, its output in `log`."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        os.chdir(work)
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        import torch

        torch.set_num_threads(
            1
        )  # torch renews its pool in the first call after a fork: two threads at once would trip over it
        if words[0] == "@starts":  # as far as the command starts its runs
            from genpercept.commands.study import execute

            execute.execute = lambda *_, **__: sys.exit(0)
            words = words[1:]
        sys.argv = ["genpercept", *words]
        os.environ |= {"HF_HUB_OFFLINE": "1", "GENPERCEPT_CACHE": str(work / "cache"), "OMP_NUM_THREADS": "1"}
        if words[0] == "@measure":
            sys.exit(_cases.measure(Path(words[1]), words[2], Path(words[3]), words[4:]))
        from genpercept.commands.cli import main

        main()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    except BaseException:  # noqa: BLE001  a traceback is what the log is for
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


# ---- one case --------------------------------------------------------------------------------------------------------


def _script(case: Case, row: Row, work: Path, brief: bool) -> Script:
    """The commands of a case, one after another; `row` says at which it is. Failed where one does not do what it should."""
    row.replaced = _cases.shrunk(case, work / "bases")
    sets = [word for text in (*case.overrides, *row.replaced) for word in ("--set", text)]
    recipe = recipes.load(case.recipe, [*case.overrides, *row.replaced])
    out = Path("runs") / "all" / case.slug
    if case.study is not None:
        out = out / case.folder
    shutil.rmtree(work / out, ignore_errors=True)
    sweep = _study(case, row, out) if case.study is not None else []
    if sweep:
        row.stage = "study starts"
        _well((yield ["@starts", *sweep, "--resume"]))
    row.stage = "dry run"
    code, said = yield [*([*sweep] if sweep else ["train", str(case.recipe), *sets]), "--dry-run"]
    row.accepted = code == 0
    refused = "" if row.accepted else f"dry run: {_refusal(said)}"
    row.stage = "train"
    train = ["train", str(case.recipe), *sets, "--out", str(out)]
    _well((yield train), before=refused)
    _check_run(work / out, recipe.stage)
    if refused:
        row.stage = "dry run"
        raise Failed(f"the dry run refuses what runs: {refused}")
    _offer(case, work, out)
    if brief:
        return
    row.stage = "resume"
    first = _model(work / out)
    _forget_the_end(work / out)
    answer = yield [*train, "--resume"]
    _well(answer)
    if f"resumed at step {EVERY}" not in answer[1]:
        raise Failed(f"did not go on from step {EVERY}: {_last(answer[1])}")
    if wrong := [file for file, tensors in _model(work / out).items() if first.get(file) != tensors]:
        raise Failed(f"resumed, {', '.join(wrong)} of the model differ from the run that was not stopped")
    yield from _used(case, row, recipe, work, out)


def _used(case: Case, row: Row, recipe: recipes.Recipe, work: Path, out: Path) -> Script:
    """Predict, export, evaluate on its task's suites or the world that it was trained on, or measure with the model."""
    model = str(out / "model")
    if recipe.stage in ("finetune", "distil") and case.study is None:
        picture = str(next((work / "data").glob("diode/val/indoors/*/*/*.png")))
        row.stage = "predict"
        _well((yield ["predict", picture, "--model", model, "--out", str(out / "predicted")]))
        if not any((work / out / "predicted").rglob("*")):
            raise Failed("predict wrote nothing")
        row.stage = "export"
        code, said = yield ["export", model, "--to", "diffusers", "--out", str(out / "exported")]
        if code and "genpercept: error:" not in said:
            raise Failed(_last(said))
        words = ["evaluate", "--model", model, "--workers", "0"]
        if all(data.root is None for data in recipe.data):  # the world's classes, for one, are those of no suite
            row.stage = "evaluate the world"
            world = ["--dataset", "synthetic", "--split", "test/mixed:2"]
            _well((yield [*words, *world, "--out", str(out / "world")]))
            return
        for name in _suites(recipe.task):
            row.stage = f"evaluate {name}"
            suite = ["--suite", name, *_roots(name, recipe.task)]
            _well((yield [*words, *suite, "--out", str(out / f"suite-{name}")]))
    elif recipe.stage == "denoiser":
        row.stage = "inspect"
        _well((yield ["inspect", model]))
    if case.study is not None:
        study, sets = _study(case, row, out), _cases.of_study(case, row.replaced)
        row.stage = "measure"
        _well((yield ["@measure", str(case.study), case.arm, str(out), *sets]))
        row.stage = "study"
        _well((yield [*study, "--resume"]))
        if not list((work / out.parent).glob("*.md")):
            raise Failed("the study wrote no report")


def _study(case: Case, row: Row, out: Path) -> Words:
    """The command of the arm's study for this arm alone."""
    sets = [word for text in _cases.of_study(case, row.replaced) for word in ("--set", text)]
    return ["study", str(case.study), "--arms", case.arm, "--out", str(out.parent), "--scale", "full", *sets]


def _well(answer: tuple[int, str], before: str = "") -> None:
    code, said = answer
    if code:
        raise Failed(_last(said) if not before else f"{_last(said)} ({before})")


def _last(said: str) -> str:
    """The line that says what went wrong."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    told = [line for line in lines if line.startswith("genpercept: error:")]
    return (told or lines or ["no message"])[-1]


def _refusal(said: str) -> str:
    """Why a dry run does not say yes: its error, or the first thing that is lacking."""
    lines = [line for line in said.splitlines() if line.startswith(("genpercept: error:", "not on this machine:"))]
    return lines[0] if lines else _last(said)


def _check_run(out: Path, stage: str) -> None:
    log = (out / "log.jsonl").read_text() if (out / "log.jsonl").is_file() else ""
    if f'"step": {EVERY}' not in log or f'"step": {STEPS}' not in log:
        raise Failed(f"log.jsonl lacks the validation of step {EVERY} or {STEPS}")
    if not any((out / "model").rglob("*.safetensors")):
        raise Failed("no model")


def _model(out: Path) -> dict[str, dict[str, tuple[str, bytes]]]:
    """The tensors of the model, by file and name: shape and type, and values."""
    return {p.relative_to(out).as_posix(): _tensors(p) for p in sorted((out / "model").rglob("*.safetensors"))}


def _tensors(path: Path) -> dict[str, tuple[str, bytes]]:
    """Without torch, which would start threads before the next fork. Their order in a file is diffusers' own affair."""
    content = path.read_bytes()
    begin = 8 + struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8:begin])
    header.pop("__metadata__", None)
    return {
        name: (f"{about['dtype']} {about['shape']}", content[slice(*(begin + at for at in about["data_offsets"]))])
        for name, about in header.items()
    }


def _forget_the_end(out: Path) -> None:
    """As a run that was killed after its first checkpoint."""
    last = sorted((out / "checkpoints").glob("step-*"))
    if len(last) < 2:
        raise Failed(f"{len(last)} checkpoints, expected those of step {EVERY} and {STEPS}")
    shutil.rmtree(last[-1])
    shutil.rmtree(out / "model")
    shutil.rmtree(out / "best", ignore_errors=True)


def _offer(case: Case, work: Path, out: Path) -> None:
    """Let the names that other recipes call this run by lead to it."""
    if case.study is not None:
        return
    kind, name = case.name.split("/")
    places = [f"runs/{case.name}", *([f"runs/{name}"] if (kind, name) != ("paper", "depth") else [])]
    for text in (*places, *(["runs/depth_more2"] if case.name == "mini/depth_more" else [])):
        link = work / text
        if kind == "mini" or not link.is_symlink():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(work / out)


def _suites(task: str) -> list[str]:
    return [name for name in suites.names() if task in suites.load(name).tasks]


def _roots(name: str, task: str) -> Words:
    sets = dict.fromkeys(part.dataset for part in suites.load(name).set)
    return [word for s in sets for word in ("--root", f"{s}=data/{_ROOTS.get((task, s), s)}")]


def read(root: Path) -> tuple[list[Case], list[Row]]:
    """The cases of a folder `recipes`, and rows of those that cannot even be read."""
    found, broken = [], []
    for case in _cases.cases(root):
        if isinstance(case, Case):
            found.append(case)
        else:
            broken.append(Row(case[0], stage="plan", line=case[1]))
    return found, broken


def meant(name: str, only: Sequence[str]) -> bool:
    """Whether `only` has a case's name, or a pattern of it such as paper/depth*; all are meant without one."""
    return not only or any(name == text or fnmatchcase(name, text) for text in only)


def match(found: Iterable[Case], only: Sequence[str]) -> list[Case]:
    """The cases that are meant. ValueError for a name that is none's."""
    chosen = list(found)
    if unknown := [text for text in only if not any(meant(case.name, [text]) for case in chosen)]:
        raise ValueError(
            f"no case {', '.join(unknown)}; they are called as paper/depth, or studies/heads: DPT, identity"
        )
    return [case for case in chosen if meant(case.name, only)]
