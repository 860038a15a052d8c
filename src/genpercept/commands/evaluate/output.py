"""Tables of what was measured: terminal, results.json, results.csv, results.tex."""

from __future__ import annotations

import csv
import importlib.metadata
import io
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape

from genpercept.commands.evaluate.cell import Cell
from genpercept.commands.evaluate.columns import Column, columns
from genpercept.core import files

FORMAT = 1  # of results.json
_WIDE = 160
_PACKAGES = ("genpercept", "torch", "diffusers", "transformers", "numpy", "scipy")
_TEX = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
}
_WORDS = ("model", "set", "dataset", "split", "protocol", "task", "samples", "empty", "skipped")


def versions(device: str) -> dict[str, str]:
    """Of the software, and where it ran."""
    found = {name: importlib.metadata.version(name) for name in _PACKAGES}
    where = f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors"
    return found | {"Python": platform.python_version(), "device": device, "machine": where}


def by_metric(cells: Sequence[Cell]) -> dict[str, list[Cell]]:
    """Cells that one table can hold, in order: by data set, then as they were measured."""
    found: dict[str, list[Cell]] = {}
    for title in dict.fromkeys(c.data.title for c in cells):
        for cell in cells:
            if cell.data.title == title:
                found.setdefault(cell.metric, []).append(cell)
    return found


def lines(cells: Sequence[Cell]) -> Iterator[tuple[str, str, str, list[str]]]:
    """Of cells of one metric: set, model, number of samples, figures as text; after each set what papers report of it."""
    shown = columns(cells[0].metric, cells[0].scores.figures)
    for title in dict.fromkeys(c.data.title for c in cells):
        group = [c for c in cells if c.data.title == title]
        for cell in group:
            yield (
                title,
                cell.model,
                str(len(cell.scores.rows)),
                [c.shown(cell.scores.figures.get(c.key)) for c in shown],
            )
        for said in group[0].data.spec.reported:
            yield title, f"{said.method} [{said.source}]", "", [c.shown(said.figures.get(c.key)) for c in shown]


def header(cells: Sequence[Cell]) -> tuple[Column, ...]:
    """The columns of figures of cells of one metric."""
    return columns(cells[0].metric, cells[0].scores.figures)


def show(cells: Sequence[Cell], width: int | None = None) -> None:
    """The tables, on stdout; lines are not broken where nobody looks at a terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, width=width or (None if sys.stdout.isatty() else _WIDE))
    for metric, group in by_metric(cells).items():
        table = Table(box=box.SIMPLE_HEAD, title=metric, title_justify="left", title_style="bold")
        table.add_column("model", overflow="fold", min_width=24)
        for name in ("n", *(f"{c.title}{c.arrow}" for c in header(group))):
            table.add_column(name, justify="right", no_wrap=True)
        last = ""
        for title, model, count, figures in lines(group):
            if title != last:
                table.add_row(f"[bold]{escape(title)}[/bold]")
            table.add_row(f"  {escape(model)}", count, *figures, style=None if count else "dim")
            last = title
        console.print(table)


def save(out: Path, cells: Sequence[Cell], settings: dict[str, Any], about: dict[str, str]) -> None:
    """results.json, results.csv and results.tex in `out`, each whole or not at all."""
    record = {"format": FORMAT, "settings": settings, "versions": about, "results": [c.record() for c in cells]}
    files.write_json(out / "results.json", record)
    files.write_text(out / "results.csv", csv_of(cells))
    files.write_text(out / "results.tex", tex_of(cells))


def csv_of(cells: Sequence[Cell]) -> str:
    """One line per model and set, all figures, full precision; empty where a metric has no such figure."""
    keys = list(dict.fromkeys(key for cell in cells for key in cell.scores.figures))
    stream = io.StringIO()
    table = csv.writer(stream, lineterminator="\n")
    table.writerow([*_WORDS, *keys])
    for cell in cells:
        scores, data = cell.scores, cell.data
        words = [cell.model, data.title, data.spec.dataset, data.split, cell.protocol or "", cell.task]
        counts = [len(scores.rows), len(scores.empty), len(scores.skipped)]
        table.writerow([*words, *counts, *(repr(scores.figures[k]) if k in scores.figures else "" for k in keys)])
    return stream.getvalue()


def tex_of(cells: Sequence[Cell]) -> str:
    """A tabular per metric, one row per model and set; what papers report follows each set. Needs no package."""
    parts = []
    for group in by_metric(cells).values():
        shown = header(group)
        marks = {True: r" $\uparrow$", False: r" $\downarrow$", None: ""}
        head = " & ".join(["Set", "Model", *(f"{c.latex}{marks[c.higher]}" for c in shown)])
        rows, last = [], ""
        for title, model, _, figures in lines(group):
            rule = [r"\hline"] if title != last else []
            cells_of_row = [escaped(title), escaped(model), *("--" if f == "–" else f for f in figures)]
            rows += [*rule, " & ".join(cells_of_row) + r" \\"]
            last = title
        body = "\n".join([head + r" \\", *rows])
        parts.append(f"\\begin{{tabular}}{{ll{'r' * len(shown)}}}\n\\hline\n{body}\n\\hline\n\\end{{tabular}}\n")
    return "\n".join(parts)


def escaped(text: str) -> str:
    """Text that LaTeX prints as it is."""
    return "".join(_TEX.get(c, c) for c in text)
