"""From an image to a Prediction: the pipeline, its runs and ensembles, model folders, families of public checkpoints."""

from __future__ import annotations

import importlib
import warnings
from typing import Any


def __getattr__(name: str) -> Any:
    """`GenPerceptPipeline` lay here before the rooms; it is `genpercept.GenPerceptPipeline`, as it always was."""
    if name == "GenPerceptPipeline":
        warnings.warn(
            "genpercept.pipeline.GenPerceptPipeline is genpercept.GenPerceptPipeline; the old path ends with the next version",
            DeprecationWarning,
            2,
        )
        return importlib.import_module(f"{__name__}.pipeline").GenPerceptPipeline
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
