"""The demo's page: one photograph and every task, then what is known to be right, more photographs, and the figures."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genpercept.checkpoints import hub
from genpercept.commands import terminal
from genpercept.commands.demo import legend, photographs
from genpercept.commands.demo.scenes import HEADER, SCENES, Example, Shown
from genpercept.imaging import html
from genpercept.imaging.prediction import Prediction
from genpercept.metrics import Column
from genpercept.tasks import title_of

Answers = Sequence[tuple[photographs.Case, Mapping[str, Prediction]]]  # by photograph and task

_EDGE = 480  # pixels: twice what the smallest tile shows
_DOCS = Path(__file__).parents[4] / "docs"  # beside the sources; an installed package has none
_PAGES = {
    "tutorial.md": "ten-minute tutorial",
    "mini.md": "these models",
    "predicting.md": "your own images",
    "checkpoints.md": "large models",
    "evaluation.md": "what the figures mean",
    "index.md": "all pages",
}


@dataclass(frozen=True)
class Tile:
    """A task's answer to a photograph, in front of it."""

    title: str
    photograph: str  # its name, by which the page finds its picture
    address: str  # of the task's page in the documentation, or ""
    answer: html.Picture
    words: str
    legend: legend.Legend = None


@dataclass(frozen=True)
class Compared:
    """A sample whose truth is known: the prediction before the truth, and what else its metric shows."""

    title: str
    figure: str
    image: html.Picture
    prediction: html.Picture
    truth: html.Picture | None
    error: html.Picture | None
    bar: legend.Bar | None


def document(
    path: Path,
    pipes: Mapping[str, Any],
    first: Answers,
    more: Answers,
    shown: Sequence[Shown],
    known: photographs.Case,
    measured: Shown,
    machine: Mapping[str, str],
) -> str:
    """The HTML page, which is to lie at `path`. first: of each task its answer to the opening photograph.

    known, measured: the photograph whose depth was measured, and how the answer compares with that.
    """
    cases = {case.name: case for case, _ in (*first, *more)}
    return html.render(
        "demo.html",
        title="GenPercept demo",
        lead=f"One photograph, {len(first)} tasks, one step of a diffusion model for each answer. The models are those "
        "inside the package: small ones, trained from scratch on rendered scenes alone. Their pictures are soft, and what "
        "they get wrong is said below.",
        photographs={name: html.picture(case.image, name, _EDGE) for name, case in cases.items()},
        opening=first[0][0],
        first=[tile for case, found in first for tile in _tiles(path, case, found, pipes, legends=True)],
        measured=_judged(measured),
        tasks=[_judged(one) for one in shown],
        scenes=SCENES,
        more=[
            (case, _tiles(path, case, found, pipes))
            for case, found in sorted(more, key=lambda one: photographs.place(one[0]))
        ],
        said=_said(known, measured.task, pipes),
        credits={case.name: case.note for case in (known, *cases.values())},
        header=HEADER,
        rows=[one.line() for one in shown],
        machine=machine,
        models={task: _model(pipe) for task, pipe in pipes.items()},
        docs={address: words for page, words in _PAGES.items() if (address := _address(path, page))},
    )


def show(shown: Sequence[Shown], measured: Shown) -> None:
    """The figures, on the terminal."""
    lines = [one.line() for one in shown]
    terminal.show(terminal.table(HEADER, lines, words=(0, 4), title=f"Over {SCENES} held-out synthetic scenes"))
    figure, (title, trivial) = measured.figure, measured.baseline
    print(
        f"The motorcycle, whose depth was measured: {figure.title} {figure.shown(measured.model)} "
        f"({title}: {figure.shown(trivial)})"
    )


def figures(shown: Sequence[Shown], measured: Shown) -> dict[str, Any]:
    """The same, for programs."""
    return {"scenes": [one.document() for one in shown], "measured": measured.document()}


def _tiles(
    path: Path, case: photographs.Case, found: Mapping[str, Prediction], pipes: Mapping[str, Any], legends: bool = False
) -> list[Tile]:
    tiles = []
    for task, prediction in found.items():
        words = _said(case, task, pipes)
        answer = html.picture(prediction.colourise(case.image), title_of(task), _EDGE)
        meaning = legend.of(prediction) if legends else None
        tiles.append(Tile(title_of(task), case.name, _address(path, f"how-to/{task}.md"), answer, words, meaning))
    return tiles


def _said(case: photographs.Case, task: str, pipes: Mapping[str, Any]) -> str:
    """What the embedded model's answer is like; of another model nothing is said."""
    return case.says.get(task, "") if pipes[task].info.get("model") == f"{hub.EMBEDDED}/{task}" else ""


def _judged(one: Shown) -> dict[str, Any]:
    """A task with its figure in words and its samples."""
    figure, (baseline, trivial) = one.figure, one.baseline
    words = f"{_called(figure)} {figure.arrow} {figure.shown(one.model)}"
    words += f"; {baseline}, the best answer that looks at no image: {figure.shown(trivial)}" if baseline else ""
    return {"title": title_of(one.task), "words": words, "samples": [_compared(one, e) for e in one.examples]}


def _compared(one: Shown, example: Example) -> Compared:
    panels = [html.picture(picture, words, _EDGE) for picture, words in example.panels]
    image, prediction, truth, error = (*panels, None, None, None)[:4]
    assert image is not None and prediction is not None
    figure = f"{_called(one.figure)} {one.figure.shown(example.value)}"
    scale = None if example.scale is None else legend.of_scale(example.scale)
    return Compared(example.rank, figure, image, prediction, truth, error, scale)


def _called(figure: Column) -> str:
    """What running text calls it, where that is more than its key."""
    return figure.title if figure.words == figure.key else figure.words


def _model(pipe: Any) -> dict[str, Any]:
    """What the model says of itself, and the beginning of its card."""
    parameters = sum(p.numel() for p in pipe.unet.parameters())
    codec = sum(p.numel() for p in pipe.vae.parameters())
    keys = ("model", "model_sha256", "family", "paradigm", "licence", "caution")
    facts = {
        **{key: pipe.info[key] for key in keys if pipe.info.get(key)},
        "parameters": f"{parameters / 1e6:.2f} M denoiser, {codec / 1e6:.2f} M codec",
        "longest edge": f"{pipe.resolution} px",
    }
    return {"facts": facts, "card": _card(pipe)}


def _card(pipe: Any, lines: int = 30) -> str:
    """The beginning of the model's README.md, without its metadata block; empty where it has none."""
    try:
        text = (hub.resolve(pipe.info.get("model", "")) / "README.md").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""
    if text.startswith("---"):
        text = text.split("---", 2)[-1]
    kept = text.strip().splitlines()
    return "\n".join(kept[:lines]) + ("\n..." if len(kept) > lines else "")


def _address(page: Path, name: str) -> str:
    """Of a page of the documentation, as seen from the demo's folder; "" where it is not there."""
    there = (_DOCS / name).is_file()
    return Path(os.path.relpath(_DOCS / name, page.parent.resolve())).as_posix() if there else ""
