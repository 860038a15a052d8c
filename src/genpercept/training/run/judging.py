"""Which model of a run is the best one: by which figure of validation, and whether more of it is better."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from genpercept.training.networks.predictor import find_task
from genpercept.training.recipe import Recipe
from genpercept.training.run import held_out
from genpercept.training.run.state import State
from genpercept.training.stages.base import PredictorStage, Stage

_PREDICTORS = ("finetune", "distil")  # stages whose model predicts


def figures(recipe: Recipe) -> dict[str, bool]:
    """The figures that a model can be chosen by -> whether more is better. The first one is the stage's own choice."""
    match recipe.stage:
        case "autoencoder":
            found = {"psnr": True} | {f"psnr_{kind}": True for kind in recipe.autoencoder.paint}
        case "distil":
            found = {"loss": False, "snr": True}
        case "finetune":
            found = {"loss": False} | held_out.directions(find_task(recipe))
        case _:
            found = {"loss": False}
    if recipe.validation.sets:
        ranked = held_out.directions(find_task(recipe))
        found |= {f"{data.label}/{key}": higher for data in recipe.validation.sets for key, higher in ranked.items()}
    return found


def check(recipe: Recipe) -> None:
    """ValueError for validation.sets that can never be scored, and for a validation.best that no validation reports.

    No file is looked for.
    """
    sets, best = recipe.validation.sets, recipe.validation.best
    if sets and recipe.stage not in _PREDICTORS:
        raise ValueError(f"validation.sets: stage {recipe.stage!r} trains nothing that predicts; leave them out")
    if sets:
        held_out.check(sets, find_task(recipe), "validation.sets")
    if best and best not in (known := figures(recipe)):
        raise ValueError(f"validation.best {best!r}: no figure of this run; choose one of {', '.join(known)}")


class Judge:
    """Opens the sets of a recipe and compares models. ValueError for what `check` refuses, and for sets that are not there."""

    def __init__(self, recipe: Recipe, report: Callable[[str], None]) -> None:
        check(recipe)
        known = figures(recipe)
        self.figure = recipe.validation.best or next(iter(known))
        self._higher, self._steps = known[self.figure], recipe.validation.steps
        sets = recipe.validation.sets
        self._sets = [held_out.OpenSet(data, find_task(recipe), recipe.loader, report) for data in sets]

    def score(self, stage: Stage, at_once: int) -> dict[str, float]:
        """Figures of the sets, as TITLE/figure, of the stage's predictor as it stands."""
        if not self._sets:
            return {}
        assert isinstance(stage, PredictorStage)  # `check` refuses sets of other stages
        pipe = stage.pipeline()
        return {
            f"{opened.data.label}/{key}": value
            for opened in self._sets
            for key, value in opened.score(pipe, self._steps, at_once).items()
        }

    def better(self, found: Mapping[str, float], state: State) -> bool:
        """Whether these figures are of the best model so far. What is not finite never is."""
        value, best = found[self.figure], state.best if state.best_by in ("", self.figure) else None
        if not math.isfinite(value):
            return False
        return best is None or (value > best if self._higher else value < best)
