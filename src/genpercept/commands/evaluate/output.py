"""Tables of what was measured: terminal, results.json, .csv, .md and .tex, breakdowns.csv."""

from __future__ import annotations

import csv
import importlib.metadata
import io
import math
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from genpercept.commands import terminal
from genpercept.commands.evaluate.cell import Cell
from genpercept.commands.evaluate.columns import Column, columns
from genpercept.core import files

FORMAT = 1  # of results.json
_FEW = 20  # rows of a breakdown that still go to the terminal: categories and parts, not 40 classes
_PACKAGES = ("genpercept", "torch", "diffusers", "transformers", "numpy", "scipy")
_TEX = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
}
_WORDS = ("model", "set", "dataset", "split", "protocol", "task", "samples", "empty", "skipped", "post_processing")


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


Line = tuple[str, str, str, list[str]]


def lines(cells: Sequence[Cell]) -> Iterator[Line]:
    """Of cells of one metric: set, model, number of samples, figures as text; after each set what papers report of it.

    Where there is a choice of post-processing, it stands after the figures, in words.
    """
    shown, processed = header(cells), extra(cells)
    for title in dict.fromkeys(c.data.title for c in cells):
        group = [c for c in cells if c.data.title == title]
        for cell in group:
            yield (
                title,
                cell.model,
                str(len(cell.scores.rows)),
                [*(c.shown(cell.scores.figures.get(c.key)) for c in shown), *(cell.post_processing for _ in processed)],
            )
        for said in (r for r in group[0].data.spec.reported if r.main):
            yield (
                title,
                f"{said.method} [{said.source}]",
                "",
                [*(c.shown(said.figures.get(c.key)) for c in shown), *("–" for _ in processed)],
            )


def ablations(cells: Sequence[Cell]) -> list[list[str]]:
    """Method, set and figures of what papers report beside their main results, for cells of one metric."""
    specs = {cell.data.title: cell.data.spec for cell in cells}
    return [
        [f"{said.method} [{said.source}]", title, *(c.shown(said.figures.get(c.key)) for c in header(cells))]
        for title, spec in specs.items()
        for said in spec.reported
        if not said.main
    ]


def extra(cells: Sequence[Cell]) -> list[str]:
    """Headers of what `lines` has after the figures."""
    return ["post-processing"] if any(cell.post_processing for cell in cells) else []


def header(cells: Sequence[Cell]) -> tuple[Column, ...]:
    """The columns of figures of cells of one metric."""
    return columns(cells[0].metric, cells[0].scores.figures)


def show(cells: Sequence[Cell], width: int | None = None) -> None:
    """The tables, on stdout. width: of the terminal; default: what it says of itself."""
    from rich.text import Text

    parts: list[Any] = []
    for metric, group in by_metric(cells).items():
        head = ["model", "n", *(f"{c.title}{c.arrow}" for c in header(group)), *extra(group)]
        words = (0, *range(len(head) - len(extra(group)), len(head)))
        table, last = terminal.empty(head, words=words, title=metric), ""
        for title, model, count, figures in lines(group):
            if title != last:
                table.add_row(Text(title, style="bold"))
            table.add_row(Text(f"  {model}"), count, *map(Text, figures), style=None if count else "dim")
            last = title
        parts.append(table)
    for title, head, rows in broken_down(cells):
        if len(rows) <= _FEW:
            parts.append(terminal.table(head, rows, title=title))
    if left_out := sum(len(ablations(group)) for group in by_metric(cells).values()):
        parts.append(Text(f"{left_out} further rows of papers are in report.html and results.md", style="dim"))
    terminal.show(*parts, width=width)


def save(out: Path, cells: Sequence[Cell], settings: dict[str, Any], about: dict[str, str]) -> None:
    """results.json, .csv, .md and .tex in `out`, each whole or not at all; breakdowns.csv where there is one."""
    record = {"format": FORMAT, "settings": settings, "versions": about, "results": [c.record() for c in cells]}
    files.write_json(out / "results.json", record)
    files.write_text(out / "results.csv", csv_of(cells))
    files.write_text(out / "results.md", markdown_of(cells))
    files.write_text(out / "results.tex", tex_of(cells))
    if any(cell.breakdowns for cell in cells):
        files.write_text(out / "breakdowns.csv", breakdowns_csv(cells))
    else:
        (out / "breakdowns.csv").unlink(missing_ok=True)  # of an earlier run


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
        table.writerow(
            [
                *words,
                *counts,
                cell.post_processing,
                *(repr(scores.figures[k]) if k in scores.figures else "" for k in keys),
            ]
        )
    return stream.getvalue()


def breakdowns_csv(cells: Sequence[Cell]) -> str:
    """One line per model, set and class (category, part), its figures in full precision; empty where there is none."""
    keys = list(dict.fromkeys(k for cell in cells for one in cell.breakdowns for r in one.rows.values() for k in r))
    stream = io.StringIO()
    table = csv.writer(stream, lineterminator="\n")
    table.writerow(["model", "set", "what", "name", *keys])
    for cell in cells:
        for one in cell.breakdowns:
            for name, row in ((n, r) for n, r in one.rows.items() if _known(r)):
                figures = (repr(row[k]) if k in row else "" for k in keys)
                table.writerow([cell.model, cell.data.title, one.what, name, *figures])
    return stream.getvalue()


def broken_down(cells: Sequence[Cell]) -> Iterator[tuple[str, list[str], list[list[str]]]]:
    """(title, header, rows) of a table per set and breakdown: names down, the models' figures side by side.

    Baselines, which would take most of its width, are in breakdowns.csv alone.
    """
    cells = [cell for cell in cells if not cell.baseline]
    one_model = len({cell.model for cell in cells}) == 1
    for title in dict.fromkeys(c.data.title for c in cells):
        group = [(c, one) for c in cells if c.data.title == title for one in c.breakdowns]
        for what in dict.fromkeys(one.what for _, one in group):
            shown = [(c, one, column) for c, one in group if one.what == what for column in one.columns]
            heads = [(c.model, f"{column.title} {column.arrow}".strip()) for c, _, column in shown]
            head = [what, *(figure if one_model else f"{model}: {figure}" for model, figure in heads)]
            every = dict.fromkeys(name for _, one, _ in shown for name in one.rows)
            names = [n for n in every if any(_known(one.rows.get(n, {})) for _, one, _ in shown)]
            rows = [
                [n, *(column.shown(one.rows.get(n, {}).get(column.key)) for _, one, column in shown)] for n in names
            ]
            yield f"{title}, by {what}", head, rows


def _known(row: Mapping[str, float]) -> bool:
    return any(math.isfinite(value) for value in row.values())


def markdown_of(cells: Sequence[Cell]) -> str:
    """The tables in Markdown, what else papers report, and the tables by class, category and part."""
    parts = []
    for metric, group in by_metric(cells).items():
        head = ["set", "model", "n", *(f"{c.title} {c.arrow}".strip() for c in header(group)), *extra(group)]
        rows = [[title, model, count, *figures] for title, model, count, figures in lines(group)]
        parts.append(f"## {metric.capitalize()}\n\n{_markdown(head, rows, 2)}")
        if further := ablations(group):
            head = ["method", "set", *(f"{c.title} {c.arrow}".strip() for c in header(group))]
            parts.append(f"## {metric.capitalize()}: further rows of papers\n\n{_markdown(head, further, 2)}")
    parts += [f"## {title}\n\n{_markdown(head, rows, 1)}" for title, head, rows in broken_down(cells)]
    return "\n".join(parts)


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]], words: int) -> str:
    """A table; the first `words` columns are text, the others figures."""
    rule = ["---"] * words + ["---:"] * (len(head) - words)
    plain = ([text.replace("|", "\\|") for text in line] for line in (head, rule, *rows))
    return "".join(f"| {' | '.join(line)} |\n" for line in plain)


def tex_of(cells: Sequence[Cell]) -> str:
    """A tabular per metric, one row per model and set; what papers report follows each set. Needs no package."""
    parts = []
    for group in by_metric(cells).values():
        shown = header(group)
        marks = {True: r" $\uparrow$", False: r" $\downarrow$", None: ""}
        head = " & ".join(["Set", "Model", *(f"{c.latex}{marks[c.higher]}" for c in shown), *extra(group)])
        rows, last = [], ""
        for title, model, _, figures in lines(group):
            rule = [r"\hline"] if title != last else []
            cells_of_row = [escaped(title), escaped(model), *("--" if f == "–" else escaped(f) for f in figures)]
            rows += [*rule, " & ".join(cells_of_row) + r" \\"]
            last = title
        body = "\n".join([head + r" \\", *rows])
        parts.append(
            f"\\begin{{tabular}}{{ll{'r' * len(shown)}{'l' * len(extra(group))}}}\n\\hline\n{body}\n\\hline\n\\end{{tabular}}\n"
        )
    return "\n".join(parts)


def escaped(text: str) -> str:
    """Text that LaTeX prints as it is."""
    return "".join(_TEX.get(c, c) for c in text)
