"""A model whose answers start from noise."""

from __future__ import annotations

from pathlib import Path

from genpercept import GenPerceptPipeline
from tests.support.paths import SD_TINY


def noisy_depth(folder: Path, resolution: int) -> Path:
    """The folder, with the tiny base as a predictor of depth in several steps."""
    pipe = GenPerceptPipeline.from_base(SD_TINY, "depth", paradigm="stochastic_multi_step", resolution=resolution)
    pipe.save_pretrained(folder)
    return folder
