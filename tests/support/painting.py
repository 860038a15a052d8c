"""A predictor whose network is a function, such as the image itself."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from genpercept.pipeline.exported import ExportedPipeline

STRIDE = 8


def graph(answer: Callable[[np.ndarray], np.ndarray], task: str = "depth", resolution: int = 96) -> ExportedPipeline:
    """A predictor whose network is a function of the image (B, 3, H, W) in [0, 1] -> raw maps in [-1, 1]."""
    info = {"format": 1, "task": task, "paradigm": "one_step", "head": "vae", "codec": "kl", "backbone": "sd21"}
    return ExportedPipeline(answer, info | {"model": "graph", "resolution": resolution, "export": {"stride": STRIDE}})


def painted(image_BCHW: np.ndarray) -> np.ndarray:
    return image_BCHW * 2 - 1
