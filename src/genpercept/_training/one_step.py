"""The one-step stage: a pretrained denoiser learns to answer an image's latent with its label's."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genpercept import hub, plugins
from genpercept._training import latents
from genpercept._training.parts import open_codec, use_attention
from genpercept._training.records import Record, image_tensor, to_sample
from genpercept._training.report import grid, to_picture
from genpercept._training.stage import Batch, Draw, Pair
from genpercept.checkpoint import MANIFEST
from genpercept.codecs import Codec
from genpercept.paradigms import Paradigm
from genpercept.pipeline import GenPerceptPipeline
from genpercept.recipe import Recipe
from genpercept.rng import Rng, generator
from genpercept.types import Target

# Predictions of these kinds are the mean of the three decoded channels; so are the ones that the losses see.
GRAY_KINDS = ("depth_affine", "disparity_affine", "mask", "alpha", "anomaly")


class Net(nn.Module):
    """Network input, timestep, prompt -> denoiser's output and, with a pixel loss, decoded labels (n, 3, H, W).

    n is the batch in eval mode, and `share` of it (rounded up) in training.
    """

    def __init__(self, unet: nn.Module, vae: nn.Module, codec: Codec, paradigm: Paradigm, share: float) -> None:
        super().__init__()
        self.unet, self.vae = unet, vae
        self._codec, self._paradigm, self._share = codec, paradigm, share

    def forward(self, x: Tensor, t: Tensor, context: Tensor) -> tuple[Tensor, Tensor | None]:
        output = cast(Any, self.unet).forward_features(x, t, context).require_latent()
        if not self._share:
            return output, None
        n = math.ceil(len(output) * self._share) if self.training else len(output)
        return output, self._codec.decode(self._paradigm.estimate(output[:n]))


class OneStepStage:
    best, best_sign = "loss", -1.0

    def __init__(self, recipe: Recipe, report: Callable[[str], None]) -> None:
        self.recipe = recipe
        self.task = plugins.find("tasks", recipe.task)
        self.paradigm = plugins.find("paradigms", recipe.paradigm)
        self._weights = dict(recipe.loss or self.task.losses)
        self._losses = {name: plugins.find("losses", name) for name in self._weights}
        self._pixel = any(name != "latent" for name in self._weights)
        self.draw = Draw(recipe, report)
        self.samples = self.draw.samples
        self.pipe = self._pipeline(recipe)
        self.codec = plugins.find("codecs", self.pipe.info["codec"]).wrap(self.pipe.vae)
        self._select(recipe)
        use_attention(self.pipe.unet, recipe.speed.attention)
        use_attention(self.pipe.vae, recipe.speed.attention)
        self._pairs: list[latents.Pairs] | None = None
        if recipe.loader.latent_variants:
            if self._pixel:
                raise ValueError(
                    "loader.latent_variants: cached latents serve the latent loss alone, but loss has"
                    f" {', '.join(n for n in self._weights if n != 'latent')}; leave those out, or set it to 0"
                )
            self._pairs = latents.open_pairs(recipe, self.draw.sources, self.codec, self._encode_pair, report)
        share = recipe.pixel_share if self._pixel else 0.0
        self.net = Net(self.pipe.unet, self.pipe.vae, self.codec, self.paradigm, share)

    def _pipeline(self, recipe: Recipe) -> GenPerceptPipeline:
        """The pipeline that the run will save, over the base's parts, or over an untrained denoiser of its size."""
        resolution = recipe.resolution or max(max(size) for size in recipe.sizes())
        pipe = _start(recipe, resolution)
        unet, vae = pipe.unet, pipe.vae
        if recipe.model.init == "scratch":
            unet = plugins.find("backbones", pipe.info["backbone"]).build(dict(cast(Any, unet).config))
        if recipe.model.codec:
            vae = open_codec(recipe)
        return GenPerceptPipeline.from_parts(
            unet=unet,
            vae=vae,
            prompt_embeds=pipe.prompt_embeds,
            task=recipe.task,
            paradigm=recipe.paradigm,
            resolution=resolution,
            recipe=recipe.resolved(),
            base=recipe.model.base,
            prompt="",
        )

    def _select(self, recipe: Recipe) -> None:
        """Which parameters learn: the denoiser, and the decoder if asked."""
        self.pipe.vae.requires_grad_(False)
        self.pipe.unet.requires_grad_(True)
        if not recipe.model.train_decoder:
            return
        if not self._pixel:
            raise ValueError(
                "model.train_decoder: only a loss behind the decoder can train it; add one, such as loss.mse = 1"
            )
        for part in self._decoder():
            part.requires_grad_(True)

    def _decoder(self) -> list[nn.Module]:
        vae = cast(Any, self.pipe.vae)
        return [part for part in (vae.decoder, getattr(vae, "post_quant_conv", None)) if part is not None]

    def groups(self) -> list[dict[str, Any]]:
        optim = self.recipe.optim
        groups: list[dict[str, Any]] = [{"params": list(self.pipe.unet.parameters()), "lr": optim.lr}]
        if self.recipe.model.train_decoder:
            decoder = [p for part in self._decoder() for p in part.parameters()]
            groups.append({"params": decoder, "lr": optim.lr_decoder or optim.lr})
        return groups

    def make_batch(self, step: int, slots: Sequence[int]) -> Batch:
        """Augmented images and labels, or cached latents of both."""
        if self._pairs is not None:
            return self._cached_batch(self._pairs, step, slots)
        records = self.draw.records(step, slots)
        images = torch.stack([image_tensor(record["image"]) * 2 - 1 for record in records])
        target = Target.cat([self.task.encode(to_sample(record)) for record in records])
        return Batch(Rng(self.recipe.seed, step, slots), images=images, target=target)

    def _cached_batch(self, pairs: list[latents.Pairs], step: int, slots: Sequence[int]) -> Batch:
        """Latents of images, then of labels, as `encode` gives them. The target keeps only what a latent loss reads."""
        found = []
        for slot in slots:
            which, index = self.draw.order[step, slot]
            variant = int(generator(self.recipe.seed, step, slot, "augment").integers(pairs[which].variants))
            found.append(pairs[which].pair(index, variant))
        both = torch.from_numpy(np.stack([pair for pair, _ in found], 1)).flatten(0, 1)
        valid = torch.from_numpy(np.stack([valid for _, valid in found]))
        target = Target(torch.zeros(len(slots), 0, *valid.shape[-2:]), valid)
        return Batch(Rng(self.recipe.seed, step, slots), target=target, latents=both)

    def _encode_pair(self, record: Record) -> tuple[Tensor, Tensor, Tensor]:
        target = self.task.encode(to_sample(record))
        size = (target.map.shape[-2] // self.codec.stride, target.map.shape[-1] // self.codec.stride)
        return image_tensor(record["image"]) * 2 - 1, target.map[0], latent_valid(target.valid, size)[0]

    def encode(self, batch: Batch) -> Batch:
        """Image and label through the frozen encoder, together; the label only where a latent loss compares it."""
        if batch.latents is not None:
            return batch
        images, target = cast(Tensor, batch.images), cast(Target, batch.target)
        both = torch.cat([images, target.map]) if self._needs_label_latent() else images
        batch.latents = self.codec.encode(both).float()
        return batch

    def _needs_label_latent(self) -> bool:
        return "latent" in self._weights or self.recipe.paradigm != "one_step"

    def training_pair(self, batch: Batch) -> Pair:
        latents, label = cast(Tensor, batch.latents), cast(Target, batch.target)
        z_x = latents[: len(label.map)]
        z_y = latents[len(label.map) :] if self._needs_label_latent() else torch.zeros_like(z_x)
        x, t, target = self.paradigm.training_pair(z_x, z_y, batch.rng)
        context = self.pipe.prompt_embeds.to(x.device).expand(len(x), -1, -1)
        return Pair((x, t, context), target, latent_valid(label.valid, (target.shape[-2], target.shape[-1])), label)

    def loss(self, output: Any, pair: Pair) -> tuple[Tensor, dict[str, Tensor]]:
        """Weighted sum of the recipe's losses, per sample; on pixels in float32 whatever the network ran in."""
        latent, decoded = output
        label = cast(Target, pair.label)
        parts: dict[str, Tensor] = {}
        for name, loss in self._losses.items():
            options = self.recipe.loss_options.get(name, {})
            if name == "latent":
                parts[name] = loss(latent.float(), pair.target.float(), cast(Tensor, pair.valid), **options)
            else:
                n = len(decoded)
                pred, gt = self._comparable(decoded.float()), self._comparable(label.map[:n])
                part = loss(pred, gt, label.valid[:n], **options)
                parts[name] = F.pad(part, (0, len(latent) - n)) * (len(latent) / n)
        total = sum((self._weights[name] * part for name, part in parts.items()), torch.zeros((), device=latent.device))
        return cast(Tensor, total), parts

    def _comparable(self, map_BCHW: Tensor) -> Tensor:
        return map_BCHW.mean(1, keepdim=True) if self.task.kind in GRAY_KINDS else map_BCHW

    @torch.no_grad()
    def validate(self) -> tuple[dict[str, float], np.ndarray | None]:
        """The loss on validation samples, the task's metric where it has one, and image, label, prediction in rows."""
        records = self.draw.validation()
        samples = [to_sample(record) for record in records]
        device = next(self.net.parameters()).device
        losses: list[Tensor] = []
        rows: list[list[np.ndarray]] = [[], [], []]
        metric = self._metric()
        shown = self.recipe.validation.pictures
        size = self.recipe.loader.batch_size
        for start in range(0, len(samples), size):
            chunk = samples[start : start + size]
            images = torch.stack([s.image for s in chunk]) * 2 - 1
            target = Target.cat([self.task.encode(s) for s in chunk])
            batch = Batch(Rng(0, 0, range(start, start + len(chunk))), images=images, target=target).to(device, False)
            pair = self.training_pair(self.encode(batch))
            output, decoded = self.net(*pair.inputs)
            if decoded is None:
                decoded = self.codec.decode(self.paradigm.estimate(output))
            losses.append(self.loss((output, decoded), pair)[0].cpu())
            raw = decoded.float().cpu()
            for i, sample in enumerate(chunk):
                self._score(metric, raw[i : i + 1], sample)
            for i in range(max(0, min(len(chunk), shown - start))):
                gray = self._comparable(raw[i : i + 1]).expand(1, 3, -1, -1)[0]
                for row, picture in zip(rows, (images[i], target.map[i], gray), strict=True):
                    row.append(to_picture(picture))
        figures = {"loss": float(torch.cat(losses).mean())}
        if metric is not None:
            figures |= {k: float(v) for k, v in metric.compute().items() if k in _SHOWN}
        return figures, grid(rows)

    def _metric(self) -> Any:
        return plugins.find("metrics", self.task.metric)() if self.task.metric in _SCORED else None

    def _score(self, metric: Any, raw_1CHW: Tensor, sample: Any) -> None:
        if metric is None:
            return
        from genpercept.types import Geometry

        size = (raw_1CHW.shape[-2], raw_1CHW.shape[-1])
        values = self.task.decode(raw_1CHW, Geometry(size, size, size)).values
        gt = sample.normals.permute(1, 2, 0) if self.task.metric == "normals" else sample.depth
        valid = sample.valid_or_all() & (torch.isfinite(sample.depth) if sample.depth is not None else True)
        if bool(valid.any()):
            metric.update(values, gt.numpy(), valid.numpy(), name=sample.name)

    def save(self, folder: Path) -> None:
        self.pipe.save_pretrained(folder)


_SCORED = ("depth", "disparity", "normals")
_SHOWN = ("abs_rel", "delta1", "rmse", "mean", "median", "a11_25", "a30")


def _start(recipe: Recipe, resolution: int) -> GenPerceptPipeline:
    """What training starts from: a text-to-image base, or a predictor for the same task that is to be trained further."""
    folder = hub.resolve(recipe.model.base)
    if not (folder / MANIFEST).is_file():
        return GenPerceptPipeline.from_base(
            recipe.model.base, recipe.task, paradigm=recipe.paradigm, resolution=resolution
        )
    pipe = GenPerceptPipeline.from_pretrained(recipe.model.base)
    if pipe.task != recipe.task:
        raise ValueError(
            f"model.base {recipe.model.base}: is a model for {pipe.task}, but the recipe trains {recipe.task}"
        )
    return pipe


def latent_valid(valid_B1HW: Tensor, size: tuple[int, int]) -> Tensor:
    """Pixels' validity at latent resolution: a cell is valid where all of its pixels are. (B, 1, h, w) bool."""
    return ~(F.adaptive_max_pool2d((~valid_B1HW).float(), size) > 0)
