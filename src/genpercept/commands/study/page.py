"""A study's results as they are read: NAME.md with its tables, NAME.png, and NAME.json beside them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genpercept.commands import terminal
from genpercept.commands.study import chart
from genpercept.core import files
from genpercept.metrics import METRICS, Column

if TYPE_CHECKING:
    from rich.table import Table

Document = Mapping[str, Any]  # `report.document`; a part of one is as a document of a study without parts


def write(out: Path, document: Document) -> list[Path]:
    """NAME.json, NAME.md and, where there is something to draw, NAME.png. Returns their paths.

    Without matplotlib a line on stderr says so, and there is no picture.
    """
    name = document["study"]["name"]
    picture = out / f"{name}.png"
    drawn = _draw(picture, _parts(document)[0])
    files.write_text(out / f"{name}.json", json.dumps(document, indent=1) + "\n")
    files.write_text(out / f"{name}.md", markdown(document, picture.name if drawn else ""))
    return [out / f"{name}.md", out / f"{name}.json", *([picture] if drawn else [])]


def _parts(document: Document) -> Sequence[Document]:
    return document.get("parts", [document])


# ---- the picture -----------------------------------------------------------------------------------------------------


def _draw(path: Path, part: Document) -> bool:
    """Of a study in parts the first is drawn."""
    by_labels = part["study"].get("draw") == "labels"
    panels = _by_labels(part) if by_labels else _by_steps(part)
    if not any(panel.lines for panel in panels):
        return False
    column = METRICS.find(part["metric"]).column(part["study"]["metrics"][0])
    better = {True: ", higher is better", False: ", lower is better", None: ""}[column.higher]
    try:
        chart.draw(path, panels, "labels" if by_labels else "optimiser steps", column.words + better)
    except ValueError as error:
        print(error, file=sys.stderr)
        return False
    return True


def _by_steps(part: Document) -> list[chart.Panel]:
    """Validation during training, a panel for each number of labels."""
    key = part["study"]["metrics"][0]
    panels: dict[Any, dict[str, list[chart.Point]]] = {}
    for curve in part["curves"]:
        if line := [(p["step"], p[key]) for p in curve["points"] if key in p]:
            panels.setdefault(curve["labels"], {})[curve["arm"]] = line
    return [chart.Panel("" if n is None else f"{n} labels", lines) for n, lines in panels.items()]


def _by_labels(part: Document) -> list[chart.Panel]:
    """What the arms score in their first inference, by the number of labels, a panel for each set."""
    key = part["study"]["metrics"][0]
    panels: dict[str, dict[str, list[chart.Point]]] = {}
    for row in sorted(part["rows"], key=lambda row: row["labels"] or 0):
        for held, cells in row["figures"].items():
            line = panels.setdefault(held, {}).setdefault(row["arm"], [])
            if row["labels"] and (mean := cells[key]["mean"]) and row["labels"] not in [x for x, _ in line]:
                line.append((row["labels"], mean["value"]))
    return [chart.Panel(held, {arm: line for arm, line in lines.items() if line}) for held, lines in panels.items()]


# ---- the page --------------------------------------------------------------------------------------------------------


def markdown(document: Document, picture: str = "") -> str:
    """The page: what was compared, the tables of every part, the picture, the runs."""
    study, parts = document["study"], _parts(document)
    texts = [f"# Study: {study['name']}", study["about"], _method(document)]
    texts += [f"Left out: {'; '.join(document['left_out'])}."] if document.get("left_out") else []
    for part in parts:
        if titled := len(parts) > 1 or "parts" in document:
            texts += [f"## {part['title']}", part["study"]["about"], _scored_on(part)]
        texts += _tables(part, "###" if titled else "##")
    if picture:
        texts += _pictured(parts[0], picture)
    if "pretraining" in document:
        texts += ["## Pretraining", _table(("base", *_RUN), _runs([{"runs": document["pretraining"]["runs"]}]))]
        texts += _absent(document["pretraining"])
    texts += ["## Runs", _table(("arm", "labels", *_RUN), _runs(parts, labels=True))]
    texts += [line for part in parts for line in _absent(part)]
    return "\n\n".join(text.strip() for text in texts if text.strip()) + "\n"


_RUN = ("steps", "images", "training, min", "left-out steps")


def _tables(part: Document, heading: str) -> list[str]:
    """A table of means and one of differences per metric and number of labels; for the first metric, of further differences."""
    study, plugin = part["study"], METRICS.find(part["metric"])
    texts = []
    for labels in dict.fromkeys(row["labels"] for row in part["rows"]):
        rows = [row for row in part["rows"] if row["labels"] == labels]
        if labels is not None:
            texts.append(f"{heading} {labels} labels")
        for column in (plugin.column(key) for key in study["metrics"]):
            sets, title = list(rows[0]["figures"]), f"{column.words} {column.arrow}".strip()
            texts.append(f"**{title}**, mean ± standard error over images")
            texts.append(_table(("arm", *_heads(rows, column.key)), _means(rows, sets, column)))
            further = study.get("against", ()) if column.key == study["metrics"][0] else ()
            for place, name in enumerate((study.get("reference", ""), *further)):
                if differences := list(_differences(rows, sets, column, name if place else "")):
                    texts.append(
                        f"**{title}, minus that of {name}**, image by image: "
                        "mean ± standard error over images [each seed's mean]"
                    )
                    texts.append(_table(("arm", *sets), differences))
    return texts


def _pictured(part: Document, picture: str) -> list[str]:
    words = METRICS.find(part["metric"]).column(part["study"]["metrics"][0]).words
    if part["study"].get("draw") == "labels":
        return ["## By the number of labels", f"![{words} against the number of labels, on each set]({picture})"]
    said = "Figures on the validation split, averaged over the seeds."
    return ["## Learning curves", f"![{words} against optimiser steps]({picture})", said]


def tables(document: Document) -> Iterator[Table]:
    """The page's tables of means, for the terminal."""
    for part in _parts(document):
        study, plugin = part["study"], METRICS.find(part["metric"])
        for labels in dict.fromkeys(row["labels"] for row in part["rows"]):
            rows = [row for row in part["rows"] if row["labels"] == labels]
            for column in (plugin.column(key) for key in study["metrics"]):
                title = f"{column.words} {column.arrow}".strip() + ("" if labels is None else f", {labels} labels")
                title = f"{part['title']}: {title}" if part.get("title") else title
                means = _means(rows, list(rows[0]["figures"]), column)
                yield terminal.table(("arm", *_heads(rows, column.key)), means, title=title)


def _method(document: Document) -> str:
    parts = _parts(document)
    arms = [run for part in parts for run in part["runs"]]
    runs = [*document.get("pretraining", {}).get("runs", ()), *arms]
    minutes = sum(run.get("seconds", 0) + run["measure_seconds"] for run in runs) / 60
    seeds = ", ".join(str(seed) for seed in sorted({run["seed"] for run in arms})) or "none"
    dates = sorted({run["date"] for run in runs if "date" in run})
    when = " to ".join(dict.fromkeys((*dates[:1], *dates[-1:])))
    machines = "; ".join(sorted({run["machine"] for run in runs if "machine" in run}))
    where = f" ({when}; {machines})" if dates else ""
    scored = "" if "parts" in document else f"{_scored_on(parts[0])} "
    clustered = dict.fromkeys(held["label"] for part in parts for held in part["study"]["test"] if held.get("scenes"))
    over = "the standard error is over images."
    if clustered:
        over += f" Of {', '.join(clustered)} the images of a scene are averaged, too, and it is over scenes."
    return (
        f"Made by `genpercept study`{where}: {len(runs)} runs, {minutes:.0f} minutes of training and measuring. "
        f"Seeds: {seeds}. {scored}A figure of an image is averaged over the seeds first; {over}"
    )


def _scored_on(part: Document) -> str:
    sets = ", ".join(f"{held['label']} ({held['split']} split)" for held in part["study"]["test"])
    return f"Scored on {sets}, the same images for every arm."


def _heads(rows: Sequence[Mapping[str, Any]], metric: str) -> Iterator[str]:
    """Sets with their number of images, and of scenes where those count."""
    for held, cells in rows[0]["figures"].items():
        mean = cells[metric]["mean"]
        scenes = f" of {mean['scenes']} scenes" if mean and mean.get("scenes") else ""
        yield f"{held} ({mean['images']}{scenes})" if mean else held


def _means(rows: Sequence[Mapping[str, Any]], sets: Sequence[str], column: Column) -> Iterator[tuple[str, ...]]:
    for row in rows:
        yield _label(row), *(_with_error(row["figures"][held][column.key]["mean"], column.fine) for held in sets)


def _differences(
    rows: Sequence[Mapping[str, Any]], sets: Sequence[str], column: Column, against: str = ""
) -> Iterator[tuple[str, ...]]:
    """Rows of the differences to the reference, or to the arm `against`."""
    for row in rows:
        cells = [row["figures"][held][column.key] for held in sets]
        key, cells = (against, [cell.get("against", {}) for cell in cells]) if against else ("difference", cells)
        if all(key in cell for cell in cells):
            yield _label(row), *(_with_seeds(cell[key], column.fine) for cell in cells)


def _label(row: Mapping[str, Any]) -> str:
    return f"{row['arm']}: {row['inference']}" if row["ways"] > 1 else row["arm"]


def _with_error(mean: Mapping[str, Any] | None, digits: int, sign: str = "") -> str:
    if mean is None:
        return "–"
    error = "" if mean["error"] is None else f" ± {mean['error']:.{digits}f}"
    return f"{mean['value']:{sign}.{digits}f}{error}"


def _with_seeds(mean: Mapping[str, Any] | None, digits: int) -> str:
    text = _with_error(mean, digits, "+")
    if mean is None or len(mean["seeds"]) < 2:
        return text
    return f"{text} [{', '.join(f'{value:+.{digits}f}' for value in mean['seeds'].values())}]"


def _runs(parts: Sequence[Document], *, labels: bool = False) -> Iterator[tuple[str, ...]]:
    """A line per arm and number of labels; minutes of all of its seeds together."""
    groups: dict[tuple[str, Any], list[Mapping[str, Any]]] = {}
    for part in parts:
        for run in part["runs"]:
            name = f"{part['title']}: {run['arm']}" if part.get("title") else run["arm"]
            groups.setdefault((name, run["labels"]), []).append(run)
    for (name, count), runs in groups.items():
        minutes = sum(run.get("seconds", 0) for run in runs) / 60
        left_out = sum(run.get("skipped", 0) for run in runs)
        counted = ("all" if count is None else str(count),) if labels else ()
        steps, images = str(runs[0].get("step", "–")), f"{runs[0]['images']:,}"
        yield name, *counted, steps, images, f"{minutes:.1f}", str(left_out)


def _absent(result: Mapping[str, Any]) -> list[str]:
    failed, missing = result["failed"], [name for name in result["missing"] if name not in result["failed"]]
    parts = [f"Failed: {'; '.join(f'{name} ({why})' for name, why in failed.items())}."] if failed else []
    return parts + ([f"Not run: {', '.join(missing)}."] if missing else [])


def _table(header: Sequence[str], rows: Iterator[tuple[str, ...]] | Sequence[tuple[str, ...]]) -> str:
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, rule, *rows))
