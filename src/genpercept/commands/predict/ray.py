"""`genpercept predict --engine ray`: the workers of a Ray cluster read, predict and write; the driver keeps the manifest.

Each worker holds the model and takes blocks of images through the same stream as a single process. On several machines the
images and the results lie in a folder that all of them see under one path. Needs the extra `ray`.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from genpercept.commands.files.results import Job, Output, lost, lost_line
from genpercept.commands.predict import local, manifest
from genpercept.commands.predict.model import Model
from genpercept.commands.predict.progress import Progress
from genpercept.commands.predict.request import Machine, Outcome, Request

_BLOCK = 64  # images: long enough that filling the queues is no matter, short enough that workers end together
_WORKER_CPUS = 4  # of a worker that computes on CPUs; as many streams as one process has at most


class Worker:
    """What runs on a node: the model, loaded at the first block."""

    def __init__(self, request: Request, machine: Machine, output: Output, inside: list[Job], threads: int) -> None:
        import torch

        if threads:
            torch.set_num_threads(threads)
        self._model, self._output, self._inside = Model(request, machine), output, inside
        self._predicted = 0

    def __call__(self, block: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        """Columns number, path, stem, file -> number, task, and error: "" where the results are written. -1: all images.

        Such mistakes go back as text, since Ray would wrap an exception into pages of its own.
        """
        columns = (block[name] for name in ("number", "path", "stem", "file"))
        numbers = {Job(Path(str(p)), Path(str(s)), str(f)): int(i) for i, p, s, f in zip(*columns, strict=True)}
        ended: dict[Job, str] = {}
        outcome = Outcome(predicted=self._predicted)
        try:
            local.predict(
                list(numbers),
                self._model,
                self._output,
                outcome,
                inputs=self._inside,
                on_end=ended.__setitem__,
                quiet=True,
            )
        except (ValueError, OSError) as error:
            known = lost(error, self._output.out) if isinstance(error, OSError) else None
            line = str(error) if known is None else lost_line(self._output.out, known, None)
            return {"number": [-1], "task": [""], "error": [line or type(error).__name__]}
        self._predicted = outcome.predicted
        return {
            "number": [numbers[job] for job in ended],
            "task": [self._model.task] * len(ended),
            "error": list(ended.values()),
        }


def predict(jobs: list[Job], model: Model, output: Output, outcome: Outcome) -> None:
    """Fill `outcome` and the manifest beside the results. A cluster is that of RAY_ADDRESS, else one of this machine's own."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anyone unless the user wants it
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    import ray

    if len(model.machine.devices) > 1 or ":" in model.machine.device:
        raise ValueError(f"device {model.machine.device!r}: Ray gives each worker its own; choose auto, cpu or cuda")
    output = replace(output, out=output.out.absolute())
    out = output.out
    manifest.check(out)
    manifest.merge(out)  # of a run that was killed
    part = manifest.Part(out, 0)
    try:
        if output.resume:
            jobs, before = local.left_to_do(jobs, model, output.formats)
            outcome.skipped = len(before)
            for job in before:
                part.note(job, model.task)
        with Progress(len(jobs), outcome) as progress:
            if jobs:
                with _cluster(ray):
                    progress.restart()
                    # by where they are: a worker has another current folder
                    there = [replace(job, path=job.path.absolute(), stem=job.stem.absolute()) for job in jobs]
                    _collect(_rows(ray, there, model, output), jobs, part, outcome, progress)
    finally:
        part.close()
        manifest.merge(out)


def _rows(ray: Any, jobs: list[Job], model: Model, output: Output) -> Iterator[Any]:
    """The workers' answers, as they come."""
    resources = ray.cluster_resources()
    gpus, cpus = int(resources.get("GPU", 0)), max(1, int(resources.get("CPU", 1)))
    on_gpu = gpus > 0 and model.machine.device in ("auto", "cuda")
    each = 1 if on_gpu else min(_WORKER_CPUS, cpus)
    block = min(_BLOCK, max(1, math.ceil(len(jobs) / (gpus if on_gpu else cpus // each))))
    workers = min(gpus if on_gpu else cpus // each, math.ceil(len(jobs) / block))
    out = os.path.realpath(output.out)
    inside = [job for job in jobs if os.path.dirname(os.path.realpath(job.path)) == out]  # noqa: PTH120  only these could be lost
    rows = [{"number": i, "path": str(job.path), "stem": str(job.stem), "file": job.file} for i, job in enumerate(jobs)]
    data = ray.data.from_items(rows, override_num_blocks=math.ceil(len(jobs) / block))
    answers = data.map_batches(
        Worker,
        batch_size=None,
        compute=ray.data.ActorPoolStrategy(size=workers),
        fn_constructor_args=(
            model.request,
            model.machine,
            replace(output, resume=False),
            inside,
            0 if on_gpu else each,
        ),
        **({"num_gpus": 1} if on_gpu else {"num_cpus": each}),
    )
    return answers.iter_rows()


def _collect(rows: Iterator[Any], jobs: list[Job], part: manifest.Part, outcome: Outcome, progress: Progress) -> None:
    for row in rows:
        if row["number"] < 0:
            raise ValueError(row["error"])
        job = jobs[row["number"]]
        part.note(job, row["task"], row["error"])
        if row["error"]:
            outcome.failed[job] = row["error"]
        else:
            outcome.done += 1
        progress.update()


@contextmanager
def _cluster(ray: Any) -> Iterator[None]:
    """Connected to a cluster, that of the user or one that ends with us."""
    import ray.data

    ours = not ray.is_initialized()
    if ours:
        ray.init(include_dashboard=False, log_to_driver=False, configure_logging=True, logging_level="error")
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    try:
        yield
    finally:
        if ours:
            ray.shutdown()
