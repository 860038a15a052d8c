"""A stage of its shapes alone, for dry runs: built as a run builds it, and passed through once for each training size."""

from __future__ import annotations

import torch
from torch import Tensor

from genpercept.checkpoints import shapes
from genpercept.core.texts import one_line
from genpercept.training import stages
from genpercept.training.recipe import DataSet, Recipe
from genpercept.training.samples import latents
from genpercept.training.stages.autoencoder import AutoencoderStage
from genpercept.training.stages.base import Stage
from genpercept.training.stages.denoiser import DenoiserStage
from genpercept.training.stages.distil import DistilStage
from genpercept.training.stages.finetune import FinetuneStage


def shapes_of(recipe: Recipe) -> Stage:
    """The stage of a recipe whose models are here, without memory. ValueError for parts, losses and sizes that do not fit.

    Sets that are not here, or that would be rendered, are left to others: scenes stand in for them.
    """
    scenes = tuple(DataSet(count=1, size=data.size, sizes=data.sizes) for data in recipe.data)
    loader = recipe.loader.model_copy(update={"cache": False, "latent_variants": 0})
    denoiser = recipe.denoiser.model_copy(update={"cached_latents": False})
    bare = recipe.model_copy(update={"data": scenes, "loader": loader, "denoiser": denoiser})
    with shapes.shapes_only():
        stage = stages.build(bare, lambda _: None)
        _pass_through(stage, recipe)
    if isinstance(stage, FinetuneStage) and recipe.loader.latent_variants:
        stage.check_cacheable()
    latents.check_one_size(recipe)
    return stage


def _pass_through(stage: Stage, recipe: Recipe) -> None:
    """One sample of each size through the network. ValueError where its parts do not take each other's answers.

    Of fine-tuning the parts say so themselves, and `footprint` passes the largest size through.
    """
    for h, w in sorted({size for number in range(len(recipe.data)) for size in recipe.sizes(number)}):
        try:
            match stage:
                case AutoencoderStage():
                    image = _empty(3, h, w)
                    stage.net(image, stage.latent(image))
                case DenoiserStage():
                    z = _empty(stage.codec.channels, h // stage.codec.stride, w // stage.codec.stride)
                    tokens = torch.zeros(1, recipe.model.prompt_length, dtype=torch.long, device="meta")
                    stage.net(z, torch.ones(1, device="meta"), tokens)
                case DistilStage():
                    image = _empty(3, h, w)
                    stage.net(*stage.inputs(image, stage.base._codec.encode(image)))
        except RuntimeError as error:
            raise ValueError(f"stage {recipe.stage!r} at {h}x{w}: its parts do not fit: {one_line(error)}") from None


def _empty(*shape: int) -> Tensor:
    return torch.empty(1, *shape, device="meta")
