"""What `genpercept export --to` writes for: each module's PLUGIN is a target. Light to import; a target's work is not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from genpercept.core.registry import Registry

if TYPE_CHECKING:
    from genpercept.commands.export.source import Source


class Target(Protocol):
    name: str
    suffix: str  # of the file that it writes; "": it writes a folder

    def write(self, source: Source, work: Path) -> str:
        """The model into the empty folder `work`, a file as `source.file`. Returns what was written, in words.

        ValueError for a model that this target cannot hold.
        """
        ...


TARGETS = Registry[Target](__name__, "export target", "genpercept.export_targets", Target)
find = TARGETS.find
