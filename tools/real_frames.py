"""Real frames with measured depth, listed by an index.csv, as data sets `folder` that studies score on.

    python tools/real_frames.py FRAMES --out real_frames --one-scene SET

FRAMES has index.csv with the columns name, scene, tier and unit (mm, cm: 16-bit depth in 1/1000 or 1/100 m; 0: unknown), and
beside it, or in a folder called as the column `set`, NAME_rgb.jpg and NAME_depth.png. Writes OUT/TIER/images/SCENE/NAME.jpg and
OUT/TIER/depth/SCENE/NAME.npy, metres. Frames of a scene are not independent: their folder says which are of one.
--one-scene: sets (the column `set`) all of whose frames show one place, whatever their column `scene` says.

Frames whose depth is dense are in OUT/TIER-normals, too, with the normals of a mesh of that depth. What a sensor measures is
noisy: the mesh has the medians of blocks of 8 x 8 pixels as its points, and a normal is known at the middles of blocks alone.
Nobody says which camera it was; one of 60 degrees is assumed.
"""

from __future__ import annotations

import argparse
import csv
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from genpercept.imaging.camera import Camera
from genpercept.imaging.mesh import grid_mesh

_PER_METRE = {"mm": 1000.0, "cm": 100.0}
_DENSE = 0.6  # share of pixels whose depth is known, from which on a frame has normals
_BLOCK = 8  # pixels
_FOV = 60.0  # degrees, horizontally


def convert(frames: Path, out: Path, one_scene: Sequence[str] = ()) -> Counter[str]:
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
            scene = row["set"] if row["set"] in one_scene else row["scene"]
            place = Path(re.sub(r"[^A-Za-z0-9_.-]+", "_", scene)) / row["name"]
            tier = out / row["tier"]
            metres = np.asarray(Image.open(depth), np.float32) / _PER_METRE[row["unit"]]
            _write(tier, place, photograph, "depth", metres)
            count[row["tier"]] += 1
            if (facing := normals(metres)) is not None:
                _write(tier.with_name(f"{row['tier']}-normals"), place, photograph, "normals", facing)
    return count


def _write(root: Path, place: Path, photograph: Path, label: str, values: np.ndarray) -> None:
    for folder in ("images", label):
        (root / folder / place).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(photograph, root / "images" / f"{place}.jpg")
    np.save(root / label / f"{place}.npy", values)


def normals(metres: np.ndarray) -> np.ndarray | None:
    """Depth (H, W), 0 where unknown -> normals (H, W, 3) float32, x right, y up, z towards the viewer, zero where unknown.

    None of a depth that is too sparse.
    """
    if np.mean(metres > 0) < _DENSE:
        return None
    h, w = (edge // _BLOCK for edge in metres.shape)
    blocks = metres[: h * _BLOCK, : w * _BLOCK].reshape(h, _BLOCK, w, _BLOCK).swapaxes(1, 2).reshape(h, w, -1)
    half = (blocks > 0).sum(-1) > _BLOCK**2 // 2
    medians = np.full((h, w), np.nan, np.float32)
    medians[half] = np.nanmedian(np.where(blocks[half] > 0, blocks[half], np.nan), axis=-1)
    mesh = grid_mesh(medians, Camera.of_fov(_FOV, (h, w), "assumed"))
    found = np.zeros((*metres.shape, 3), np.float32)
    columns, rows = (mesh.places.astype(int) * _BLOCK + _BLOCK // 2).T
    found[rows, columns] = mesh.normals
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("frames", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--one-scene", nargs="*", default=(), metavar="SET")
    args = parser.parse_args()
    found = convert(args.frames, args.out, args.one_scene)
    print(", ".join(f"tier {tier}: {n} frames" for tier, n in sorted(found.items())))


if __name__ == "__main__":
    main()
