"""Training: one plain loop for every stage. A step reads: batch -> encode -> training pair -> network -> loss -> step."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from accelerate.state import AcceleratorState
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from genpercept.core import devices, dtypes, said
from genpercept.core.rng import generator
from genpercept.training import lacking, stages
from genpercept.training import recipe as recipes
from genpercept.training.dry_run import division, plan
from genpercept.training.networks import batch_norm, learning
from genpercept.training.optim import build
from genpercept.training.optim.schedule import Average, rate
from genpercept.training.recipe import Recipe
from genpercept.training.run import claim, launch, memory, sharding, signals, trackers
from genpercept.training.run.batches import Split, record, recorded
from genpercept.training.run.judging import Judge
from genpercept.training.run.log import Reporter
from genpercept.training.run.meter import Meter
from genpercept.training.run.saving import Saving
from genpercept.training.run.state import Checkpoints, State
from genpercept.training.run.unwritable import Unwritable
from genpercept.training.samples.prefetch import Batches, OnDevice, ahead
from genpercept.training.stages.base import Batch, Making, Stage

_NORM_MEMORY = 0.98  # of the running mean that a spike is told by
_NORM_STEPS = 100  # before which no step counts as a spike


def main(
    recipe: str | Path,
    overrides: Sequence[str] = (),
    out: Path | None = None,
    resume: bool = False,
    dry_run: bool = False,
) -> int:
    """Train what `recipe`, a file or a name, describes into folder `out`; returns the exit status: 130 or 143 when interrupted,
    of a dry run 3 where this machine lacks something.

    Raises ValueError for a recipe that cannot be run, an output folder that has another run in it or cannot be written to, or a
    run that diverged.
    """
    settings = recipes.load(recipe, overrides)
    if dry_run:
        if out is not None and claim.begun_in(out, resume):
            claim.compare(out, settings, overrides)
        planned = plan(settings, out)
        said.result({"recipe": settings.resolved(), "plan": planned.lines, "lacking": planned.lacking})
        print(recipes.to_json(settings))
        print(planned)
        return planned.code
    out = out or Path("run")
    launch.end_with_launcher()
    claim.sweep(out)
    changes = claim.compare(out, settings, overrides) if resume else []
    if resume and (last := claim.done(out, settings)) is not None:
        if os.environ.get("RANK", "0") == "0":
            print(f"{out}: the run is done since step {last}; nothing is changed", file=sys.stderr, flush=True)
        return 0
    for line in lacking.of_models(settings, made=True):
        raise ValueError(line)
    division(settings)
    with claim.held(out), devices.threads_kept():
        if launch.wanted(settings.speed.processes):
            return launch.launch(settings.speed.processes, recipe, overrides, out, resume)
        return Training(settings, out, resume, changes).run()


class Training:
    """A run: the stage, the optimiser and where they stand."""

    def __init__(self, recipe: Recipe, out: Path, resume: bool, changes: Sequence[claim.Change] = ()) -> None:
        """changes: those of the recipe since the run was begun, which `resume` adopts."""
        self.recipe, self.out = recipe, out
        if recipe.speed.threads:
            torch.set_num_threads(recipe.speed.threads)
        if torch.cuda.is_available():
            devices.allow_tf32(recipe.speed.tf32)
        AcceleratorState._reset_state()  # a second run in one interpreter may have another precision
        # said outright: without an accelerator, accelerate does not see that there are several processes
        cpu = not (torch.cuda.is_available() or torch.backends.mps.is_available())
        mixed = recipe.precision if dtypes.autocast(recipe.precision) else "no"
        patient = InitProcessGroupKwargs(timeout=timedelta(hours=12))  # the others wait while the first one validates
        self.accelerator = Accelerator(cpu=cpu, mixed_precision=mixed, kwargs_handlers=[patient])
        self.sharded = sharding.adopt(self.accelerator)
        if self.sharded and recipe.optim.kind == "muon":
            raise ValueError('optim.kind "muon" needs whole matrices, which FSDP does not leave: choose "fused"')
        self.first = self.accelerator.is_main_process  # the one that reports, validates and saves
        self.split = Split(
            recipe.loader.batch_size,
            self.accelerator.num_processes,
            self.accelerator.process_index,
            recipe.loader.micro_batch,
        )
        self.state = State()
        trackers.find(recipe.logging.trackers)  # one that is not installed is said before anything is prepared
        self.reporter = Reporter(out, recipe.logging, recipe.steps, not self.first, recipe.resolved())
        if self.first:
            claim.claim(out, recipe, resume)
        torch.manual_seed(recipe.seed)  # of the initial weights
        with self.accelerator.main_process_first():  # the first one fills the caches, the others find them full
            self.judge = Judge(recipe, self.reporter.line) if self.first else None
            self.stage: Stage = stages.build(recipe, self.reporter.line)
        if recipe.speed.channels_last:
            self.stage.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        batch_norm.across_processes(self.stage.net)
        self.optimiser = build.build(self.stage.groups(), recipe.optim)
        self.base_rates = [group["lr"] for group in self.optimiser.param_groups]
        prepare = sharding.prepare if self.sharded else Accelerator.prepare
        self.net, self.optimiser = prepare(self.accelerator, self.stage.net, self.optimiser)
        self.average = Average(learning.changing(self.stage.net), recipe.ema)
        self.saving = Saving(
            out,
            Checkpoints(out, recipe.checkpoint.keep),
            self.accelerator,
            self.sharded,
            self.optimiser,
            self.average,
            self.stage,
            lambda: stages.build(recipe, self.reporter.line),
            self.reporter.line,
        )
        if resume:
            self.state = self.saving.restore()
            if self.first:
                claim.adopt(out, recipe, changes, self.state)
            if changes:
                self.reporter.line(f"from here on {', '.join(map(str, changes))}")
        if recipe.speed.compile:
            self.net.compile(dynamic=False)
        self.interrupted = 0

    # The loop -------------------------------------------------------------------------------------------------------

    def run(self) -> int:
        recipe, state = self.recipe, self.state
        self._divide()
        parts = self.split.passes
        batches: Batches[Batch] = ahead(Making(self.stage, self.split), state.step * parts, recipe.loader)
        if self.accelerator.device.type == "cuda":
            batches = OnDevice(batches, self.accelerator.device, recipe.speed.channels_last)
        self.reporter.open(state.step)
        self.reporter.line(
            f"{recipe.stage}: {self.stage.samples} samples, {_trained(self.stage.net):,} trained parameters, {self.split}"
        )
        meter = Meter(recipe)
        saved_at = state.seconds
        try:
            with signals.noted(self._interrupt):
                stream = iter(batches)
                while not self._finished():
                    begin = time.perf_counter()
                    with memory.explained(state.step, self.split.at_once):
                        figures = self.step([next(stream) for _ in range(parts)])
                    state.seconds += self._agree(time.perf_counter() - begin)
                    meter.add(figures, time.perf_counter() - begin, batches.waited)
                    self._tell(meter)
                    if _due(state.step, recipe.validation.every) and not self._finished():
                        self._validate()
                    minutes = recipe.checkpoint.every_minutes
                    if _due(state.step, recipe.checkpoint.every) or (
                        minutes and state.seconds - saved_at > 60 * minutes
                    ):
                        self.saving.save(state)
                        saved_at = state.seconds
                    if self.interrupted:
                        self.saving.save(state)
                        self.reporter.line(
                            f"stopped after step {state.step}; go on with --resume --out {self.out} ({self.saving.wait()})"
                        )
                        return 128 + self.interrupted
                self._finish()
        except Exception:
            self.saving.settle()
            raise
        finally:
            batches.close()
            self.reporter.close()
        return 0

    def step(self, batches: Sequence[Batch]) -> dict[str, float]:
        """One optimiser step over the passes that this process's share takes. Returns the figures of the whole batch."""
        state, recipe = self.state, self.recipe
        learning.train(self.stage.net)
        # torch's own generator, which dropout reads where a base has it
        torch.manual_seed(
            int(generator(recipe.seed, state.step, self.accelerator.process_index, "dropout").integers(2**63))
        )
        figures: dict[str, Tensor] = {}
        for part, batch in enumerate(batches):
            weight = self.split.weight(part)
            with self._exchange(part == len(batches) - 1):
                losses, terms = self._losses(batch)
                self.accelerator.backward(losses.mean() * weight)
            for name, value in {"loss": losses, **terms}.items():
                figures[name] = figures.get(name, 0.0) + value.detach().float().mean() * weight
        means = cast(Tensor, self.accelerator.reduce(torch.stack(list(figures.values())), "mean")).tolist()
        total, *parts = means
        norm = float(sharding.whole(self._clip()))
        factor = rate(recipe.optim, state.step, self.progress())
        for group, base in zip(self.optimiser.param_groups, self.base_rates, strict=True):
            group["lr"] = base * factor
        if self._usable(total, norm):
            self.optimiser.step()
            self.average.update(state.step)
        elif self.accelerator.scaler is not None:
            self.accelerator.scaler.update()  # a step that is left out must lower fp16's loss scale all the same
        self.optimiser.zero_grad()
        state.step += 1
        return {
            "loss": total,
            **(dict(zip([*figures][1:], parts, strict=True)) if len(parts) > 1 else {}),
            "norm": norm,
            "lr": self.base_rates[0] * factor,
        }

    def _losses(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Of one pass through the network, per sample, and their parts."""
        batch = batch.to(self.accelerator.device, self.recipe.speed.channels_last)
        with torch.no_grad(), self.accelerator.autocast():
            encoded = self.stage.encode(batch)
        pair = self.stage.training_pair(encoded)
        return self.stage.loss(self.net(*pair.inputs), pair)

    def progress(self) -> float:
        """How far through the decay, 0 to 1. With a time budget the larger of the shares of steps and of time.

        A budgeted run depends on the machine's speed, so it is not bit-reproducible; one without a budget is.
        """
        share = self.state.step / (self.recipe.optim.decay_steps or self.recipe.steps)
        if self.recipe.max_minutes:
            share = max(share, self.state.seconds / (60 * self.recipe.max_minutes))
        return min(share, 1.0)

    def _finished(self) -> bool:
        return claim.finished(self.recipe, self.state)

    def _clip(self) -> Tensor:
        limit = self.recipe.optim.grad_clip or float("inf")
        norm = self.accelerator.clip_grad_norm_([p for p in self.net.parameters() if p.requires_grad], limit)
        return cast(Tensor, norm)

    def _usable(self, loss: float, norm: float) -> bool:
        """Whether the step may be taken: finite, and no spike. ValueError after too many bad ones in a row."""
        state, guard = self.state, self.recipe.guard
        finite = abs(loss) < float("inf") and norm < float("inf")  # False for NaN too
        spike = guard.spike and state.step >= _NORM_STEPS and norm > guard.spike * state.usual_norm > 0
        if finite and not spike:
            state.skipped_in_a_row = 0
            state.usual_norm = (
                norm if not state.usual_norm else _NORM_MEMORY * state.usual_norm + (1 - _NORM_MEMORY) * norm
            )
            return True
        state.skipped += 1
        state.skipped_in_a_row += 1
        self.reporter.line(
            f"step {state.step} left out: loss {loss:.4g}, gradient norm {norm:.4g} (usual {state.usual_norm:.4g})"
        )
        if state.skipped_in_a_row >= guard.limit:
            raise ValueError(
                f"{guard.limit} steps in a row had a loss or gradient that is not finite or far too large: "
                f"lower optim.lr (now {self.recipe.optim.lr}), raise optim.warmup, or use precision bf16 or fp32"
            )
        return False

    def _divide(self) -> None:
        """Settle how many samples go through the network at once, where the recipe leaves that to the memory."""
        if not self.split.micro and memory.limited(self.accelerator.device) and not self.sharded:
            known = recorded(self.out, self.split) if self.state.step else None
            self.split = known or replace(
                self.split, micro=memory.largest(self._rehearse, self.split.largest, self._anywhere)
            )
        if self.first:
            record(self.out, self.split)
        if self.split.passes > 1 and any(isinstance(module, _BatchNorm) for module in self.stage.net.modules()):
            self.reporter.line(
                f"batch normalisation sees {self.split.at_once * self.split.processes} samples of a batch at a time:"
                " loader.micro_batch decides how many"
            )

    def _rehearse(self, size: int) -> None:
        """The passes of a step with so many samples at once, without the step. One of torch's errors where memory is short."""
        step = self.stage.draw.heaviest(self.state.step)
        batch = self.stage.make_batch(step, self.split.share[:size])
        self.net.train()
        with memory.rehearsal(self.net, self.optimiser, self.recipe.optim), self.accelerator.no_sync(self.net):
            for _ in range(2):  # the second one beside the gradients of the first
                self.accelerator.backward(self._losses(batch)[0].mean())

    def _document(self) -> dict[str, Any]:
        """What came of the run, for programs."""
        state = self.state
        facts = {"steps": state.step, "skipped_steps": state.skipped, "seconds": state.seconds}
        best = {"best": state.best, "best_by": state.best_by} if state.best_by else {}
        return {"out": str(self.out), "model": str(self.out / "model"), **facts, **best, "exit_code": 0}

    def _anywhere(self, here: bool) -> bool:
        """Whether it is so in any process."""
        told = torch.tensor([float(here)], device=self.accelerator.device)
        return bool(cast(Tensor, self.accelerator.gather(told)).any())

    def _exchange(self, last: bool) -> Any:
        """Gradients are averaged over the processes once per step, in the last backward pass."""
        return nullcontext() if last else self.accelerator.no_sync(self.net)

    def _agree(self, seconds: float) -> float:
        """The seconds of the slowest process, and a stop for all of them when one was told to stop.

        In all of them, too, what the first could not write is raised.
        """
        failure = self.saving.failure()
        failed = failure is not None
        if self.accelerator.num_processes > 1:
            told = torch.tensor([[seconds, float(self.interrupted), float(failed)]], device=self.accelerator.device)
            seconds, stop, failed = cast(Tensor, self.accelerator.gather(told)).max(0).values.tolist()
            self.interrupted = int(stop)
        if failed:
            raise failure or Unwritable("the first process could not write")
        return seconds

    # Validation and saving ------------------------------------------------------------------------------------------

    def _validate(self) -> None:
        if self.first or self.sharded:
            with self.saving.averaged() as stage:
                if stage is not None:
                    try:
                        self._judge(stage)
                    except Unwritable as error:
                        self.saving.fail(error)  # raised in all processes, which wait here
        self.accelerator.wait_for_everyone()
        self._agree(0.0)

    def _judge(self, stage: Stage) -> None:
        """Report the figures, and keep the model when it is the best one so far."""
        judge = cast(Judge, self.judge)  # the first process has one, and the others do not come here
        with torch.no_grad(), self.accelerator.autocast():
            figures, picture = stage.validate(self.split.at_once)
            figures |= judge.score(stage, self.split.at_once)
        self.reporter.validation(self.state.step, figures, picture)
        if judge.better(figures, self.state):
            self.saving.export(stage, "best")
            self.state.best, self.state.best_by = figures[judge.figure], judge.figure

    def _finish(self) -> None:
        self.saving.save(self.state)
        self._validate()
        self.saving.settle()
        self._agree(0.0)
        self.saving.finish()
        if self.first:
            claim.conclude(self.out, self.state)
            said.result(self._document)
        left_out = f", {self.state.skipped} steps left out" if self.state.skipped else ""
        self.reporter.line(
            f"done: {self.state.step} steps in {self.state.seconds / 60:.1f} min{left_out}; model in {self.out / 'model'}"
        )

    def _tell(self, meter: Meter) -> None:
        step = self.state.step
        self.reporter.progress(step, meter.figures(), meter.left(step, self.state.seconds))
        if _due(step, self.recipe.logging.every):
            try:
                self.reporter.scalars(step, meter.figures())
            except Unwritable as error:
                self.saving.fail(error)  # told in all processes, after the next step

    def _interrupt(self, number: int) -> None:
        """Told by a signal: end the run after the current step, with a checkpoint."""
        self.interrupted = number


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _trained(net: torch.nn.Module) -> int:
    return sum(p.numel() for p in net.parameters() if p.requires_grad)
