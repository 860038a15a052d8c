"""The denoiser stage: latents of scenes, noised, and their captions -> v. The text encoder learns with the U-Net."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from genpercept import equations, plugins, text
from genpercept._training import latents
from genpercept._training.parts import open_codec, own_device, use_attention
from genpercept._training.records import image_tensor
from genpercept._training.report import grid
from genpercept._training.stage import Batch, Draw, Pair
from genpercept.recipe import Recipe
from genpercept.rng import Rng, generator

# About 5 M parameters; the rest as Stable Diffusion 2.1.
DEFAULT_UNET: dict[str, Any] = {
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
    "block_out_channels": [64, 96, 160],
    "layers_per_block": 1,
    "attention_head_dim": [2, 3, 5],
    "cross_attention_dim": 128,
    "norm_num_groups": 16,
    "use_linear_projection": True,
}
DEFAULT_TEXT: dict[str, Any] = {"num_hidden_layers": 2, "num_attention_heads": 4}
# Stable Diffusion 2.1's scheduler; its numbers are those of equations.py.
SCHEDULER: dict[str, Any] = {
    "num_train_timesteps": equations.TRAIN_STEPS,
    "beta_start": equations.SD_BETAS[0],
    "beta_end": equations.SD_BETAS[1],
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}


class Net(nn.Module):
    """Noised latents (B, 4, h, w), timesteps (B,), token ids (B, length) -> v (B, 4, h, w)."""

    def __init__(self, unet: nn.Module, text_encoder: nn.Module) -> None:
        super().__init__()
        self.unet, self.text_encoder = unet, text_encoder

    def forward(self, z_t: Tensor, t: Tensor, tokens: Tensor) -> Tensor:
        context = self.text_encoder(tokens).last_hidden_state
        return self.unet(z_t, t, encoder_hidden_states=context).sample


class DenoiserStage:
    best, best_sign = "loss", -1.0

    def __init__(self, recipe: Recipe, report: Callable[[str], None]) -> None:
        self.recipe = recipe
        self.draw = Draw(recipe, report)
        self.samples = self.draw.samples
        self.vae = cast(AutoencoderKL, open_codec(recipe).requires_grad_(False).to(own_device()))
        self.codec = plugins.find("codecs", "kl").wrap(self.vae)
        self.abar = equations.alphas_cumprod(equations.scaled_linear_betas(*equations.SD_BETAS))
        if recipe.model.base and recipe.model.init == "base":
            base = StableDiffusionPipeline.from_pretrained(recipe.model.base, vae=self.vae)
            self.tokenizer, text_encoder, unet = base.tokenizer, base.text_encoder, base.unet
        else:
            self.tokenizer, text_encoder, unet = self._fresh(recipe)
        use_attention(cast(nn.Module, unet), recipe.speed.attention)
        self.net = Net(cast(nn.Module, unet), cast(nn.Module, text_encoder))
        self._latents: list[latents.Latents] | None = None
        self._validation: tuple[Tensor, list[str]] | None = None
        if recipe.denoiser.cached_latents:
            self._latents = latents.open_all(recipe, self.draw.sources, self.codec, report)

    def _fresh(self, recipe: Recipe) -> tuple[Any, nn.Module, nn.Module]:
        """A tokenizer of the captions' words and networks with random weights."""
        unet_config = {**DEFAULT_UNET, **recipe.model.unet_config}
        unet_config.setdefault("sample_size", max(recipe.sizes()[0]) // self.codec.stride)
        unet_config["in_channels"] = unet_config["out_channels"] = self.codec.channels
        words = sorted({word for source in self.draw.sources for word in latents.words(source)})
        with tempfile.TemporaryDirectory() as folder:
            tokenizer = text.make_tokenizer(words, Path(folder))
        width = int(unet_config["cross_attention_dim"])
        config = CLIPTextConfig(
            **{
                **DEFAULT_TEXT,
                "hidden_size": width,
                "intermediate_size": 4 * width,
                "projection_dim": width,
                "hidden_act": "gelu",
                **recipe.model.text_config,
                "vocab_size": len(tokenizer),
                "max_position_embeddings": recipe.model.prompt_length,
                "bos_token_id": tokenizer.bos_token_id,
                "eos_token_id": tokenizer.eos_token_id,
                "pad_token_id": tokenizer.pad_token_id,
            }
        )
        return tokenizer, CLIPTextModel(config), plugins.find("backbones", "sd21").build(unet_config)

    def groups(self) -> list[dict[str, Any]]:
        lr = self.recipe.optim.lr
        return [
            {"params": list(self.net.unet.parameters()), "lr": lr},
            {"params": list(self.net.text_encoder.parameters()), "lr": self.recipe.denoiser.text_lr or lr},
        ]

    def make_batch(self, step: int, slots: Sequence[int]) -> Batch:
        """Cached latents, mirrored or not, or augmented images to encode; captions, some of them empty."""
        rng = Rng(self.recipe.seed, step, slots)
        if self._latents is None:
            records = self.draw.records(step, slots)
            images = torch.stack([image_tensor(r["image"]) * 2 - 1 for r in records])
            return Batch(rng, images=images, tokens=self._tokens([r.get("caption", "") for r in records], rng))
        rows, prompts = [], []
        for slot in slots:
            which, index = self.draw.order[step, slot]
            mirrored = generator(self.recipe.seed, step, slot, "augment").random() < self.recipe.augment.flip
            rows.append(self._latents[which].latent(index, mirrored))
            prompts.append(self._latents[which].caption(index))
        return Batch(rng, latents=torch.from_numpy(np.stack(rows)), tokens=self._tokens(prompts, rng))

    def _tokens(self, prompts: Iterable[str], rng: Rng) -> Tensor:
        empty = rng.uniform("caption") < self.recipe.denoiser.empty_prompt
        return self.tokenize(["" if none else prompt for prompt, none in zip(prompts, empty.tolist(), strict=True)])

    def tokenize(self, prompts: list[str]) -> Tensor:
        """Padded token ids (B, prompt_length) int64."""
        length = self.recipe.model.prompt_length
        return self.tokenizer(
            prompts, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        ).input_ids

    def encode(self, batch: Batch) -> Batch:
        if batch.latents is None:
            batch.latents = self.codec.encode(cast(Tensor, batch.images)).float()
        return batch

    def training_pair(self, batch: Batch) -> Pair:
        """z_t = sqrt(abar) z + sqrt(1 - abar) eps -> v, at a random timestep per sample."""
        z = cast(Tensor, batch.latents)
        noise = batch.rng.normal(z.shape[1:]).to(z)
        t = batch.rng.integers(0, equations.TRAIN_STEPS)
        return self._pair(z, noise, t, cast(Tensor, batch.tokens))

    def _pair(self, z: Tensor, noise: Tensor, t: Tensor, tokens: Tensor) -> Pair:
        abar = self.abar[t].to(z)
        weight = None
        if gamma := self.recipe.denoiser.min_snr_gamma:
            snr = abar / (1 - abar)
            weight = snr.clamp_max(gamma) / (snr + 1)
        inputs = (equations.diffuse(z, noise, abar), t.to(z.device), tokens)
        return Pair(inputs, equations.v_target(z, noise, abar), weight=weight)

    def loss(self, output: Any, pair: Pair) -> tuple[Tensor, dict[str, Tensor]]:
        error = (output.float() - pair.target.float()).square().flatten(1).mean(1)
        return (error if pair.weight is None else error * pair.weight), {"mse": error}

    @torch.no_grad()
    def validate(self) -> tuple[dict[str, float], np.ndarray | None]:
        """MSE of v on validation latents, noise and evenly spaced timesteps fixed; a picture of samples."""
        z, prompts = self._validation_latents()
        rng = Rng(0, 0, range(len(z)))
        t = torch.linspace(0, equations.TRAIN_STEPS - 1, len(z)).round().long()
        device = next(self.net.parameters()).device
        pair = self._pair(z, rng.normal(z.shape[1:]), t, self.tokenize(prompts))
        size = self.recipe.loader.batch_size
        chunks = zip(*(x.split(size) for x in pair.inputs), strict=True)
        output = torch.cat([self.net(*(x.to(device) for x in chunk)).float().cpu() for chunk in chunks])
        return {"loss": float((output - pair.target).square().mean())}, self._samples(prompts)

    def _samples(self, prompts: list[str]) -> np.ndarray:
        options, count = self.recipe.denoiser, self.recipe.validation.pictures
        prompts = list(self.recipe.validation.prompts or prompts[:count])
        pipe = self.pipeline()
        pipe.set_progress_bar_config(disable=True)
        height, width = self.recipe.sizes()[0]
        size = {"height": height, "width": width, "num_inference_steps": options.sample_steps, "output_type": "pil"}
        generators = [torch.Generator().manual_seed(i) for i in range(len(prompts))]
        images = cast(Any, pipe)(prompts, guidance_scale=options.guidance, generator=generators, **size).images
        return grid([[np.asarray(image) for image in images[i : i + 6]] for i in range(0, len(images), 6)])

    def _validation_latents(self) -> tuple[Tensor, list[str]]:
        if self._validation is None:
            records = self.draw.validation()
            device = next(self.net.parameters()).device
            images = torch.stack([image_tensor(r["image"]) * 2 - 1 for r in records])
            z = torch.cat(
                [self.codec.encode(x.to(device)).float().cpu() for x in images.split(self.recipe.loader.batch_size)]
            )
            self._validation = z, [str(r.get("caption", "")) for r in records]
        return self._validation

    def pipeline(self) -> StableDiffusionPipeline:
        """The parts as diffusers' own text-to-image pipeline."""
        return StableDiffusionPipeline(
            vae=self.vae,
            text_encoder=cast(Any, self.net.text_encoder),
            tokenizer=cast(Any, self.tokenizer),
            unet=cast(Any, self.net.unet),
            scheduler=cast(Any, DDIMScheduler(**SCHEDULER)),
            safety_checker=cast(Any, None),
            feature_extractor=cast(Any, None),
            requires_safety_checker=False,
        )

    def save(self, folder: Path) -> None:
        """A StableDiffusionPipeline folder. The denoiser is saved as what it is to diffusers: our subclass adds a method."""
        self.pipeline().save_pretrained(folder)
        _edit_json(folder / "unet" / "config.json", _class_name="UNet2DConditionModel")
        _edit_json(folder / "model_index.json", unet=["diffusers", "UNet2DConditionModel"])


def _edit_json(path: Path, **values: Any) -> None:
    content = json.loads(path.read_text(encoding="utf-8")) | values
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
