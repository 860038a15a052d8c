"""The distilling stage: a cheaper form of one end of a predictor's codec learns to answer as the whole end does.

The decoder is taught on the latents that the predictor itself computes for images, which is where it will be used;
the encoder on the images, whose posterior means it is to give. No label is read. All else of the predictor stays as
it is. A cheaper denoiser is taught by `distil_denoiser`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from diffusers import AutoencoderTiny
from torch import Tensor, nn

from genpercept.checkpoints import hub, shapes
from genpercept.core.modules import config_of
from genpercept.core.rng import Rng, generator
from genpercept.core.values import Target
from genpercept.imaging.kinds import KINDS
from genpercept.models import codecs
from genpercept.models.codecs import CODECS, HALVES, half
from genpercept.models.codecs.guided import GuidedDecoder
from genpercept.pipeline import codec_swap
from genpercept.pipeline.call import Run
from genpercept.pipeline.pipeline import GenPerceptPipeline
from genpercept.tasks import PreparedTask
from genpercept.training import losses
from genpercept.training.losses import LOSSES
from genpercept.training.networks.codec import own_device, use_attention
from genpercept.training.networks.guided import fit, guided
from genpercept.training.networks.predictor import find_task
from genpercept.training.networks.prune import prune
from genpercept.training.networks.tiny import tiny_half
from genpercept.training.recipe import Recipe
from genpercept.training.run.log import grid, to_picture
from genpercept.training.samples import teacher
from genpercept.training.samples.records import image_tensor
from genpercept.training.stages.base import Batch, Draw, Pair

DEFAULT_LOSS = {"decoder": {"l1": 1.0, "pyramid": 1.0}, "encoder": {"l1": 1.0}, "denoiser": {"latent": 1.0}}
_FITTED = 32  # images by which a guided decoder's last convolution begins


class Net(nn.Module):
    """The cheap end: scaled latent -> map, of a guided decoder with the image beside it; or image -> scaled latent."""

    def __init__(self, slim: nn.Module, part: str) -> None:
        super().__init__()
        self.slim = slim
        name = "tiny" if isinstance(slim, AutoencoderTiny) else "kl"
        self._encoder = CODECS.find(name).wrap(slim) if part == "encoder" else None

    def forward(self, x: Tensor, image: Tensor | None = None) -> Tensor:
        return decoded(self.slim, x, image) if self._encoder is None else self._encoder.encode(x)


def decoded(module: Any, latent: Tensor, image: Tensor | None = None) -> Tensor:
    """Scaled latent (B, C, h, w), image of a guided decoder -> what a decoder gives, in the channels that it has."""
    latent = latent / float(module.config["scaling_factor"])
    return module(latent, image) if isinstance(module, GuidedDecoder) else module.decode(latent).sample


def out_channels(recipe: Recipe) -> int:
    """Of the cheap decoder."""
    return recipe.distil.channels or (1 if KINDS.find(find_task(recipe).kind).gray else 3)


class DistilStage:
    def __init__(self, recipe: Recipe, report: Callable[[str], None]) -> None:
        self.recipe, self.part = recipe, recipe.distil.part
        self.base = _base(recipe)
        self._whole = self._find_whole()
        slim = self._cheaper()
        if recipe.speed.checkpointing:
            slim.enable_gradient_checkpointing()
        self.base.to(own_device())
        self.net: Any = self._network(slim)
        self._weights = recipe.loss or DEFAULT_LOSS[self.part]
        self._losses = {name: LOSSES.find(name) for name in self._weights}
        for name, loss in self._losses.items():
            losses.check_options(name, loss, recipe.loss_options.get(name, {}))
            if losses.needs(loss):
                raise ValueError(
                    f"loss.{name}: reads {losses.needs(loss)[0]} of a label, and none is read here; leave it out"
                )
        task = self.base.task_plugin
        self.draw = Draw(recipe, report, task.prepare if isinstance(task, PreparedTask) else None)
        self.samples = self.draw.samples
        self._answers = self._open_answers(report) if recipe.loader.latent_variants else None
        if recipe.distil.form == "guided" and not shapes.wanted():
            self._fit()

    def _find_whole(self) -> nn.Module:
        """What is to be made cheaper, of the base."""
        return half(cast(nn.Module, self.base.vae), self.part)

    def _cheaper(self) -> Any:
        """What learns."""
        return _cheaper(self._whole, self.recipe)

    def _network(self, slim: nn.Module) -> nn.Module:
        return Net(slim, self.part)

    @property
    def _needs_images(self) -> bool:
        """Whether a step needs the images where latents are cached."""
        return self.part == "encoder" or self.recipe.distil.form == "guided"

    def inputs(self, images: Tensor | None, latents: Tensor) -> tuple[Tensor, ...]:
        """What the network is given, of a batch's images and the latents that belong to them."""
        if self.part == "encoder":
            return (cast(Tensor, images),)
        if self.recipe.distil.form == "guided":
            return latents, _repeated(cast(Tensor, images), latents)
        return (latents,)

    @torch.no_grad()
    def _fit(self) -> None:
        """Start a guided decoder's last convolution from the whole decoder's answers to the first batches."""
        slim, size = cast(GuidedDecoder, self.net.slim), self.recipe.loader.batch_size
        batches = [
            self.encode(self.make_batch(step, range(size)).to(self.base.device, False))
            for step in range(-(-_FITTED // size))
        ]
        nn.Module.to(slim, self.base.device)
        latents = torch.cat([cast(Tensor, batch.latents) for batch in batches]) / float(slim.config["scaling_factor"])
        fit(slim, latents, torch.cat([cast(Target, batch.target).map for batch in batches]))

    def _open_answers(self, report: Callable[[str], None]) -> list[teacher.Answers]:
        chosen = self.base.paradigm()
        key: dict[str, Any] = {"part": self.part, "model": self.base.info["model_sha256"]}
        key |= {"paradigm": chosen.name, "options": chosen.options}
        codec = self.base._codec
        return teacher.open_answers(
            self.recipe, self.draw.sources, codec, key, self.draw.prepared, self._latents, report
        )

    def groups(self) -> list[dict[str, Any]]:
        optim = self.recipe.optim
        rate = optim.lr_decoder if self.part == "decoder" and optim.lr_decoder else optim.lr
        if not isinstance(self.net.slim, GuidedDecoder):
            return [{"params": list(self.net.parameters()), "lr": rate}]
        new = list(self.net.slim.upsampler.parameters())
        kept = [p for name, p in self.net.slim.named_parameters() if not name.startswith("upsampler.")]
        return [{"params": kept, "lr": rate}, {"params": new, "lr": optim.lr}]

    def make_batch(self, step: int, slots: Sequence[int]) -> Batch:
        """Augmented images; from the cache the latents that belong to them, too, or alone where no image is needed."""
        rng = Rng(self.recipe.seed, step, slots)
        if self._answers is None:
            records = self.draw.records(step, slots)
            return Batch(rng, images=torch.stack([image_tensor(record["image"]) * 2 - 1 for record in records]))
        found: list[tuple[teacher.Answers, int, int]] = []
        for slot in slots:
            which, index = self.draw.order[step, slot]
            variant = generator(self.recipe.seed, step, slot, "augment").integers(self.recipe.loader.latent_variants)
            found.append((self._answers[which], index, int(variant)))
        latents = torch.stack([kept.latent(index, variant) for kept, index, variant in found])
        if not self._needs_images:
            return Batch(rng, latents=latents)
        return Batch(
            rng, images=torch.stack([kept.image(index, variant) for kept, index, variant in found]), latents=latents
        )

    @torch.no_grad()
    def _latents(self, images: Tensor) -> Tensor:
        """Images in [-1, 1] -> latents (B, C, h, w) float32: what the whole part works on, or, an encoder, gives.

        Computed in the precision of the caller's autocast.
        """
        images = images.to(self.base.device)
        if self.part != "decoder":
            return self.base._codec.encode(images).float()
        chosen = self.base.paradigm()
        run = Run(chosen, self.base.default_steps(chosen), [self.recipe.seed] * len(images), 1, len(images))
        found = [features.require_latent() for features in self.base._answers((images + 1) / 2, run, None)]
        return torch.cat(found).float()

    def encode(self, batch: Batch) -> Batch:
        """Latents where none are cached, and, of a decoder, the whole one's answers to them as the target."""
        if batch.latents is None:
            batch.latents = self._latents(cast(Tensor, batch.images))
        if self.part == "decoder":
            # the labels of a task with several (intrinsic images) lie in the channels one after another
            batch.latents = torch.cat(batch.latents.split(self.base._codec.channels, dim=1))
            answer = self._whole_answer(batch.latents)
            batch.target = Target(answer, torch.ones_like(answer[:, :1], dtype=torch.bool))
        return batch

    def _whole_answer(self, latents: Tensor) -> Tensor:
        """The whole decoder's, in the channels of the slim one: as the task takes their mean."""
        answer = decoded(self._whole, latents).float()
        if answer.shape[1] == config_of(self.net.slim)["out_channels"]:
            return answer
        if getattr(self.base.task_plugin, "clip", None) == "channels":
            answer = answer.clamp(-1, 1)
        return answer.mean(1, keepdim=True)

    def training_pair(self, batch: Batch) -> Pair:
        latents = cast(Tensor, batch.latents)
        inputs = self.inputs(batch.images, latents)
        if self.part == "decoder":
            label = cast(Target, batch.target)
            return Pair(inputs, label.map, label.valid)
        return Pair(inputs, latents, torch.ones_like(latents[:, :1], dtype=torch.bool))

    def answer(self, output: Any) -> Tensor:
        """Of the network's output what is compared with a pair's target, (B, C, h, w) float32."""
        return output.float()

    def loss(self, output: Any, pair: Pair) -> tuple[Tensor, dict[str, Tensor]]:
        """Weighted sum of the recipe's losses between the slim end's answers and the whole one's, per sample."""
        valid, options = cast(Tensor, pair.valid), self.recipe.loss_options
        parts = {
            name: loss(self.answer(output), pair.target, valid, **options.get(name, {}))
            for name, loss in self._losses.items()
        }
        zero = torch.zeros(len(pair.target), device=pair.target.device)
        return sum((self._weights[name] * part for name, part in parts.items()), zero), parts

    @torch.no_grad()
    def validate(self, at_once: int) -> tuple[dict[str, float], np.ndarray | None]:
        """The loss, and how far below the whole end's answers the difference from them lies, in dB of variance ("snr").

        Pictures in rows: the images, decoded by the whole model, and with the slim end.
        """
        images = torch.stack([image_tensor(record["image"]) * 2 - 1 for record in self.draw.validation()])
        device = next(self.net.parameters()).device
        found, moments = [], []
        rows: list[list[np.ndarray]] = [[], [], []]
        for start in range(0, len(images), at_once):
            chunk = images[start : start + at_once]
            batch = self.encode(Batch(Rng(0, 0, range(start, start + len(chunk))), images=chunk).to(device, False))
            pair = self.training_pair(batch)
            answered = self.net(*pair.inputs)
            found.append(self.loss(answered, pair)[0].cpu())
            output = self.answer(answered)
            answer, error = (x.cpu().double().flatten(1) for x in (pair.target, output - pair.target))
            moments.append(torch.stack([error.square().mean(1), answer.square().mean(1), answer.mean(1)]))
            shown = range(max(0, min(len(chunk), self.recipe.validation.pictures - start)))
            whole, slim = (self._shown(x, cast(Tensor, batch.images)) for x in (pair.target, output))
            for row, pictures in zip(rows, (chunk, whole, slim), strict=True):
                row += [to_picture(pictures[i]) for i in shown]
        error, square, mean = torch.cat(moments, 1).mean(1).tolist()
        snr = 10 * math.log10(max(square - mean**2, 1e-20) / max(error, 1e-20))
        return {"loss": float(torch.cat(found).mean()), "snr": snr}, grid(rows)

    def _shown(self, answer: Tensor, images: Tensor) -> Tensor:
        """A decoder's answer, or the image that the whole decoder makes of another part's, (B, 3, H, W) in [-1, 1]."""
        if self.part == "decoder":
            return answer.expand(-1, 3, -1, -1)
        first = answer[:, : self.base._codec.channels]  # of a task with several labels
        return codecs.decode(self.base._codec, first, images).float()

    def save(self, folder: Path) -> None:
        """The predictor with the slim end, complete."""
        self.pipeline().save_pretrained(folder)

    def pipeline(self) -> GenPerceptPipeline:
        vae, slim = cast(nn.Module, self.base.vae), self.net.slim
        halves = {end: half(vae, end) for end in HALVES} | {self.part: slim}
        name, module = codec_swap.join(halves["encoder"], halves["decoder"])
        info = {k: v for k, v in self.base.info.items() if k not in ("model", "model_sha256")} | {"codec": name}
        info["distilled"] = {**(self.base.info.get("distilled") or {}), self.part: self._record()}
        base = self.base
        return GenPerceptPipeline(base.unet, module, base.prompt_embeds, info, base.head)

    def _record(self) -> dict[str, Any]:
        """What was pruned and distilled, for genpercept.json and a Prediction's meta."""
        counts = [sum(p.numel() for p in getattr(m, self.part).parameters()) for m in (self._whole, self.net.slim)]
        config, distil = config_of(self.net.slim), self.recipe.distil
        return {
            "of": self.recipe.model.base,
            "of_sha256": self.base.info["model_sha256"],
            "width": distil.width,
            "form": distil.form,
            **({"levels": distil.levels or 1} if distil.form == "guided" else {}),
            "block_out_channels": list(config["block_out_channels"]),
            "layers_per_block": config.get("layers_per_block", config.get("num_decoder_blocks")),
            "attention": config.get("mid_block_add_attention", False),
            "channels": config["out_channels"] if self.part == "decoder" else config["latent_channels"],
            "parameters": {"before": counts[0], "after": counts[1]},
            "loss": self._weights,
            "steps": self.recipe.steps,
        }


def _repeated(images: Tensor, latents: Tensor) -> Tensor:
    """Images for latents of several labels each, one after another."""
    return images.repeat(len(latents) // len(images), 1, 1, 1)


def _cheaper(whole: nn.Module, recipe: Recipe) -> Any:
    """The end that learns, pruned out of the whole one or new, as the recipe says."""
    distil, channels = recipe.distil, out_channels(recipe)
    assert distil.part != "denoiser"  # which has a stage of its own
    slim: nn.Module
    if distil.form == "tiny":
        return tiny_half(whole, distil.part, distil.width, distil.blocks, channels).requires_grad_(True)
    if distil.form == "guided":
        slim = guided(whole, distil.levels or 1, distil.width, distil.blocks, channels, distil.attention)
    else:
        slim = prune(whole, distil.part, distil.width, distil.blocks, channels, distil.attention)
    use_attention(slim.requires_grad_(True), recipe)
    return slim


def _base(recipe: Recipe) -> GenPerceptPipeline:
    """The predictor. ValueError for one of another task, and for one that has no such end."""
    name = recipe.model.base
    folder = hub.resolve(name)
    pipe = GenPerceptPipeline.from_pretrained(folder)
    if pipe.task != recipe.task:
        raise ValueError(
            f'task "{recipe.task}": model.base {name} is a model for {pipe.task}; set task = "{pipe.task}"'
        )
    if pipe.vae is None:
        raise ValueError(
            f"model.base {name}: takes pixels, which nothing encodes or decodes: there is nothing to distil"
        )
    part = recipe.distil.part
    if part != "encoder" and pipe._head.consumes != "latent":
        why = "so the decoder never runs" if part == "decoder" else "which other blocks would not give it"
        raise ValueError(
            f'distil.part "{part}": head {pipe.info["head"]!r} of {name} reads the denoiser\'s features, {why}; '
            'choose "encoder"'
        )
    return pipe
