"""Whose a run's folder is: a new run's, one's that goes on, perhaps with changed settings, or one's that is done."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from genpercept.core import files, locks
from genpercept.core.texts import one_line
from genpercept.training import recipe as recipes
from genpercept.training.recipe import Recipe
from genpercept.training.run import launch
from genpercept.training.run.state import Checkpoints, State

RECIPE, CHANGES, DONE = "recipe.json", "changes.jsonl", "done.json"

# Keys (with all below them) that leave a run the same run: how long, how carefully and where it runs and what it reports.
# What is not here makes another run.
MAY_CHANGE = (
    *("steps", "max_minutes", "precision", "resolution", "resize_mode"),
    *("validation", "checkpoint", "logging", "speed", "guard"),
    *("optim.lr", "optim.lr_decoder", "optim.lr_head", "optim.betas", "optim.weight_decay", "optim.eps"),
    *("optim.warmup", "optim.decay", "optim.final", "optim.decay_steps", "optim.grad_clip"),
    *("loader.micro_batch", "loader.threads", "loader.prefetch", "loader.workers", "loader.cache", "denoiser.text_lr"),
    *("loader.render_workers", "denoiser.sample_steps", "denoiser.guidance", "data.N.root", "data.N.skip_bad"),
)
UNHEEDED = ("name", "loader.cache_dir")  # a remark, and what depends on the user's environment
# of those that may change, what leaves the figure of the best model comparable
_SAME_FIGURES = ("validation.every", "validation.pictures", "validation.prompts")


@dataclass(frozen=True)
class Change:
    """A key of the recipe, with what it was and what it is; None where there is no such key."""

    key: str
    was: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.key} {_short(self.was)} -> {_short(self.now)}"


def sweep(out: Path) -> None:
    """Remove what a killed run left half-written in its folder, and put back a model that it had put aside."""
    for folder in (out, out / "checkpoints", out / "pictures"):
        files.sweep(folder)


def held(out: Path) -> AbstractContextManager[None]:
    """The run's folder, made where it must be, is this process's, with those that train with it, until the block ends.

    ValueError, with who holds it and since when, where another run does; and where it cannot be written.
    """
    return locks.own(out, "train") if launch.leads() else nullcontext()


def claim(out: Path, recipe: Recipe, resume: bool) -> None:
    """Make the run's folder; a new run's recipe is written into it. ValueError when another run lives there."""
    begun = begun_in(out, resume)
    try:
        out.mkdir(parents=True, exist_ok=True)
        if not begun:
            (out / DONE).unlink(missing_ok=True)
            (out / CHANGES).unlink(missing_ok=True)
        if not (begun and (out / RECIPE).exists()):
            files.write_text(out / RECIPE, recipes.to_json(recipe))
    except OSError as error:
        raise ValueError(f"{out}: cannot be written: {error.strerror}") from None


def begun_in(out: Path, resume: bool) -> bool:
    """Whether a run's checkpoints are there. ValueError where they are, and it is not to go on."""
    begun = bool(Checkpoints(out, 1).list())
    if begun and not resume:
        raise ValueError(f"{out} has checkpoints of a run in it: go on with --resume, or choose another --out")
    return begun


def compare(out: Path, recipe: Recipe, overrides: Sequence[str]) -> list[Change]:
    """What differs from the recipe that the run in `out` has had so far; nothing where it has saved no step yet.

    ValueError for a change that makes another run, and for any other that `overrides` (key=value, of this call) does not say.
    """
    path = out / RECIPE
    if not Checkpoints(out, 1).list() or not path.exists():
        return []
    try:
        before = recipes.parse(files.read_json(path), str(path)).resolved()
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path}: the run's recipe so far cannot be read ({one_line(error)}); without that file nothing is compared"
        ) from None
    found = changes(before, recipe.resolved())
    other = [change for change in found if not _under(change.key, MAY_CHANGE)]
    if other:
        raise ValueError(
            f"{out}: goes on with the recipe it began with, and {_list(other)} would make another run: "
            "set it as it was, or choose another --out"
        )
    said = [text.partition("=")[0].strip() for text in overrides]
    unsaid = [change for change in found if not _under(change.key, said)]
    if unsaid:
        change = unsaid[0]
        raise ValueError(
            f"{out}: {_list(unsaid)}: changed since the run began; to go on with the new value, say so "
            f"(--set {change.key}={_toml(change.now)}), or set it as it was (--set {change.key}={_toml(change.was)})"
        )
    return found


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """The keys in which two resolved recipes differ, in their order."""
    old, new = dict(_flat(before)), dict(_flat(after))
    found = [Change(key, old.get(key), new.get(key)) for key in {**old, **new} if old.get(key) != new.get(key)]
    return [change for change in found if not _under(change.key, UNHEEDED)]


def adopt(out: Path, recipe: Recipe, found: Sequence[Change], state: State) -> None:
    """Go on from `state`: file the changes with the step from which they hold, and the recipe as it is now.

    Where validation sees something else, the best figure so far is forgotten: the next one cannot be compared with it.
    """
    ended = _concluded(out)
    if ended is not None and ended.step == state.step:
        state.best, state.best_by = ended.best, ended.best_by  # of a run that was done, and is to go further
    if not found:
        return
    if any(change.key.startswith("validation.") and not _under(change.key, _SAME_FIGURES) for change in found):
        state.best = None
    try:
        with (out / CHANGES).open("a", encoding="utf-8") as log:
            log.writelines(json.dumps({"step": state.step, **asdict(change)}) + "\n" for change in found)
        files.write_text(out / RECIPE, recipes.to_json(recipe))
    except OSError as error:
        raise ValueError(f"{out}: cannot be written: {error.strerror}") from None


def finished(recipe: Recipe, state: State) -> bool:
    """Whether the steps, or the minutes, are over."""
    budget = 60 * recipe.max_minutes
    return state.step >= recipe.steps or bool(budget and state.seconds >= budget)


def conclude(out: Path, state: State) -> None:
    """Note that the run is done and its model written, and the best figure, which the last validation may have moved."""
    with suppress(OSError):  # a full disk: without the note, --resume writes the model again
        files.write_json(out / DONE, {key: asdict(state)[key] for key in ("step", "seconds", "best", "best_by")})


def _concluded(out: Path) -> State | None:
    try:
        return State(**files.read_json(out / DONE))
    except (OSError, ValueError, TypeError):
        return None


def done(out: Path, recipe: Recipe) -> int | None:
    """The step at which the run in `out` ended with its model written, if by this recipe there is nothing left to do."""
    checkpoints, state = Checkpoints(out, 1).list(), _concluded(out)
    if state is None or not checkpoints or checkpoints[-1].name != Checkpoints.name(state.step):
        return None
    return state.step if (out / "model").is_dir() and finished(recipe, state) else None


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Keys in dots and values; lists of tables are gone into, by number."""
    if isinstance(value, Mapping):
        for name, one in value.items():
            yield from _flat(one, f"{key}.{name}" if key else name)
    elif isinstance(value, list) and value and all(isinstance(one, Mapping) for one in value):
        for number, one in enumerate(value):
            yield from _flat(one, f"{key}.{number}")
    else:
        yield key, value


def _under(key: str, sections: Sequence[str]) -> bool:
    """Whether the key is one of `sections`, or lies below one; N in those is any number."""
    plain = re.sub(r"\.\d+(?=\.|$)", ".N", key)
    return any(one == end or one.startswith(f"{end}.") for end in sections for one in (key, plain))


def _list(found: Sequence[Change], limit: int = 6) -> str:
    more = f" and {len(found) - limit} more" if len(found) > limit else ""
    return ", ".join(map(str, found[:limit])) + more


def _short(value: Any) -> str:
    text = "none" if value is None else json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _toml(value: Any) -> str:
    return json.dumps(value)  # the values of JSON are TOML's, but for tables and null, which no such key has
