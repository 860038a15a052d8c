"""Real frames with measured depth, listed by an index.csv, as data sets `folder` that studies score on.

    python tools/real_frames.py FRAMES --out real_frames

FRAMES has index.csv with the columns name, scene, tier and unit (mm, cm: 16-bit depth in 1/1000 or 1/100 m; 0: unknown), and
beside it, or in a folder called as the column `set`, NAME_rgb.jpg and NAME_depth.png. Writes OUT/TIER/images/SCENE/NAME.jpg and
OUT/TIER/depth/SCENE/NAME.npy, metres. Frames of a scene are not independent: their folder says which are of one.
"""

from __future__ import annotations

import argparse
import csv
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

_PER_METRE = {"mm": 1000.0, "cm": 100.0}


def convert(frames: Path, out: Path) -> Counter[str]:
    """Write all of OUT. Frames by tier. SystemExit for a unit that is none of ours, and for a file that is not there."""
    count: Counter[str] = Counter()
    with (frames / "index.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["unit"] not in _PER_METRE:
                raise SystemExit(f"{frames}/index.csv: {row['name']}: unit {row['unit']!r}: mm or cm")
            home = frames / row["set"] if (frames / row["set"]).is_dir() else frames
            photograph, depth = home / f"{row['name']}_rgb.jpg", home / f"{row['name']}_depth.png"
            if not photograph.is_file() or not depth.is_file():
                raise SystemExit(f"{photograph} or {depth.name}: no such file")
            place = Path(re.sub(r"[^A-Za-z0-9_.-]+", "_", row["scene"])) / row["name"]
            tier = out / row["tier"]
            for folder in ("images", "depth"):
                (tier / folder / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(photograph, tier / "images" / f"{place}.jpg")
            metres = np.asarray(Image.open(depth), np.float32) / _PER_METRE[row["unit"]]
            np.save(tier / "depth" / f"{place}.npy", metres)
            count[row["tier"]] += 1
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("frames", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    print(", ".join(f"tier {tier}: {n} frames" for tier, n in sorted(convert(args.frames, args.out).items())))


if __name__ == "__main__":
    main()
