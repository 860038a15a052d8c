"""Memory while `genpercept predict` works through a film of 2,000 frames: flat, or does it grow?

    python benchmarks/memory/video.py                       # writes video.md beside it
    python benchmarks/memory/video.py --frames 200 --out -  # a look

mini/depth on a film of 96 x 128 pixels, in two shots, with --smooth, into a film and frames of 16 bits. Resident memory of the
whole process, ten times a second. The first tenth of the time is left out: the model is loaded, and buffers are made.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))  # a script's own folder is all that Python looks into

from benchmarks._page import made, show
from genpercept.imaging.video import Writer

_SIZE = (96, 128)
_GROWTH = 1.05  # of the last quarter's mean over the second's, from which memory counts as growing


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--frames", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="video_") as temp:
        film = make(Path(temp) / "film.mp4", args.frames)
        found, seconds = watch(film, Path(temp) / "out")
    kept = found[len(found) // 10 :]
    quarters = [np.array(part) for part in np.array_split(np.array(kept), 4)]
    growth = quarters[3].mean() / quarters[1].mean()
    lines = [
        "# Memory over a film",
        "",
        made(__file__) + ".",
        "",
        (__doc__ or "").strip().split("\n\n")[-1].replace("\n", " "),
        f"{args.frames:,} frames in {seconds:.0f} s, start included: {1000 * seconds / args.frames:.0f} ms a frame,",
        "of a machine that may have done other things beside.",
        "",
        "| quarter of the run | mean | peak |",
        "| --- | ---: | ---: |",
        *(f"| {n} | {part.mean() / 1e6:.0f} MB | {part.max() / 1e6:.0f} MB |" for n, part in enumerate(quarters, 1)),
        "",
        f"The last quarter's mean is {growth:.3f} times the second's.",
    ]
    show(lines, None if str(args.out) == "-" else args.out)
    return 0 if growth < _GROWTH else 1


def make(path: Path, count: int) -> Path:
    """Two shots, each a window that goes around on noise."""
    h, w = _SIZE
    with Writer(path, Fraction(25), Fraction(1, 25)) as out:
        for i in range(count):
            shot, angle = 2 * i // count, 0.02 * i
            large = _noise(shot)
            y, x = round(30 + 30 * np.sin(angle)), round(40 + 40 * np.cos(angle))
            out.write(large[y : y + h, x : x + w], i * Fraction(1, 25))
    return path


def _noise(seed: int) -> np.ndarray:
    import cv2

    rough = np.random.default_rng(seed).standard_normal((_SIZE[0] + 64, _SIZE[1] + 84, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(rough, (0, 0), 3)
    return np.rint((smooth - smooth.min()) / (smooth.max() - smooth.min()) * 255).astype(np.uint8)


def watch(film: Path, out: Path) -> tuple[list[int], float]:
    """(bytes of resident memory, ten times a second; seconds)."""
    command = [sys.executable, "-m", "genpercept", "predict", str(film), "--out", str(out), "--smooth"]
    command += ["--format", "mp4,png", "--batch-size", "4"]
    found, start = [], time.perf_counter()
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            status = Path(f"/proc/{process.pid}/status").read_text()
            resident = [line for line in status.splitlines() if line.startswith("VmRSS")]
            found += [int(line.split()[1]) * 1024 for line in resident]
            time.sleep(0.1)
    if process.returncode:
        raise ValueError(f"{' '.join(command)}: ended with status {process.returncode}")
    return found, time.perf_counter() - start


if __name__ == "__main__":
    raise SystemExit(main())
