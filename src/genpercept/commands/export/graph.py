"""A pipeline of one step as one network: padded image in [0, 1] -> raw map. Timestep and prompt are constants in it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from genpercept.core.values import Features
from genpercept.pipeline.call import turned
from genpercept.pipeline.pipeline import GenPerceptPipeline
from genpercept.pipeline.specialise import pipeline
from genpercept.pipeline.specialise.pipeline import SpecialisedPipeline

_LARGEST = 4096  # cells along an edge, and images in a batch
# Cells of the latent that is traced. Halved and rounded up, 2^k + 1 stays odd on every level, so that each upsampling is traced
# as one to any size, which is right for even sizes, too; differing edges and a batch of two keep them from being taken for one.
_TRACED = (2, 9, 17)


class OneStepGraph(nn.Module):
    """What GenPerceptPipeline._forward does for one deterministic step, over the folded networks of a specialised pipeline."""

    def __init__(self, pipe: SpecialisedPipeline) -> None:
        super().__init__()
        self.parts = pipe._runs
        self._pipe = [pipe]  # in a list: it is not a part of this module

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) float32 in [0, 1], H and W multiples of the pipeline's stride -> (B, C, h, w) float32, in our axes."""
        pipe = self._pipe[0]
        wants_latent = pipe._head.consumes == "latent"

        def denoise(x: Tensor, t: Tensor) -> Features:
            backbone: Any = self.parts["backbone"]
            return backbone.forward_features(x.to(pipe.unet_dtype), t, pipe.prompt_embeds, latent=wants_latent)

        features = pipe._chosen.predict(denoise, pipe._codec.encode(image * 2 - 1), 1)
        features = replace(features, image=image * 2 - 1)  # for a decoder that is guided by it
        return turned(pipe._head(features, pipe._codec).float(), pipe.info.get("axes"), pipe._task.kind)


def build(pipe: GenPerceptPipeline, dtype: torch.dtype = torch.float32) -> OneStepGraph:
    """The network of `pipe` with weights of this dtype. ValueError with the reason for pipelines that are not one step."""
    info = {k: v for k, v in pipe.info.items() if k != pipeline.MARK}
    plain = GenPerceptPipeline(pipe.unet, pipe.vae, pipe.prompt_embeds, info, pipe.head, pipe.image_encoder)
    try:
        return OneStepGraph(pipeline.specialise(plain, dtype=dtype, layout="contiguous")).eval()
    except ValueError as error:
        raise ValueError(f"{pipe.info.get('model')}: cannot be exported as a graph: {error}") from None


def trace(graph: OneStepGraph) -> tuple[ExportedProgram, Tensor]:
    """The graph for any batch and any size in multiples of the stride, and the images that it was traced with."""
    stride = graph._pipe[0].stride
    batch, rows, columns = _TRACED
    image = torch.rand(batch, 3, rows * stride, columns * stride, generator=torch.Generator().manual_seed(0))
    sizes = {2: stride * Dim("rows", min=1, max=_LARGEST), 3: stride * Dim("columns", min=1, max=_LARGEST)}
    with torch.no_grad():
        traced = torch.export.export(
            graph, (image,), dynamic_shapes=({0: Dim("batch", min=1, max=_LARGEST), **sizes},), strict=False
        )
    return traced, image
