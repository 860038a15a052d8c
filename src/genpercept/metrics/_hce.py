"""Human correction effort: the clicks it takes to correct a mask (Qin et al., Highly Accurate Dichotomous Image
Segmentation, ECCV 2022, section 5).

Wrong regions that an erosion of `relax` pixels would remove cost nothing, unless they are thin structures of the truth.
What is left costs one click per corner of its outline where that touches what is right (after Douglas and Peucker), and
one per region that touches nothing of the kind. The counts are those of the authors' code, exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from genpercept.metrics._arrays import BoolArray

_CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)


class Effort(NamedTuple):
    """Clicks by kind: outline corners and free regions of what must go (extra) and of what must be added (missing)."""

    extra_points: int
    extra_regions: int
    missing_points: int
    missing_regions: int


def correction_effort(
    pred: BoolArray, gt: BoolArray, skeleton: BoolArray | None = None, relax: int = 5, epsilon: float = 2.0
) -> Effort:
    """Clicks to turn `pred` (H, W) into `gt` (H, W); their sum is the HCE.

    skeleton: of `gt`, by `thin` when None. relax: erosions by a cross (gamma in the paper). epsilon: tolerance of the
    outline in pixels. As in the authors' code, one wrong region that covers the whole image counts 0.
    """
    right, extra, missing = pred & gt, pred & ~gt, gt & ~pred
    core = _eroded(pred | gt, relax)
    extra = extra & _grown(extra & core, ~gt, relax)
    if skeleton is None:
        skeleton = thin(gt) if missing.any() else missing
    missing = (missing & _grown(missing & core, ~pred, relax)) | (skeleton & ~right)
    return Effort(
        *_clicks(extra, right | missing, epsilon),
        *_clicks(missing, ~(right | extra | missing), epsilon),
    )


def _u8(mask: BoolArray) -> NDArray[np.uint8]:
    return np.ascontiguousarray(mask).view(np.uint8)


def _eroded(mask: BoolArray, times: int) -> BoolArray:
    """Outside the image counts as inside the mask, OpenCV's default."""
    return cv2.erode(_u8(mask), _CROSS, iterations=times).view(bool)


def _grown(mask: BoolArray, within: BoolArray, times: int) -> BoolArray:
    for _ in range(times):
        mask = cv2.dilate(_u8(mask), _CROSS).view(bool) & within
    return mask


def _clicks(mask: BoolArray, touching: BoolArray, epsilon: float) -> tuple[int, int]:
    """(corners of the outlines of `mask` where they touch `touching`, regions that touch it nowhere)."""
    if not mask.any() or mask.all():  # the authors take a region that leaves no background for the background
        return 0, 0
    contours, _ = cv2.findContours(_u8(mask), cv2.RETR_TREE, cv2.CHAIN_APPROX_NONE)
    regions, labels = cv2.connectedComponents(_u8(mask), connectivity=8)
    near = cv2.dilate(_u8(touching), _CROSS).ravel()
    xy = np.concatenate(contours)[:, 0].astype(np.int32, copy=False)
    owner = np.repeat(np.arange(len(contours)), [len(c) for c in contours])
    flat = xy[:, 1].astype(np.intp) * mask.shape[1] + xy[:, 0]
    fresh = np.zeros(len(flat), bool)  # outlines pass some pixels twice; only the first pass counts
    fresh[np.unique(flat, return_index=True)[1]] = True
    keep = fresh & (near[flat] != 0)
    if not keep.any():
        return 0, regions - 1
    held = np.unique(labels.ravel()[flat[keep]])
    corners = sum(_corners(piece, epsilon) for piece in _pieces(xy, owner, keep))
    return corners, regions - 1 - len(held)


def _pieces(xy: NDArray[np.int32], owner: NDArray[np.intp], keep: BoolArray) -> list[NDArray[np.int32]]:
    """The runs of kept pixels of each outline.

    An outline is a ring: where its first run begins beside the end of its last, the two are one piece. The authors
    turn the first round before they append it, and so do we.
    """
    breaks = owner[1:] != owner[:-1]
    first = keep & np.append(True, breaks | ~keep[:-1])
    last = keep & np.append(breaks | ~keep[1:], True)
    starts, ends = np.flatnonzero(first), np.flatnonzero(last) + 1
    pieces = [xy[a:b] for a, b in zip(starts.tolist(), ends.tolist(), strict=True)]
    ring = owner[starts]
    opens = np.flatnonzero(np.append(True, ring[1:] != ring[:-1]))  # each ring's first run
    closes = np.append(opens[1:], len(ring)) - 1  # and its last
    gap = np.abs(xy[starts[opens]] - xy[ends[closes] - 1]).max(-1)
    joined = (opens != closes) & (gap == 1)
    for a, b in zip(opens[joined].tolist(), closes[joined].tolist(), strict=True):
        pieces[b] = np.concatenate([pieces[b], pieces[a][::-1]])
    dropped = set(opens[joined].tolist())
    return [p for i, p in enumerate(pieces) if i not in dropped]


def _corners(piece: NDArray[np.int32], epsilon: float) -> int:
    """Points that Douglas and Peucker leave of an open line."""
    return len(piece) if len(piece) < 3 else len(cv2.approxPolyDP(piece, epsilon, False))


# --- thinning: T. Y. Zhang and C. Y. Suen, Communications of the ACM 27(3), 1984 ---

_SIDES = ("N", "NE", "E", "SE", "S", "SW", "W", "NW")  # P2 ... P9
_RING = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))  # row, column
# Corners and line ends where scikit-image departs from the paper: neighbours -> goes in the first, the second half step.
_DEPARTURES = {
    (True, False): ("N NE", "NE E", "N NE E", "N NW", "N W NW", "N NE W", "N SW W", "N NE SW W", "N E NW", "S W NW"),
    (False, True): ("E SE", "N E SE", "E SE S", "S SW", "E S SW", "NE E S SW", "SE S W", "SW W", "S SW W"),
    (True, True): ("N E", "E S", "N W", "S W"),
    (False, False): ("SE S", "W NW"),
}


def _removable(code: int) -> tuple[bool, bool]:
    """Whether a pixel with these neighbours (bit k: the k-th of the ring) goes in the first and in the second half step."""
    p = [code >> k & 1 for k in range(8)]
    there = " ".join(side for side, bit in zip(_SIDES, p, strict=True) if bit)
    for answer, cases in _DEPARTURES.items():
        if there in cases:
            return answer
    rises = sum(p[k] < p[(k + 1) % 8] for k in range(8))
    if not (2 <= sum(p) <= 6 and rises == 1):
        return False, False
    n, e, s, w = p[0], p[2], p[4], p[6]
    return not (n & e & s or e & s & w), not (n & e & w or n & s & w)


_TABLE = np.array([_removable(code) for code in range(256)]).T


def thin(mask: BoolArray) -> BoolArray:
    """Skeleton (H, W) of a mask, pixel for pixel scikit-image's `skeletonize`.

    That scans the image once per layer it peels; this visits only pixels whose neighbours have just changed, so the
    time goes with the area and not with area times thickness.
    """
    h, w = mask.shape
    width = w + 2
    image = np.zeros((h + 2, width), bool)
    image[1:-1, 1:-1] = mask
    code = np.zeros((h + 2, width), np.uint8)
    for k, (dy, dx) in enumerate(_RING):
        code[1:-1, 1:-1] |= image[1 + dy : h + 1 + dy, 1 + dx : w + 1 + dx].view(np.uint8) << np.uint8(k)
    image, code = image.ravel(), code.ravel()
    stamp = np.zeros(image.size, np.int32)
    steps = [dy * width + dx for dy, dx in _RING]
    # To each half step, the pixels whose neighbours changed since its last turn.
    waiting = [[np.flatnonzero(image & _TABLE[half][code])] for half in (0, 1)]
    while waiting[0] or waiting[1]:
        for half in (0, 1):
            gone = _unique(np.concatenate([*waiting[half], np.zeros(0, np.intp)]), image, code, half, stamp)
            waiting[half] = []
            if gone.size:
                changed = _remove(gone, image, code, steps)
                for other in (0, 1):
                    waiting[other].append(changed[_TABLE[other][code[changed]]])
    return image.reshape(h + 2, width)[1:-1, 1:-1].copy()


def _unique(
    candidates: NDArray[np.intp], image: Any, code: Any, half: int, stamp: NDArray[np.int32]
) -> NDArray[np.intp]:
    """Those that go in this half step, each once."""
    going = candidates[image[candidates] & _TABLE[half][code[candidates]]]
    order = np.arange(going.size, dtype=np.int32)
    stamp[going] = order
    return going[stamp[going] == order]


def _remove(gone: NDArray[np.intp], image: Any, code: Any, steps: Sequence[int]) -> NDArray[np.intp]:
    """Take pixels out, tell their neighbours, and return those of them that are in the mask (some more than once)."""
    image[gone] = False
    told = []
    for k, step in enumerate(steps):
        neighbours = gone + step
        code[neighbours] &= np.uint8(255 - (1 << (k + 4) % 8))  # seen from there, we lie the opposite way
        told.append(neighbours[image[neighbours]])
    return np.concatenate(told)
