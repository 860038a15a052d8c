"""How good an answer is: root mean square error, and peak signal-to-noise ratio in decibels."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from genpercept.core.values import Sample
from genpercept.metrics import Baseline, MetricPlugin, PerPixel, down, up


class Errors(PerPixel):
    """Each figure is that of an image; a data set has their mean."""

    keys = ("rmse", "psnr")

    def measure(self, pred: np.ndarray, gt: np.ndarray) -> dict[str, float]:
        """pred, gt (N, 3): the pixels that have a label."""
        square = float(np.mean(np.square(pred - gt, dtype=np.float64)))
        return {"rmse": square**0.5, "psnr": float(-10 * np.log10(max(square, 1e-10)))}


def grey(task: Any, known: Mapping[str, np.ndarray], sample: Sample) -> np.ndarray:
    """The middle of the range, everywhere."""
    return np.full((*sample.image.shape[-2:], 3), 0.5, np.float32)


def mean_colour(task: Any, known: Mapping[str, np.ndarray], sample: Sample) -> np.ndarray:
    """The mean colour of the whole set, everywhere."""
    return np.broadcast_to(known["sum"] / known["count"], (*sample.image.shape[-2:], 3))


class Albedo(MetricPlugin[Errors]):
    """pred, gt (H, W, 3) in [0, 1]."""

    name, metric = "albedo", Errors
    kinds = ("albedo",)
    ndim = 3
    columns = (down("rmse", "RMSE"), up("psnr", "PSNR", digits=1))
    baselines = (Baseline("grey", grey), Baseline("mean colour", mean_colour, fitted=True))

    def observe(self, task: Any, sample: Sample) -> dict[str, np.ndarray]:
        """What one sample adds to the mean colour."""
        truth = task.truth(sample)
        colours = truth["gt"][truth["valid"]]
        return {"sum": colours.sum(0, dtype=np.float64), "count": np.array(len(colours))}


PLUGIN = Albedo()
