"""The runs of a study: one process each, several side by side, those that are finished left out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from genpercept.commands.study.job import CANNOT_WRITE, JOB, LOG, SCORES, tidy
from genpercept.commands.study.measure import Inference, Test
from genpercept.core import files, said
from genpercept.core.texts import read_lines
from genpercept.tasks import TASKS
from genpercept.training import lacking
from genpercept.training.dry_run import Plan, plan
from genpercept.training.recipe import Recipe
from genpercept.training.run.log import clock
from genpercept.training.samples.sources import open_source
from genpercept.training.stages.base import Draw

_POLL = 0.1  # seconds
# Keys of a recipe that change nothing of the result: a study may go on with others
_INCIDENTAL: dict[str, Any] = {
    **dict.fromkeys(("logging", "speed", "checkpoint"), True),
    "loader": {"cache_dir", "workers", "prefetch"},
}


@dataclass(frozen=True)
class Job:
    """An arm with a number of labels (None: as the recipe has it) and a seed. `base` with `overrides` gives `recipe`.

    Or what makes a base for arms (`arm` is its name then): "pretraining", or "untrained", which saves random weights.
    """

    folder: str  # inside the study's
    arm: str
    labels: int | None
    seed: int
    base: Path
    overrides: tuple[str, ...]
    recipe: Recipe
    kind: Literal["arm", "pretraining", "untrained"] = "arm"
    part: str = ""  # of the study
    pretrained: str = ""  # folder of the job that makes what it starts from
    stand_in: str = ""  # a base of the same shapes, where that one is not made yet
    inference: tuple[Inference, ...] = ()
    default_steps: int = 0  # of its paradigm
    test: tuple[Test, ...] = ()
    metrics: tuple[str, ...] = ()
    keep_models: bool = True
    cost: float = 1.0

    @property
    def title(self) -> str:
        """As plans and tables call it, with all its seeds."""
        of = f"{self.part}, {self.arm}" if self.part else self.arm
        return of if self.kind == "arm" else f"pretraining {of}"

    def content(self) -> dict[str, Any]:
        """job.json: all that the job's process is told."""
        what = {} if self.kind == "arm" else {"kind": self.kind}
        return {
            "base": str(self.base),
            "overrides": list(self.overrides),
            "recipe": self.recipe.resolved(),
            "inference": [way.model_dump(mode="json") for way in self.inference],
            "test": [data.content() for data in self.test],
            "metrics": list(self.metrics),
            "keep_models": self.keep_models,
            **({"pretrained": self.pretrained} if self.pretrained else {}),
            **what,
        }

    def result(self) -> str:
        """What its figures depend on, as text that is equal for equal jobs."""
        return _result(self.content(), self.recipe)

    def images(self) -> int:
        """Training images, repeated ones counted each time."""
        return 0 if self.kind == "untrained" else self.recipe.steps * self.recipe.loader.batch_size

    def passes(self) -> int:
        """Calls of the denoiser when measuring; encoding and decoding count as another one."""
        scenes = sum(data.count for data in self.test)
        return scenes * sum(way.ensemble_size * ((way.steps or self.default_steps) + 1) for way in self.inference)

    def seconds(self, images_per_second: float, passes_per_second: float) -> float:
        """An estimate; 0 where the study gives no rates."""
        training = self.images() * self.cost / images_per_second if images_per_second else 0.0
        return training + (self.passes() / passes_per_second if passes_per_second else 0.0)

    def rehearsed(self) -> Recipe:
        """The recipe as a dry run looks at it, which finds no model that the study is going to make."""
        start = Path(self.recipe.model.base)
        if not self.pretrained or not self.stand_in or start.is_dir():
            return self.recipe
        return self.recipe.model_copy(update={"model": self.recipe.model.model_copy(update={"base": self.stand_in})})


def _result(content: dict[str, Any], recipe: Recipe) -> str:
    """Of a job.json, what its figures depend on. A base that the study makes goes by its run: a study's folder may be moved."""
    settled = recipe.model_dump(mode="json", exclude=_INCIDENTAL)
    if content.get("pretrained"):
        settled["model"]["base"] = content["pretrained"]
    return json.dumps({k: v for k, v in content.items() if k not in _HOW} | {"recipe": settled})


_HOW = ("base", "overrides", "keep_models")  # keys of job.json that leave the figures as they are


def incidental(override: str) -> bool:
    """Whether a `key=value` changes nothing of the result."""
    section, _, key = override.partition("=")[0].strip().partition(".")
    keys = _INCIDENTAL.get(section, set())
    return keys is True or (isinstance(keys, set) and key in keys)


# ---- before ----------------------------------------------------------------------------------------------------------


def summary(
    jobs: Sequence[Job], images_per_second: float, passes_per_second: float, at_once: int, out: Path = Path()
) -> Plan:
    """A line per arm and number of labels, the sets they are scored on, and the time it would take; what this machine lacks.

    ValueError for a recipe that cannot be run.
    """
    lines: list[str] = []
    lacks: list[str] = []
    seen: set[str] = set()
    groups: dict[tuple[str, int | None], list[Job]] = {}
    for job in jobs:
        groups.setdefault((job.title, job.labels), []).append(job)
    for (title, labels), group in groups.items():
        if title not in seen:
            seen.add(title)
            lacks += plan(group[0].rehearsed(), out / group[0].folder).lacking
        seconds = group[0].seconds(images_per_second, passes_per_second)
        time_each = f", {clock(seconds)} each" if seconds else ""
        count = "" if labels is None else f", {labels} labels"
        steps = "random weights" if group[0].kind == "untrained" else f"{len(group)} x {group[0].recipe.steps} steps"
        lines.append(f"{title}{count}: {steps}{time_each}")
    lines.append(f"{len(jobs)} runs, {sum(job.images() for job in jobs):,} training images")
    if wall := wall_seconds(jobs, images_per_second, passes_per_second, at_once):
        lines.append(
            f"about {clock(wall)} with {at_once} at once (at {images_per_second:g} training images/s and "
            f"{passes_per_second:g} denoiser calls/s each; rendering and caches come on top)"
        )
    else:
        lines.append("no estimate of the time: the study has no [rates]")
    scored: dict[str, Job] = {}
    for job in jobs:
        if job.test:
            scored.setdefault(job.part, job)
    for part, job in scored.items():
        lines.append(f"{f'{part}: ' if part else ''}scored on {', '.join(held.label for held in job.test)}")
        for held in job.test:
            labels_read = TASKS.find(job.recipe.task).labels
            lacks += lacking.of_set(held.data(), job.recipe.loader, labels_read, f"test {held.label!r}")
    return Plan(tuple(lines), tuple(dict.fromkeys(lacks)))


def wall_seconds(jobs: Sequence[Job], images_per_second: float, passes_per_second: float, at_once: int) -> float:
    """Estimate for all of them, `at_once` side by side; 0 without rates."""
    each = [job.seconds(images_per_second, passes_per_second) for job in jobs]
    return max(sum(each) / at_once, max(each, default=0.0))


def claim(out: Path, jobs: Sequence[Job], resume: bool) -> None:
    """ValueError when the study's folder has runs and this is no resumption, or they had other settings."""
    begun = [job for job in jobs if (out / job.folder / JOB).is_file()]
    if begun and not resume:
        raise ValueError(f"{out} has runs of a study in it: go on with --resume, or choose another --out")
    for job in begun:
        before = _read_job(out, job)
        if before != job.result():
            raise ValueError(
                f"{out / job.folder}: was run with other settings than this study has now; remove it, or choose another --out"
            )
    files.sweep(out)
    for job in begun:
        if finished(out, job):
            tidy(out / job.folder, job.keep_models)


def _read_job(out: Path, job: Job) -> str:
    """`Job.result` of what lies in the folder, as the job there would give it."""
    content = files.read_json(out / job.folder / JOB)
    return _result(content, Recipe.model_validate(content["recipe"]))


def finished(out: Path, job: Job) -> bool:
    return (out / job.folder / SCORES).is_file()


# ---- running ---------------------------------------------------------------------------------------------------------


def in_order(
    out: Path, first: Sequence[Job], jobs: Sequence[Job], at_once: int, images: float, passes: float
) -> dict[str, str]:
    """`execute` what makes bases, then what starts from those; images, passes: per second.

    Returns the folders that failed, with why: a run whose base could not be made is one of them.
    """
    failed = execute(out, first, at_once, images, passes) if first else {}
    without = {
        job.folder: f"{job.pretrained} failed: {failed[job.pretrained]}" for job in jobs if job.pretrained in failed
    }
    failed |= execute(out, [job for job in jobs if job.folder not in without], at_once, images, passes)
    return failed | without


def execute(
    out: Path,
    jobs: Sequence[Job],
    at_once: int = 1,
    images_per_second: float = 0.0,
    passes_per_second: float = 0.0,
    say: Callable[[str], None] | None = None,
) -> dict[str, str]:
    """Run those that are not finished, in order. Returns the folders that failed, with the last line of their log.

    Interrupted, it ends the running ones as --resume can take them up, and raises what interrupted it. ValueError, with a line
    that says what is left, where the folder cannot be written any more.
    """
    say = say or said.say
    waiting = [job for job in jobs if not finished(out, job)]
    if len(waiting) < len(jobs):
        say(f"{len(jobs) - len(waiting)} of {len(jobs)} runs are finished already")
    _fill_caches(waiting, say)
    clockwork = _Clock([job.seconds(images_per_second, passes_per_second) for job in waiting], at_once)
    total, done = len(waiting), 0
    running: dict[subprocess.Popen[bytes], tuple[Job, float]] = {}
    failed: dict[str, str] = {}
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                job = waiting.pop(0)
                with _explained(out, jobs):
                    running[_start(out, job, at_once)] = (job, time.monotonic())
            time.sleep(_POLL)
            for process in [p for p in running if p.poll() is not None]:
                job, begin = running.pop(process)
                done += 1
                if process.returncode:
                    with _explained(out, jobs):
                        _still_written(process, out, job)
                    failed[job.folder] = _last_line(out / job.folder / LOG)
                    say(f"{done}/{total} {job.folder} failed: {failed[job.folder]}")
                    continue
                left = clockwork.left(job.seconds(images_per_second, passes_per_second))
                say(f"{done}/{total} {job.folder} took {clock(time.monotonic() - begin)}{left}")
    finally:
        _stop(list(running))
    return failed


@contextmanager
def _explained(out: Path, jobs: Sequence[Job]) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        over = sum(finished(out, job) for job in jobs)
        raise ValueError(
            f"{out}: could not be written to ({error.strerror}), and the study has stopped; {over} of {len(jobs)} runs are "
            "finished, the others have their last whole checkpoint: make room, or bring it back, and go on with --resume"
        ) from None


def _still_written(process: subprocess.Popen[bytes], out: Path, job: Job) -> None:
    """OSError when a run failed because of its folder: those that wait would fail as well."""
    if process.returncode == CANNOT_WRITE:
        raise OSError(0, _last_line(out / job.folder / LOG))
    files.probe(out / job.folder)


class _Clock:
    """Time left, by the estimates of what is done and of what is not."""

    def __init__(self, estimates: Sequence[float], at_once: int) -> None:
        self._left, self._done, self._begin, self._at_once = sum(estimates), 0.0, time.monotonic(), at_once

    def left(self, finished_seconds: float) -> str:
        self._left -= finished_seconds
        self._done += finished_seconds
        if not finished_seconds:
            return ""
        return f", about {clock(self._left * (time.monotonic() - self._begin) / self._done)} left"


def _start(out: Path, job: Job, at_once: int) -> subprocess.Popen[bytes]:
    folder = out / job.folder
    folder.mkdir(exist_ok=True)  # and not the study's, should that be gone
    files.write_text(folder / JOB, json.dumps(job.content(), indent=2))
    threads = job.recipe.speed.threads or max(1, (os.cpu_count() or 1) // at_once)
    with (folder / LOG).open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "genpercept.commands.study.job", str(folder), str(os.getpid())],
            stdout=log,
            stderr=log,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            process_group=0,  # Ctrl-C reaches this process alone, which then asks each job to stop, once
        )


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Each writes a checkpoint after its current step and ends."""
    for process in processes:
        process.terminate()
    for process in processes:
        process.wait()


def _last_line(log: Path) -> str:
    try:
        lines = read_lines(log, errors="replace")
    except ValueError:
        lines = []
    return lines[-1].strip() if lines else "no message"


def _fill_caches(jobs: Sequence[Job], say: Callable[[str], None]) -> None:
    """Render the scenes that the jobs share before they start side by side."""
    seen: set[str] = set()
    for job in jobs:
        key = job.recipe.model_dump_json(include={"data", "validation", "loader"})
        if key in seen or not job.recipe.loader.cache:
            continue
        seen.add(key)
        if any(data.name == "synthetic" for data in job.recipe.data):
            Draw(job.recipe, say).validation()
        for held in job.test:
            if held.name == "synthetic":
                open_source(held.data(), job.recipe.loader, say)
