"""The five errors of an alpha matte, by the rules of P3M (portraits) and of Deep Image Matting (Composition-1k).

Gradient and connectivity errors: Rhemann et al., A Perceptually Motivated Online Benchmark for Image Matting, CVPR 2009.
Each public evaluation scales them in its own way, and figures are only comparable under the same rules.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from scipy import ndimage

from genpercept.metrics._arrays import BoolArray, FloatArray

SIGMA = 1.4  # pixels, of the Gaussian whose derivative is the gradient
_STEP = 0.1  # between the levels of the connectivity error
_UNCONNECTED = 0.15  # alpha above the level where a pixel is still connected that does not count


def p3m(pred: FloatArray, gt: FloatArray, unknown: BoolArray, shown: FloatArray) -> dict[str, float]:
    """Rules of P3M. `shown` is `pred` with its known pixels set; the first three figures look at that.

    sad = sum / 1000, mad and mse per unknown pixel, though the sums run over the whole image; grad = sum / 10 and
    conn = sum / 1000 always see the whole of `pred`.
    """
    return {
        **_differences(shown, gt, int(unknown.sum())),
        "grad": float(np.sum((_smooth_gradient(pred) - _smooth_gradient(gt)) ** 2) / 10),
        "conn": float(np.sum(_connectivity_gap(pred, gt, np.float32, stop=True)) / 1000),
    }


def dim(pred: FloatArray, gt: FloatArray, unknown: BoolArray, shown: FloatArray) -> dict[str, float]:
    """Rules of Deep Image Matting: sums over the unknown pixels of `shown`. `pred` is not looked at elsewhere.

    sad, grad, conn = sum / 1000, mad and mse per unknown pixel. Before grad both mattes are stretched to their own
    [0, 1], as MATLAB's mat2gray does.
    """
    del pred
    gradients = (_unit_norm_gradient(_stretched(m)) for m in (shown, gt))
    return {
        **_differences(shown[unknown], gt[unknown], int(unknown.sum())),
        "grad": float(np.sum(np.subtract(*gradients)[unknown] ** 2) / 1000),
        "conn": float(np.sum(_connectivity_gap(shown, gt, np.float64, stop=False)[unknown]) / 1000),
    }


def _differences(pred: FloatArray, gt: FloatArray, pixels: int) -> dict[str, float]:
    """sad / 1000, mad and mse over so many pixels."""
    error = np.abs(pred - gt)
    total, squares = float(error.sum()), float((error**2).sum())
    return {"sad": total / 1000, "mad": total / pixels, "mse": squares / pixels}


def _smooth_gradient(alpha: FloatArray) -> FloatArray:
    """Length of the Gaussian derivative, by scipy's kernel (4 sigma wide, sums to the derivative; mirrored border)."""
    parts = []
    for orders in ((1, 0), (0, 1)):
        down = ndimage.gaussian_filter1d(alpha, SIGMA, axis=0, order=orders[0])
        parts.append(ndimage.gaussian_filter1d(down, SIGMA, axis=1, order=orders[1]))
    return np.hypot(*parts)


def _unit_norm_gradient(alpha: FloatArray) -> FloatArray:
    """The same by a kernel of unit L2 norm and 9 x 9 pixels, replicated border (G. Xiong's gaussgradient.m)."""
    tail = 0.01  # the kernel ends where the Gaussian falls below
    half = int(np.ceil(SIGMA * np.sqrt(-2 * np.log(np.sqrt(2 * np.pi) * SIGMA * tail))))
    x = np.arange(-half, half + 1)
    bell = np.exp(-(x**2) / (2 * SIGMA**2))
    slope = x * bell
    bell, slope = bell / np.linalg.norm(bell), slope / np.linalg.norm(slope)
    parts = []
    for axis in (0, 1):
        smooth = ndimage.correlate1d(alpha, bell, axis=1 - axis, mode="nearest")
        parts.append(ndimage.correlate1d(smooth, slope, axis=axis, mode="nearest"))
    return np.hypot(*parts)


def _stretched(alpha: FloatArray) -> FloatArray:
    low, high = alpha.min(), alpha.max()
    return (alpha - low) / (high - low) if high > low else np.zeros_like(alpha)


def _connectivity_gap(pred: FloatArray, gt: FloatArray, dtype: type[np.floating], stop: bool) -> FloatArray:
    """|phi(pred) - phi(gt)| per pixel (H, W), where phi falls with the alpha above the level that connects a pixel.

    That level is the last one at which the pixel is in the largest 4-connected region where both mattes reach it. At a
    level that no pixel reaches P3M stops, and calls what is left connected in full (`stop`); the others call it
    unconnected. Levels are sums of 0.1 in double precision, which puts alpha 153 / 255 = 0.6 below the sixth. P3M
    keeps them in single precision (`dtype`).
    """
    levels = np.arange(0, 1 + _STEP, _STEP)
    common = np.minimum(pred, gt)
    connected = np.ones(gt.shape, dtype)
    open_ = np.ones(gt.shape, bool)  # pixels in the largest region at every level so far
    for below, level in pairwise(levels):
        largest = _largest_region(common >= level)
        if stop and not largest.any():
            break
        connected[open_ & ~largest] = below
        open_ &= largest
    phi = []
    for alpha in (pred, gt):
        above = alpha - connected
        phi.append(1 - above * (above >= _UNCONNECTED))
    return np.abs(phi[0] - phi[1])


def _largest_region(mask: BoolArray) -> BoolArray:
    """The largest 4-connected region, the one first met in reading order among equals; empty for an empty mask."""
    if not mask.any():
        return mask
    labels = np.empty(mask.shape, np.int32)
    ndimage.label(mask, output=labels)
    return labels == 1 + np.argmax(np.bincount(labels.ravel())[1:])
