"""Mattes and masks at the image's own edges: closed-form matting (Levin et al. 2008) on a trimap made of the coarse matte.

Pixels that the coarse matte is sure of, away from its edge, stay foreground and background. Between them the alpha is what the
image's colours say: in a window of 3 x 3 pixels it is a linear function of them. PyMatting has the matting Laplacian; the
system is solved block by block, in which the coarse matte counts a little everywhere, so that blocks agree with each other, and
so that one without any sure pixel has an answer. Memory is that of a block, whatever the size of the photograph. Time is about
that of half a million unknown pixels at most: more are solved in a smaller picture, which `edges` brings up again.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np

from genpercept.core import extras
from genpercept.core.resampling import resize
from genpercept.imaging import pymatting_parts
from genpercept.pipeline.refine import edges
from genpercept.pipeline.tiles.plan import Axis

SURE = 0.1  # from 0 and from 1: what the coarse matte takes for background and for foreground
BAND = 1.0  # width of the unknown on each side of an edge, in pixels that the network saw
_LEAST_BAND = 2  # pixels of the image
_BLOCK, _SHARED = 448, 0.25  # edge of a block, in pixels, and the share of it that it has in common with the next one
_MOST = 2**19  # unknown pixels that are solved
_PRIOR = 1e-3  # weight of the coarse matte beside the Laplacian
_EPSILON = 1e-6  # of the Laplacian: how far colours may be from a line
_ITERATIONS, _TOLERANCE = 200, 1e-4
_FILL = 200  # entries of the preconditioner by pixel at most


def check() -> None:
    """ValueError where PyMatting is not installed."""
    if find_spec("pymatting") is None:
        raise ValueError(f"refine: mattes need PyMatting: {extras.install('matting')}")


def refine(alpha_HW: np.ndarray, image_HWC: np.ndarray, scale: float, valid_HW: np.ndarray | None = None) -> np.ndarray:
    """The matte (H, W) float32 in [0, 1] at the image's edges. image: uint8, or float in [0, 1]. scale: pixels of the image
    along an edge of one that the network saw. What is not valid stays.
    """
    if valid_HW is not None:
        return np.where(valid_HW, refine(np.where(valid_HW, alpha_HW, 0), image_HWC, scale), alpha_HW)
    alpha = np.clip(alpha_HW, 0, 1).astype(np.float32)
    if min(alpha.shape) < 3:
        return alpha  # no window fits in
    unknown = _unknown(alpha, scale)
    factor = max(1.0, float(unknown.sum() / _MOST) ** 0.5)
    if factor == 1:
        return np.where(unknown, _in_blocks(alpha, image_HWC, unknown), np.rint(alpha))
    size = (max(3, round(alpha.shape[0] / factor)), max(3, round(alpha.shape[1] / factor)))
    small = resize(alpha[None, None], size)[0, 0]
    small = _in_blocks(small, edges.shrunk(image_HWC, size), _unknown(small, scale / factor))
    large = edges.refine(resize(small[None, None], alpha.shape)[0, 0], image_HWC, factor)
    return np.where(unknown, large.clip(0, 1), np.rint(alpha))


def _in_blocks(alpha_HW: np.ndarray, image_HWC: np.ndarray, unknown_HW: np.ndarray) -> np.ndarray:
    rows, columns = (Axis.of(length, _BLOCK, 1, _SHARED) for length in alpha_HW.shape)
    out = np.zeros_like(alpha_HW)
    for i, top in enumerate(rows.starts):
        for j, left in enumerate(columns.starts):
            part = slice(top, top + rows.tile), slice(left, left + columns.tile)
            block = solved(image_HWC[part], alpha_HW[part], unknown_HW[part])
            out[part] += rows.centres[i][:, None] * columns.centres[j] * block
    return out.clip(0, 1)


def _unknown(alpha_HW: np.ndarray, scale: float) -> np.ndarray:
    return ~known(alpha_HW, max(_LEAST_BAND, round(BAND * scale)))


def known(alpha_HW: np.ndarray, width: int) -> np.ndarray:
    """(H, W) bool: pixels whose neighbours up to `width` pixels away are all background, or all foreground."""
    from scipy import ndimage

    size = 2 * width + 1
    clear = ndimage.maximum_filter(alpha_HW, size) <= SURE
    return clear | (ndimage.minimum_filter(alpha_HW, size) >= 1 - SURE)


def solved(image_HWC: np.ndarray, alpha_HW: np.ndarray, unknown_HW: np.ndarray) -> np.ndarray:
    """One block: the alpha of its unknown pixels, between the known ones. (H, W) float32."""
    alpha = np.where(unknown_HW, alpha_HW, np.rint(alpha_HW))
    if unknown_HW.any():
        box = tuple(_around(np.flatnonzero(unknown_HW.any(1 - axis)), unknown_HW.shape[axis]) for axis in (0, 1))
        image = image_HWC[box].astype(np.float64) / (255 if image_HWC.dtype == np.uint8 else 1)
        alpha[box] = _closed_form(image, alpha[box].astype(np.float64), unknown_HW[box])
    return alpha


def _around(places: np.ndarray, length: int) -> slice:
    """From the first to the last, with the two pixels on either side that windows reach."""
    return slice(max(0, int(places[0]) - 2), min(length, int(places[-1]) + 3))


def _closed_form(image_HWC: np.ndarray, alpha_HW: np.ndarray, unknown_HW: np.ndarray) -> np.ndarray:
    if min(alpha_HW.shape) < 3:
        return alpha_HW
    from scipy import sparse
    from scipy.sparse import linalg

    laplacian = pymatting_parts.load("laplacian.cf_laplacian", "mattes").cf_laplacian
    ichol = pymatting_parts.load("preconditioner.ichol", "mattes").ichol
    where, flat = unknown_HW.ravel(), alpha_HW.ravel()
    rows = laplacian(image_HWC, epsilon=_EPSILON, is_known=~unknown_HW)[where]
    unknowns = int(where.sum())
    system = rows[:, where] + _PRIOR * sparse.identity(unknowns, format="csr")
    right = _PRIOR * flat[where] - rows[:, ~where] @ flat[~where]
    decomposed = ichol(system.tocsc(), max_nnz=_FILL * unknowns)
    operator: Any = linalg.LinearOperator  # its stubs know one of its two ways to be made
    first = operator(system.shape, matvec=decomposed, dtype=np.float64)
    flat[where] = linalg.cg(system, right, flat[where], rtol=_TOLERANCE, maxiter=_ITERATIONS, M=first)[0]
    return flat.reshape(alpha_HW.shape)
