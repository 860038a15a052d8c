"""What `genpercept inspect` says of a model, and what it is told of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Part:
    """One part. details: the shapes that decide what it goes with."""

    name: str
    path: str
    parameters: int = 0
    dtypes: tuple[str, ...] = ()
    bytes: int = 0
    details: str = ""
    problem: str = ""


@dataclass
class Report:
    """What a model is. needs: what must be passed with it; problems: why it would not load even then."""

    model: str
    folder: str
    kind: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    parts: list[Part] = field(default_factory=list)
    needs: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def loads(self) -> bool:
        """Whether genpercept.load would take it as it was named, as far as headers tell."""
        return (
            self.kind in ("predictor", "public checkpoint", "exported graph") and not self.problems and not self.needs
        )

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "loads": self.loads}


@dataclass(frozen=True)
class Given:
    """What the user says beside the folder."""

    base: str | None = None
    family: str | None = None
    task: str | None = None
    allow_pickle: bool = False
    subfolder: str | None = None
