"""A photograph of 100 megapixels through `genpercept predict`: the peak of the whole process.

    python benchmarks/memory/hundred_megapixels.py                       # writes hundred_megapixels.md beside it
    python benchmarks/memory/hundred_megapixels.py --before OTHER/src    # and what another checkout takes

mini/depth, its own resolution and formats (a PNG of 16 bits and a picture). The bound is 3 GB.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2]))  # a script's own folder is all that Python looks into

from benchmarks._page import made, show
from tests.support.pixel_types import picture

_BOUND = 3e9


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    parser.add_argument("--size", type=int, nargs=2, default=(11600, 8700), metavar=("W", "H"))
    parser.add_argument("--before", type=Path, help="folder of another checkout's packages, its src")
    args = parser.parse_args(argv)
    w, h = args.size
    rows = []
    with tempfile.TemporaryDirectory(prefix="hundred_") as temp:
        photograph = Path(temp) / "photograph.jpg"
        maker = get_context("spawn").Process(target=make, args=(photograph, w, h))
        maker.start()  # elsewhere: a process's peak begins with that of the one that starts it
        maker.join()
        for name, source in (("before", args.before), ("now", None)):
            if name == "now" or source is not None:
                peak, seconds = predict(photograph, Path(temp) / name, source)
                rows.append((name, peak, seconds))
    asked = ["--before", "OTHER/src"] if args.before else []
    lines = [
        "# A photograph of 100 megapixels",
        "",
        made(__file__, argv=asked) + ".",
        "",
        (__doc__ or "").strip().split("\n\n")[-1],
        f"{w} x {h} pixels, JPEG. Seconds include the start, and say little where other programs run beside it.",
        "",
        "| | peak | bytes per pixel | seconds |",
        "| --- | ---: | ---: | ---: |",
        *(f"| {name} | {peak / 1e9:.2f} GB | {peak / w / h:.1f} | {seconds:.0f} |" for name, peak, seconds in rows),
    ]
    show(lines, args.out)
    return 0 if rows[-1][1] <= _BOUND else 1


def make(photograph: Path, w: int, h: int) -> None:
    strip = picture((w, 300))[..., :3]
    image = np.concatenate([np.roll(strip, 37 * i, 1) for i in range(-(-h // 300))])[:h]
    Image.fromarray(image).save(photograph, quality=90)


def predict(photograph: Path, out: Path, source: Path | None) -> tuple[int, float]:
    """(bytes of resident memory at the peak, seconds)."""
    env = dict(os.environ) if source is None else {**os.environ, "PYTHONPATH": str(source)}
    command = [sys.executable, "-m", "genpercept", "predict", str(photograph), "--out", str(out)]
    start = time.perf_counter()
    process = subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise ValueError(f"{' '.join(command)}: ended with status {status}")
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024), time.perf_counter() - start


if __name__ == "__main__":
    raise SystemExit(main())
