"""`genpercept predict` on many small images: its wall time beside the time of the network, of reading and of writing alone.

    python benchmarks/speed/stream.py                                     # 2000 images: stream.md beside it
    python benchmarks/speed/stream.py --images 100 --out check.md         # quicker

The bound is what the work would take if nothing ever waited: network, reading and writing, each measured alone in one thread
on some of the images, before and after, divided by the cores. Cores that share caches, memory and a power budget are slower
together than each alone: the second bound takes the network's time with all of them.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2]))  # where `benchmarks` lies
from benchmarks._page import made

SIZES = ((192, 256), (256, 192), (200, 256), (256, 256))  # of the files
FORMATS = ("png", "color")


def write_images(folder: Path, count: int) -> list[Path]:
    """JPEGs of smooth noise in four sizes, mixed."""
    rng = np.random.default_rng(0)
    paths = []
    for i in range(count):
        h, w = SIZES[i % len(SIZES)]
        coarse = Image.fromarray(rng.integers(0, 256, (h // 16, w // 16, 3), np.uint8))
        pixels = np.asarray(coarse.resize((w, h), Image.Resampling.BICUBIC)) + rng.normal(0, 6, (h, w, 3))
        paths.append(folder / f"{i:05d}.jpg")
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(paths[-1], quality=90)
    return paths


def alone(pipe: Any, paths: list[Path], out: Path, batch_size: int) -> dict[str, float]:
    """Seconds per image of each stage in one thread, and of the network with a thread for each core ("together")."""
    import torch

    from genpercept.imaging.read import read

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    reading, images = clocked(lambda: [read(path) for path in paths])
    pipe(images[: len(SIZES)])  # warm
    network, predictions = clocked(lambda: pipe(images, batch_size=batch_size))
    pairs = zip(paths, predictions, strict=True)
    writing, _ = clocked(lambda: [p.save(out / f"{path.stem}.json", FORMATS) for path, p in pairs])
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    together, _ = clocked(lambda: pipe(images, batch_size=batch_size))
    torch.set_num_threads(threads)
    found = {"reading": reading, "network": network, "writing": writing, "together": together}
    return {name: seconds / len(paths) for name, seconds in found.items()}


def clocked(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def streamed(pipe: Any, folder: Path, out: Path, batch_size: int | str) -> tuple[float, float]:
    """(wall, CPU) seconds of the command's own function, the model being loaded."""
    from genpercept.commands.predict.run import Machine, Request, run

    wall, cpu = time.perf_counter(), time.process_time()
    machine = Machine("cpu", batch_size)  # type: ignore[arg-type]
    code = run([folder], out, Request(pipe.info["model"]), formats=FORMATS, machine=machine, load=lambda *_, **__: pipe)
    if code:
        raise RuntimeError(f"predict ended with code {code}")
    return time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    """Write the images, time the stages alone, the command, the stages again, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--alone", type=int, default=200, help="images on which the stages are timed alone")
    parser.add_argument("--model", default="mini/depth")
    parser.add_argument("--batch-size", default="auto", help="a number, or auto")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    args = parser.parse_args()

    import genpercept

    batch_size = "auto" if args.batch_size == "auto" else int(args.batch_size)
    pipe = genpercept.load(args.model, device="cpu")
    with tempfile.TemporaryDirectory() as temp:
        folder, results = Path(temp, "in"), Path(temp, "alone")
        folder.mkdir()
        results.mkdir()
        paths = write_images(folder, args.images)
        some, many = paths[: args.alone], 8 if batch_size == "auto" else batch_size
        before = alone(pipe, some, results, many)
        wall, cpu = streamed(pipe, folder, Path(temp, "out"), batch_size)
        after = alone(pipe, some, results, many)
    stages = {name: (before[name] + after[name]) / 2 for name in before}
    args.out.write_text(page(stages, wall, cpu, args), encoding="utf-8")
    print(args.out.read_text(encoding="utf-8"))


def page(stages: dict[str, float], wall: float, cpu: float, args: argparse.Namespace) -> str:
    """stages: seconds per image of each alone; wall, cpu: seconds of the command on all images."""
    cores = len(os.sched_getaffinity(0))
    files = stages["reading"] + stages["writing"]
    apart = (stages["network"] + files) / cores * args.images
    together = (stages["together"] + files / cores) * args.images
    rows = {
        "reading alone, one thread, ms per image": f"{stages['reading'] * 1e3:.2f}",
        "writing alone, one thread, ms per image": f"{stages['writing'] * 1e3:.2f}",
        "network alone, one thread, ms per image": f"{stages['network'] * 1e3:.2f}",
        f"network alone, {cores} threads, ms per image": f"{stages['together'] * 1e3:.2f}",
        "wall time of the command, s": f"{wall:.1f}",
        f"over the sum of one thread's times / {cores} cores ({apart:.1f} s)": f"{wall / apart:.2f}",
        f"over the network with {cores} threads, and files / {cores} cores ({together:.1f} s)": f"{wall / together:.2f}",
        "CPU time of the command, s": f"{cpu:.1f}",
    }
    return "\n".join(
        [
            "# Many small images through `genpercept predict`",
            "",
            f"{made(__file__, cores)}. {args.images} JPEGs of about 256 x 192 pixels, "
            f"{args.model}, batch size {args.batch_size}, to {' and '.join(FORMATS)}.",
            "",
            "| | |",
            "| --- | ---: |",
            *(f"| {name} | {figure} |" for name, figure in rows.items()),
            "",
        ]
    )


if __name__ == "__main__":
    main()
