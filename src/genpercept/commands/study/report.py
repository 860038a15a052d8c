"""What came out of a study: NAME.json, NAME.md and NAME.png, from the runs that are finished."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from genpercept.commands import terminal
from genpercept.commands.study import chart, paired
from genpercept.commands.study.execute import Job
from genpercept.commands.study.job import SCORES
from genpercept.commands.study.paired import Mean
from genpercept.core import files
from genpercept.metrics import METRICS, Column

if TYPE_CHECKING:
    from rich.table import Table

# ---- the figures -----------------------------------------------------------------------------------------------------


def collect(out: Path, jobs: Sequence[Job], study: Mapping[str, Any], failed: Mapping[str, str]) -> dict[str, Any]:
    """NAME.json: the study's settings; rows, one per number of labels, arm and inference; runs; which runs are missing.

    A row has per set and metric the mean (`Mean` of paired.py) and, but for the reference's, the difference to it.
    """
    scores = {
        job.folder: files.read_json(out / job.folder / SCORES) for job in jobs if (out / job.folder / SCORES).is_file()
    }
    rows: list[dict[str, Any]] = []
    for labels in dict.fromkeys(job.labels for job in jobs):
        group = [job for job in jobs if job.labels == labels and job.folder in scores]
        base = [job for job in group if job.arm == study["reference"]]
        reference = _figures(base, scores, base[0].inference[0].title) if base else {}
        for arm in dict.fromkeys(job.arm for job in group):
            same = [job for job in group if job.arm == arm]
            for way in same[0].inference:
                row = {"labels": labels, "arm": arm, "inference": way.title, "ways": len(same[0].inference)}
                is_reference = arm == study["reference"] and way is same[0].inference[0]
                found = _figures(same, scores, way.title)
                rows.append(row | {"figures": _compared(found, {} if is_reference else reference)})
    return {
        "study": dict(study),
        "rows": rows,
        "curves": _curves(jobs, scores),
        "runs": [_run(job, scores[job.folder]) for job in jobs if job.folder in scores],
        "failed": dict(failed),
        "missing": [job.folder for job in jobs if job.folder not in scores],
    }


Scores = dict[tuple[str, str], dict[int, tuple[list[str], list[float]]]]  # (set, metric) -> paired.Scores


def _figures(jobs: Sequence[Job], scores: Mapping[str, Any], way: str) -> Scores:
    found: Scores = {}
    for job in jobs:
        for held in job.test:
            figures = scores[job.folder]["figures"][way][held.label]
            for metric in job.metrics:
                found.setdefault((held.label, metric), {})[job.seed] = figures["name"], figures[metric]
    return found


def _compared(found: Scores, reference: Scores) -> dict[str, dict[str, Any]]:
    """set -> metric -> {"mean": ..., "difference": ...}."""
    result: dict[str, dict[str, Any]] = {}
    for (held, metric), values in found.items():
        cell = {"mean": _dict(paired.mean(values))}
        if (held, metric) in reference:
            cell["difference"] = _dict(paired.difference(values, reference[held, metric]))
        result.setdefault(held, {})[metric] = cell
    return result


def _dict(mean: Mean | None) -> dict[str, Any] | None:
    return None if mean is None else asdict(mean)


def _curves(jobs: Sequence[Job], scores: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Validation figures against steps, averaged over the seeds: of the steps that all of them have."""
    found = []
    for labels, arm in dict.fromkeys((job.labels, job.arm) for job in jobs if job.folder in scores):
        runs = [scores[j.folder]["curve"] for j in jobs if (j.labels, j.arm) == (labels, arm) and j.folder in scores]
        by_step = [{row["step"]: row for row in run} for run in runs]
        steps = sorted(set.intersection(*(set(run) for run in by_step)))
        points = []
        for step in steps:
            keys = [key for key in by_step[0][step] if key != "step" and all(key in run[step] for run in by_step)]
            points.append({"step": step, **{key: float(np.mean([run[step][key] for run in by_step])) for key in keys}})
        found.append({"labels": labels, "arm": arm, "points": points})
    return found


def _run(job: Job, scores: Mapping[str, Any]) -> dict[str, Any]:
    named = {"folder": job.folder, "arm": job.arm, "labels": job.labels, "seed": job.seed, "images": job.images()}
    seen = {key: scores[key] for key in ("date", "machine") if key in scores}
    return {**named, **scores["train"], "measure_seconds": scores["measure_seconds"], **seen}


# ---- writing ---------------------------------------------------------------------------------------------------------


def write(out: Path, result: Mapping[str, Any], metric: str) -> list[Path]:
    """NAME.json, NAME.md and, where there is a validation figure to draw, NAME.png. Returns their paths.

    metric: which declares the figures. Without matplotlib a line on stderr says so, and there is no picture.
    """
    name = result["study"]["name"]
    picture = out / f"{name}.png"
    drawn = _draw(picture, result, metric)
    files.write_text(out / f"{name}.json", json.dumps(result, indent=1) + "\n")
    files.write_text(out / f"{name}.md", markdown(result, metric, picture.name if drawn else ""))
    return [out / f"{name}.md", out / f"{name}.json", *([picture] if drawn else [])]


def _draw(path: Path, result: Mapping[str, Any], metric: str) -> bool:
    key = result["study"]["metrics"][0]
    panels: dict[Any, dict[str, list[chart.Point]]] = {}
    for curve in result["curves"]:
        if line := [(p["step"], p[key]) for p in curve["points"] if key in p]:
            panels.setdefault(curve["labels"], {})[curve["arm"]] = line
    if not panels:
        return False
    shown = [chart.Panel("" if n is None else f"{n} labels", lines) for n, lines in panels.items()]
    column = METRICS.find(metric).column(key)
    better = {True: ", higher is better", False: ", lower is better", None: ""}[column.higher]
    try:
        chart.draw(path, shown, "optimiser steps", column.words + better)
    except ValueError as error:
        print(error, file=sys.stderr)
        return False
    return True


def markdown(result: Mapping[str, Any], metric: str, picture: str = "") -> str:
    """The page: what was compared, a table of means and one of differences per metric and number of labels, the curves."""
    study, plugin = result["study"], METRICS.find(metric)
    parts = [f"# Study: {study['name']}", study["about"], _method(result)]
    for labels in dict.fromkeys(row["labels"] for row in result["rows"]):
        rows = [row for row in result["rows"] if row["labels"] == labels]
        if labels is not None:
            parts.append(f"## {labels} labels")
        for column in (plugin.column(key) for key in study["metrics"]):
            sets, title = list(rows[0]["figures"]), f"{column.words} {column.arrow}".strip()
            parts.append(f"**{title}**, mean ± standard error over images")
            parts.append(_table(("arm", *_heads(rows, column.key)), _means(rows, sets, column)))
            if differences := list(_differences(rows, sets, column)):
                parts.append(
                    f"**{title}, minus that of {study['reference']}**, image by image: "
                    "mean ± standard error over images [each seed's mean]"
                )
                parts.append(_table(("arm", *sets), differences))
    if picture:
        parts.append("## Learning curves")
        parts.append(f"![{plugin.column(study['metrics'][0]).words} against optimiser steps]({picture})")
        parts.append("Figures on the validation split, averaged over the seeds.")
    parts += ["## Runs", _table(("arm", "labels", "steps", "images", "training, min", "left-out steps"), _runs(result))]
    parts += _absent(result)
    return "\n\n".join(part.strip() for part in parts if part.strip()) + "\n"


def tables(result: Mapping[str, Any], metric: str) -> Iterator[Table]:
    """The page's tables of means, for the terminal."""
    study, plugin = result["study"], METRICS.find(metric)
    for labels in dict.fromkeys(row["labels"] for row in result["rows"]):
        rows = [row for row in result["rows"] if row["labels"] == labels]
        for column in (plugin.column(key) for key in study["metrics"]):
            title = f"{column.words} {column.arrow}".strip() + ("" if labels is None else f", {labels} labels")
            means = _means(rows, list(rows[0]["figures"]), column)
            yield terminal.table(("arm", *_heads(rows, column.key)), means, title=title)


def _method(result: Mapping[str, Any]) -> str:
    study, runs = result["study"], result["runs"]
    minutes = sum(run.get("seconds", 0) + run["measure_seconds"] for run in runs) / 60
    seeds = ", ".join(str(seed) for seed in sorted({run["seed"] for run in runs})) or "none"
    sets = ", ".join(f"{_called(held)} ({held['split']} split)" for held in study["test"])
    dates = sorted({run["date"] for run in runs if "date" in run})
    when = " to ".join(dict.fromkeys((*dates[:1], *dates[-1:])))
    machines = "; ".join(sorted({run["machine"] for run in runs if "machine" in run}))
    where = f" ({when}; {machines})" if dates else ""
    return (
        f"Made by `genpercept study`{where}: {len(runs)} runs, {minutes:.0f} minutes of training and measuring. "
        f"Seeds: {seeds}. Scored on {sets}, the same images for every arm. A figure of an image is averaged over the "
        "seeds first; the standard error is over images."
    )


def _called(held: Mapping[str, Any]) -> str:
    """A set's name, as `HeldOut.label` has it."""
    return held["title"] or (held["name"] if held.get("root") else held["domain"])


def _heads(rows: Sequence[Mapping[str, Any]], metric: str) -> Iterator[str]:
    """Sets with their number of images."""
    for held, cells in rows[0]["figures"].items():
        mean = cells[metric]["mean"]
        yield f"{held} ({mean['images']})" if mean else held


def _means(rows: Sequence[Mapping[str, Any]], sets: Sequence[str], column: Column) -> Iterator[tuple[str, ...]]:
    for row in rows:
        yield _label(row), *(_with_error(row["figures"][held][column.key]["mean"], column.fine) for held in sets)


def _differences(rows: Sequence[Mapping[str, Any]], sets: Sequence[str], column: Column) -> Iterator[tuple[str, ...]]:
    for row in rows:
        cells = [row["figures"][held][column.key] for held in sets]
        if all("difference" in cell for cell in cells):
            yield _label(row), *(_with_seeds(cell["difference"], column.fine) for cell in cells)


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


def _runs(result: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """A line per arm and number of labels; minutes of all of its seeds together."""
    groups: dict[tuple[str, Any], list[Mapping[str, Any]]] = {}
    for run in result["runs"]:
        groups.setdefault((run["arm"], run["labels"]), []).append(run)
    for (arm, labels), runs in groups.items():
        minutes = sum(run.get("seconds", 0) for run in runs) / 60
        left_out = sum(run.get("skipped", 0) for run in runs)
        steps = str(runs[0].get("step", "–"))
        yield (
            arm,
            "all" if labels is None else str(labels),
            steps,
            f"{runs[0]['images']:,}",
            f"{minutes:.1f}",
            str(left_out),
        )


def _absent(result: Mapping[str, Any]) -> list[str]:
    failed, missing = result["failed"], [name for name in result["missing"] if name not in result["failed"]]
    parts = [f"Failed: {'; '.join(f'{name} ({why})' for name, why in failed.items())}."] if failed else []
    return parts + ([f"Not run: {', '.join(missing)}."] if missing else [])


def _table(header: Sequence[str], rows: Iterator[tuple[str, ...]] | Sequence[tuple[str, ...]]) -> str:
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, rule, *rows))
