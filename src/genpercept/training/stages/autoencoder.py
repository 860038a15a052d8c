"""The autoencoder stage: photographs and painted labels through AutoencoderKL and back."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from genpercept.checkpoints import shapes
from genpercept.core.rng import Rng, generator
from genpercept.models.codecs._autoencoder import decoded, posterior
from genpercept.training.losses import LOSSES
from genpercept.training.networks.codec import open_codec, use_attention
from genpercept.training.recipe import Recipe
from genpercept.training.run.log import grid, to_picture
from genpercept.training.samples.paint import check_kind, paint
from genpercept.training.samples.records import labels_of
from genpercept.training.stages.base import Batch, Draw, Pair

# 8 x as Stable Diffusion's, narrow: the full-resolution layers cost most. Fewer channels in the list make it 4 x or 2 x.
DEFAULT_CONFIG: dict[str, Any] = {
    "block_out_channels": [16, 32, 64, 128],
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 8,
    "sample_size": 128,
}
DEFAULT_LOSS = {"l1": 1.0, "pyramid": 1.0}


def _config(given: dict[str, Any]) -> dict[str, Any]:
    """The defaults with what the recipe gives, and as many blocks as there are channels."""
    config = {**DEFAULT_CONFIG, **given}
    levels = len(config["block_out_channels"])
    return {
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        **config,
    }


class Net(nn.Module):
    """Image and posterior noise -> reconstruction, posterior mean and log-variance."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        found = posterior(self.vae, images)
        z = found.mean + found.std * noise
        return decoded(self.vae, z), found.mean, found.logvar


class AutoencoderStage:
    def __init__(self, recipe: Recipe, report: Callable[[str], None]) -> None:
        self.recipe = recipe
        self.draw = Draw(recipe, report)
        self.samples = self.draw.samples
        config = _config(recipe.model.codec_config)
        if recipe.model.codec and recipe.model.init == "base":
            self.vae = cast(AutoencoderKL, open_codec(recipe))
        else:
            with shapes.memory():
                self.vae = cast(AutoencoderKL, AutoencoderKL.from_config(config))
        self._check_sizes()
        use_attention(self.vae, recipe)
        self.net = Net(self.vae)
        self._losses = {name: (LOSSES.find(name), w) for name, w in (recipe.loss or DEFAULT_LOSS).items()}
        self._kinds = [*map(check_kind, recipe.autoencoder.paint), "image"]
        shares = list(recipe.autoencoder.paint.values())
        if sum(shares) > 1:
            raise ValueError(
                f"autoencoder.paint: the shares sum to {sum(shares):.3g}, which leaves no photographs; at most 1"
            )
        self._shares = np.cumsum([*shares, 1 - sum(shares)])

    @property
    def _stride(self) -> int:
        return 2 ** (len(self.vae.config["block_out_channels"]) - 1)

    def _check_sizes(self) -> None:
        """ValueError for a size that does not come back as it went in."""
        for h, w in (size for number in range(len(self.recipe.data)) for size in self.recipe.sizes(number)):
            if h % self._stride or w % self._stride:
                raise ValueError(
                    f"augment.sizes: {h}x{w}: this codec needs edges that are multiples of {self._stride}: choose such sizes"
                )

    def latent(self, images: Tensor) -> Tensor:
        """An empty latent (B, C, h, w) of images (B, 3, H, W)."""
        h, w = (edge // self._stride for edge in images.shape[-2:])
        return images.new_empty((len(images), self.vae.config["latent_channels"], h, w))

    def groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.net.parameters()), "lr": self.recipe.optim.lr}]

    def make_batch(self, step: int, slots: Sequence[int]) -> Batch:
        records = self.draw.records(step, slots)
        images = []
        for record, slot in zip(records, slots, strict=True):
            u = generator(self.recipe.seed, step, slot, "caption").random()
            kind = self._kinds[min(int(np.searchsorted(self._shares, u, side="right")), len(self._kinds) - 1)]
            # photographs without any label are trained on as such, beside sets with labels
            images.append(paint(kind if any(labels_of(record)) else "image", record))
        return Batch(Rng(self.recipe.seed, step, slots), images=torch.stack(images))

    def encode(self, batch: Batch) -> Batch:
        return batch  # the encoder is what learns: it runs in the network

    def training_pair(self, batch: Batch) -> Pair:
        """The image is input and target; the noise of the posterior sample is keyed like everything else."""
        images = cast(Tensor, batch.images)
        noise = batch.rng.normal(self.latent(images[:1]).shape[1:], "posterior").to(images.device)
        valid = torch.ones_like(images[:, :1], dtype=torch.bool)
        return Pair((images, noise), images, valid)

    def loss(self, output: Any, pair: Pair) -> tuple[Tensor, dict[str, Tensor]]:
        reconstruction, mean, logvar = (x.float() for x in output)
        parts = {
            name: loss(reconstruction, pair.target, cast(Tensor, pair.valid))
            for name, (loss, _) in self._losses.items()
        }
        total = sum(
            (self._losses[name][1] * part for name, part in parts.items()), torch.zeros(len(mean), device=mean.device)
        )
        divergence = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).flatten(1).mean(1)
        return total + self.recipe.autoencoder.kl * divergence, parts

    @torch.no_grad()
    def validate(self, at_once: int) -> tuple[dict[str, float], np.ndarray | None]:
        """PSNR in dB (range 2) of photographs and of each kind of label that is trained on."""
        records, options = self.draw.validation(), self.recipe.validation
        figures: dict[str, float] = {}
        rows: list[list[np.ndarray]] = []
        for kind in ["image", *self.recipe.autoencoder.paint]:
            images = torch.stack([paint(kind, record) for record in records])
            back = torch.cat([self._reconstruct(chunk) for chunk in images.split(at_once)])
            error = (back - images).square().flatten(1).mean(1)
            figures["psnr" if kind == "image" else f"psnr_{kind}"] = float(
                (10 * torch.log10(4 / error.clamp_min(1e-10))).mean()
            )
            rows.append(
                [to_picture(x) for i in range(min(options.pictures, len(images))) for x in (images[i], back[i])]
            )
        return figures, grid(rows)

    def _reconstruct(self, images: Tensor) -> Tensor:
        device = next(self.net.parameters()).device
        z = posterior(self.vae, images.to(device)).mean
        return decoded(self.vae, z).float().clamp(-1, 1).cpu()

    @torch.no_grad()
    def save(self, folder: Path) -> None:
        """An AutoencoderKL folder whose scaling_factor makes latents of photographs and labels unit variance."""
        device = next(self.net.parameters()).device
        kinds = ["image", *self.recipe.autoencoder.paint]
        images = torch.stack([paint(kinds[i % len(kinds)], r) for i, r in enumerate(self.draw.validation())])
        means = [posterior(self.vae, x[None].to(device)).mean.float() for x in images]
        std = float(torch.cat(means).std())
        self.vae.register_to_config(scaling_factor=1 / std if math.isfinite(std) and std > 0 else 1.0)
        self.vae.save_pretrained(folder)
