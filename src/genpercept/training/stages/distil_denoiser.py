"""Distilling a denoiser: a U-Net without some of its blocks learns the whole one's answers, and its features level by
level.

As BK-SDM (Kim et al. 2023): it begins with the weights of the blocks that are left, and is taught on the image
latents that both see. Losses by other names than "latent" compare what the predictor's decoder makes of both answers.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from genpercept.core.modules import config_of
from genpercept.core.values import Features, Target
from genpercept.models import codecs
from genpercept.models.backbones import as_backbone
from genpercept.models.codecs import is_guided
from genpercept.pipeline.pipeline import GenPerceptPipeline
from genpercept.training.networks.codec import use_attention
from genpercept.training.networks.slim_unet import slim_unet
from genpercept.training.stages.base import Batch, Pair
from genpercept.training.stages.distil import DistilStage

_LEVEL = "level_{}"  # of the whole U-Net's features, among a batch's labels


class Net(nn.Module):
    """Image latents -> the slim denoiser's label latents and its features behind each level, coarsest first."""

    def __init__(self, slim: nn.Module, base: GenPerceptPipeline) -> None:
        super().__init__()
        self.slim = slim
        self._base = [base]  # in a list: what of it runs here is no part of this module

    def forward(self, z_x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        features = answered(self._base[0], self.slim, z_x)
        return features.require_latent(), features.pyramid


def answered(base: GenPerceptPipeline, denoiser: nn.Module, z_x: Tensor) -> Features:
    """What a denoiser answers to image latents in the base's one step."""
    prompt = base.prompt_embeds.to(z_x.device)
    stored = base.info.get("conditions") or {}
    conditions = {k: torch.tensor([v], device=z_x.device).expand(len(z_x), -1) for k, v in stored.items()}

    def denoise(x: Tensor, t: Tensor) -> Features:
        return as_backbone(denoiser).forward_features(x, t, prompt.expand(len(x), -1, -1), latent=True, **conditions)

    return base.paradigm().predict(denoise, z_x, 1)


class DenoiserDistilStage(DistilStage):
    """See the module. Its base is a predictor of one step that needs no noise, with the codec's decoder for a head."""

    def _find_whole(self) -> nn.Module:
        base, chosen = self.base, self.base.paradigm()
        if chosen.stochastic or base.default_steps(chosen) != 1:
            raise ValueError(
                f'distil.part "denoiser": {self.recipe.model.base} takes several steps, or begins with noise '
                f"({chosen.name}); choose a model of one step"
            )
        cast(nn.Module, base.vae).requires_grad_(False)
        return base.unet.requires_grad_(False)

    def _cheaper(self) -> Any:
        distil = self.recipe.distil
        slim = slim_unet(self._whole, distil.blocks, distil.levels, distil.middle, distil.without_attention)
        if sum(p.numel() for p in slim.parameters()) == sum(p.numel() for p in self._whole.parameters()):
            raise ValueError(
                "distil: nothing of the denoiser is left out: set distil.blocks, distil.levels, distil.middle or "
                "distil.without_attention"
            )
        use_attention(slim.requires_grad_(True), self.recipe)
        return slim

    def _network(self, slim: nn.Module) -> nn.Module:
        return Net(slim, self.base)

    @property
    def _needs_images(self) -> bool:
        return self._pixel and is_guided(self.base._codec)

    @property
    def _pixel(self) -> bool:
        return any(name != "latent" for name in self._weights)

    def encode(self, batch: Batch) -> Batch:
        """Latents where none are cached, and the whole denoiser's answers to them: label latents, features by level."""
        if batch.latents is None:
            batch.latents = self._latents(cast(Tensor, batch.images))
        whole = answered(self.base, self._whole, batch.latents)
        target = whole.require_latent().float()
        batch.target = Target(target, torch.ones_like(target[:, :1], dtype=torch.bool))
        levels = whole.pyramid[len(whole.pyramid) - len(as_backbone(self.net.slim).pyramid_channels) :]
        batch.labels = {_LEVEL.format(i): level.float() for i, level in enumerate(levels)}
        return batch

    def training_pair(self, batch: Batch) -> Pair:
        label = cast(Target, batch.target)
        pair = Pair((cast(Tensor, batch.latents),), label.map, label.valid, extra=dict(batch.labels))
        if self._pixel:
            with torch.no_grad():
                pair.extra["maps"] = self._maps(label.map, batch.images)
            pair.extra["images"] = batch.images
        return pair

    def _maps(self, latent: Tensor, images: Tensor | None) -> Tensor:
        parts = latent.split(self.base._codec.channels, dim=1)
        return torch.cat([codecs.decode(self.base._codec, part, images).float() for part in parts], dim=1)

    def answer(self, output: Any) -> Tensor:
        return output[0].float()

    def loss(self, output: Any, pair: Pair) -> tuple[Tensor, dict[str, Tensor]]:
        """As the other ends', and "features": squared differences over the variance of the whole one's, by level."""
        parts: dict[str, Tensor] = {}
        maps = self._maps(self.answer(output), pair.extra["images"]) if self._pixel else None
        for name, loss in self._losses.items():
            options = self.recipe.loss_options.get(name, {})
            given, target = (
                (self.answer(output), pair.target) if maps is None or name == "latent" else (maps, pair.extra["maps"])
            )
            parts[name] = loss(given, target, torch.ones_like(target[:, :1], dtype=torch.bool), **options)
        total = sum(
            (self._weights[name] * part for name, part in parts.items()), torch.zeros_like(pair.target[:, 0, 0, 0])
        )
        if self.recipe.distil.features:
            levels = [_relative(own, pair.extra[_LEVEL.format(i)]) for i, own in enumerate(output[1])]
            parts["features"] = torch.stack(levels).mean(0)
            total = total + self.recipe.distil.features * parts["features"]
        return total, parts

    def pipeline(self) -> GenPerceptPipeline:
        base = self.base
        info = {k: v for k, v in base.info.items() if k not in ("model", "model_sha256")}
        info["distilled"] = {**(base.info.get("distilled") or {}), "denoiser": self._record()}
        return GenPerceptPipeline(self.net.slim, base.vae, base.prompt_embeds, info, base.head)

    def _record(self) -> dict[str, Any]:
        """What was left out and distilled, for genpercept.json and a Prediction's meta."""
        counts = [sum(p.numel() for p in m.parameters()) for m in (self._whole, self.net.slim)]
        config, distil = config_of(self.net.slim), self.recipe.distil
        return {
            "of": self.recipe.model.base,
            "of_sha256": self.base.info["model_sha256"],
            "form": "slim",
            "block_out_channels": list(config["block_out_channels"]),
            "layers_per_block": config["layers_per_block"],
            "middle": config["mid_block_type"] is not None,
            "without_attention": distil.without_attention,
            "parameters": {"before": counts[0], "after": counts[1]},
            "loss": self._weights | {"features": distil.features},
            "steps": self.recipe.steps,
        }


def _relative(own: Tensor, whole: Tensor) -> Tensor:
    """Mean squared difference over the variance of the whole one's, sample by sample, (B,)."""
    error = (own.float() - whole).square().flatten(1).mean(1)
    return error / whole.flatten(1).var(1).clamp_min(1e-8)
