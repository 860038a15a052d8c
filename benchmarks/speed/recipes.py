"""What the paper's recipes and studies cost at full size: arithmetic counted, hours at an assumed rate.

    python benchmarks/speed/recipes.py --out benchmarks/speed/recipes.md

A training step of each recipe runs on the meta device, which has shapes and no memory: its convolutions, matrix products and
attention are counted, forwards, backwards and what checkpointing does again. Nothing is timed: hours are the arithmetic at
--rate TFLOP/s, which is an assumption about a GPU. Adapters of LoRA and ControlNet are counted as if all weights learnt.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from genpercept.commands.study import plan
from genpercept.training import recipe as recipes
from genpercept.training import recipe_names
from genpercept.training.networks.predictor import find_task
from genpercept.training.recipe import Recipe
from genpercept.training.stages.finetune import Net

sys.path.insert(0, str(Path(__file__).parents[2]))  # where `benchmarks` lies
from benchmarks._page import made
from tests.support.full_size import full_size

_BATCH = 2  # of the counted step; arithmetic grows with it
_GIB = 2**30
_BYTES = {
    True: 16,
    False: 4,
}  # of a parameter that learns (itself, gradient, Adam's two means) and of one that does not


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("only", nargs="*", help="only recipes and studies of these names")
    parser.add_argument("--rate", type=float, default=125.0, help="TFLOP/s that training is assumed to reach")
    parser.add_argument("--out", type=Path, help="the page")
    args = parser.parse_args(argv)
    rows = []
    for path in sorted((recipe_names.FOLDER / "paper").glob("*.toml")):
        recipe = recipes.load(path)
        if recipe.stage == "finetune" and (not args.only or path.stem in args.only):
            tflop, weights = cost(recipe)
            hours = tflop * images(recipe) / args.rate / 3600
            rows.append(f"| paper/{path.stem} | {tflop:.1f} | {images(recipe):,} | {hours:.0f} | {weights:.0f} |")
            print(rows[-1], flush=True)
    studies = []
    for path in sorted((recipe_names.FOLDER / "studies").glob("*.toml")):
        if not args.only or path.stem in args.only:
            arms = list(plan.arms(plan.load(path)).values())
            hours = sum(cost(arm)[0] * images(arm) for arm in arms) / args.rate / 3600
            studies.append(f"| studies/{path.stem} | {len(arms)} | {sum(map(images, arms)):,} | {hours:.0f} |")
            print(studies[-1], flush=True)
    text = _page(rows, studies, args.rate, made(__file__, argv=argv))
    if args.out:
        args.out.write_text(text, encoding="utf-8")
    return 0


def images(recipe: Recipe) -> int:
    return recipe.steps * recipe.loader.batch_size


def cost(recipe: Recipe) -> tuple[float, float]:
    """TFLOP of a training image, averaged over the sets by their weights, and GiB of weights, gradients and Adam's means."""
    weights = [data.weight for data in recipe.data]
    keys = [_key(recipe, recipe.sizes(which)[0]) for which in range(len(recipe.data))]
    found = [_counted(key) for key in keys]
    return sum(w * f[0] for w, f in zip(weights, found, strict=True)) / sum(weights), found[0][1]


def _key(recipe: Recipe, size: tuple[int, int]) -> str:
    """What a step's arithmetic depends on, as a recipe's JSON."""
    same = {
        "stage",
        "task",
        "task_options",
        "paradigm",
        "paradigm_options",
        "model",
        "learn",
        "loss",
        "speed",
        "prompt",
    }
    table: dict[str, Any] = recipe.model_dump(mode="json", include=same)
    table["augment"] = {"sizes": [size]}
    table["paradigm_options"] = {}
    if table["model"]["codec"]:
        table["model"]["codec"] = "of the same size"
    return Recipe.model_validate(table).model_dump_json()


@cache
def _counted(key: str) -> tuple[float, float]:
    recipe = Recipe.model_validate_json(key)
    parts = full_size(recipe)
    for part, how in ((parts.denoiser, recipe.learn.denoiser), (parts.vae, recipe.learn.decoder)):
        if part is not None:
            cast(Any, part).requires_grad_(how != "frozen")
    if recipe.speed.checkpointing:
        for part in filter(None, (parts.denoiser, parts.vae)):
            cast(Any, part).enable_gradient_checkpointing()
    losses = recipe.loss or find_task(recipe).losses[parts.head.space]
    net = Net(parts, maps=set(losses) != {"latent"}).train()
    h, w = recipe.sizes()[0]
    denoiser: Any = parts.denoiser
    stride, tokens = parts.codec.stride, 77 if recipe.prompt.padded else 2
    image = torch.empty(_BATCH, 3, h, w, device="meta")
    x = torch.empty(_BATCH, denoiser.in_channels, h // stride, w // stride, device="meta")
    context = torch.empty(_BATCH, tokens, denoiser.context_width or 0, device="meta")
    with FlopCounterMode(display=False) as counter:
        if parts.vae is not None:
            needs_label = "latent" in losses or recipe.paradigm not in ("one_step", "direct")
            with torch.no_grad():
                parts.codec.encode(torch.cat([image, image]) if needs_label else image)
        latent, maps = net(x, torch.ones(_BATCH, device="meta"), context)
        outputs = [out for out in (latent if "latent" in losses else None, maps) if out is not None]
        sum((out.sum() for out in outputs), torch.zeros((), device="meta")).backward()
    learnt = sum(p.numel() * _BYTES[p.requires_grad] for p in _all(net))
    return counter.get_total_flops() / _BATCH / 1e12, learnt / _GIB


def _all(net: Net) -> list[Tensor]:
    return list({id(p): p for p in net.parameters()}.values())


def _page(rows: Sequence[str], studies: Sequence[str], rate: float, by: str) -> str:
    return f"""# What the paper's recipes cost

By {by}. Counted at full size on the meta device; nothing was timed and no GPU was there.
GPU hours are the arithmetic at {rate:g} TFLOP/s, which is 40 % of what an A100's data sheet gives for bf16 and fp16: an
assumption, to be replaced by what `python benchmarks/memory/full_size_training.py` measures on your own card. Reading data,
validation and the evaluation come on top. GiB are weights, gradients and Adam's means in float32; activations come on top,
and `loader.micro_batch` follows from what is left.

| recipe | TFLOP per training image | training images | GPU hours | GiB without activations |
| --- | ---: | ---: | ---: | ---: |
{chr(10).join(rows)}

| study | arms | training images | GPU hours |
| --- | ---: | ---: | ---: |
{chr(10).join(studies)}

LoRA and ControlNet are counted as if all weights learnt. `own_vae`, the one recipe of a codec, is not among them.
"""


if __name__ == "__main__":
    sys.exit(main())
