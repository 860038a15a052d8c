"""Speed of the synthetic world, and a contact sheet of it.

python benchmarks/speed/render.py                       table of images per second
python benchmarks/speed/render.py --sheet out.png       24 pictures with depth and normals
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from genpercept.data import synthetic


def colour(values: np.ndarray) -> np.ndarray:
    """A number in [0, 1] to warm (near) and cold (far) colours, (..., 3) uint8."""
    stops = np.array([(255, 245, 200), (250, 170, 60), (190, 50, 90), (70, 20, 110), (5, 5, 30)], np.float64)
    x = np.clip(values, 0, 1) * (len(stops) - 1)
    k = np.minimum(x.astype(int), len(stops) - 2)
    return (stops[k] + (stops[k + 1] - stops[k]) * (x - k)[..., None]).astype(np.uint8)


def sheet(scenes: synthetic.Scenes, columns: int, labels: bool) -> Image.Image:
    """Pictures in a grid, each beside its depth and normals when asked."""
    cells = []
    for i in range(len(scenes.name)):
        parts = [scenes.image[i]]
        if labels:
            log = np.log(np.where(scenes.valid[i], scenes.depth[i], np.nan))
            lo, hi = np.nanpercentile(log, (1, 99))
            parts.append(colour(np.nan_to_num((log - lo) / max(hi - lo, 1e-3), nan=1.0)))
            parts.append(((scenes.normals[i] * 0.5 + 0.5) * 255).astype(np.uint8))
        cells.append(np.concatenate(parts, 1))
    rows = [np.concatenate(cells[k : k + columns], 1) for k in range(0, len(cells), columns)]
    return Image.fromarray(np.concatenate(rows, 0))


def _chunk(job: tuple[range, str, tuple[int, int]]) -> int:
    return len(synthetic.render(*job[:2], size=job[2]).name)


def rate(count: int, domain: str, size: tuple[int, int], workers: int, kind: str) -> tuple[float, float]:
    """Images per second, and this process's CPU milliseconds per image."""
    t, c = time.perf_counter(), time.process_time()
    if kind == "threads" or workers == 1:
        synthetic.render(range(count), domain, size=size, workers=workers)
        return count / (time.perf_counter() - t), (time.process_time() - c) / count * 1e3
    with ProcessPoolExecutor(workers) as pool:
        list(pool.map(_chunk, [(range(k), domain, size) for k in [1] * workers]))
        t = time.perf_counter()
        step = 16
        list(pool.map(_chunk, [(range(k, k + step), domain, size) for k in range(0, count, step)]))
        return count / (time.perf_counter() - t), float("nan")


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--sheet", type=Path)
    p.add_argument("--domain", default="mixed", choices=synthetic.DOMAINS)
    p.add_argument("--split", default="test", choices=synthetic.SPLITS)
    p.add_argument("--start", type=int, default=0)
    p.add_argument("--count", type=int, default=24)
    p.add_argument("--size", type=int, nargs=2, default=(128, 128))
    p.add_argument("--columns", type=int, default=6)
    p.add_argument("--images-only", action="store_true")
    p.add_argument("--palette", action="store_true", help="256 colours, a smaller file")
    a = p.parse_args()
    size = (a.size[0], a.size[1])
    if a.sheet:
        scenes = synthetic.render(range(a.start, a.start + a.count), a.domain, a.split, size)
        out = sheet(scenes, a.columns, not a.images_only)
        (out.quantize(256) if a.palette else out).save(a.sheet, optimize=True)
        for name, text in zip(scenes.name, scenes.caption, strict=True):
            print(name, text)
        return
    for domain in synthetic.DOMAINS:
        synthetic.render(range(2), domain, size=size)
    print("| domain | size | workers | images/s | CPU ms/image |\n|---|---|---|---|---|")
    for domain, shape, workers, kind in (
        *((d, (128, 128), 1, "one process") for d in synthetic.DOMAINS),
        ("mixed", (128, 128), 2, "threads"),
        ("mixed", (128, 128), 2, "processes"),
        ("mixed", (256, 256), 1, "one process"),
        ("mixed", (96, 320), 1, "one process"),
    ):
        n = 64 if shape == (256, 256) else 192
        speed, cpu = rate(n, domain, shape, workers, kind)
        spent = f"{cpu:.1f}" if kind != "processes" else "-"
        print(f"| {domain} | {shape[0]} x {shape[1]} | {workers} ({kind}) | {speed:.0f} | {spent} |")


if __name__ == "__main__":
    main()
