"""One run of a study in a process of its own: train, measure, write scores.json.

What was done already is not done again: training goes on from its last checkpoint, and a finished model is only measured.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from genpercept.commands.bench.machine import cores
from genpercept.commands.study.measure import HeldOut, Inference, measure
from genpercept.core import files
from genpercept.core.texts import one_line, read_log
from genpercept.training import recipe as recipes
from genpercept.training.run.state import Checkpoints

JOB, SCORES, LOG = "job.json", "scores.json", "job.log"


def main(folder: Path) -> int:
    """Run the job that lies in `folder`; returns the exit status of its training. ValueError for what cannot be run."""
    import torch

    from genpercept.training.loop import main as train

    job = files.read_json(folder / JOB)
    settings = recipes.parse(job["recipe"], str(folder / JOB))
    if not (folder / "model").is_dir() and (code := train(Path(job["base"]), job["overrides"], folder, True)):
        return code
    if settings.speed.threads:
        torch.set_num_threads(settings.speed.threads)
    begin = time.perf_counter()
    figures = measure(
        folder / "model",
        [HeldOut(**data) for data in job["test"]],
        [Inference(**way) for way in job["inference"]],
        job["metrics"],
        settings.seed,
        settings.loader.micro_batch or settings.loader.batch_size,
        settings.loader,
    )
    scores = {"train": _state(folder), "measure_seconds": time.perf_counter() - begin}
    scores |= {"curve": curve(folder / "log.jsonl"), "figures": figures}
    scores |= {"date": time.strftime("%Y-%m-%d"), "machine": _machine()}
    files.write_text(folder / SCORES, json.dumps(scores))
    for name in ("checkpoints", "best", *(() if job["keep_models"] else ("model",))):
        shutil.rmtree(folder / name, ignore_errors=True)
    return 0


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


def _end_with(parent: int) -> None:
    """Stop, as SIGTERM does, when the study is gone: killed outright, it cannot tell its runs."""
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    try:
        sys.exit(main(Path(sys.argv[1])))
    except (ValueError, OSError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr, flush=True)
        sys.exit(2)
