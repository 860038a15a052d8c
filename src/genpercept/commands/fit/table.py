"""What `genpercept fit` prints: a row for each category, and their mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from genpercept.metrics import Column, down, up

VERDICTS = (down("false_alarms", "false alarms"), up("found", "found"))


def table(results: Mapping[str, Any], columns: Sequence[Column]) -> str:
    """`fit.json` as fixed-width text. columns: of the metric."""
    rows, shown = results["results"], (*columns, *VERDICTS)
    lines = [["", *(f"{column.title} {column.arrow}" for column in shown), "threshold"]]
    for name, row in rows.items():
        limit = f"{row['thresholds']['image_threshold']:.3f}"
        lines.append([name, *(column.shown(row["figures"][column.key]) for column in shown), limit])
    lines.append([f"mean of {len(rows)}", *(column.shown(results["mean"][column.key]) for column in shown), ""])
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([cells[0].ljust(widths[0]), *map(str.rjust, cells[1:], widths[1:])]).rstrip() for cells in lines
    )
