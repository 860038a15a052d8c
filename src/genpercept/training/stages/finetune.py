"""The fine-tuning stage: a pretrained denoiser, or a part of it, learns to answer an image with its label, by any paradigm."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genpercept.core.labels import LABELS
from genpercept.core.modules import pretrained
from genpercept.core.rng import Rng, generator
from genpercept.core.values import Features, Geometry, Sample, Target
from genpercept.imaging.kinds import KINDS
from genpercept.metrics import METRICS, Metric
from genpercept.models.backbones import as_backbone
from genpercept.models.codecs import is_guided
from genpercept.pipeline.pipeline import GenPerceptPipeline
from genpercept.tasks import PreparedTask
from genpercept.training import losses
from genpercept.training.losses import LOSSES
from genpercept.training.networks import predictor
from genpercept.training.networks.codec import FrozenEncoder, own_device, use_attention
from genpercept.training.recipe import Recipe
from genpercept.training.run.log import grid, to_picture
from genpercept.training.samples import latents
from genpercept.training.samples.records import Record, image_tensor, to_sample
from genpercept.training.stages.base import Batch, Draw, Pair


class Net(nn.Module):
    """Network input, timestep, prompt -> denoiser's output (None with a pyramid head) and the head's maps (n, C, H, W).

    The maps are those of the samples numbered in `rows` (n,), or of all; there are none where `maps` is False. image
    (B, 3, H, W) in [-1, 1]: for a decoder that is guided by it.
    """

    def __init__(self, parts: predictor.Parts, maps: bool) -> None:
        super().__init__()
        self.unet = parts.denoiser
        if parts.vae is not None:
            self.vae = parts.vae
        if parts.head_module is not None:
            self.head = parts.head_module
        self._parts, self._maps = parts, maps
        self._latent = parts.head.consumes == "latent"

    def forward(
        self, x: Tensor, t: Tensor, context: Tensor, rows: Tensor | None = None, image: Tensor | None = None
    ) -> tuple[Tensor | None, Tensor | None]:
        features = as_backbone(self.unet).forward_features(x, t, context, latent=self._latent)
        if not self._maps:
            return features.latent, None

        def seen(level: Tensor) -> Tensor:
            return level if rows is None else level[rows]

        parts = self._parts
        estimate = parts.paradigm.estimate(seen(features.require_latent()), seen(x), seen(t)) if self._latent else None
        pyramid = tuple(seen(level) for level in features.pyramid)
        guide = None if image is None else seen(image)
        return features.latent, parts.head(Features(estimate, pyramid, features.size, guide), parts.codec)

    def predict(self, z_x: Tensor, context: Tensor, steps: int, rng: Rng, image: Tensor | None) -> Tensor:
        """Image latents (B, 4, h, w) and images, where a decoder wants them -> the head's maps, as the pipeline infers them."""

        def denoise(x: Tensor, t: Tensor) -> Features:
            return as_backbone(self.unet).forward_features(x, t, context.expand(len(x), -1, -1), latent=self._latent)

        paradigm = self._parts.paradigm
        features = paradigm.predict(denoise, z_x, steps or paradigm.default_steps, rng)
        return self._parts.head(replace(features, image=image), self._parts.codec).float()


class FinetuneStage:
    def __init__(self, recipe: Recipe, report: Callable[[str], None]) -> None:
        self.recipe = recipe
        self.task = predictor.find_task(recipe)
        predictor.check_task(self.task)
        self.parts = predictor.build(recipe)
        self._weights = _weights(recipe, self.parts)
        self._losses = {name: LOSSES.find(name) for name in self._weights}
        for name, loss in self._losses.items():
            losses.check_options(name, loss, recipe.loss_options.get(name, {}))
        self._pixel = any(name != "latent" for name in self._weights)
        needed = {name for loss in self._losses.values() for name in losses.needs(loss)}
        self._given = [name for name in losses.CONTEXT if name in needed and name in LABELS]
        if recipe.learn.decoder != "frozen" and not self._pixel:
            raise ValueError(
                "learn.decoder: only a loss behind the decoder can train it; add one, such as loss.mse = 1"
            )
        prepare = self.task.prepare if isinstance(self.task, PreparedTask) else None
        self.draw = Draw(recipe, report, prepare, self.task.labels)
        self.samples = self.draw.samples
        for part in filter(None, (self.parts.denoiser, self.parts.vae)):
            use_attention(part, recipe)
            if recipe.speed.checkpointing:
                pretrained(part).enable_gradient_checkpointing()
        self._pairs = self._open_pairs(report) if recipe.loader.latent_variants else None
        self.net = Net(self.parts, self._pixel)
        self._encoder = FrozenEncoder(self.parts.codec, self.parts.vae, self.parts.codec_name, recipe)

    def check_cacheable(self) -> None:
        """ValueError for losses that need more of a sample than its latents."""
        if self._pixel:
            raise ValueError(
                "loader.latent_variants: cached latents serve the latent loss alone, but loss has"
                f" {', '.join(n for n in self._weights if n != 'latent')}; leave those out, or set it to 0"
            )

    def _open_pairs(self, report: Callable[[str], None]) -> list[latents.Pairs]:
        self.check_cacheable()
        cast(nn.Module, self.parts.vae).to(own_device())  # a latent loss has one
        return latents.open_pairs(
            self.recipe, self.draw.sources, self.parts.codec, self.draw.prepared, self._encode_pair, report
        )

    def groups(self) -> list[dict[str, Any]]:
        return self.parts.groups(self.recipe)

    def make_batch(self, step: int, slots: Sequence[int]) -> Batch:
        """Augmented images and labels, or cached latents of both."""
        if self._pairs is not None:
            return self._cached_batch(self._pairs, step, slots)
        records = self.draw.records(step, slots)
        return self._batch([to_sample(record) for record in records], Rng(self.recipe.seed, step, slots))

    def _batch(self, samples: Sequence[Sample], rng: Rng) -> Batch:
        """Images in [-1, 1], labels as the head is to give them, and those that a loss reads as they are."""
        images = torch.stack([sample.image for sample in samples]) * 2 - 1
        target = Target.cat([self.task.encode(sample, self.parts.head.space) for sample in samples])
        labels = {name: torch.stack([sample.label(name) for sample in samples]) for name in self._given}
        return Batch(rng, images=images, target=target, labels=labels)

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
        size = (target.map.shape[-2] // self.parts.codec.stride, target.map.shape[-1] // self.parts.codec.stride)
        return image_tensor(record["image"]) * 2 - 1, target.map[0], latent_valid(target.valid, size)[0]

    def encode(self, batch: Batch) -> Batch:
        """Image and label through the frozen encoder, together; the label only where a latent loss compares it."""
        if batch.latents is not None:
            return batch
        images, target = cast(Tensor, batch.images), cast(Target, batch.target)
        both = torch.cat([images, target.map]) if self._needs_label_latent() else images
        batch.latents = self._encoder(both)
        return batch

    def _needs_label_latent(self) -> bool:
        return "latent" in self._weights or self.recipe.paradigm not in _ONE_PASS

    def training_pair(self, batch: Batch) -> Pair:
        latents, label = cast(Tensor, batch.latents), cast(Target, batch.target)
        z_x = latents[: len(label.map)]
        z_y = latents[len(label.map) :] if self._needs_label_latent() else torch.zeros_like(z_x)
        x, t, target = self.parts.paradigm.training_pair(z_x, z_y, batch.rng)
        context = self.parts.prompts.draw(batch.rng).to(x.device)
        valid = latent_valid(label.valid, (target.shape[-2], target.shape[-1]))
        some = self.net.training and self._pixel and self.recipe.pixel_share < 1
        seen = self._seen(batch.rng.samples) if some else None
        rows = None if seen is None else torch.tensor(_rows(seen), device=x.device)
        guide = batch.images if self._pixel and is_guided(self.parts.codec) else None
        inputs = (x, t, context, rows, guide)
        return Pair(inputs, target, valid, label, seen=seen, extra={"rng": batch.rng} | batch.labels)

    def _seen(self, slots: Sequence[int]) -> list[float]:
        """What each slot counts for in the losses behind the decoder: nothing, or more than 1 where it is one of `pixel_share`.

        Those that count are spread evenly over the whole batch, and are the same however it is divided.
        """
        size = self.recipe.loader.batch_size
        n = math.ceil(size * self.recipe.pixel_share)
        return [size / n if (slot + 1) * n // size > slot * n // size else 0.0 for slot in slots]

    def loss(self, output: Any, pair: Pair) -> tuple[Tensor, dict[str, Tensor]]:
        """Weighted sum of the recipe's losses, per sample; on maps in float32 whatever the network ran in."""
        latent, maps = output
        size = len(pair.target)
        parts = {
            name: self._latent_loss(loss, latent, pair) if name == "latent" else self._map_loss(name, loss, maps, pair)
            for name, loss in self._losses.items()
        }
        zero = torch.zeros(size, device=pair.target.device)
        return sum((self._weights[name] * part for name, part in parts.items()), zero), parts

    def _latent_loss(self, loss: losses.Loss, latent: Tensor, pair: Pair) -> Tensor:
        options = self.recipe.loss_options.get("latent", {})
        return loss(latent.float(), pair.target.float(), cast(Tensor, pair.valid), **options)

    def _map_loss(self, name: str, loss: losses.Loss, maps: Tensor, pair: Pair) -> Tensor:
        """(B,), zero for samples whose maps were not made, with the others scaled up to keep the loss's weight."""
        label, rows = cast(Target, pair.label), None if pair.seen is None else _rows(pair.seen)
        context = {key: _of(pair.extra[key], rows) for key in losses.needs(loss) if key in pair.extra}
        options = self.recipe.loss_options.get(name, {}) | context
        target, valid = _of(label.map, rows), _of(label.valid, rows)
        part = loss(self._comparable(maps.float()), self._comparable(target), valid, **options)
        if pair.seen is None:
            return part
        weight = torch.tensor(pair.seen, device=part.device)
        return torch.zeros_like(weight).index_copy(0, torch.tensor(rows, device=part.device), part) * weight

    def _comparable(self, map_BCHW: Tensor) -> Tensor:
        return map_BCHW.mean(1, keepdim=True) if KINDS.find(self.task.kind).gray else map_BCHW

    @torch.no_grad()
    def validate(self, at_once: int) -> tuple[dict[str, float], np.ndarray | None]:
        """The loss on validation samples, the figures that the task's metric watches, and image, label, prediction in rows."""
        samples = [to_sample(record) for record in self.draw.validation()]
        device = next(self.net.parameters()).device
        found: list[Tensor] = []
        rows: list[list[np.ndarray]] = [[], [], []]
        metric = self._metric()
        for start in range(0, len(samples), at_once):
            chunk = samples[start : start + at_once]
            batch = self._batch(chunk, Rng(0, 0, range(start, start + len(chunk)))).to(device, False)
            pair = self.training_pair(self.encode(batch))
            found.append(self.loss(self.net(*pair.inputs), pair)[0].cpu())
            z_x = cast(Tensor, batch.latents)[: len(chunk)]
            fixed = self.parts.prompts.fixed.to(device)
            raw = self.net.predict(z_x, fixed, self.recipe.validation.steps, batch.rng, batch.images).cpu()
            for i, sample in enumerate(chunk):
                self._score(metric, raw[i : i + 1], sample)
                if start + i < self.recipe.validation.pictures:
                    self._picture(rows, sample, raw[i : i + 1])
        figures = {"loss": float(torch.cat(found).mean())}
        watched = METRICS.find(self.task.metric).watches
        figures |= {key: float(value) for key, value in metric.compute().items() if watched(key)}
        return figures, grid(rows)

    def _picture(self, rows: list[list[np.ndarray]], sample: Sample, raw_1CHW: Tensor) -> None:
        """Append the image, its label and the prediction, each (3, H, W) in [-1, 1]."""
        label = self.task.encode(sample, self.parts.head.space)
        shown = (sample.image * 2 - 1, *(self._shown(x, sample) for x in (label.map, raw_1CHW)))
        for row, picture in zip(rows, shown, strict=True):
            row.append(to_picture(picture))

    def _shown(self, map_1CHW: Tensor, sample: Sample) -> Tensor:
        """A label or raw map as a picture (3, H, W) in [-1, 1]: as it is painted, or in the task's colours."""
        if self.parts.head.space in ("image", "affine"):
            return self._comparable(map_1CHW).expand(1, 3, -1, -1)[0]
        if self.parts.head.space == "classes" and map_1CHW.shape[1] == 1:  # a label: ids, not logits
            ids = map_1CHW[:, 0].long()
            map_1CHW = F.one_hot(ids, self.task.outputs("classes")).permute(0, 3, 1, 2).float()
        size = (sample.image.shape[-2], sample.image.shape[-1])
        image = (sample.image * 255).byte().permute(1, 2, 0).numpy()
        picture = np.array(self.task.decode(map_1CHW, Geometry(size, size, size)).colourise(image))
        return torch.from_numpy(picture).permute(2, 0, 1).float() / 127.5 - 1

    def _metric(self) -> Metric:
        return METRICS.find(self.task.metric)(**self.task.metric_options())

    def _score(self, metric: Metric, raw_1CHW: Tensor, sample: Sample) -> None:
        size = (sample.image.shape[-2], sample.image.shape[-1])
        prediction = self.task.decode(raw_1CHW, Geometry(size, size, size))
        truth = self.task.truth(sample)
        if "valid" not in truth or truth["valid"].any():
            metric.update(prediction.values, **truth, name=sample.name)

    def pipeline(self) -> GenPerceptPipeline:
        return self.parts.pipeline(self.recipe)

    def save(self, folder: Path) -> None:
        self.parts.save(self.recipe, folder)


_ONE_PASS = ("one_step", "direct")  # paradigms whose network input does not hold the label


def _weights(recipe: Recipe, parts: predictor.Parts) -> dict[str, float]:
    """The losses of a recipe, or the task's own. ValueError where there is no latent for a latent loss to compare."""
    weights = dict(recipe.loss or predictor.own_losses(predictor.find_task(recipe), parts.head.space))
    if "latent" in weights and parts.head.consumes != "latent":
        raise ValueError(
            f"loss.latent: head {parts.head_name!r} reads the denoiser's features, so there is no latent to compare; "
            "use a loss on maps, such as loss.mse = 1"
        )
    return weights


def _rows(seen: Sequence[float]) -> list[int]:
    """Numbers of the samples that count. The first where none does: what learns behind the decoder must run in every pass."""
    return [i for i, weight in enumerate(seen) if weight] or [0]


def _of(value: Any, rows: list[int] | None) -> Any:
    """The part of a label, or of a loss's context, that belongs to these samples; None: all of it."""
    if rows is None:
        return value
    if isinstance(value, Rng):
        return replace(value, samples=[value.samples[i] for i in rows])
    return value[rows]


def latent_valid(valid_B1HW: Tensor, size: tuple[int, int]) -> Tensor:
    """Pixels' validity at latent resolution: a cell is valid where all of its pixels are. (B, 1, h, w) bool."""
    return ~(F.adaptive_max_pool2d((~valid_B1HW).float(), size) > 0)
