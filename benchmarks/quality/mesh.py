"""Meshes against true geometry: how far off, with and without cuts; and what a photograph of 12 megapixels takes.

    python benchmarks/quality/mesh.py                     # writes mesh.md beside it

Scenes of the synthetic world's test split, rendered at 256 x 192 with their true depth and camera. The true surface is
that of the same scenes rendered at four times the size: a point for each pixel, up to 25 m. Chamfer distance in metres:
the mean distance of 30,000 points spread evenly over the mesh to the nearest true point, and of 30,000 true points to the
nearest of 300,000 on the mesh. The finest that such a comparison resolves is the row "true points against themselves": of
one half of the true points to the other. From true depth: the map as it is, in metres. From mini/depth: its answer, fitted
to 100 random true points as a user would have measured them. Not cut: every pixel is joined to its neighbours.

Time and memory: the temple's photograph (scikit-learn's china.jpg, danielbuechele, CC BY 2.0) enlarged to 4000 x 3000,
mini/depth's answer, each step in a process of its own that has the answer and the photograph. Seconds of one core (CPU time,
the least of the rounds); memory is how far the process grows at its peak.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

sys.path.insert(0, str(Path(__file__).parents[2]))  # where `benchmarks` lies
from benchmarks._page import made, show
from genpercept.imaging.camera import Camera
from genpercept.imaging.prediction import Prediction

_SIZE, _FINER, _FAR = (192, 256), 4, 25.0
_ON_MESH, _SPREAD, _TRUE, _KNOWN = 30_000, 300_000, 30_000, 100
_EPS = 0.02  # of a distance, by which a nearest point may be missed: far from all points a search takes long
_LARGE = (4000, 3000)
_STEPS = {
    "points": "prediction.points()",
    "mesh": "prediction.mesh(image), 1 M vertices",
    "mesh, 200 k vertices": "prediction.mesh(image, vertices=200_000)",
    "glb": "format glb, written",
    "ply mesh": "format mesh, written",
    "fit": "prediction.fit(100 points)",
    "fit to a map": "prediction.fit(map of 12 megapixels)",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write the page. Exit status 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=8, help="of each domain; Ctrl-C ends with those that are done")
    parser.add_argument("--domains", nargs="*", default=["indoor", "outdoor"], help="of the world; none: time alone")
    parser.add_argument("--rounds", type=int, default=3, help="of timing; the least counts; 0: geometry alone")
    parser.add_argument(
        "--step", nargs=2, metavar=("NAME", "FOLDER"), help="one step alone, for the measured processes"
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    args = parser.parse_args(argv)
    if args.step:
        print(json.dumps(_one_step(args.step[0], Path(args.step[1]))))
        return 0
    tables = [line for domain in args.domains for line in _geometry(domain, args.scenes)]
    lines = ["# Meshes", "", f"{made(__file__, 1)}.", "", *(__doc__ or "").split("\n\n", 2)[2].strip().split("\n"), ""]
    show([*lines, *tables, *(_cost(args.rounds) if args.rounds else [])], args.out)
    return 0


# ---- geometry


def _geometry(domain: str, count: int) -> list[str]:
    """The table of a domain, as Markdown."""
    import genpercept
    from genpercept.data import synthetic

    pipe = genpercept.load("mini/depth", device="cpu")
    finer = (_SIZE[0] * _FINER, _SIZE[1] * _FINER)
    rows: dict[str, list[tuple[float, float, float]]] = {}
    done = 0
    with suppress(KeyboardInterrupt):  # what is done then counts
        for i in range(count):
            scene, fine = (
                synthetic.render([i], domain=domain, split="test", size=s, workers=1) for s in (_SIZE, finer)
            )
            true = _points(fine, 0)
            for name, found in _of_scene(pipe, scene, true, i).items():
                rows.setdefault(name, []).append(found)
            done = i + 1
            print(f"{domain}: {done} of {count}", file=sys.stderr, flush=True)
    lines = [f"## {done} scenes, {domain}", ""]
    lines += ["| mesh from | mesh to truth, m ↓ | truth to mesh, m ↓ | triangles |", "| --- | ---: | ---: | ---: |"]
    for name, figures in rows.items():
        table = np.array(figures)
        cells = [f"{x.mean():.3f} ± {x.std(ddof=1) / np.sqrt(len(x)):.3f}" for x in table[:, :2].T]
        lines.append(f"| {name} | {' | '.join(cells)} | {f'{table[:, 2].mean():,.0f}' if table[0, 2] else ''} |")
    return [*lines, ""]


def _depth(scenes: Any, i: int) -> Prediction:
    depth = scenes.depth[i]
    valid = scenes.valid[i] & np.isfinite(depth) & (np.nan_to_num(depth, posinf=np.inf) < _FAR)
    camera = Camera.of_matrix(scenes.intrinsics[i], depth.shape)
    return Prediction(np.where(valid, depth, 0), "depth_metric", valid, meta={"camera": camera.to_meta()})


def _points(scenes: Any, i: int) -> np.ndarray:
    """(N, 3) of a scene's true depth."""
    points = _depth(scenes, i).points()
    return points[np.isfinite(points).all(-1)]


def _of_scene(pipe: Any, scene: Any, true: np.ndarray, number: int) -> dict[str, tuple[float, float, float]]:
    rng = np.random.default_rng(number)
    exact, image = _depth(scene, 0), scene.image[0]
    known = _some(exact, rng)
    said = pipe(image)
    fitted = said.told({**said.meta, "camera": exact.meta["camera"]}).fit(known)
    valid = fitted.valid if exact.valid is None or fitted.valid is None else fitted.valid & exact.valid
    if exact.valid is not None and fitted.valid is None:
        valid = exact.valid
    model = Prediction(fitted.values, fitted.kind, valid, meta=fitted.meta)
    found = {
        name: _chamfer(pred.mesh(image, cut=cut), true, rng)
        for name, pred, cut in (
            ("true depth", exact, 0.05),
            ("true depth, not cut", exact, None),
            ("mini/depth, 100 known points", model, 0.05),
            ("mini/depth, 100 known points, not cut", model, None),
        )
    }
    half = rng.permutation(len(true))
    one, two = true[half[::2]], true[half[1::2]]
    there = one[:_TRUE]
    floor = float(cKDTree(two).query(there)[0].mean())
    return {"true points against themselves": (floor, floor, 0), **found}


def _some(exact: Prediction, rng: np.random.Generator) -> np.ndarray:
    rows, columns = np.nonzero(exact.values > 0)
    chosen = rng.choice(len(rows), min(_KNOWN, len(rows)), replace=False)
    rows, columns = rows[chosen], columns[chosen]
    return np.stack([columns + 0.5, rows + 0.5, exact.values[rows, columns]], -1)


def _chamfer(mesh: Any, true: np.ndarray, rng: np.random.Generator) -> tuple[float, float, float]:
    """(mesh to truth, truth to mesh) in metres, and the number of triangles."""
    on = _spread(mesh, _SPREAD, rng)
    there = float(cKDTree(true).query(on[rng.choice(len(on), _ON_MESH, replace=False)], eps=_EPS)[0].mean())
    some = true[rng.choice(len(true), min(_TRUE, len(true)), replace=False)]
    return there, float(cKDTree(on).query(some, eps=_EPS)[0].mean()), len(mesh.faces)


def _spread(mesh: Any, count: int, rng: np.random.Generator) -> np.ndarray:
    """(count, 3): points spread evenly over the triangles' area."""
    corners = np.asarray(mesh.vertices)[mesh.faces]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=-1)
    of = rng.choice(len(area), count, p=area / area.sum())
    s, t = rng.random((2, count))
    s, t = np.where(s + t > 1, 1 - s, s), np.where(s + t > 1, 1 - t, t)
    a, b, c = corners[of].transpose(1, 0, 2)
    return a + s[:, None] * (b - a) + t[:, None] * (c - a)


# ---- cost


def _cost(rounds: int) -> list[str]:
    """The table of time and memory, as Markdown."""
    lines = [f"## {_LARGE[0]} x {_LARGE[1]} pixels", "", "| step | CPU seconds | memory, MB |", "| --- | ---: | ---: |"]
    with tempfile.TemporaryDirectory() as folder:
        _prepare(Path(folder))
        for name, words in _STEPS.items():
            command = [sys.executable, __file__, "--step", name, folder]
            runs = [json.loads(subprocess.run(command, capture_output=True, check=True).stdout) for _ in range(rounds)]
            seconds, grown = (min(run[key] for run in runs) for key in ("seconds", "grown"))
            size = f" ({runs[0]['bytes'] / 1e6:.0f} MB)" if runs[0]["bytes"] else ""
            lines.append(f"| {words}{size} | {seconds:.1f} | {grown:.0f} |")
    return lines


def _prepare(folder: Path) -> None:
    from PIL import Image
    from sklearn.datasets import load_sample_image

    import genpercept

    photo = Image.fromarray(load_sample_image("china.jpg")).resize(_LARGE, Image.Resampling.BICUBIC)
    image = np.asarray(photo)
    np.save(folder / "image.npy", image)
    genpercept.load("mini/depth", device="cpu")(image).save(folder / "answer", ["npz"])


def _one_step(name: str, folder: Path) -> dict[str, float]:
    """Seconds, megabytes by which the process grows at its peak, and bytes of the file, if one is written."""
    import trimesh  # noqa: F401  # importing takes a second, once

    pred, image = Prediction.load(folder / "answer.npz"), np.load(folder / "image.npy")
    h, w = pred.size
    rng = np.random.default_rng(0)
    known = np.stack([rng.uniform(0, w, 100), rng.uniform(0, h, 100), np.zeros(100)], -1)
    known[:, 2] = 30 * pred.values[known[:, 1].astype(int), known[:, 0].astype(int)] + 3
    metres = 30 * pred.values + 3
    out = folder / "out"
    steps = {
        "points": lambda: pred.points(),
        "mesh": lambda: pred.mesh(image),
        "mesh, 200 k vertices": lambda: pred.mesh(image, vertices=200_000),
        "glb": lambda: pred.save(out, ["glb"], image=image)[0],
        "ply mesh": lambda: pred.save(out, ["mesh"], image=image)[0],
        "fit": lambda: pred.fit(known),
        "fit to a map": lambda: pred.fit(metres),
    }
    Path("/proc/self/clear_refs").write_text(
        "5"
    )  # forgets the peak of loading, and of the process that started this one
    before, start = _memory("VmRSS"), time.process_time()
    found = steps[name]()
    seconds = time.process_time() - start
    grown = _memory("VmHWM") - before
    return {"seconds": seconds, "grown": grown, "bytes": found.stat().st_size if isinstance(found, Path) else 0}


def _memory(key: str) -> float:
    """MB of this process, by Linux: VmRSS is what it has, VmHWM the most that it had."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1]) / 1024


if __name__ == "__main__":
    raise SystemExit(main())
