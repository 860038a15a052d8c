"""The stage that a recipe names."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from genpercept.training.recipe import Recipe

if TYPE_CHECKING:
    from genpercept.training.stages.base import Stage


def build(recipe: Recipe, report: Callable[[str], None]) -> Stage:
    """The stage with its networks and data opened. ValueError for parts that cannot be paired."""
    match recipe.stage:
        case "autoencoder":
            from genpercept.training.stages.autoencoder import AutoencoderStage

            return AutoencoderStage(recipe, report)
        case "denoiser":
            from genpercept.training.stages.denoiser import DenoiserStage

            return DenoiserStage(recipe, report)
        case "finetune":
            from genpercept.training.stages.finetune import FinetuneStage

            return FinetuneStage(recipe, report)
        case "distil" if recipe.distil.part == "denoiser":
            from genpercept.training.stages.distil_denoiser import DenoiserDistilStage

            return DenoiserDistilStage(recipe, report)
        case "distil":
            from genpercept.training.stages.distil import DistilStage

            return DistilStage(recipe, report)
