"""GeoWizard v1 with random weights at its published size, for `bench --against`: no package has its attention."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from genpercept.commands.bench import flops
from genpercept.core.rng import Rng
from genpercept.core.values import Features
from genpercept.models import image_prompt
from genpercept.models.backbones import BACKBONES
from genpercept.models.backbones.sd21 import SD21_CONFIG
from genpercept.models.backbones.sd21_joint import ROWS
from genpercept.models.codecs import CODECS
from genpercept.models.image_encoder import PLUGIN, VIT_L_CONFIG
from genpercept.models.paradigms import PARADIGMS
from genpercept.pipeline.families import geowizard

UNET_CONFIG: dict[str, Any] = SD21_CONFIG | geowizard.UNETS["v1"]
_PIXELS = (224, 224)  # that the image encoder sees
_LABELS = 10  # numbers of a row


class JointPeer(nn.Module):
    """From the image to the decoded maps of depth and of normals, of each of several starts, one after the other."""

    vae_scale_factor = 8
    unet: Any  # networks, whose calls have no types
    vae: Any
    image_encoder: Any

    def __init__(self, vae_config: dict[str, Any]) -> None:
        super().__init__()
        self.unet = BACKBONES.find("sd21_joint").build(UNET_CONFIG)
        self.vae = CODECS.find("kl").build(vae_config)
        self.image_encoder = PLUGIN.build(VIT_L_CONFIG)

    def forward(self, image: Tensor, num_inference_steps: int, ensemble_size: int, **_: Any) -> Tensor:
        """image (1, 3, H, W) in [0, 1] -> (runs, 6, H, W)."""
        codec = CODECS.find("kl").wrap(self.vae)
        context = image_prompt.embed(self.image_encoder, image, [], _PIXELS, (0.5,) * 3, (0.25,) * 3)
        paradigm = PARADIGMS.find("stochastic_multi_step").with_options(
            targets=ROWS, shared_noise=True, set_alpha_to_one=False
        )

        def denoise(x: Tensor, t: Tensor) -> Features:
            return self._step(x.to(image.dtype), t, context)

        z_x = codec.encode(image * 2 - 1)
        found = []
        for run in range(ensemble_size):
            latent = paradigm.predict(denoise, z_x, num_inference_steps, Rng(0, 0, [run])).require_latent()
            found.append(torch.cat([codec.decode(part) for part in latent.chunk(ROWS, dim=1)], dim=1))
        return torch.cat(found)

    def _step(self, x: Tensor, t: Tensor, context: Tensor) -> Features:
        labels = x.new_zeros(len(x), ROWS * _LABELS)
        return self.unet.forward_features(x, t, context, class_labels=labels)

    def tflops(self, edge: int, steps: int, members: int) -> float:
        """Of one image: encoders + steps x members x U-Net on both rows + members x decoder of both; on the meta device."""
        counts: list[flops.Count] = [{}, {}, {}]
        cells, channels = edge // self.vae_scale_factor, int(self.vae.config["latent_channels"])
        latent = torch.empty(1, (1 + ROWS) * channels, cells, cells, device="meta")
        context = torch.empty(1, 1, int(VIT_L_CONFIG["projection_dim"]), device="meta")
        with torch.inference_mode():
            with flops.counted(counts[0]):
                self.vae.encode(torch.empty(1, 3, edge, edge, device="meta"))
                self.image_encoder(torch.empty(1, 3, *_PIXELS, device="meta"))
            with flops.counted(counts[1]):
                self._step(latent, torch.zeros(1, device="meta"), context)
            with flops.counted(counts[2]):
                self.vae.decode(latent[:, :channels])
        encoders, step, decoder = (count["total"] for count in counts)
        return encoders + members * (steps * step + ROWS * decoder)
