"""What came out of a study, as NAME.json has it, from the runs that are finished. `page` writes it down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from genpercept.commands.study import paired
from genpercept.commands.study.execute import Job
from genpercept.commands.study.job import SCORES
from genpercept.commands.study.paired import Mean
from genpercept.commands.study.schema import Piece, Study
from genpercept.core import files
from genpercept.tasks import TASKS


def document(
    out: Path,
    study: Study,
    planned: Sequence[tuple[Piece, Sequence[Job]]],
    bases: Sequence[Job],
    failed: Mapping[str, str],
    left_out: Sequence[str] = (),
) -> dict[str, Any]:
    """NAME.json of a whole study: `collect` of it, or, of one in parts, of each of these.

    left_out: lines that say which sets were not to be had.
    """
    collected = []
    for piece, jobs in planned:
        own = {job.folder: why for job in jobs if (why := failed.get(job.folder))}
        found = collect(out, jobs, settings(piece.study), own)
        collected.append({"title": piece.title, "metric": TASKS.find(jobs[0].recipe.task).metric, **found})
    made = {"pretraining": _made(out, bases, failed)} if bases else {}
    made |= {"left_out": list(left_out)} if left_out else {}
    if not study.part:
        return collected[0] | made
    return {"study": settings(study), "parts": collected, **made}


# Of a study's settings: what its file says at length, and where on this machine its sets lie
_UNTOLD: dict[str, Any] = dict.fromkeys(("arm", "base", "rates", "suite", "part", "pretraining"), True)
_UNTOLD |= {"test": {"__all__": {"root"}}}


def settings(study: Study) -> dict[str, Any]:
    """What NAME.json says of the study itself; its tests by their labels."""
    told = study.model_dump(mode="json", exclude=_UNTOLD, exclude_none=True)
    told["test"] = [{"label": data.label, **known} for data, known in zip(study.test, told["test"], strict=True)]
    return told | {"reference": study.reference_arm}


def _made(out: Path, bases: Sequence[Job], failed: Mapping[str, str]) -> dict[str, Any]:
    """The bases that the study makes: finished runs, those that failed, and those that are missing."""
    scores = {job.folder: read for job in bases if (read := _read(out, job))}
    return {
        "runs": [_run(job, scores[job.folder]) for job in bases if job.folder in scores],
        "failed": {job.folder: failed[job.folder] for job in bases if job.folder in failed},
        "missing": [job.folder for job in bases if job.folder not in scores],
    }


def _read(out: Path, job: Job) -> dict[str, Any] | None:
    """What a run came to; None where it is not finished."""
    path = out / job.folder / SCORES
    return files.read_json(path) if path.is_file() else None


def collect(out: Path, jobs: Sequence[Job], study: Mapping[str, Any], failed: Mapping[str, str]) -> dict[str, Any]:
    """The study's settings; rows, one per number of labels, arm and inference; runs; which runs are missing.

    A row has per set and metric the mean (`Mean` of paired.py) and, but for the reference's, the difference to it; under
    `against`, by arm, those to the study's further ones.
    """
    scores = {job.folder: read for job in jobs if (read := _read(out, job))}
    scenes = {held.label: paired.folder_of for job in jobs for held in job.test if held.scenes}
    rows: list[dict[str, Any]] = []
    for labels in dict.fromkeys(job.labels for job in jobs):
        group = [job for job in jobs if job.labels == labels and job.folder in scores]
        others = {name: _reference(group, scores, name) for name in (study["reference"], *study.get("against", ()))}
        for arm in dict.fromkeys(job.arm for job in group):
            same = [job for job in group if job.arm == arm]
            for way in same[0].inference:
                row = {"labels": labels, "arm": arm, "inference": way.title, "ways": len(same[0].inference)}
                itself = arm if way is same[0].inference[0] else ""
                found, known = _figures(same, scores, way.title), {k: v for k, v in others.items() if v and k != itself}
                rows.append(row | {"figures": _compared(found, known, study["reference"], scenes)})
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


def _reference(group: Sequence[Job], scores: Mapping[str, Any], arm: str) -> Scores:
    """The figures of an arm in its first inference; none where none of its runs is finished."""
    jobs = [job for job in group if job.arm == arm]
    return _figures(jobs, scores, jobs[0].inference[0].title) if jobs else {}


def _compared(
    found: Scores, others: Mapping[str, Scores], reference: str, scenes: Mapping[str, paired.Scene]
) -> dict[str, dict[str, Any]]:
    """set -> metric -> {"mean": ..., "difference": ..., "against": {arm: ...}}."""
    result: dict[str, dict[str, Any]] = {}
    for (held, metric), values in found.items():
        cell: dict[str, Any] = {"mean": _dict(paired.mean(values, scenes.get(held)))}
        for name, theirs in others.items():
            difference = _dict(paired.difference(values, theirs[held, metric], scenes.get(held)))
            if name == reference:
                cell["difference"] = difference
            else:
                cell.setdefault("against", {})[name] = difference
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
