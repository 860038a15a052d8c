"""Photographs in tar shards (SET/FILE.jpg) to a folder that recipes read: images/, manifest.jsonl with captions, places/.

    python tools/photographs.py SHARD.tar... --out photographs

Captions are what names of sets and files tell: "a photograph of bedroom". OUT/manifest.jsonl is for the data set `folder`
(all photographs, one of 50 for validation), OUT/places, hard links, for `composites`: the sets that show places, without a
subject before them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import tarfile
from collections.abc import Sequence
from pathlib import Path

_HELD_OUT = 50
# set -> what a file's name says it shows (group 1), or the words themselves
CAPTIONS: dict[str, str] = {
    "caltech101": r"caltech-101_(.+?)_image",
    "camvid": "a street from a car",
    "cars196": "a car",
    "catsdogs": r"_(cat|dog)\.",
    "grocery": r"([A-Za-z-]+)_\d+\.",
    "gtea_kitchen": "a kitchen table, hands",
    "houses": r"_([a-z]+)\.",
    "hymenoptera": r"_(ants|bees)_",
    "imagenet": r"n\d+_(.+)\.",
    "intel": r"data_[a-z]+_([a-z]+)_",
    "kangaroo": "a kangaroo",
    "kitti_street": "a street from a car",
    "mmpose": "people",
    "openpose": "people",
    "raccoon": "a raccoon",
    "rooms_places": r"train_([a-z_]+)_\d+",
    "scenes_cmu": r"data_([a-z_]+)_sun_",
    "scenes_places": r"ALL_[A-Z]+_([a-z_-]+)_\d+",
    "scenes_sun": r"images_([a-z_]+)_sun_",
    "urban100": "buildings",
}
PLACES = (
    "camvid",
    "houses",
    "intel",
    "kitti_street",
    "rooms_places",
    "scenes_cmu",
    "scenes_places",
    "scenes_sun",
    "urban100",
)
_SAID = {"frontal": "a house from the front"}


def caption(member: str) -> str:
    """Of SET/FILE: in lower case, as the tokenizer of a small base reads it; "a photograph" where names say no more."""
    name, _, file = member.partition("/")
    rule = CAPTIONS.get(name, "")
    if "(" not in rule:
        return f"a photograph of {rule}" if rule else "a photograph"
    found = re.search(rule, file)
    if found is None:
        return "a photograph"
    words = re.sub(r"[^a-z]+", " ", found[1].lower()).strip()
    return f"a photograph of {_SAID.get(words, words)}"


def split(member: str) -> str:
    """By the name alone, so that further photographs change nothing."""
    held_out = int.from_bytes(hashlib.sha256(member.encode()).digest()[:8]) % _HELD_OUT == 0
    return "val" if held_out else "train"


def unpack(shards: Sequence[Path], out: Path) -> int:
    """Write all of OUT. The number of photographs. SystemExit for a shard of another layout."""
    rows = []
    for shard in shards:
        with tarfile.open(shard) as archive:
            for member in archive:
                if not member.isfile():
                    continue
                if member.name.count("/") != 1 or not member.name.endswith(".jpg"):
                    raise SystemExit(f"{shard}: {member.name}: members are called SET/FILE.jpg")
                archive.extract(member, out / "images", filter="data")
                rows.append(
                    {"image": f"images/{member.name}", "split": split(member.name), "caption": caption(member.name)}
                )
                if member.name.partition("/")[0] in PLACES:
                    _link(out / "images" / member.name, out / "places" / member.name)
    rows.sort(key=lambda row: row["image"])
    (out / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return len(rows)


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    os.link(source, target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    print(f"{unpack(args.shards, args.out):,} photographs in {args.out}")


if __name__ == "__main__":
    main()
