"""`genpercept predict` on many small images: its wall time beside the time of the network, of reading and of writing alone.

python benchmarks/stream.py                     2000 images, all cores
python benchmarks/stream.py --images 100        quicker; on a machine that is busy only the CPU times mean anything

The bound is what the work would take if nothing ever waited: CPU seconds of network, reading and writing, each measured alone
in one thread on some of the images, divided by the cores.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

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


def cpu_seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def alone(pipe: Any, paths: list[Path], out: Path, batch_size: int) -> dict[str, float]:
    """CPU seconds per image of each stage, in one thread."""
    import torch

    from genpercept.imaging.read import read

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    reading, images = cpu_seconds(lambda: [read(path) for path in paths])
    pipe(images[: len(SIZES)])  # warm
    network, predictions = cpu_seconds(lambda: pipe(images, batch_size=batch_size))
    pairs = zip(paths, predictions, strict=True)
    writing, _ = cpu_seconds(lambda: [p.save(out / f"{path.stem}.json", FORMATS) for path, p in pairs])
    torch.set_num_threads(threads)
    return {name: s / len(paths) for name, s in (("reading", reading), ("network", network), ("writing", writing))}


def streamed(pipe: Any, folder: Path, out: Path, batch_size: int | str) -> tuple[float, float]:
    """(wall, CPU) seconds of the command's own function, the model being loaded."""
    from genpercept.predict import Machine, Request, run

    wall, cpu = time.perf_counter(), time.process_time()
    machine = Machine("cpu", batch_size)  # type: ignore[arg-type]
    code = run([folder], out, Request(pipe.info["model"]), formats=FORMATS, machine=machine, load=lambda *_, **__: pipe)
    if code:
        raise RuntimeError(f"predict ended with code {code}")
    return time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--alone", type=int, default=200, help="images on which the stages are timed alone")
    parser.add_argument("--model", default="mini/depth")
    parser.add_argument("--batch-size", default="auto", help="a number, or auto")
    parser.add_argument("--out", type=Path, help="write the figures there as JSON, too")
    args = parser.parse_args()

    import genpercept

    batch_size = "auto" if args.batch_size == "auto" else int(args.batch_size)
    pipe = genpercept.load(args.model, device="cpu")
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as temp:
        folder, results = Path(temp, "in"), Path(temp, "alone")
        folder.mkdir()
        results.mkdir()
        paths = write_images(folder, args.images)
        stages = alone(pipe, paths[: args.alone], results, 8 if batch_size == "auto" else batch_size)
        wall, cpu = streamed(pipe, folder, Path(temp, "out"), batch_size)
    work = sum(stages.values()) * args.images
    print(f"{args.images} images, {args.model}, batch size {batch_size}, {cores} cores, {platform.processor()}")
    for name, seconds in stages.items():
        print(f"  {name}: {seconds * 1e3:.2f} ms of CPU per image")
    print(f"  bound: {work / cores:.1f} s; wall: {wall:.1f} s, {wall / (work / cores):.2f} x the bound")
    print(f"  CPU time: {cpu:.1f} s, {cpu / work:.2f} x that of the stages alone")
    if args.out:
        figures = {"images": args.images, "cores": cores, "stages": stages, "wall": wall, "cpu": cpu}
        args.out.write_text(json.dumps(figures | {"batch_size": batch_size}, indent=2) + "\n")


if __name__ == "__main__":
    main()
