"""report.html: tables, then the best, the median and the worst sample of each model on each data set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genpercept.commands.evaluate.cell import Cell, Example
from genpercept.commands.evaluate.columns import Column
from genpercept.commands.evaluate.output import ablations, broken_down, by_metric, header, lines
from genpercept.imaging import html
from genpercept.metrics import METRICS

_LISTED = 50  # skipped samples that are named


@dataclass(frozen=True)
class _Table:
    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


def save(path: Path, cells: Sequence[Cell], settings: Mapping[str, Any], about: Mapping[str, str]) -> None:
    """Write the page. ValueError when the folder cannot be written to."""
    html.save(path, document(cells, settings, about))


def document(cells: Sequence[Cell], settings: Mapping[str, Any], about: Mapping[str, str]) -> str:
    """The HTML page."""
    models = list(dict.fromkeys(c.model for c in cells if not c.baseline))
    sets = list(dict.fromkeys(c.data.title for c in cells))
    return html.render(
        "evaluation.html",
        title="Evaluation",
        lead=f"{', '.join(models) or 'baselines'} on {', '.join(sets)}.",
        results=[*_tables(cells), *(_Table(*one) for one in broken_down(cells))],
        sets=list(_sets(cells)),
        left_out=list(_skipped(cells)),
        further=[*_further(cells), _time(cells)],
        settings=_plain(settings),
        about=about,
    )


def _plain(settings: Mapping[str, Any]) -> dict[str, str]:
    """Settings that were made, one line each; models and sets in words."""
    words = {
        "models": [", ".join(str(v) for v in one.values()) for one in settings["models"]],
        "sets": [", ".join(str(v) for v in one.values() if v not in (None, {})) for one in settings["sets"]],
    }
    kept = {k: v for k, v in {**settings, **words}.items() if v not in (None, "", [], {}, False)}
    return {k: "; ".join(v) if isinstance(v, list) else str(v) for k, v in kept.items()}


def _tables(cells: Sequence[Cell]) -> Iterator[_Table]:
    for metric, group in by_metric(cells).items():
        shown = header(group)
        note = METRICS.find(metric).note
        if any(c.baseline for c in group):
            note += " Baselines look at no image; means and majorities are those of the very labels they are scored on."
        if any(c.data.spec.reported for c in group):
            note += " In brackets: where a paper says so; its figures are not measured here."
        note += _processed(group)
        head = ("model", "set", "samples", *(f"{c.title} {c.arrow}" for c in shown))
        rows = [(model, title, count, *figures[: len(shown)]) for title, model, count, figures in lines(group)]
        yield _Table(metric.capitalize(), head, rows, note.strip())


def _processed(cells: Sequence[Cell]) -> str:
    """A sentence about the post-processing; a column of it would lie beyond the edge of the page."""
    by_words: dict[str, dict[str, None]] = {}
    for cell in cells:
        if cell.post_processing:
            by_words.setdefault(cell.post_processing, {})[cell.model] = None
    said = "; ".join(f"{words} ({', '.join(models)})" for words, models in by_words.items())
    return f" Post-processing: {said}." if said else ""


def _further(cells: Sequence[Cell]) -> Iterator[_Table]:
    for metric, group in by_metric(cells).items():
        if rows := ablations(group):
            head = ("method", "set", *(f"{c.title} {c.arrow}" for c in header(group)))
            yield _Table(f"{metric.capitalize()}: further rows of papers", head, rows)


def _sets(cells: Sequence[Cell]) -> Iterator[dict[str, Any]]:
    for title in dict.fromkeys(c.data.title for c in cells):
        group = [c for c in cells if c.data.title == title and c.examples]
        if not group:
            continue
        spec = group[0].data.spec
        where = f"{spec.dataset}, split {group[0].data.split}"
        protocols = sorted({c.protocol for c in group if c.protocol})
        where += f", protocol {', '.join(protocols)}" if protocols else ""
        rows = [_row(cell, example) for cell in group for example in cell.examples]
        ranking = " and ".join(dict.fromkeys(header([cell])[0].title for cell in group))  # of several tasks
        yield {"title": title, "words": f"{where}. Ranked by {ranking}.", "rows": rows}


def _row(cell: Cell, example: Example) -> dict[str, Any]:
    figures = " · ".join(_said(column, example) for column in header([cell])[:4])
    shown = [html.picture(picture, words) for picture, words in example.pictures]
    return {"title": f"{example.rank}: {example.name}", "note": f"{cell.model} · {figures}", "pictures": shown}


def _said(column: Column, example: Example) -> str:
    return f"{column.title} {column.shown(example.figures.get(column.key))}"


def _skipped(cells: Sequence[Cell]) -> Iterator[dict[str, str]]:
    for cell in cells:
        if not cell.scores.skipped or cell.baseline:
            continue
        named = cell.scores.skipped[:_LISTED]
        more = len(cell.scores.skipped) - len(named)
        words = f"{len(cell.scores.skipped)} of {len(cell.data.names)} samples could not be used and do not count."
        listed = "\n".join(one["problem"] for one in named) + (f"\n... and {more} more" if more else "")
        yield {"title": f"Left out: {cell.model} on {cell.data.title}", "words": words, "problems": listed}


def _time(cells: Sequence[Cell]) -> _Table:
    rows = []
    for cell in cells:
        took = cell.timing
        images, seconds = took.get("predicted", 0), took.get("predict_seconds", 0.0)
        rate = f"{images / seconds:.2f}" if images and seconds else "–"
        rows.append((cell.model, cell.data.title, f"{took.get('seconds', 0):.1f} s", f"{images:.0f}", rate))
    return _Table("Time", ("model", "set", "in all", "images predicted now", "images/s of the network"), rows)
