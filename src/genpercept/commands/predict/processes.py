"""Several processes, started by `accelerate launch`, torchrun or a cluster's scheduler: each takes its share of the images.

Process r of n takes every n-th image from the r-th on. They share nothing while they work; at the end they wait for each other
and add up what happened, so that all have the same exit code. Needs accelerate (extra `train`).
"""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from genpercept.commands.files.results import Job
from genpercept.commands.predict import local, manifest
from genpercept.commands.predict.model import Model
from genpercept.commands.predict.request import Machine, Outcome

_PATIENCE = timedelta(days=7)  # the quickest process waits for the slowest


def several() -> bool:
    """Whether this process is one of several, by the usual environment."""
    return os.environ.get("WORLD_SIZE", "1").isdecimal() and int(os.environ.get("WORLD_SIZE", "1")) > 1


def first() -> bool:
    """Whether this process speaks for all of them."""
    return not several() or os.environ.get("RANK", "0") == "0"


def own_device(machine: Machine) -> Machine:
    """Of several processes on one machine each takes one accelerator, by LOCAL_RANK, where none or several are named."""
    if not several() or machine.device == "cpu":
        return machine
    import torch

    index, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if len(machine.devices) > 1:
        return replace(machine, device=machine.devices[index % len(machine.devices)])
    if machine.device in ("auto", "cuda") and count:
        return replace(machine, device=f"cuda:{index % count}")
    return machine


def predict(
    jobs: list[Job], model: Model, formats: tuple[str, ...] | None, resume: bool, outcome: Outcome, out: Path
) -> None:
    """This process's share, then the sum of all in `outcome`, and the merged manifest in `out`."""
    from accelerate import PartialState
    from accelerate.utils import gather_object

    state = PartialState(cpu=True, timeout=_PATIENCE)  # they agree over gloo; where they compute is our own choice
    rank, count = state.process_index, state.num_processes
    if rank == 0:
        manifest.merge(out)  # of a run that was killed
    state.wait_for_everyone()
    part = manifest.Part(out, rank)
    share = jobs[rank::count]
    own = Outcome()
    try:
        local.predict(
            share,
            model,
            formats,
            resume,
            own,
            inputs=jobs,
            on_end=lambda job, line: part.note(job, model.task, line),
            quiet=rank != 0,
        )
    finally:
        outcome.done, outcome.skipped = own.done, own.skipped
        part.close()
    told: list[dict[str, Any]] = gather_object(
        [{"done": own.done, "skipped": own.skipped, "failed": {str(job.stem): s for job, s in own.failed.items()}}]
    )
    by_stem = {str(job.stem): job for job in jobs}
    outcome.done = sum(each["done"] for each in told)
    outcome.skipped = sum(each["skipped"] for each in told)
    outcome.failed = {by_stem[stem]: line for each in told for stem, line in each["failed"].items()}
    if rank == 0:
        manifest.merge(out)
    state.wait_for_everyone()
    state.destroy_process_group()
