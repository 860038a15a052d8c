"""What graphs have in common: one step as one file, checked against the pipeline."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from genpercept.commands.export.source import Source
from genpercept.commands.export.write import write


@dataclass(frozen=True)
class Graph:
    """A format that `genpercept.commands.export.write` knows."""

    name: str
    suffix: str

    def write(self, source: Source, work: Path) -> str:
        """ValueError for a model of several steps, and where the graph does not give the pipeline's answers."""
        found = write(source.pipe, self.name, work / source.file, source.dtype, source.images)
        return (
            f"{self.name}, {source.dtype}, for images of any size: raw maps, which reach {found['largest_value']:.3g}, are at "
            f"most {found['largest']:.2g} away from the pipeline's on {found['images']} {'drawn ' if found['drawn'] else ''}"
            f"images, {found['mean']:.2g} on average"
        )
