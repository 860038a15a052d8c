"""Tiles joined in the gradient domain: the map whose slopes are the tiles', and which keeps to the whole picture's answer.

It minimises the sum over pixels of |grad u - v|^2 + pull (u - whole)^2, where v are the tiles' slopes, weighted where tiles
overlap (Perez et al. 2003; the screened Poisson equation, Bhat et al. 2008). Slopes know nothing of a tile's level, so that
tiles of different levels meet without a step, and the whole decides what is wider than a wave length. In the cosine
transform of the picture the equation is one division, to the bit without iterations.
"""

from __future__ import annotations

import numpy as np

from genpercept.pipeline.tiles.plan import Place, Plan

WAVE = 0.5  # wave length, in edges of a tile, above which the whole decides: see benchmarks/quality/tiles.md


class Canvas:
    """Where tiles (C, h, w) are put, one after the other, over the whole's answer (C, H, W)."""

    def __init__(self, plan: Plan, whole_CHW: np.ndarray, *, wave: float = WAVE) -> None:
        self._plan = plan
        self._pull = np.float32((2 * np.pi / (wave * max(plan.rows.tile, plan.columns.tile))) ** 2)
        self._sum = np.zeros_like(whole_CHW)
        self._abutting(whole_CHW)
        self._sum += self._pull * whole_CHW

    def add(self, place: Place, tile_CHW: np.ndarray) -> None:
        """A tile that has been fitted to the whole."""
        rows, columns = self._plan.rows, self._plan.columns
        y, x = rows.centres[place.row][:, None], columns.centres[place.column]
        across = y * columns.between[place.column] * np.diff(tile_CHW, axis=2)
        down = rows.between[place.row][:, None] * x * np.diff(tile_CHW, axis=1)
        _add_slopes(self._sum[:, place.rows, place.columns], across, down)

    def joined(self) -> np.ndarray:
        """The map (C, H, W) float32; the canvas is used up."""
        from scipy import fft

        for channel in self._sum:
            transformed = fft.dctn(channel, type=2, norm="ortho", overwrite_x=True)
            across = _frequencies(channel.shape[1]) + self._pull
            for row, stiffness in zip(transformed, _frequencies(len(channel)), strict=True):
                row /= stiffness + across
            channel[...] = fft.idctn(transformed, type=2, norm="ortho", overwrite_x=True)
        return self._sum

    def _abutting(self, whole_CHW: np.ndarray) -> None:
        """Slopes between tiles that do not overlap, which none of them knows: the whole's."""
        for axis, of in ((2, self._plan.columns), (1, self._plan.rows)):
            for at in of.lonely:
                slope = whole_CHW.take(at, axis) - whole_CHW.take(at - 1, axis)
                np.moveaxis(self._sum, axis, 0)[at] += slope
                np.moveaxis(self._sum, axis, 0)[at - 1] -= slope


def _add_slopes(target_CHW: np.ndarray, across: np.ndarray, down: np.ndarray) -> None:
    """The transpose of taking slopes, so that the equation is that of the minimum."""
    target_CHW[:, :, 1:] += across
    target_CHW[:, :, :-1] -= across
    target_CHW[:, 1:] += down
    target_CHW[:, :-1] -= down


def _frequencies(n: int) -> np.ndarray:
    """Eigenvalues of minus the second difference along n pixels with mirrored ends, in the order of the cosine transform."""
    return (2 - 2 * np.cos(np.pi * np.arange(n) / n)).astype(np.float32)


def seam_error(map_CHW: np.ndarray, plan: Plan, stride: int) -> float | None:
    """How much more the slope jumps where tiles begin and end than elsewhere: 1 where no seam can be seen.

    A jump is how far a step between two neighbours lies from the mean of the steps before and after it. Compared are the other
    lines that are multiples of the stride, since networks leave a pattern of that period of their own. None: there are none.
    """
    at_seams, inside = list[float](), list[float]()
    for axis, of in ((2, plan.columns), (1, plan.rows)):
        steps = np.diff(map_CHW, axis=axis)
        for at in range(stride, of.length - stride + 1, stride):
            if 2 <= at <= of.length - 2:
                before, here, after = (steps.take(at - 1 + d, axis) for d in (-1, 0, 1))
                jump = float(np.abs(here - (before + after) / 2).mean())
                (at_seams if at in of.seams else inside).append(jump)
    if not at_seams or not inside or not any(inside):
        return None
    return float(np.mean(at_seams) / np.mean(inside))
