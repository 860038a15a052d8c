"""What looks unusual in a set of labels, in words: what a wrong setting or a wrong export would leave behind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from genpercept.core.labels import LABELS, beyond

_MOST = 0.6  # share of the pixels that is called foreground: above it, it may be the background
_KNOWN = 0.05  # share of the pixels that is known: below it, labels are sparse
_EMPTY, _FULL = 1e-9, 1 - 1e-9


def of_ranges(ranges: Mapping[str, Sequence[float]]) -> Iterator[str]:
    """ranges: title of a label's values -> lowest, median, highest, share of the pixels that are known."""
    for row in LABELS.values():
        found = [ranges[title] for title in row.titles() if title in ranges]
        if not found:
            continue
        if row.advice and (line := row.advice([median for _, median, _, _ in found])):
            yield line
        if line := beyond(row, np.array([(low, high) for low, _, high, _ in found])):
            yield f"{line}: is its scale right?"
        if (share := min(known for _, _, _, known in found)) < _KNOWN:
            yield f"{row.name}: known on {share:.1%} of the pixels only"


def of_shares(shares: Mapping[str, Sequence[float]]) -> Iterator[str]:
    """shares: name of a label -> the share of each sample's pixels that it covers."""
    for name, each in shares.items():
        empty, full = sum(s < _EMPTY for s in each), sum(s > _FULL for s in each)
        mean, many = float(np.mean(each)), len(each)
        if empty == many:
            yield f"{name}: empty in every sample"
            continue
        if mean > _MOST:
            yield f"{name}: {mean:.1%} of the pixels on average are foreground: is it inverted?"
        if empty:
            yield f"{name}: empty in {empty} of {many} samples"
        if full:
            yield f"{name}: all of the image in {full} of {many} samples"


def of_classes(pixels: Mapping[int, int]) -> Iterator[str]:
    """pixels: number of a class, -1 where there is none -> pixels."""
    classes = [number for number, count in pixels.items() if number >= 0 and count]
    if pixels and not classes:
        yield "class_ids: no pixel has a class"
    elif len(classes) == 1:
        yield f"class_ids: one class only, {classes[0]}"
