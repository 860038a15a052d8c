"""Noisy label latents, decoded: what the forward processes leave of a label, as in the supplement's Fig. 2.

    python benchmarks/quality/forward_process.py
    python benchmarks/quality/forward_process.py --base stable-diffusion-2-1 --size 480 640 --out forward_process.png
    python benchmarks/quality/forward_process.py --dataset hypersim --root data/hypersim --split val --number 0

Rows are pairs (beta_start, beta_end), columns timesteps of 1,000: the codec's picture of sqrt(abar) z_y + sqrt(1 - abar) n,
where n is Gaussian noise in the left half and the image's latent (RGB noise) in the right one. The label is depth; without
--dataset image and label are rendered.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from genpercept import equations
from genpercept.checkpoints import hub, parts
from genpercept.core.rng import Rng
from genpercept.core.values import Sample
from genpercept.data import DATASETS
from genpercept.models.codecs import CODECS, Codec
from genpercept.tasks import TASKS

sys.path.insert(0, str(Path(__file__).parents[2]))  # where `benchmarks` lies
from benchmarks._page import made

BETAS = ((0.00085, 0.012), (0.0034, 0.048), (0.136, 0.192), (0.544, 0.768), (1.0, 1.0))  # FACTS: the paper's sweep
TIMES = (1, 10, 50, 200, 500, 1000)  # of 1,000, counted from 1 as in the paper
NOISES = ("Gaussian noise", "RGB noise")
_TILE, _GAP, _TOP, _LEFT = (128, 96), 6, 44, 108  # pixels: width and height of a picture


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="mini/base", help="a text-to-image model, of which the codec is taken")
    parser.add_argument("--dataset", default="synthetic")
    parser.add_argument("--root", type=Path)
    parser.add_argument("--split", default="test/indoor:7")
    parser.add_argument("--number", type=int, default=6, help="which entry of the split")
    parser.add_argument("--size", type=int, nargs=2, default=(96, 128), help="height and width that are encoded")
    parser.add_argument("--seed", type=int, default=0, help="of the Gaussian noise")
    parser.add_argument("--out", type=Path, default=Path("docs/images/forward_process.png"))
    args = parser.parse_args(argv)
    codec = CODECS.find("kl").wrap(parts.load_part(CODECS.find("kl"), hub.resolve(args.base) / "vae"))
    sample = read(args.dataset, args.root, args.split, args.number, tuple(args.size))
    image, label = sample.image[None] * 2 - 1, TASKS.find("depth").encode(sample).map
    rows = [decoded(codec, image, label, betas, args.seed) for betas in BETAS]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    draw(image, label, rows).save(args.out, optimize=True)
    print(f"{args.out}: {made(__file__, argv=argv)}")
    return 0


def read(name: str, root: Path | None, split: str, number: int, size: tuple[int, int]) -> Sample:
    """An entry of a data set, brought to this size."""
    plugin: Any = DATASETS.find(name)
    plugin = plugin.with_options(size=size) if root is None else plugin
    sample = plugin.load(plugin.index(root, split)[number])
    depth, valid = sample.label("depth"), sample.label("valid")
    resize = torch.nn.functional.interpolate
    image = resize(sample.image[None], size, mode="bilinear", antialias=True)[0]
    return Sample(
        sample.name,
        image,
        depth=resize(depth[None, None], size)[0, 0],
        valid=resize(valid[None, None].float(), size)[0, 0] > 0,
    )


@torch.no_grad()
def decoded(codec: Codec, image: Tensor, label: Tensor, betas: tuple[float, float], seed: int) -> list[list[Tensor]]:
    """Pictures (3, H, W) in [-1, 1] for each kind of noise and timestep."""
    z_x, z_y = codec.encode(image), codec.encode(label)
    abar_T = equations.alphas_cumprod(equations.scaled_linear_betas(*betas))
    noises = (Rng(seed, 0, [0]).normal(z_y.shape[1:]), z_x)
    return [
        [codec.decode(equations.diffuse(z_y, noise, abar_T[t - 1]))[0].clamp(-1, 1) for t in TIMES] for noise in noises
    ]


def draw(image: Tensor, label: Tensor, rows: Sequence[list[list[Tensor]]]) -> Image.Image:
    """Image and label on top, below a row of pictures for each pair of betas."""
    w, h = _TILE
    half = len(TIMES) * (w + 2)
    sheet = Image.new("RGB", (_LEFT + 2 * half + _GAP, _TOP + h + 2 * _GAP + _TOP + len(rows) * (h + 2)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for column, (picture, words) in enumerate(((image[0], "image x"), (label[0], "label y"))):
        left = _LEFT + column * (w + 2)
        pen.text((left, _TOP - 18), words, "black", font)
        sheet.paste(_picture(picture), (left, _TOP))
    top = _TOP + h + 2 * _GAP + _TOP
    for side, words in enumerate(NOISES):
        pen.text((_LEFT + side * (half + _GAP), top - 38), words, "black", font)
        for column, t in enumerate(TIMES):
            pen.text((_LEFT + side * (half + _GAP) + column * (w + 2), top - 18), f"t = {t}", "black", font)
    for number, (betas, sides) in enumerate(zip(BETAS, rows, strict=True)):
        y = top + number * (h + 2)
        pen.text((6, y + h // 2 - 16), f"{betas[0]:g},\n{betas[1]:g}", "black", font)
        for side, pictures in enumerate(sides):
            for column, picture in enumerate(pictures):
                sheet.paste(_picture(picture), (_LEFT + side * (half + _GAP) + column * (w + 2), y))
    return sheet


def _picture(map_CHW: Tensor) -> Image.Image:
    pixels = ((map_CHW.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    return Image.fromarray(np.ascontiguousarray(pixels)).resize(_TILE, Image.Resampling.BICUBIC)


if __name__ == "__main__":
    sys.exit(main())
