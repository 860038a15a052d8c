"""Two recordings beside each other: how much was compared, and each difference with what is known of it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any


def main(old: Path, new: Path) -> int:
    """Print the comparison. Exit code 1 where an output differs or only one recording has it."""
    before, after = (json.loads(path.read_text(encoding="utf-8")) for path in (old, new))
    for title, about in (("first", before["about"]), ("second", after["about"])):
        print(f"{title}: {about.get('source')}, commit {about.get('commit') or 'unknown'}, {about.get('date')}")
    for line in other_grounds(before["about"], after["about"]):
        print(f"note: {line}")
    lines, counts = differences(before["entries"], after["entries"])
    print("\n".join(lines))
    for part, count in sorted(counts.items()):
        print(f"{part:<10} {count} outputs compared")
    found = f"{len(lines) or 'no'} difference{'s'[: len(lines) != 1]}"
    print(f"compared {sum(counts.values())} outputs of {old} and {new}: {found}")
    return 1 if lines else 0


def other_grounds(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What the recordings were made on, where that differs: then the bits may, whatever the program does."""
    known = sorted((before.keys() | after.keys()) - {"source", "commit", "date", "seconds"})
    return [f"{key}: {before.get(key)} and {after.get(key)}" for key in known if before.get(key) != after.get(key)]


def differences(before: dict[str, list[str]], after: dict[str, list[str]]) -> tuple[list[str], Counter[str]]:
    """A line for each, by name, and by part the number of outputs that both have."""
    lines: list[str] = []
    counts: Counter[str] = Counter()
    for name in sorted(before.keys() | after.keys()):
        if name not in after or name not in before:
            which, there = ("first", before) if name in before else ("second", after)
            lines.append(f"ONLY IN THE {which.upper()}  {name}: {there[name][1]}")
            continue
        counts[name.partition("/")[0]] += 1
        if before[name][0] != after[name][0]:
            lines.append(f"DIFFERENT  {name}: {_words(before[name][1], after[name][1])}")
    return lines, counts


def _words(old: str, new: str) -> str:
    return f"{old}  ->  {new}" if old != new else f"{old}, in both; other values"
