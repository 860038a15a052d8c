"""`genpercept demo`: every embedded model on real photographs and on scenes with known answers, in one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from genpercept.commands.demo import page, photographs, scenes
from genpercept.commands.demo.machine import Machine
from genpercept.core import said
from genpercept.imaging import html, write
from genpercept.imaging.prediction import Prediction
from genpercept.metrics import METRICS
from genpercept.tasks import RegionTask, listed

Answers = list[tuple[photographs.Case, dict[str, Prediction]]]  # by photograph and task


def main(out: Path, model_depth: str = "mini/depth", model_normals: str = "mini/normals", device: str = "auto") -> int:
    """Write out/report.html and out/predictions/, print a summary. ValueError when a model or a package is missing."""
    from genpercept.pipeline.loading import load

    out, machine = Path(out), Machine()
    path = out / "report.html"
    known, *others = photographs.photographs()
    named = dict(zip(listed(), (model_depth, model_normals), strict=False))  # the first two have an option each
    tasks = list(dict.fromkeys((*named, *scenes.embedded())))
    pipes = {task: load(named.get(task, f"mini/{task}"), device=device) for task in tasks}
    first = opening(pipes)
    more = on_photographs(pipes, others)
    samples = scenes.scenes()
    shown = [scenes.judge(pipe, samples) for pipe in pipes.values()]
    measured = scenes.judge(pipes[listed()[0]], [known.sample()], known.protocol)
    for case, found in (*first, *more):
        for task, prediction in found.items():
            _save(prediction, out / "predictions" / f"{case.name}_{task}.png")
    for one in (*shown, measured):
        for example in one.examples:
            _save(example.prediction, out / "predictions" / f"{example.name}_{one.task}.png")
    facts = machine.facts(next(iter(pipes.values())))
    html.save(path, page.document(path, pipes, first, more, shown, known, measured, facts))
    page.show(shown, measured)
    said.result({"report": str(path), "predictions": str(out / "predictions"), **page.figures(shown, measured)})
    print(f"\n{path}: open it in a browser; the predictions are in {out / 'predictions'}")
    return 0


def opening(pipes: dict[str, Any]) -> Answers:
    """Every task on the photograph that suits it: the first one, unless the task looks for what stands out of a surface."""
    person, surface = photographs.opening()
    answers: Answers = []
    for task, pipe in pipes.items():
        plugin = pipe.task_plugin
        if isinstance(plugin, RegionTask):
            answers.append((person, {task: pipe(person.image, boxes=person.boxes)}))
        else:
            case = person if METRICS.find(plugin.metric).photographs else surface
            answers.append((case, {task: pipe(case.image)}))
    return answers


def on_photographs(pipes: dict[str, Any], cases: list[photographs.Case]) -> Answers:
    """Of the tasks that have an answer to any photograph."""
    chosen = {task: pipe for task, pipe in pipes.items() if METRICS.find(pipe.task_plugin.metric).photographs}
    return [(case, {task: pipe(case.image) for task, pipe in chosen.items()}) for case in cases]


def _save(prediction: Prediction, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The page has the pictures.
        formats = [n for n in write.default_formats(prediction.kind) if n not in ("color", "overlay")]
        prediction.save(path, [*formats, "npz"])
    except OSError as error:
        raise ValueError(f"{path}: cannot be written: {error}") from None
