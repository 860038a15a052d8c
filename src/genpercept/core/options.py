"""Options of plugins: the fields of a frozen dataclass, changed by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, Self

from genpercept.core.names import hint

# How an image is brought to the network: longest edge, number of pixels, or as the public code of the model's family does
RESIZE_MODES = ("fit", "area", "official")


class Options:
    """Base of plugins that are frozen dataclasses: each field is an option."""

    name = ""
    noun = "plugin"  # what an error calls it

    @property
    def options(self) -> dict[str, Any]:
        """Every option with its value; what `with_options` takes, and what JSON holds."""
        return {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]

    def with_options(self, **options: Any) -> Self:
        """One that differs in these options. ValueError for an unknown one, or for a value it cannot have."""
        known = list(self.options)
        for name in options:
            if name not in known:
                what = hint(name, known) if known else "it has none"
                raise ValueError(f"{self.noun} {self.name!r} has no option {name!r}: {what}")
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
        return replace(self, **values)  # type: ignore[type-var]


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


def check_number(name: str, value: Any, low: float, high: float) -> None:
    """ValueError unless `value` is a number in [low, high]."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ValueError(f"{name}={value!r}: must be a number from {low:g} to {high:g}")


def check_fraction(name: str, value: Any) -> None:
    """ValueError unless `value` is a number in [0, 1]."""
    check_number(name, value, 0, 1)
