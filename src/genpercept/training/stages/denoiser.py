"""The denoiser stage: latents of scenes, noised, and their captions -> v. The text encoder learns with the denoiser."""

from __future__ import annotations

import importlib.metadata
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from genpercept import equations
from genpercept.checkpoints import hub, shapes
from genpercept.checkpoints.parts import load_part, write_config
from genpercept.core.rng import Rng, generator
from genpercept.core.texts import one_line
from genpercept.models import text
from genpercept.models.backbones import BACKBONES, as_backbone
from genpercept.models.codecs import CODECS
from genpercept.pipeline.folder import base_backbone
from genpercept.training.networks.codec import open_codec, own_device, use_attention
from genpercept.training.recipe import Recipe
from genpercept.training.run.log import grid, to_picture
from genpercept.training.samples import latents
from genpercept.training.samples.records import image_tensor
from genpercept.training.stages.base import Batch, Draw, Pair

# About 5 M parameters; the rest as Stable Diffusion 2.1, or as PixArt-alpha but for its learned sigma.
_UNET: dict[str, Any] = {
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
_TRANSFORMER: dict[str, Any] = {
    "in_channels": 4,
    "out_channels": 4,
    "num_attention_heads": 5,
    "attention_head_dim": 40,
    "num_layers": 6,
    "cross_attention_dim": 200,
    "caption_channels": 128,
    "patch_size": 2,
    "use_additional_conditions": False,
}
DEFAULTS: dict[str, dict[str, Any]] = {"sd21": _UNET, "pixart_alpha": _TRANSFORMER}  # by backbone
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

# What diffusers' text-to-image pipelines are called, and say of parts that a base has not
_NONE = [None, None]
_INDEX: dict[str, dict[str, Any]] = {
    "sd21": {
        "_class_name": "StableDiffusionPipeline",
        **dict.fromkeys(("safety_checker", "feature_extractor", "image_encoder"), _NONE),
        "requires_safety_checker": False,
    },
    "pixart_alpha": {"_class_name": "PixArtAlphaPipeline"},
}


class Net(nn.Module):
    """Noised latents (B, 4, h, w), timesteps (B,), token ids (B, length) -> v (B, 4, h, w)."""

    def __init__(self, unet: nn.Module, text_encoder: nn.Module) -> None:
        super().__init__()
        self.unet, self.text_encoder = unet, text_encoder

    def forward(self, z_t: Tensor, t: Tensor, tokens: Tensor) -> Tensor:
        context = self.text_encoder(tokens).last_hidden_state
        return as_backbone(self.unet).forward_features(z_t, t, context).require_latent()


class DenoiserStage:
    def __init__(self, recipe: Recipe, report: Callable[[str], None]) -> None:
        self.recipe = recipe
        self.draw = Draw(recipe, report)
        self.samples = self.draw.samples
        self.vae = cast(AutoencoderKL, open_codec(recipe).requires_grad_(False).to(own_device()))
        self.codec = CODECS.find("kl").wrap(self.vae)
        self.abar = equations.alphas_cumprod(equations.scaled_linear_betas(*equations.SD_BETAS))
        self.backbone, self.tokenizer, text_encoder, unet = self._from_base(recipe) or self._fresh(recipe)
        use_attention(unet, recipe)
        self.net = Net(unet, text_encoder)
        self._latents: list[latents.Latents] | None = None
        self._validation: tuple[Tensor, list[str]] | None = None
        if recipe.denoiser.cached_latents:
            self._latents = latents.open_all(recipe, self.draw.sources, self.codec, report)

    def _from_base(self, recipe: Recipe) -> tuple[str, Any, nn.Module, nn.Module] | None:
        """The base's backbone and text encoder, to go on from; None where there is none to."""
        if not recipe.model.base or recipe.model.init != "base":
            return None
        folder = hub.resolve(recipe.model.base)
        name, path = base_backbone(folder)
        tokenizer, text_encoder = text.load(folder)
        return name, tokenizer, text_encoder.requires_grad_(True), load_part(BACKBONES.find(name), path)

    def _fresh(self, recipe: Recipe) -> tuple[str, Any, nn.Module, nn.Module]:
        """A tokenizer of the captions' words and networks with random weights."""
        name = recipe.model.backbone or "sd21"
        if name not in DEFAULTS:
            raise ValueError(f"model.backbone {name!r}: the denoiser stage makes {' or '.join(DEFAULTS)}")
        config = {**DEFAULTS[name], **recipe.model.backbone_config}
        config.setdefault("sample_size", max(recipe.sizes()[0]) // self.codec.stride)
        config["in_channels"] = config["out_channels"] = self.codec.channels
        with shapes.memory():
            unet = BACKBONES.find(name).build(config)
        # captions are read off the scenes, which a dry run does not render
        words = [] if shapes.wanted() else sorted({w for source in self.draw.sources for w in latents.words(source)})
        with tempfile.TemporaryDirectory() as folder:
            tokenizer = text.make_tokenizer(words, Path(folder))
        width = cast(int, as_backbone(unet).context_width)  # both backbones of DEFAULTS read text
        with shapes.memory():
            return name, tokenizer, CLIPTextModel(_text_config(recipe, tokenizer, width)), unet

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
    def validate(self, at_once: int) -> tuple[dict[str, float], np.ndarray | None]:
        """MSE of v on validation latents, noise and evenly spaced timesteps fixed; a picture of samples."""
        z, prompts = self._validation_latents(at_once)
        rng = Rng(0, 0, range(len(z)))
        t = torch.linspace(0, equations.TRAIN_STEPS - 1, len(z)).round().long()
        device = next(self.net.parameters()).device
        pair = self._pair(z, rng.normal(z.shape[1:]), t, self.tokenize(prompts))
        chunks = zip(*(x.split(at_once) for x in pair.inputs if x is not None), strict=True)
        output = torch.cat([self.net(*(x.to(device) for x in chunk)).float().cpu() for chunk in chunks])
        return {"loss": float((output - pair.target).square().mean())}, self._samples(prompts, at_once)

    def _samples(self, prompts: list[str], at_once: int) -> np.ndarray:
        """Images of captions by DDIM with guidance, six in a row."""
        options, shown = self.recipe.denoiser, self.recipe.validation.prompts
        prompts = list(shown or prompts[: self.recipe.validation.pictures])
        device = next(self.net.parameters()).device
        edges = [edge // self.codec.stride for edge in self.recipe.sizes()[0]]
        noise = Rng(0, 0, range(len(prompts))).normal(torch.Size((self.codec.channels, *edges))).to(device)
        tokens = self.tokenize([*prompts, ""]).to(device)
        images = []
        for z_t, with_words in zip(noise.split(at_once), tokens[:-1].split(at_once), strict=True):
            text = torch.cat([with_words, tokens[-1:].expand(len(z_t), -1)])
            for step in equations.sample_timesteps(options.sample_steps).tolist():
                t = torch.full((2 * len(z_t),), step, device=device)
                with_prompt, without = self.net(torch.cat([z_t, z_t]), t, text).float().chunk(2)
                v = without + options.guidance * (with_prompt - without)
                before = equations.abar_before(step, options.sample_steps, self.abar, self.abar[0])
                z_t = equations.ddim_step("v_prediction", z_t, v, self.abar[step], before)
            images += [to_picture(image) for image in self.codec.decode(z_t).float().cpu()]
        return grid([images[i : i + 6] for i in range(0, len(images), 6)])

    def _validation_latents(self, at_once: int) -> tuple[Tensor, list[str]]:
        if self._validation is None:
            records = self.draw.validation()
            device = next(self.net.parameters()).device
            images = torch.stack([image_tensor(r["image"]) * 2 - 1 for r in records])
            z = torch.cat([self.codec.encode(x.to(device)).float().cpu() for x in images.split(at_once)])
            self._validation = z, [str(r.get("caption", "")) for r in records]
        return self._validation

    def save(self, folder: Path) -> None:
        """A text-to-image model's folder in diffusers' layout, which its own pipeline of this backbone loads too."""
        plugin = BACKBONES.find(self.backbone)
        parts: dict[str, Any] = {
            "vae": self.vae,
            "text_encoder": self.net.text_encoder,
            "tokenizer": self.tokenizer,
            plugin.folder: self.net.unet,
            "scheduler": DDIMScheduler(**SCHEDULER),
        }
        for name, part in parts.items():
            part.save_pretrained(folder / name)
        classes = {name: [type(part).__module__.split(".")[0], type(part).__name__] for name, part in parts.items()}
        classes |= {plugin.folder: ["diffusers", str(plugin.class_name)]}  # our subclass adds a method
        index = {"_diffusers_version": importlib.metadata.version("diffusers"), **_INDEX[self.backbone], **classes}
        write_config(folder / "model_index.json", index)


def _text_config(recipe: Recipe, tokenizer: Any, width: int) -> CLIPTextConfig:
    """Of a text encoder whose answers the denoiser reads. ValueError for sizes that do not go together."""
    given = recipe.model.text_config
    if (hidden := given.get("hidden_size", width)) != width:
        raise ValueError(
            f"model.text_config: hidden_size {hidden}: the denoiser reads texts of width {width}; make them equal"
        )
    sizes = {"hidden_size": width, "intermediate_size": 4 * width, "projection_dim": width, "hidden_act": "gelu"}
    words = {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": recipe.model.prompt_length,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    try:
        return CLIPTextConfig(**{**DEFAULT_TEXT, **sizes, **given, **words})
    except (StrictDataclassError, TypeError) as error:
        raise ValueError(f"model.text_config: {one_line(error)}") from None
