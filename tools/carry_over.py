"""A one-step predictor's denoiser carried over to another codec: its two ends are fitted anew, all between them is kept.

    python tools/carry_over.py mini/depth --codec runs/codec/model --out runs/carried_depth

A codec of another stride and of other channels has another latent space, which the first and the last convolution of a
U-Net read and write. Where both spaces have a cell for the same part of a picture (a codec of 8 x at twice the size of one of
4 x), both convolutions have an answer in closed form, by least squares over scenes: the first has to give what the old one gives
for the smaller picture, the last has to make the label's new latents of the features that the old one reads. What comes out is
a start for fine-tuning, not a finished model.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genpercept.checkpoints.parts import load_part
from genpercept.core.places import cache_folder
from genpercept.core.resampling import resize
from genpercept.core.rng import Rng, generator
from genpercept.models.backbones import BACKBONES, as_backbone
from genpercept.models.codecs import CODECS, Codec
from genpercept.pipeline.pipeline import GenPerceptPipeline
from genpercept.tasks import TASKS, Task
from genpercept.training.recipe import Augment, DataSet
from genpercept.training.samples import shard_cache
from genpercept.training.samples.augment import augment
from genpercept.training.samples.records import cut_off, to_sample

BATCH = 16
RIDGE = 1e-4  # of the mean of the diagonal


class Fit:
    """A 3 x 3 convolution by least squares, from pairs of its input and its answer."""

    def __init__(self, channels: int, answers: int) -> None:
        self._gram = torch.zeros(9 * channels + 1, 9 * channels + 1, dtype=torch.float64)
        self._right = torch.zeros(9 * channels + 1, answers, dtype=torch.float64)

    def add(self, given: Tensor, wanted: Tensor) -> None:
        """(B, C, h, w) and (B, D, h, w)."""
        rows = F.unfold(given.double(), 3, padding=1).transpose(1, 2).flatten(0, 1)
        rows = torch.cat([rows, rows.new_ones(len(rows), 1)], 1)
        right = wanted.double().flatten(2).transpose(1, 2).flatten(0, 1)
        self._gram += rows.T @ rows
        self._right += rows.T @ right

    def solve(self) -> nn.Conv2d:
        size = self._gram.diagonal().mean() * RIDGE
        found = torch.linalg.solve(self._gram + size * torch.eye(len(self._gram), dtype=torch.float64), self._right)
        channels = (len(found) - 1) // 9
        conv = nn.Conv2d(channels, found.shape[1], 3, padding=1)
        with torch.no_grad():
            conv.weight.copy_(found[:-1].T.reshape(-1, channels, 3, 3))
            conv.bias.copy_(found[-1])  # type: ignore[union-attr]  # nn.Conv2d has one unless told otherwise
        return conv


@dataclass(frozen=True)
class Pairs:
    """Scenes of the training split as pairs of image and painted label, in batches.

    size: of the pictures, (height, width). far: metres at which depth is cut off.
    """

    task: Task
    size: tuple[int, int]
    far: float

    def __call__(self, first: int, last: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Images and labels of scenes first to last, (B, 3, H, W) in [-1, 1] both."""
        data = DataSet(domain="mixed", count=last, size=(192, 256), far=self.far)
        scenes = shard_cache.scenes(cache_folder(), data, 0)
        options = Augment(crop=(0.75, 1.0))
        for start in range(first, last, BATCH):
            samples = [
                to_sample(augment(cut_off(scenes[i], self.far), self.size, options, generator(0, 0, i, "augment")))
                for i in range(start, min(start + BATCH, last))
            ]
            labels = [self.task.encode(sample, "image").map for sample in samples]
            yield torch.stack([sample.image for sample in samples]) * 2 - 1, torch.cat(labels)


def one_step(pipe: GenPerceptPipeline, codec: Codec, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What the denoiser is given, at which time, and what it has to answer."""
    draws = Rng(0, 0, range(len(images)))
    return pipe.paradigm().training_pair(codec.encode(images), codec.encode(labels), draws)


@torch.inference_mode()
def carry_over(pipe: GenPerceptPipeline, codec: Codec, pairs: Pairs, count: int) -> nn.Module:
    """The denoiser with new ends, by the first `count` scenes."""
    old = pipe.unet
    config = dict(old.config) | {"in_channels": codec.channels, "out_channels": codec.channels}
    new = BACKBONES.find("sd21").build(config).eval()
    kept = {name: w for name, w in old.state_dict().items() if not name.startswith(("conv_in.", "conv_out."))}
    new.load_state_dict(kept, strict=False)
    stride = codec.stride // pipe._codec.stride

    fit = Fit(codec.channels, old.conv_in.out_channels)
    for images, _ in pairs(0, count):
        small = resize(images, (images.shape[2] // stride, images.shape[3] // stride))
        fit.add(codec.encode(images), old.conv_in(pipe._codec.encode(small)))
    new.conv_in = fit.solve()

    seen: list[Tensor] = []
    hook = new.conv_out.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    fit = Fit(old.conv_out.in_channels, codec.channels)
    for images, labels in pairs(0, count):
        x, t, wanted = one_step(pipe, codec, images, labels)
        as_backbone(new).forward_features(x, t, pipe.prompt_embeds.expand(len(x), -1, -1))
        fit.add(seen.pop(), wanted)
    hook.remove()
    new.conv_out = fit.solve()
    return new


@torch.inference_mode()
def left(pipe: GenPerceptPipeline, codec: Codec, unet: nn.Module, pairs: Pairs, first: int) -> float:
    """Share of the labels' variance, in latents, that the new denoiser leaves on 64 scenes that it was not fitted to."""
    missed = total = 0.0
    for images, labels in pairs(first, first + 64):
        x, t, wanted = one_step(pipe, codec, images, labels)
        got = as_backbone(unet).forward_features(x, t, pipe.prompt_embeds.expand(len(x), -1, -1)).require_latent()
        missed += float((got - wanted).square().sum())
        total += float((wanted - wanted.mean((0, 2, 3), keepdim=True)).square().sum())
    return missed / total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--codec", type=Path, required=True, help="folder of the new AutoencoderKL")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scenes", type=int, default=768)
    parser.add_argument("--far", type=float, default=25.0)
    args = parser.parse_args()
    pipe = GenPerceptPipeline.from_pretrained(args.model)
    vae = load_part(CODECS.find("kl"), args.codec)
    codec = CODECS.find("kl").wrap(vae)
    stride = codec.stride // pipe._codec.stride
    task = TASKS.find(str(pipe.info["task"])).with_options(**pipe.info["task_options"])
    pairs = Pairs(task, (72 * stride, 96 * stride), args.far)
    unet = carry_over(pipe, codec, pairs, args.scenes)
    print(f"share of the labels' variance that is left: {left(pipe, codec, unet, pairs, args.scenes):.3f}")
    GenPerceptPipeline.from_parts(
        unet=unet,
        vae=vae,
        prompt_embeds=pipe.prompt_embeds,
        task=str(pipe.info["task"]),
        task_options=pipe.info["task_options"],
        paradigm=str(pipe.info["paradigm"]),
        paradigm_options=pipe.info["paradigm_options"],
        resolution=int(str(pipe.info["resolution"])) * stride,
        base=args.model,
    ).save_pretrained(args.out)


if __name__ == "__main__":
    main()
