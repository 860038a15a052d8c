"""What of a run goes to disk and comes back: checkpoints, and the model as its moving average has it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from genpercept.core.files import atomic_folder
from genpercept.training.networks import learning
from genpercept.training.optim.schedule import Average
from genpercept.training.run import sharding
from genpercept.training.run.background import Background
from genpercept.training.run.state import Checkpoints, State
from genpercept.training.run.unwritable import explained
from genpercept.training.stages.base import Stage


class Saving:
    """A run's parts as they are saved and restored; sharded ones in one piece, in the first process."""

    def __init__(
        self,
        out: Path,
        checkpoints: Checkpoints,
        accelerator: Accelerator,
        sharded: bool,
        optimiser: torch.optim.Optimizer,
        average: Average,
        stage: Stage,
        another: Callable[[], Stage],
        line: Callable[[str], None],
    ) -> None:
        """`another` makes the same stage once more, whole, where the one in training is sharded; `line` tells the user."""
        self.out, self.checkpoints = out, checkpoints
        self._accelerator, self._sharded, self._first = accelerator, sharded, accelerator.is_main_process
        self._optimiser, self._average, self._stage = optimiser, average, stage
        self._another, self._line = another, line
        self._writer = Background()
        self._failure: BaseException | None = None
        self._copy: Stage | None = None  # with whole parameters, where those in training are sharded

    def save(self, state: State) -> None:
        """A checkpoint from which --resume goes on, with whole tensors however they are spread; the first process writes it.

        The step waits for a copy in the CPU's memory, and for the checkpoint before to be on the disk; the rest is done beside
        it, see `wait`. Where it cannot be written, a full disk for one, the ones before are kept, and `failure` tells.
        """
        if not (self._first or self._sharded):
            return
        self.fail(self._writer.end())  # before the copy is made, so that there is one at a time
        held = self._learning(), self._average.shadow, self._optimiser.state_dict()
        weights, average, optimiser_state = sharding.whole(held, self._first)
        if not self._first or self._failure is not None:
            return
        scaler = self._accelerator.scaler
        state = replace(state, scaler=None if scaler is None else dict(scaler.state_dict()))
        self._writer.start(lambda: self._write(state, weights, average, optimiser_state))

    def _write(
        self, state: State, weights: dict[str, Tensor], average: dict[str, Tensor], optimiser: dict[str, Any]
    ) -> None:
        with explained(self.out, f"the checkpoint of step {state.step}"):
            self.checkpoints.save(state, weights, average, optimiser)

    def fail(self, error: BaseException | None) -> None:
        """Keep the first error of what is written, for `failure`."""
        self._failure = self._failure or error

    def failure(self) -> BaseException | None:
        """What went wrong with writing so far, if anything; the step does not wait for what is being written."""
        self.fail(self._writer.failure())
        return self._failure

    def settle(self) -> None:
        """Until nothing is being written any more, however that ended: `failure` tells."""
        self.fail(self._writer.end())

    def wait(self) -> Path:
        """Until what is to be saved is on the disk; the newest checkpoint. Raises Unwritable where it could not be written."""
        self.settle()
        if self._failure is not None:
            raise self._failure
        kept = self.checkpoints.list()
        return kept[-1] if kept else self.checkpoints.folder

    def restore(self) -> State:
        """Where the newest readable checkpoint stands, everything in place as it was; the beginning where there is none."""
        found = self.checkpoints.load_latest(self._line)
        if found is None:
            self._line(f"no checkpoint in {self.checkpoints.folder}: starting from the first step")
            return State()
        state, weights, average, optimiser_state = found
        held = self._learning()
        self._check(weights.keys(), held)
        with torch.no_grad():
            for name, x in held.items():
                x.copy_(sharding.like(weights[name], x))
        self._average.load(average)
        self._optimiser.load_state_dict(sharding.spread_state(optimiser_state, self._optimiser))
        if self._accelerator.scaler is not None and state.scaler:
            self._accelerator.scaler.load_state_dict(state.scaler)
        self._line(f"resumed at step {state.step}")
        return state

    def _check(self, found: Collection[str], held: Mapping[str, Tensor]) -> None:
        """ValueError unless the checkpoint has just what this run changes."""
        if found == held.keys():
            return
        missing = sorted(held.keys() - found)
        if set(found) <= held.keys() and not any(isinstance(held[name], nn.Parameter) for name in missing):
            raise ValueError(
                f"{self.checkpoints.folder}: checkpoints of a version that did not save running statistics, such as "
                f"{missing[0]}, and these cannot be made up: train anew, with another --out"
            )
        raise ValueError(f"{self.checkpoints.folder}: checkpoints of a run that trains other parts than this recipe")

    def _learning(self) -> dict[str, Tensor]:
        return learning.changing(self._stage.net)

    @contextmanager
    def averaged(self) -> Iterator[Stage | None]:
        """The stage in eval mode, with the moving average as its weights, whole; None where another process has it.

        All processes enter together where the parameters are sharded, the first one alone where they are not.
        """
        self._average.swap()
        stage = self._gathered() if self._sharded else self._stage
        try:
            if stage is not None:
                stage.net.eval()
            yield stage
        finally:
            self._average.swap()
            if self._copy is not None:
                self._copy.net.cpu()  # the accelerator's memory is what sharding saves

    def _gathered(self) -> Stage | None:
        held = sharding.whole(self._learning(), self._first)
        if not self._first:
            return None
        if self._copy is None:
            self._copy = self._another()
        with torch.no_grad():
            for name, x in learning.changing(self._copy.net).items():
                x.copy_(held[name])
        self._copy.net.to(self._accelerator.device)
        return self._copy

    def export(self, stage: Stage, name: str) -> None:
        """The model into RUN/NAME, whole or not at all. Raises Unwritable."""
        with explained(self.out, f"{name}/"), atomic_folder(self.out / name) as folder:
            stage.save(folder)

    def finish(self) -> None:
        """The averaged model as RUN/model, once the last checkpoint is on the disk. Unwritable where it cannot be written."""
        self.wait()
        if not (self._first or self._sharded):
            return
        with self.averaged() as stage:
            if stage is not None:
                self.export(stage, "model")
