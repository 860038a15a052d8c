"""Samples per second and core of Hypersim in its published form and prepared, and of the step's records from either.

    python benchmarks/speed/prepare.py                  # prepare.md beside it
    python benchmarks/speed/prepare.py --frames 2 --rounds 1 --out check.md

Frames of 1024 x 768 pixels are made up in the original layout: five HDF5 files each, of the published types, compressed by
gzip. `genpercept data prepare` makes the prepared trees. One process, PyTorch on one thread; CPU seconds, which other programs
on the machine do not change much; every value of a sample is read. All forms in turns, so none is favoured by a quiet moment.
The files are in the system's memory: what a disk adds is not in it.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))  # where `benchmarks` lies
from benchmarks._page import made

SIZE = (768, 1024)


def write_frames(root: Path, count: int) -> None:
    """A wavy room with noise as a renderer leaves it."""
    rng = np.random.default_rng(0)
    (h, w), (y, x) = SIZE, np.mgrid[: SIZE[0], : SIZE[1]]
    for frame in range(count):

        def put(kind: str, values: np.ndarray, frame: int = frame) -> None:
            part = "final" if kind == "color" else "geometry"
            path = root / f"ai_001_001/images/scene_cam_00_{part}_hdf5/frame.{frame:04d}.{kind}.hdf5"
            path.parent.mkdir(parents=True, exist_ok=True)
            with h5py.File(path, "w") as file:
                file.create_dataset("dataset", data=values, compression="gzip")

        light = np.abs(np.sin(x / 50 + frame))[..., None] * [0.2, 0.3, 0.4]
        put("color", (light + rng.normal(0, 0.02, (h, w, 3))).clip(0).astype(np.float16))
        put("depth_meters", (3 + np.sin(x / 200 + frame) + np.cos(y / 150)).astype(np.float16))
        normals = np.stack([np.sin(x / 300), np.cos(y / 200), np.ones((h, w))], -1)
        put("normal_cam", (normals / np.linalg.norm(normals, axis=-1, keepdims=True)).astype(np.float16))
        put("semantic", ((x // 64 + y // 64) % 40 + 1).astype(np.int16))
        put("render_entity_id", (x // 32 % 50).astype(np.int32))


def read(plugin: Any, entries: list[Any]) -> None:
    """Every sample, and every value of it."""
    for entry in entries:
        sample = plugin.load(entry)
        for values in (sample.image, *sample.labels().values()):
            values.sum()


def records(plugin: Any, entries: list[Any]) -> None:
    """What a step makes of the samples: a record, cut to 768 x 768, mirrored or not, and the label map of the depth task."""
    from genpercept.core.rng import generator
    from genpercept.tasks import TASKS
    from genpercept.training.recipe import Augment
    from genpercept.training.samples.augment import augment
    from genpercept.training.samples.records import from_sample, to_sample

    for number, entry in enumerate(entries):
        record = augment(from_sample(plugin.load(entry)), (768, 768), Augment(), generator(0, 0, number, "augment"))
        TASKS.find("depth").encode(to_sample(record))


def per_cpu_second(work: Callable[..., None], plugin: Any, entries: list[Any]) -> float:
    begin = time.process_time()
    work(plugin, entries)
    return len(entries) / (time.process_time() - begin)


def main() -> None:
    """Make the trees, time them in turns, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = [row for labels in (("depth", "normals", "class_ids"), ("depth",)) for row in measured(labels, args)]
    args.out.write_text(page(rows, args), encoding="utf-8")
    print(args.out.read_text(encoding="utf-8"))


def measured(labels: tuple[str, ...], args: argparse.Namespace) -> list[str]:
    """Rows of the table."""
    from genpercept.commands.data import prepare
    from genpercept.data import DATASETS

    plugin = DATASETS.find("hypersim").with_options(labels=labels)
    with tempfile.TemporaryDirectory() as temp:
        root = Path(temp, "published")
        write_frames(root, args.frames)
        forms = {"published": root}
        for name, eight_bits in (("prepared", False), ("prepared, --eight-bits", True)):
            forms[name] = Path(temp, name)
            options = {"labels": labels}
            begin = time.process_time()
            prepare.main("hypersim", root, forms[name], options, ["all"], processes=1, eight_bits=eight_bits)
            print(f"{name}: {(time.process_time() - begin) / args.frames:.2f} CPU seconds each")
        entries = {name: list(plugin.index(folder, "all")) for name, folder in forms.items()}
        for listed in entries.values():
            read(plugin, listed)  # warm
        figures: dict[tuple[str, str], list[float]] = {}
        for _ in range(args.rounds):
            for work in (read, records):
                for name, listed in entries.items():
                    figures.setdefault((name, work.__name__), []).append(per_cpu_second(work, plugin, listed))
        size = {n: sum(p.stat().st_size for p in f.rglob("*") if p.is_file()) / args.frames for n, f in forms.items()}
    rows = []
    for name in forms:
        cells = [", ".join(labels), name, f"{size[name] / 1e6:.1f}"]
        for work in ("read", "records"):
            mine = figures[name, work]
            times = [a / b for a, b in zip(mine, figures["published", work], strict=True)]
            cells += [f"{statistics.median(mine):.1f}", f"{statistics.median(times):.1f}"]
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def page(rows: list[str], args: argparse.Namespace) -> str:
    head = "| labels | form | MB each | samples read per CPU second | times | records per CPU second | times |"
    return "\n".join(
        [
            "# Hypersim as published, and prepared",
            "",
            f"{made(__file__, 1)}. {args.frames} frames of 1024 x 768 pixels, medians of {args.rounds} rounds in turns. A "
            "record is cut to 768 x 768 and has the depth task's label map, as a step takes it.",
            "",
            head,
            "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
            *rows,
            "",
        ]
    )


if __name__ == "__main__":
    main()
