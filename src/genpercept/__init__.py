"""GenPercept: one-step dense perception from pretrained diffusion models.

pipe = genpercept.load("mini/depth")
prediction = pipe("photo.jpg")
prediction.colourise().show()
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from genpercept.core.moved import answer
from genpercept.core.version import __version__

if TYPE_CHECKING:
    from genpercept import metrics
    from genpercept.imaging.prediction import Prediction
    from genpercept.pipeline.loading import load
    from genpercept.pipeline.pipeline import GenPerceptPipeline
    from genpercept.pipeline.specialise.pipeline import specialise

__all__ = ["GenPerceptPipeline", "Prediction", "__version__", "load", "metrics", "specialise"]

_HOMES = {
    "GenPerceptPipeline": "pipeline.pipeline",
    "Prediction": "imaging.prediction",
    "load": "pipeline.loading",
    "specialise": "pipeline.specialise.pipeline",
}
answer()  # import paths of before the rooms, for one version


def __getattr__(name: str) -> Any:
    """Public names are imported when first used, so that `import genpercept` and `genpercept --help` stay quick."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"genpercept.{_HOMES[name]}"), name)
    if name == "metrics":
        return importlib.import_module("genpercept.metrics")
    raise AttributeError(f"module 'genpercept' has no attribute {name!r}")
