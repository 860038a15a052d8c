"""Do tiles and `--refine` make answers sharper, and what do they cost? The embedded models on scenes of 2048 pixels.

    python benchmarks/quality/tiles.py --cache scenes            # writes tiles.md and tiles_*.png beside it

`--cache`: a folder where rendered scenes are kept, since one of this size takes a minute. Rows are ways to bring an answer
of 96 pixels to 2048: enlarged (`plain`), by the image's edges (`refine`), in tiles that show the network a half, a third or a
quarter of the picture's edge (`tiles`), both; and two other ways to join the same tiles, by feathered means of their values
and side by side. Edge F1: pairs of neighbouring pixels whose true depths differ by a factor, met in the same pair and
direction (mean over factors of 1.05, 1.15, 1.25; as Depth Pro, Bochkovskii et al. 2024, section 3.3, has it, at the scene's
own pixels). AbsRel, delta1: aligned by least squares, of what is no sky and nearer than 25 m. Seam: how much more the slope
jumps where tiles begin than elsewhere.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2]))  # where `benchmarks` lies
import genpercept
from benchmarks._page import made
from benchmarks.quality.fewer_operations import f1
from genpercept.core.resampling import resize
from genpercept.data import synthetic
from genpercept.imaging.colour import colourise
from genpercept.metrics import METRICS
from genpercept.metrics._depth import figures
from genpercept.pipeline.refine import edges, matte
from genpercept.pipeline.tiles import run as in_tiles
from genpercept.pipeline.tiles.join import Canvas
from genpercept.pipeline.tiles.plan import Place, Plan

SIZE = (1536, 2048)
FAR, FACTORS = 25.0, (1.05, 1.15, 1.25)
LABELS = ("image", "depth", "normals", "valid", "alpha", "mask", "class_ids")
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "refine": {"refine": True},
    "tiles 1024": {"tiles": 1024},
    "tiles 683": {"tiles": 683},
    "tiles 512 (auto)": {"tiles": 512},
    "tiles 512, refine": {"tiles": 512, "refine": True},
    "tiles 512, overlap 0.5": {"tiles": 512, "overlap": 0.5},
}
Scene = Mapping[str, np.ndarray]


def scene(index: int, cache: Path | None) -> Scene:
    """Labels of a scene of the test split, from the cache where it is there."""
    path = None if cache is None else cache / f"mixed_{index}.npz"
    if path is not None and path.is_file():
        with np.load(path) as file:
            return {name: file[name] for name in LABELS}
    made_ = synthetic.render([index], split="test", size=SIZE)
    found = {name: getattr(made_, name)[0] for name in LABELS}
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **found)
    return found


# ---- other ways to join ----------------------------------------------------------------------------------------------


class Feathered(Canvas):
    """Weighted means of the fitted tiles' values."""

    def __init__(self, plan: Plan, whole_CHW: np.ndarray) -> None:
        super().__init__(plan, whole_CHW)
        self._sum[...] = 0

    def add(self, place: Place, tile_CHW: np.ndarray) -> None:
        weight = self._plan.rows.centres[place.row][:, None] * self._plan.columns.centres[place.column]
        self._sum[:, place.rows, place.columns] += weight * tile_CHW

    def joined(self) -> np.ndarray:
        return self._sum


class SideBySide(Feathered):
    """Each tile as it was fitted; where two overlap, the later one."""

    def add(self, place: Place, tile_CHW: np.ndarray) -> None:
        self._sum[:, place.rows, place.columns] = tile_CHW


@contextmanager
def joined_by(canvas: type[Canvas]) -> Iterator[None]:
    """Tiles are put on this kind of canvas."""
    module: Any = in_tiles
    module.Canvas = canvas
    try:
        yield
    finally:
        module.Canvas = Canvas


# ---- figures ---------------------------------------------------------------------------------------------------------


def depth_figures(values: np.ndarray, of: Scene) -> dict[str, float]:
    """AbsRel, delta1 and edge F1 of depth up to scale and shift."""
    valid = of["valid"] & (np.nan_to_num(of["depth"], nan=np.inf) < FAR)
    truth = np.where(valid, of["depth"], 1).astype(np.float64)
    columns = np.stack([values[valid], np.ones(valid.sum())], 1)
    scale, shift = np.linalg.lstsq(columns, truth[valid], rcond=None)[0]
    aligned = np.maximum(values * scale + shift, 0.05).astype(np.float64)
    found = figures(aligned[valid], truth[valid])
    sharp = np.nanmean([f1(aligned, truth, valid, factor) for factor in FACTORS])
    return {"AbsRel ↓": found["abs_rel"], "δ1 ↑": found["delta1"], "edge F1 ↑": float(sharp)}


def normals_figures(values: np.ndarray, of: Scene) -> dict[str, float]:
    row = METRICS.find("normals")().update(values, of["normals"].astype(np.float32), of["valid"], "one")
    return (
        {"mean angle ↓": row["mean"], "within 11.25° ↑": row["11.25"]}
        if "11.25" in row
        else {"mean angle ↓": row["mean"]}
    )


def mask_figures(name: str) -> Callable[[np.ndarray, Scene], dict[str, float]]:
    """SAD / 1000, MSE and gradient error / 10 over the whole picture (P3M's rules), of the label `name`."""

    def of_scene(values: np.ndarray, of: Scene) -> dict[str, float]:
        from genpercept.metrics import _matting

        truth = of[name].astype(np.float64)
        row = _matting.p3m(values.astype(np.float64), truth, np.ones(truth.shape, bool), values.astype(np.float64))
        return {"SAD ↓": row["sad"], "MSE ↓": row["mse"], "gradient error ↓": row["grad"]}

    return of_scene


def classes_figures(values: np.ndarray, of: Scene) -> dict[str, float]:
    return {"right pixels ↑": float((values == of["class_ids"]).mean())}


JUDGES: dict[str, Callable[[np.ndarray, Scene], dict[str, float]]] = {
    "depth": depth_figures,
    "normals": normals_figures,
    "segmentation": classes_figures,
    "dis": mask_figures("mask"),
    "matting": mask_figures("alpha"),
}


def judge(task: str, scenes: Sequence[Scene], batch_size: int) -> dict[str, dict[str, float]]:
    """Way -> mean figures over the scenes, with the seam error and CPU seconds of an image."""
    pipe = genpercept.load(f"mini/{task}", device="cpu")
    ways = {name: (options, Canvas) for name, options in OPTIONS.items()}
    if JUDGES[task] in (depth_figures, classes_figures):
        ways |= {
            "tiles 512, feathered": ({"tiles": 512}, Feathered),
            "tiles 512, side by side": ({"tiles": 512}, SideBySide),
        }
    rows: dict[str, list[dict[str, float]]] = {}
    for of in scenes:
        for name, (options, canvas) in ways.items():
            start = time.process_time()
            try:
                with joined_by(canvas):
                    answer = pipe(of["image"], batch_size=batch_size, **options)
            except ValueError as error:
                print(name, error, file=sys.stderr)
                continue
            row = JUDGES[task](answer.values, of) | {"CPU s": time.process_time() - start}
            seam = (answer.meta.get("tiles") or {}).get("seam_error")
            rows.setdefault(name, []).append(row | {"seam": np.nan if seam is None else seam})
            print(task, name, row, seam, file=sys.stderr, flush=True)
    return {name: {k: mean([r[k] for r in found]) for k in found[0]} for name, found in rows.items()}


def mean(values: Sequence[float]) -> float:
    good = [x for x in values if np.isfinite(x)]
    return float(np.mean(good)) if good else float("nan")


def shrunk_truth(scenes: Sequence[Scene]) -> dict[str, dict[str, float]]:
    """What `refine` makes of true labels that were shrunk to the size at which a network would have seen them."""
    found: dict[str, list[dict[str, float]]] = {}
    for of in scenes:
        depth = np.where(of["valid"], np.minimum(of["depth"], FAR), FAR).astype(np.float32) / FAR
        for edge in (96, 384, 768):
            small = (edge * SIZE[0] // SIZE[1], edge)
            scale = SIZE[1] / edge
            for label, truth, way, judge_ in (
                ("depth", depth, edges.refine, depth_figures),
                ("alpha", of["alpha"].astype(np.float32), matte.refine, mask_figures("alpha")),
            ):
                if label == "alpha" and not 0.01 < truth.mean() < 0.99:
                    continue
                coarse = resize(resize(truth[None, None], small), SIZE)[0, 0]
                for name, values in (("enlarged", coarse), ("refined", way(coarse, of["image"], scale))):
                    found.setdefault(f"{label} of {edge} pixels, {name}", []).append(judge_(values, of))
    return {name: {k: mean([r[k] for r in rows]) for k in rows[0]} for name, rows in found.items()}


# ---- a photograph of 12 megapixels -----------------------------------------------------------------------------------

PHOTOGRAPH = """
import resource, sys, time
import numpy as np, torch
from PIL import Image
from sklearn.datasets import load_sample_image
import genpercept
torch.set_num_threads(1)
task, options = sys.argv[1], eval(sys.argv[2])
image = np.asarray(Image.fromarray(load_sample_image("china.jpg")).resize((4000, 3000), Image.Resampling.LANCZOS))
pipe = genpercept.load(f"mini/{task}", device="cpu")
pipe(image[:300, :400], **options)
before, cpu, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time(), time.perf_counter()
found = pipe(image, **options)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
tiles = found.meta.get("tiles") or {"grid": [1, 1]}
count, cpu, wall = tiles["grid"][0] * tiles["grid"][1], time.process_time() - cpu, time.perf_counter() - start
print(count, cpu, wall, before / 2**20, after / 2**20)
"""


def photograph() -> list[list[str]]:
    """Rows: tiles, CPU seconds, seconds, peak memory; each in a process of its own."""
    asked: list[tuple[str, dict[str, Any]]] = [("depth", {}), ("depth", {"refine": True})]
    asked += [("depth", {"tiles": n, "batch_size": 8}) for n in ("auto", 768)]
    asked += [(task, {"tiles": "auto", "batch_size": 8, "refine": True}) for task in ("depth", "normals", "matting")]
    rows = []
    for task, options in asked:
        words = [sys.executable, "-c", PHOTOGRAPH, task, repr(options)]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        count, cpu, wall, _, after = map(float, done.stdout.split()[-5:])
        said = ", ".join(f"{k}={v!r}" for k, v in options.items()) or "-"
        rows.append([task, f"`{said}`", f"{count:.0f}", f"{cpu:.1f}", f"{wall:.1f}", f"{after:.2f} GiB"])
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


# ---- pictures --------------------------------------------------------------------------------------------------------


def pictures(of: Scene, out: Path, batch_size: int) -> None:
    """tiles_joins.png: three ways to join, a part at 100 %; tiles_ways.png: the photograph, plain, refine, tiles, both."""
    pipe = genpercept.load("mini/depth", device="cpu")
    image = of["image"]
    corner = np.s_[500:1012, 500:1140]
    joins = []
    for canvas in (SideBySide, Feathered, Canvas):
        with joined_by(canvas):
            joins.append(_painted(pipe(image, tiles=512, batch_size=batch_size).values, corner))
    _save(joins, out.with_name("tiles_joins.png"))
    ways = [{}, {"refine": True}, {"tiles": 512}, {"tiles": 512, "refine": True}]
    shown = [_painted(pipe(image, batch_size=batch_size, **options).values, corner) for options in ways]
    _save([image[corner], *shown], out.with_name("tiles_ways.png"))


def _painted(values: np.ndarray, corner: Any) -> np.ndarray:
    part = values[corner]
    low, high = np.percentile(part, (1, 99))
    return np.asarray(colourise(((part - low) / max(high - low, 1e-6)).clip(0, 1), "depth_affine"))


def _save(parts: Sequence[np.ndarray], path: Path) -> None:
    Image.fromarray(np.hstack([part[:, :480] for part in parts])).quantize(128).save(path, optimize=True)


def table(rows: Mapping[str, Mapping[str, float]]) -> list[str]:
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    lines = [f"| way | {' | '.join(names)} |", f"| --- |{' ---: |' * len(names)}"]
    for name, row in rows.items():
        cells = [_cell(row.get(k, float("nan"))) for k in names]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return [*lines, ""]


def _cell(x: float) -> str:
    return "-" if not np.isfinite(x) else f"{x:.4f}" if abs(x) < 1 else f"{x:.2f}"


def main(argv: Sequence[str] | None = None) -> int:
    """Judge, and write the page. Exit status 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=16, help="scenes of the test split")
    parser.add_argument("--tasks", default="depth,normals,segmentation,dis,matting")
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--parts", default="tasks,truth,pictures,photograph")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    parts = args.parts.split(",")
    scenes = [scene(i, args.cache) for i in range(args.count)]
    lines = [
        "# Tiles and refinement: sharpness",
        "",
        f"{made(__file__, 1, _said(args.cache))}. {args.count} scenes of 2048 x 1536.",
        "",
        " ".join((__doc__ or "").split("\n\n")[-1].split("\n")).strip(),
        "",
    ]
    for task in args.tasks.split(",") if "tasks" in parts else ():
        lines += [f"## mini/{task}", "", *table(judge(task, scenes, args.batch_size))]
        args.out.write_text("\n".join(lines), encoding="utf-8")
    if "truth" in parts:
        lines += ["## `refine` of true labels, shrunk to what a network sees", "", *table(shrunk_truth(scenes))]
    if "pictures" in parts:
        pictures(scenes[0], args.out, args.batch_size)
    if "photograph" in parts:
        lines += ["## A photograph of 4000 x 3000 pixels", "", "| model | options | tiles | CPU s | s | peak memory |"]
        lines += ["| --- | --- | ---: | ---: | ---: | ---: |", *(f"| {' | '.join(row)} |" for row in photograph()), ""]
    args.out.write_text("\n".join(lines), encoding="utf-8")
    print(args.out.read_text(encoding="utf-8"))
    return 0


def _said(cache: Path | None) -> list[str]:
    """The command line, with a name of its own for the cache, wherever it lies."""
    words = sys.argv[1:]
    return ["scenes" if cache is not None and word == str(cache) else word for word in words]


if __name__ == "__main__":
    sys.exit(main())
