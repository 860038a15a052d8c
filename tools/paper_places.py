"""Which tables and figures the paper's texts name, and whether docs/reproduce.md has a row for each.

    python tools/paper_places.py ../shared/paper

The folder holds the texts, *-v1-*.txt and *supplementary*.txt, as text. Exit code 1 when one has no row.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "reproduce.md"
_NAMED = re.compile(r"\b(Tables?|Tab\.|Figures?|Figs?\.)\s*(\d+)")
_ROW = re.compile(r"^\| (v1|supplement) (Table|Fig\.) (\d+)(?: \(web\))? \|", re.MULTILINE)
Place = tuple[str, str, int]  # text, "Table" or "Fig.", number


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paper", type=Path, help="folder of the texts")
    wanted, there = places(parser.parse_args(argv).paper), rows(PAGE.read_text(encoding="utf-8"))
    for text, kind, number in sorted(wanted - there):
        print(f"{text} {kind} {number}: no row in {PAGE.name}")
    print(
        f"{len(wanted)} tables and figures named by the texts, {len(wanted & there)} of them with a row; {len(there)} rows"
    )
    return int(bool(wanted - there))


def places(folder: Path) -> set[Place]:
    """What the texts of a folder name. ValueError where there are none."""
    found: set[Place] = set()
    texts = {"v1": [*folder.glob("*-v1-*.txt")], "supplement": [*folder.glob("*supplementary*.txt")]}
    for name, files in texts.items():
        if not files:
            raise ValueError(f"{folder}: no text of {name} in it")
        for file in files:
            for kind, number in _NAMED.findall(file.read_text(encoding="utf-8")):
                found.add((name, "Table" if kind.startswith("Tab") else "Fig.", int(number)))
    return found


def rows(page: str) -> set[Place]:
    """The tables and figures that have a row of their own."""
    return {(text, kind, int(number)) for text, kind, number in _ROW.findall(page)}


if __name__ == "__main__":
    sys.exit(main())
