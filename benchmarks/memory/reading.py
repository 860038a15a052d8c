"""Bytes for each pixel at the peak of reading an image, by format and pixel type, each in a process of its own.

    python benchmarks/memory/reading.py                       # writes reading.md beside it
    python benchmarks/memory/reading.py --before OTHER/src    # and what another checkout takes

A peak is the largest resident memory while one large image is read, less what the process had after a small one of its kind.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, UnidentifiedImageError

sys.path.insert(0, str(Path(__file__).parents[2]))  # a script's own folder is all that Python looks into

from benchmarks._page import made, show
from genpercept.imaging import decode
from tests.support.pixel_types import PIXEL_TYPES, peak_of_reading, write_pixel_type

_SMALL = (64, 48)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    parser.add_argument("--size", type=int, nargs=2, default=(4000, 3000), metavar=("W", "H"))
    parser.add_argument("--before", type=Path, help="folder of another checkout's packages, its src")
    parser.add_argument("--only", default="", help="kinds whose names hold this")
    args = parser.parse_args(argv)
    rows = []
    with tempfile.TemporaryDirectory(prefix="reading_") as temp:
        for kind in (kind for kind in PIXEL_TYPES if args.only in kind):
            small, path = (write_pixel_type(Path(temp), kind, size) for size in (_SMALL, tuple(args.size)))
            counted = str(decode.cost(Image.open(path))) if _is_pillows(path) else "by strips"
            found = [peak_of_reading(small, path, source) for source in (args.before, None)[args.before is None :]]
            each = [None if bytes_ is None else bytes_ / (args.size[0] * args.size[1]) for bytes_ in found]
            rows.append((kind, counted, each))
            path.unlink()
            print(f"{kind:45s} {counted:9s} {each}", flush=True)
    show(page(rows, args), args.out)
    return 0


def _is_pillows(path: Path) -> bool:
    try:
        Image.open(path).close()
    except UnidentifiedImageError:
        return False
    return True


def page(rows: list[tuple[str, str, list[float | None]]], args: argparse.Namespace) -> list[str]:
    w, h = args.size
    names = ["before", "now"][args.before is None :]
    asked = ["--size", str(w), str(h), *(["--before", "OTHER/src"] if args.before else [])]
    out = [
        "# Memory while an image is read",
        "",
        made(__file__, argv=asked) + ".",
        "",
        (__doc__ or "").strip().split("\n\n")[-1],
        f"Images of {w} x {h} pixels. The result itself takes 3 bytes for each pixel; a decoder's own image 1 to 4. `counted`",
        "is what the reader takes from its budget for such a file before it decodes it, and what it holds against",
        "`--max-pixels`, a limit of 8 bytes for each pixel.",
        "",
        f"| file | {' | '.join(f'bytes per pixel {name}' for name in names)} | counted |",
        "| --- |" + " ---: |" * (len(names) + 1),
    ]
    for kind, counted, each in rows:
        shown = " | ".join("refused" if value is None else f"{value:.1f}" for value in each)
        out.append(f"| {kind} | {shown} | {counted} |")
    return out


if __name__ == "__main__":
    raise SystemExit(main())
