"""What `genpercept fit` prints: a row for each category, and their mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from genpercept.commands import terminal
from genpercept.metrics import Column, down, up

if TYPE_CHECKING:
    from rich.table import Table

VERDICTS = (down("false_alarms", "false alarms"), up("found", "found"))


def table(results: Mapping[str, Any], columns: Sequence[Column]) -> Table:
    """`fit.json` as a table for the terminal. columns: of the metric."""
    rows, shown = results["results"], (*columns, *VERDICTS)
    lines = []
    for name, row in rows.items():
        limit = f"{row['thresholds']['image_threshold']:.3f}"
        lines.append([name, *(column.shown(row["figures"][column.key]) for column in shown), limit])
    lines.append([f"mean of {len(rows)}", *(column.shown(results["mean"][column.key]) for column in shown), ""])
    return terminal.table(["", *(f"{column.title} {column.arrow}" for column in shown), "threshold"], lines)
