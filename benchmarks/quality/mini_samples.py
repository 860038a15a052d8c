"""A sheet of scenes that mini/base draws from captions: docs/images/mini_samples.png.

python benchmarks/quality/mini_samples.py [--base FOLDER] [--out docs/images/mini_samples.png]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from PIL import Image

from genpercept.checkpoints.hub import embedded_root

CAPTIONS = (
    "a room with a sofa, a table and a lamp, warm light",
    "a bedroom with a bed, a window and a curtain, soft light",
    "a kitchen with a counter, two cupboards and a clock",
    "a corridor with two doors and a lamp",
    "a street with two houses, a car and a road, sunny",
    "a park with a hill, a tree, a bush and a person, fog",
    "a field with three trees and a fence, cloudy",
    "a person in a room with a window",
)
PER_CAPTION = 3
HEIGHT, WIDTH = 48, 64  # what it was trained at
SHOWN = 2  # enlarged for the sheet
STEPS = 50
GUIDANCE = 3.0


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--base", type=Path, default=embedded_root() / "base")
    parser.add_argument("--out", type=Path, default=Path("docs/images/mini_samples.png"))
    args = parser.parse_args()
    pipe = StableDiffusionPipeline.from_pretrained(args.base, torch_dtype=torch.float32)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    tile = (WIDTH * SHOWN, HEIGHT * SHOWN)
    sheet = Image.new("RGB", (tile[0] * len(CAPTIONS), tile[1] * PER_CAPTION))
    for column, caption in enumerate(CAPTIONS):
        images = pipe(
            caption,
            height=HEIGHT,
            width=WIDTH,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            num_images_per_prompt=PER_CAPTION,
            generator=torch.Generator().manual_seed(column),
        ).images
        for row, image in enumerate(images):
            sheet.paste(image.resize(tile, Image.Resampling.BICUBIC), (column * tile[0], row * tile[1]))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(args.out, optimize=True)
    print(f"{args.out}: {PER_CAPTION} of each of: " + "; ".join(CAPTIONS))


if __name__ == "__main__":
    main()
