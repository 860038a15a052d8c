"""`genpercept demo`: every embedded model on real photographs and on scenes with known answers, in one HTML page."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genpercept.commands.demo import scenes as _demo_tasks
from genpercept.imaging import html, write
from genpercept.imaging.colour import colourise
from genpercept.imaging.prediction import Prediction
from genpercept.metrics import _baselines, score

SCENES = 8
SCENE_SIZE = (192, 256)
_CHUNK = 50
_CREDITS = {
    "astronaut": "NASA, public domain",
    "coffee": "Rachel Michetti, CC0",
    "chelsea": "Stéfan van der Walt, CC0",
    "rocket": "SpaceX, public domain",
    "china": "danielbuechele (flickr), CC BY 2.0",
    "flower": "vultilion (flickr), CC BY 2.0",
}


@dataclass(frozen=True)
class Case:
    """An image (H, W, 3) uint8, and what is known of it: depth (H, W) in metres, normals (H, W, 3), valid (H, W)."""

    name: str
    image: NDArray[np.uint8]
    depth: NDArray[np.floating[Any]] | None = None
    normals: NDArray[np.floating[Any]] | None = None
    valid: NDArray[np.bool_] | None = None
    protocol: str | None = None
    note: str = ""


@dataclass
class Result:
    """What the two models said about a case, how long they took, and the figures where the truth is known."""

    case: Case
    predictions: dict[str, Prediction]
    seconds: dict[str, float]
    figures: dict[str, dict[str, float]] = field(default_factory=dict)


def main(out: Path, model_depth: str = "mini/depth", model_normals: str = "mini/normals", device: str = "auto") -> int:
    """Write out/report.html and out/predictions/, print a summary. ValueError when a model or a package is missing."""
    from genpercept.pipeline.loading import load

    out = Path(out)
    cases = {"Photographs": photographs(), "Held-out synthetic scenes": held_out(range(SCENES))}
    pipes = {
        "depth": load(model_depth, device=device),
        "normals": load(model_normals, device=device),
    }
    for pipe in pipes.values():
        pipe(cases["Photographs"][0].image)  # the first call pays for allocations and autotuning; not timed
    results = {title: [run(case, pipes) for case in group] for title, group in cases.items()}
    for result in (r for group in results.values() for r in group):
        for task, prediction in result.predictions.items():
            _save(prediction, out / "predictions" / f"{result.case.name}_{task}.png")
    others = {task: load(f"mini/{task}", device=device) for task in _demo_tasks.embedded()}
    samples = _demo_tasks.scenes() if others else []
    shown = [_demo_tasks.judge(pipe, samples) for pipe in others.values()]
    images = {case.name: case.image for case in cases["Photographs"]}
    found = _demo_tasks.on_photographs(others, images)
    for task, name, prediction in _demo_tasks.predictions(shown, found):
        _save(prediction, out / "predictions" / f"{name}_{task}.png")
    path = out / "report.html"
    html.save(path, document(results, pipes, _demo_tasks.sections(shown, found, images)))
    print(summary(results))
    print("\n" + columns([_demo_tasks.HEADER, *(one.line() for one in shown)]) if shown else "")
    print(f"\n{path}: open it in a browser; the predictions are in {out / 'predictions'}")
    return 0


# ---- what is looked at -----------------------------------------------------------------------------------------------


def photographs() -> list[Case]:
    """The photographs inside the scikit-image and scikit-learn wheels, the one with depth first (no download)."""
    try:
        from skimage import data
        from sklearn.datasets import load_sample_image
    except ImportError as error:
        raise ValueError(f"{error.name} is not installed: pip install 'genpercept[demo]'") from None
    loaders = {
        "astronaut": data.astronaut,
        "coffee": data.coffee,
        "chelsea": data.chelsea,
        "rocket": data.rocket,
        "china": lambda: load_sample_image("china.jpg"),
        "flower": lambda: load_sample_image("flower.jpg"),
    }
    return [motorcycle(), *(Case(name, np.asarray(load()), note=_CREDITS[name]) for name, load in loaders.items())]


def motorcycle() -> Case:
    """Middlebury 2014 "Motorcycle" at a quarter of its size, as scikit-image ships it, with depth from its disparity.

    depth = baseline * focal length / (disparity + offset of the principal points), from the data set's calibration.
    """
    from skimage import data

    left, _, disparity = data.stereo_motorcycle()
    valid = np.isfinite(disparity)
    depth = np.full(disparity.shape, np.nan, np.float32)
    depth[valid] = 0.193001 * 994.978 / (disparity[valid] + 31.086)
    return Case("motorcycle", left, depth, None, valid, "middlebury", "Middlebury 2014, measured depth")


def held_out(indices: Sequence[int], domain: str = "mixed", size: tuple[int, int] = SCENE_SIZE) -> list[Case]:
    """Scenes of the synthetic world's test split, which no training sees, with exact depth and normals."""
    from genpercept.data import synthetic

    cases = []
    for start in range(0, len(indices), _CHUNK):  # a scene carries a dozen labels; only three of them are kept
        part = indices[start : start + _CHUNK]
        scenes = synthetic.render(part, domain=domain, split="test", size=size, workers=os.cpu_count() or 1)
        for n, i in enumerate(part):
            labels = scenes.depth[n], scenes.normals[n], scenes.valid[n]
            case = Case(f"scene_{i:04d}", scenes.image[n], *labels, "synthetic", scenes.caption[n])
            cases.append(case)
    return cases


# ---- running and judging ---------------------------------------------------------------------------------------------


def run(case: Case, pipes: dict[str, Any]) -> Result:
    """Both models on one image, timed, and scored where the truth is known."""
    result = Result(case, {}, {})
    for task, pipe in pipes.items():
        start = time.perf_counter()
        result.predictions[task] = pipe(case.image)
        result.seconds[task] = time.perf_counter() - start
    if case.depth is not None:
        shape = case.depth.shape[:2]
        answers = {
            "depth": result.predictions["depth"],
            "constant": _baselines.constant(shape),
            "ramp": _baselines.vertical_ramp(shape),
        }
        for name, answer in answers.items():
            result.figures[name] = score("depth", answer, case.depth, case.valid, protocol=case.protocol)
    if case.normals is not None:
        shape = case.normals.shape[:2]
        for name, answer in (("normals", result.predictions["normals"]), ("facing", _baselines.facing(shape))):
            result.figures[name] = score("normals", answer, case.normals, case.valid)
    return result


def table_rows(results: dict[str, list[Result]]) -> Iterator[tuple[str, ...]]:
    """Per group of images: figures averaged over those with a known answer, baselines beside them, time per image."""
    groups = {
        "Motorcycle (measured depth)": [r for group in results.values() for r in group if r.case.name == "motorcycle"],
        **results,
    }
    for title, group in groups.items():
        known = [r for r in group if r.case.protocol == "synthetic" or title.startswith("Motorcycle")]
        cells = [
            _mean(known, "depth", "abs_rel", 3),
            _mean(known, "constant", "abs_rel", 3),
            _mean(known, "ramp", "abs_rel", 3),
            _mean(known, "depth", "delta1", 3),
            _mean(known, "normals", "mean", 1),
            _mean(known, "facing", "mean", 1),
        ]
        times = [f"{1000 * np.mean([r.seconds[task] for r in group]):.0f} ms" for task in ("depth", "normals")]
        yield (title, str(len(group)), *cells, *times)


HEADER = (
    "images",
    "count",
    "AbsRel",
    "(constant)",
    "(ramp)",
    "δ1",
    "mean angle",
    "(facing)",
    "depth takes",
    "normals take",
)


def _mean(group: list[Result], name: str, key: str, digits: int) -> str:
    values = [r.figures[name][key] for r in group if name in r.figures]
    return f"{np.mean(values):.{digits}f}" if values else "–"


def summary(results: dict[str, list[Result]]) -> str:
    """The table as plain text."""
    return columns([HEADER, *table_rows(results)])


def columns(lines: Sequence[Sequence[str]]) -> str:
    """Rows of cells as plain text, the first column to the left, figures to the right."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


# ---- the page --------------------------------------------------------------------------------------------------------


def document(results: dict[str, list[Result]], pipes: dict[str, Any], others: Sequence[str] = ()) -> str:
    """The HTML page; `others`: sections of the other tasks."""
    lead = (
        "One-step dense prediction with small diffusion models trained from scratch on procedurally rendered scenes: depth and "
        "surface normals first, then the other tasks. Depth is up to scale and shift: near red, far blue. Normals: x right "
        "red, y up green, z towards the viewer blue."
    )
    explain = (
        "Depth is aligned to the truth by least squares per image. In brackets, answers that look at no image: one "
        "depth everywhere, far at the top to near at the bottom, and one normal, facing the viewer. AbsRel and angles: "
        "less is better; δ1: more is better."
    )
    notes = {
        "Photographs": "Only the motorcycle has a measured answer. Training saw no depth or normals of real scenes.",
        "Held-out synthetic scenes": "Of the test split, which no training sees. Sky and beyond 25 m do not count.",
    }
    sections = [html.section("Figures", explain, html.table(HEADER, table_rows(results)))]
    sections += [html.section(t, notes.get(t, ""), *(_row(r) for r in group)) for t, group in results.items()]
    sections += others
    for task, pipe in pipes.items():
        card = model_card(pipe)
        parts = [html.facts(_model_facts(pipe)), *([html.preformatted(card)] if card else [])]
        sections.append(html.section(f"The {task} model", "", *parts))
    sections.append(html.section("Versions", "", html.facts(versions(pipes["depth"]))))
    return html.page("GenPercept demo", lead, sections)


def _row(result: Result) -> str:
    case, figures = result.case, result.figures
    seconds = " · ".join(f"{task} {1000 * s:.0f} ms" for task, s in result.seconds.items())
    height, width = case.image.shape[:2]
    depth, normals = "depth", "normals"
    if "depth" in figures:
        depth += f" · AbsRel {figures['depth']['abs_rel']:.3f} · δ1 {figures['depth']['delta1']:.2f}"
    if "normals" in figures:
        normals += f" · mean {figures['normals']['mean']:.1f}° · median {figures['normals']['median']:.1f}°"
    cells = [
        html.Cell(case.image, f"{width} x {height}"),
        html.Cell(result.predictions["depth"].colourise(), depth),
        html.Cell(result.predictions["normals"].colourise(), normals),
    ]
    if case.depth is not None:
        cells.insert(2, html.Cell(depth_picture(case), "true depth"))
    if case.normals is not None:
        cells.append(html.Cell(colourise(case.normals, "normals", case.valid), "true normals"))
    return html.row(case.name, f"{case.note} · {seconds}", cells, 200)


def depth_picture(case: Case) -> Any:
    """True depth from its 2nd to its 98th percentile, as predictions are coloured; grey where there is none."""
    assert case.depth is not None and case.valid is not None
    limit = 25.0 if case.protocol == "synthetic" else np.inf
    valid = case.valid & np.isfinite(case.depth) & (np.nan_to_num(case.depth, nan=np.inf) < limit)
    if not valid.any():
        return colourise(np.zeros_like(case.depth), "depth_affine", valid)
    low, high = np.percentile(case.depth[valid], (2, 98))
    scaled = np.clip((np.where(valid, case.depth, low) - low) / max(high - low, 1e-6), 0, 1)
    return colourise(scaled, "depth_affine", valid)


def model_card(pipe: Any, lines: int = 30) -> str:
    """The beginning of the model's README.md, without its metadata block; empty where it has none."""
    from genpercept.checkpoints import hub

    try:
        text = (hub.resolve(pipe.info.get("model", "")) / "README.md").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""
    if text.startswith("---"):
        text = text.split("---", 2)[-1]
    kept = text.strip().splitlines()
    return "\n".join(kept[:lines]) + ("\n..." if len(kept) > lines else "")


def _model_facts(pipe: Any) -> dict[str, object]:
    parameters = sum(p.numel() for p in pipe.unet.parameters())
    codec = sum(p.numel() for p in pipe.vae.parameters())
    keys = ("model", "model_sha256", "family", "paradigm", "licence")
    return {
        **{key: pipe.info[key] for key in keys if pipe.info.get(key)},
        "parameters": f"{parameters / 1e6:.2f} M denoiser, {codec / 1e6:.2f} M codec",
        "longest edge": f"{pipe.resolution} px",
    }


def versions(pipe: Any) -> dict[str, str]:
    """Of the software, and where it ran."""
    packages = ("genpercept", "torch", "diffusers", "numpy", "scikit-image", "scikit-learn")
    where = f"{pipe.device} · {platform.system()} {platform.machine()}"
    return {name: importlib.metadata.version(name) for name in packages} | {
        "Python": platform.python_version(),
        "device": where,
    }


def _save(prediction: Prediction, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The page has the pictures.
        formats = [n for n in write.default_formats(prediction.kind) if n not in ("color", "overlay")]
        prediction.save(path, [*formats, "npz"])
    except OSError as error:
        raise ValueError(f"{path}: cannot be written: {error}") from None
