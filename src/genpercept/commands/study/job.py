"""One run of a study in a process of its own: train, measure, write scores.json.

What was done already is not done again: training goes on from its last checkpoint, and a finished model is only measured.
"""

from __future__ import annotations

import errno
import json
import shutil
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from genpercept.commands.bench.machine import cores
from genpercept.commands.study.measure import Inference, Test, measure
from genpercept.core import files
from genpercept.core.texts import one_line, read_log
from genpercept.core.workers import end_with
from genpercept.training import recipe as recipes
from genpercept.training.run.state import Checkpoints
from genpercept.training.run.unwritable import Unwritable

JOB, SCORES, LOG = "job.json", "scores.json", "job.log"
CANNOT_WRITE = 74  # exit status of a run whose folder cannot be written: the other runs' neither
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def main(folder: Path) -> int:
    """Run the job that lies in `folder`; returns the exit status of its training. ValueError for what cannot be run."""
    import torch

    from genpercept.training.loop import main as train

    job = files.read_json(folder / JOB)
    settings = recipes.parse(job["recipe"], str(folder / JOB))
    if settings.speed.threads:
        torch.set_num_threads(settings.speed.threads)
    if job.get("kind") == "untrained":
        untrained(settings, folder / "model")
    elif not (folder / "model").is_dir() and (code := train(Path(job["base"]), job["overrides"], folder, True)):
        return code
    begin = time.perf_counter()
    figures = {} if "kind" in job else _figures(folder, job, settings)
    scores = {"train": _state(folder), "measure_seconds": time.perf_counter() - begin}
    scores |= {"curve": curve(folder / "log.jsonl"), "figures": figures}
    scores |= {"date": time.strftime("%Y-%m-%d"), "machine": _machine()}
    files.write_text(folder / SCORES, json.dumps(scores))
    tidy(folder, job["keep_models"])
    return 0


def _figures(folder: Path, job: dict[str, Any], settings: recipes.Recipe) -> dict[str, Any]:
    """What the job's model scores on its tests."""
    return measure(
        folder / "model",
        [Test(**data) for data in job["test"]],
        [Inference(**way) for way in job["inference"]],
        job["metrics"],
        settings.seed,
        settings.loader.micro_batch or settings.loader.batch_size,
        settings.loader,
    )


def untrained(settings: recipes.Recipe, model: Path) -> None:
    """Save what a run of this recipe begins with: its networks at their random weights."""
    import torch

    from genpercept.training import stages

    torch.manual_seed(settings.seed)  # as the loop does, before it builds the stage
    stage = stages.build(settings, print)
    with files.atomic_folder(model) as part:
        stage.save(part)


def tidy(folder: Path, keep_models: bool) -> None:
    """Of a run that has its scores, remove what only served to get them."""
    files.sweep(folder)
    for name in ("checkpoints", "best", *(() if keep_models else ("model",))):
        shutil.rmtree(folder / name, ignore_errors=True)


def curve(log: Path) -> list[dict[str, float]]:
    """Validation figures by step, ascending. Of a step that was validated again after a stop, the last ones count."""
    rows: dict[int, dict[str, float]] = {}
    for row in read_log(log):
        rows[row["step"]] = row
    return [rows[step] for step in sorted(rows)]


def _machine() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else cores()


def _state(folder: Path) -> dict[str, Any]:
    """Steps, seconds and left-out steps of the finished training; nothing where its checkpoint is gone."""
    checkpoints = Checkpoints(folder, 1).list()
    if not checkpoints:
        return {}
    state = files.read_json(checkpoints[-1] / "state.json")
    return {key: state[key] for key in ("step", "seconds", "skipped")}


def run(folder: Path) -> int:
    try:
        return main(folder)
    except (ValueError, OSError) as error:
        with suppress(OSError):  # the log is on the same disk
            print(f"error: {one_line(error)}", file=sys.stderr, flush=True)
        full = isinstance(error, Unwritable) or (isinstance(error, OSError) and error.errno in _FULL)
        return CANNOT_WRITE if full else 2


if __name__ == "__main__":
    end_with(int(sys.argv[2]))  # the study, which cannot tell its runs when it is killed outright
    sys.exit(run(Path(sys.argv[1])))
