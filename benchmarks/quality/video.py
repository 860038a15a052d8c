"""Does a clip flicker less when its frames share one range and are smoothed along the motion, and is it as right as before?

    python benchmarks/quality/video.py                     # writes video.md and video.png beside it
    python benchmarks/quality/video.py --frames 12 --out - # a look

mini/depth on ten clips of 32 rendered frames with exact depth, cameras that turn, walk, zoom and sway, and on two photographs
under a moving window. Three forms of each: the network's answers; aligned, on one range; aligned and smoothed by 0.8.

- flicker: by how much a pixel changes from a frame to the next along the true motion (rendered) or DIS flow (photographs), in
  percent of the spread of the frame's values, from their 5 % to their 95 % quantile.
- AbsRel, clip: against true depth after one scale and shift for the whole clip, by least squares; frame: after one for each.
- spread of scales: the standard deviation of the logarithm of the frames' own best scales to the truth. 0: one does for all.
- edges: the slope of values across true edges of depth, a number to compare forms by: smearing would lower it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2]))  # a script's own folder is all that Python looks into

import genpercept
from benchmarks._clips import PHOTOGRAPHS, WORLD, Rendered, look_at, render
from benchmarks._page import made, show
from genpercept.commands.demo.photographs import photographs
from genpercept.pipeline.video.motion import Flow, Look, sampled
from genpercept.pipeline.video.smooth import STRENGTH
from genpercept.pipeline.video.sources import Images
from genpercept.pipeline.video.stream import How, Video

FORMS = {"answers": How(align=False), "aligned": How(), "smoothed": How(STRENGTH)}
WEIGHTS = (0.5, 0.9)  # of the table of strengths, beside 0.8
_EDGE = 0.15  # difference of the logarithm of depth between neighbours that counts as an edge
_FEW = 0.05  # share of a frame's pixels seen before, below which its flicker is not counted


@dataclass(frozen=True)
class Figures:
    flicker: float
    clip: float = np.nan
    frame: float = np.nan
    scales: float = np.nan
    edges: float = np.nan


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    args = parser.parse_args(argv)
    with ThreadPoolExecutor(2) as pool:
        rendered = list(pool.map(lambda name: render(name, args.frames), WORLD))
    found = {case.name: case.image for case in photographs()}
    looked = {name: look_at(found[photo], a, b, args.frames) for name, (photo, a, b) in PHOTOGRAPHS.items()}
    pipe = genpercept.load("mini/depth")
    begin = time.perf_counter()
    said = {clip.name: _answers(pipe, clip.images) for clip in rendered} | {
        name: _answers(pipe, images) for name, images in looked.items()
    }
    network = (time.perf_counter() - begin) / (args.frames * len(said))
    begin = time.perf_counter()
    made_of = {
        form: {clip.name: _steady(clip.images, said[clip.name], how) for clip in rendered}
        for form, how in FORMS.items()
    }
    steadying = (time.perf_counter() - begin) / (args.frames * len(rendered) * len(FORMS))
    table = {form: [figures(values[clip.name], clip) for clip in rendered] for form, values in made_of.items()}
    weights = {w: _mean([figures(_steady(c.images, said[c.name], How(w)), c) for c in rendered]) for w in WEIGHTS}
    weights |= {0.0: _mean(table["aligned"]), STRENGTH: _mean(table["smoothed"])}
    photo = {
        form: [_flow_flicker(_steady(images, said[name], how), images) for name, images in looked.items()]
        for form, how in FORMS.items()
    }
    lines = list(_page(rendered, table, weights, list(looked), photo, network, steadying))
    if str(args.out) == "-":
        show(lines, None)
        return 0
    show(lines, args.out)
    sheet(rendered[2], made_of).save(args.out.with_suffix(".png"), optimize=True)
    return 0


def _answers(pipe: genpercept.GenPerceptPipeline, images: np.ndarray) -> list[genpercept.Prediction]:
    return pipe(list(images), batch_size=8)


def _steady(images: np.ndarray, said: Sequence[genpercept.Prediction], how: How) -> np.ndarray:
    """(N, H, W)."""
    left = iter(said)
    return np.stack(
        [p.values for p in Video(Images(list(images), Fraction(25)), lambda x: [next(left) for _ in x], how)]
    )


# ---- figures


def figures(values: np.ndarray, clip: Rendered) -> Figures:
    depth, valid = clip.depth, clip.valid
    whole = _error(values, depth, valid)
    each = [_error(values[i], depth[i], valid[i]) for i in range(len(values))]
    scales = np.array([scale for _, scale in each])
    good = scales > 0
    return Figures(
        flicker(values, clip),
        whole[0],
        float(np.mean([error for error, _ in each])),
        float(np.log(scales[good]).std()),
        _edges(values, clip),
    )


def _error(values: np.ndarray, depth: np.ndarray, valid: np.ndarray) -> tuple[float, float]:
    """(AbsRel, the scale) after one scale and shift by least squares, as the field evaluates affine depth."""
    x, y = values[valid].astype(np.float64), depth[valid].astype(np.float64)
    scale, shift = np.linalg.lstsq(np.stack([x, np.ones_like(x)], 1), y, rcond=None)[0]
    return float((np.abs(np.maximum(scale * x + shift, 1e-3) - y) / y).mean()), float(scale)


def flicker(values: np.ndarray, clip: Rendered) -> float:
    """In percent, along the true motion."""
    return _flicker(values, (clip.back(i) for i in range(1, len(values))))


def _flow_flicker(values: np.ndarray, images: np.ndarray) -> float:
    looks, flow = [Look.at(image) for image in images], Flow()
    motions = (flow.between(a, b) for a, b in pairwise(looks))
    return _flicker(values, ((motion.back, motion.seen) for motion in motions))


def _flicker(values: np.ndarray, motions: Iterator[tuple[np.ndarray, np.ndarray]]) -> float:
    found = []
    for i, (back, seen) in enumerate(motions, 1):
        if seen.mean() >= _FEW:
            change = np.abs(values[i] - sampled(values[i - 1], back))[seen].mean()
            found.append(change / np.subtract(*np.quantile(values[i], (0.95, 0.05))))
    return 100 * float(np.mean(found))


def _edges(values: np.ndarray, clip: Rendered) -> float:
    """Mean slope across true edges, per pixel, in percent of the frame's spread."""
    found = []
    for v, depth in zip(values, clip.depth, strict=True):
        far = np.log(np.minimum(depth, 60))
        edge = (np.abs(np.diff(far, axis=1))[1:] > _EDGE) | (np.abs(np.diff(far, axis=0))[:, 1:] > _EDGE)
        slope = np.hypot(np.diff(v, axis=1)[1:], np.diff(v, axis=0)[:, 1:])
        if edge.any():
            found.append(slope[edge].mean() / np.subtract(*np.quantile(v, (0.95, 0.05))))
    return 100 * float(np.mean(found)) if found else np.nan


def _mean(rows: Sequence[Figures]) -> Figures:
    return Figures(*(float(np.nanmean([getattr(row, name) for row in rows])) for name in Figures.__dataclass_fields__))


# ---- the page


def _page(
    rendered: Sequence[Rendered],
    table: dict[str, list[Figures]],
    weights: dict[float, Figures],
    names: Sequence[str],
    photo: dict[str, list[float]],
    network: float,
    steadying: float,
) -> Iterator[str]:
    yield from ("# Clips: flicker and truth", "", made(__file__) + ".", "")
    yield (__doc__ or "").strip().split("\n\n", 2)[-1]
    yield from ("", "## All ten rendered clips, means", "")
    head = ("", "flicker, %", "AbsRel, clip", "AbsRel, frame", "spread of scales", "edges")
    yield from ("| " + " | ".join(head) + " |", "| --- |" + " ---: |" * 5)
    for form, rows in table.items():
        yield f"| {form} | {_cells(_mean(rows))} |"
    yield from (
        "",
        "## By the weight of the past",
        "",
        "| weight" + " | ".join(head) + " |",
        "| ---: |" + " ---: |" * 5,
    )
    for weight, row in sorted(weights.items()):
        yield f"| {weight:g} | {_cells(row)} |"
    yield from ("", "## Clip by clip", "", "Answers, aligned, smoothed.", "")
    yield from ("| | flicker, % | AbsRel, clip | spread of scales |", "| --- | ---: | ---: | ---: |")
    for i, clip in enumerate(rendered):
        rows = [table[form][i] for form in FORMS]
        cells = [", ".join(f"{getattr(row, what):.{digits}f}" for row in rows) for what, digits in _SHOWN]
        yield f"| {clip.name} | {' | '.join(cells)} |"
    for i, name in enumerate(names):
        yield f"| {name} (photograph) | {', '.join(f'{photo[form][i]:.2f}' for form in FORMS)} | | |"
    yield from ("", "## Time", "")
    yield f"Network: {1000 * network:.0f} ms a frame of 144 x 192; reading it back, motion, alignment and smoothing: "
    yield f"{1000 * steadying:.0f} ms a frame on top, mean of the three forms."
    yield "By the clock, of a machine that may have been busy."


_SHOWN = (("flicker", 2), ("clip", 3), ("scales", 3))


def _cells(row: Figures) -> str:
    return f"{row.flicker:.2f} | {row.clip:.4f} | {row.frame:.4f} | {row.scales:.3f} | {row.edges:.2f}"


def sheet(clip: Rendered, made_of: dict[str, dict[str, np.ndarray]], columns: int = 5) -> Image.Image:
    """Frames of a clip, over what was made of them: one row a form."""
    from genpercept.imaging.colour import painted

    places = np.linspace(0, len(clip.images) - 1, columns).round().astype(int)
    rows = [np.concatenate(clip.images[places], 1)]
    for values in made_of.values():
        rows.append(np.concatenate([painted(values[clip.name][i], "depth_affine") for i in places], 1))
    return Image.fromarray(np.concatenate(rows)).quantize(192)


if __name__ == "__main__":
    raise SystemExit(main())
