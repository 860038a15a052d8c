"""The stage that a recipe names."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from genpercept.recipe import Recipe

if TYPE_CHECKING:
    from genpercept._training.stage import Stage


def build(recipe: Recipe, report: Callable[[str], None]) -> Stage:
    """The stage with its networks and data opened. ValueError for parts that cannot be paired."""
    match recipe.stage:
        case "autoencoder":
            from genpercept._training.autoencoder import AutoencoderStage

            return AutoencoderStage(recipe, report)
        case "denoiser":
            from genpercept._training.denoiser import DenoiserStage

            return DenoiserStage(recipe, report)
        case "finetune":
            from genpercept._training.finetune import FinetuneStage

            return FinetuneStage(recipe, report)
        case "distil":
            from genpercept._training.distil import DistilStage

            return DistilStage(recipe, report)
