"""What paradigms share: options as fields of a frozen dataclass, changed by name."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, Self

import torch
from torch import Tensor

from genpercept import equations


class Options:
    """Base of paradigms, which are frozen dataclasses: each field is an option."""

    name = ""

    @property
    def options(self) -> dict[str, Any]:
        """Every option with its value; what `with_options` takes, and what JSON holds."""
        return {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]

    def with_options(self, **options: Any) -> Self:
        """A paradigm that differs in these options. ValueError for an unknown one, or for a value it cannot have."""
        known = list(self.options)
        for name in options:
            if name not in known:
                close = difflib.get_close_matches(name, known, 1)
                hint = f"did you mean {close[0]!r}?" if close else f"its options are {', '.join(known)}"
                raise ValueError(f"paradigm {self.name!r} has no option {name!r}: {hint}")
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
        return replace(self, **values)  # type: ignore[type-var]


class OnePass(Options):
    """Base of paradigms that call the network once."""

    default_steps = 1

    def check_steps(self, steps: int) -> None:
        if steps != 1:
            raise ValueError(f"num_inference_steps={steps}: {self.name} takes exactly 1 step; leave the option out")


def check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """ValueError unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(f"{name}={value!r}: choose {', '.join(choices)}")


def check_integer(name: str, value: Any, low: int, high: int) -> None:
    """ValueError unless `value` is an integer in [low, high]."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"{name}={value!r}: must be an integer from {low} to {high}")


def check_flag(name: str, value: Any) -> None:
    """ValueError unless `value` is a bool."""
    if not isinstance(value, bool):
        raise ValueError(f"{name}={value!r}: must be true or false")


def check_timestep(name: str, value: Any) -> None:
    check_integer(name, value, 0, equations.TRAIN_STEPS - 1)


def full_timestep(z_BCHW: Tensor, t: int) -> Tensor:
    """The same timestep for each sample, (B,) int64 on its device."""
    return torch.full((z_BCHW.shape[0],), t, dtype=torch.int64, device=z_BCHW.device)
