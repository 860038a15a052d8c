"""Several processes, started by `accelerate launch`, torchrun or a cluster's scheduler: each takes its share of the images.

Process r of n takes every n-th image from the r-th on. They share nothing while they work; at the end they wait for each other
and add up what happened, so that all have the same exit code. Needs accelerate (extra `train`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from genpercept.commands.files.results import Job, Output, lost, lost_line
from genpercept.commands.predict import local, manifest
from genpercept.commands.predict.model import Model
from genpercept.commands.predict.request import Machine, Outcome
from genpercept.commands.predict.stopping import Stop
from genpercept.core import locks, workers

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


def predict(jobs: list[Job], model: Model, output: Output, outcome: Outcome, stop: Stop) -> None:
    """This process's share, then the sum of all in `outcome`, and the merged manifest in the folder of the results.

    The first one holds the folder's lock. What stops one of them stops all, at the end of their shares: ValueError in the
    first, and SystemExit in the others, which have nothing to say.
    """
    from accelerate import PartialState
    from accelerate.utils import gather_object

    workers.end_with_launcher()
    state = PartialState(cpu=True, timeout=_PATIENCE)  # they agree over gloo; where they compute is our own choice
    rank, count, out = state.process_index, state.num_processes, output.out
    with ExitStack() as held:
        _agree(gather_object([_begun(held, out) if rank == 0 else ""]), rank)
        part = manifest.Part(out, rank)
        own, line = Outcome(), ""
        try:
            local.predict(
                jobs[rank::count],
                model,
                output,
                own,
                inputs=jobs,
                on_end=lambda job, line: part.note(job, model.task, line),
                quiet=rank != 0,
                stop=stop,
            )
        except (ValueError, OSError) as error:
            known = lost(error, out) if isinstance(error, OSError) else None
            line = str(error) if known is None else lost_line(out, known, own.done + own.skipped)
        finally:
            outcome.done, outcome.skipped = own.done, own.skipped
            with suppress(OSError):
                part.close()
        failed = {str(job.stem): s for job, s in own.failed.items()}
        told: list[dict[str, Any]] = gather_object(
            [{"done": own.done, "skipped": own.skipped, "failed": failed, "line": line}]
        )
        by_stem = {str(job.stem): job for job in jobs}
        outcome.done = sum(each["done"] for each in told)
        outcome.skipped = sum(each["skipped"] for each in told)
        outcome.failed = {by_stem[stem]: line for each in told for stem, line in each["failed"].items()}
        if rank == 0:
            with suppress(OSError):
                manifest.merge(out)
        state.wait_for_everyone()
    state.destroy_process_group()
    _agree([each["line"] for each in told], rank)


def _begun(held: ExitStack, out: Path) -> str:
    """The first process's beginning; why it may not begin, or ""."""
    try:
        held.enter_context(locks.hold(out, "predict"))
        manifest.check(out)
        manifest.merge(out)  # of a run that was killed
    except (ValueError, OSError) as error:
        return str(error) or type(error).__name__
    return ""


def _agree(lines: Iterable[str], rank: int) -> None:
    if line := next((line for line in lines if line), ""):
        raise ValueError(line) if rank == 0 else SystemExit(2)
