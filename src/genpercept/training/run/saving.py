"""What of a run goes to disk and comes back: checkpoints, and the model as its moving average has it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn

from genpercept.core.files import atomic_folder, write_text
from genpercept.core.texts import one_line
from genpercept.training import recipe as recipes
from genpercept.training.optim.schedule import Average
from genpercept.training.recipe import Recipe
from genpercept.training.run import sharding
from genpercept.training.run.state import UNWRITABLE, Checkpoints, State
from genpercept.training.stages.base import Stage


def claim(out: Path, recipe: Recipe, resume: bool, begun: bool) -> None:
    """Make the run's folder and write the recipe into it. ValueError when another run lives there."""
    if begun and not resume:
        raise ValueError(f"{out} has checkpoints of a run in it: go on with --resume, or choose another --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_text(out / "recipe.json", recipes.to_json(recipe))
    except OSError as error:
        raise ValueError(f"{out}: cannot be written: {error.strerror}") from None


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
        self._copy: Stage | None = None  # with whole parameters, where those in training are sharded

    def save(self, state: State) -> Path:
        """A checkpoint from which --resume goes on, with whole tensors however they are spread; the first process writes it.

        Where it cannot be written, a full disk for one, a line says so and the ones before are kept.
        """
        if not (self._first or self._sharded):
            return self.checkpoints.folder
        held = dict(self._learning()), self._average.shadow, self._optimiser.state_dict()
        weights, average, optimiser_state = sharding.whole(held)
        if not self._first:
            return self.checkpoints.folder
        scaler = self._accelerator.scaler
        state.scaler = None if scaler is None else scaler.state_dict()
        try:
            return self.checkpoints.save(state, weights, average, optimiser_state)
        except UNWRITABLE as error:
            kept = self.checkpoints.list()
            self._line(
                f"checkpoint of step {state.step} could not be written: {one_line(error)}; "
                f"kept: {kept[-1].name if kept else 'none'}"
            )
            return kept[-1] if kept else self.checkpoints.folder

    def restore(self) -> State:
        """Where the newest readable checkpoint stands, everything in place as it was; the beginning where there is none."""
        found = self.checkpoints.load_latest(self._line)
        if found is None:
            self._line(f"no checkpoint in {self.checkpoints.folder}: starting from the first step")
            return State()
        state, weights, average, optimiser_state = found
        learning = self._learning()
        if {name for name, _ in learning} != weights.keys():
            raise ValueError(
                f"{self.checkpoints.folder}: checkpoints of a run that trains other parts than this recipe"
            )
        with torch.no_grad():
            for name, p in learning:
                p.copy_(sharding.like(weights[name], p))
        self._average.load(average)
        self._optimiser.load_state_dict(sharding.spread_state(optimiser_state, self._optimiser))
        if self._accelerator.scaler is not None and state.scaler:
            self._accelerator.scaler.load_state_dict(state.scaler)
        self._line(f"resumed at step {state.step}")
        return state

    def _learning(self) -> list[tuple[str, nn.Parameter]]:
        return [(name, p) for name, p in self._stage.net.named_parameters() if p.requires_grad]

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
        weights = sharding.whole(dict(self._learning()))
        if not self._first:
            return None
        if self._copy is None:
            self._copy = self._another()
        with torch.no_grad():
            for name, p in self._copy.net.named_parameters():
                if name in weights:
                    p.copy_(weights[name])
        self._copy.net.to(self._accelerator.device)
        return self._copy

    def export(self, stage: Stage, name: str) -> None:
        """The model into RUN/NAME, whole or not at all. Raises one of UNWRITABLE."""
        with atomic_folder(self.out / name) as folder:
            stage.save(folder)

    def finish(self) -> None:
        """The averaged model as RUN/model. ValueError where it cannot be written."""
        if not (self._first or self._sharded):
            return
        with self.averaged() as stage:
            if stage is None:
                return
            try:
                self.export(stage, "model")
            except UNWRITABLE as error:
                raise ValueError(
                    f"{self.out / 'model'} could not be written: {one_line(error)}; make room and run again with --resume"
                ) from None
