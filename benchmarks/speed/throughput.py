"""The training engine against a bare PyTorch loop that does the same arithmetic, taking turns in one process.

python benchmarks/speed/throughput.py --out benchmarks/speed/throughput.md

The bare loop has its batches in memory, and neither reads, augments, keys noise, reports, guards nor keeps state: forward,
loss, backward, clipping, optimiser and moving average by diffusers and torch alone. `make a batch` is timed by itself;
`waiting` is what the engine's step stood still for data, with one thread beside it that makes batches.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers.models.attention_processor import AttnProcessor
from torch.nn.functional import mse_loss

sys.path.insert(0, str(Path(__file__).parents[2]))  # where `benchmarks` lies
from benchmarks._page import made
from genpercept.training import recipe as recipes
from genpercept.training.loop import Training
from genpercept.training.samples.prefetch import Prefetch
from genpercept.training.stages.base import Making

COMMON: dict[str, Any] = {
    "stage": "finetune",
    "task": "depth",
    "model": {"base": "mini/base"},
    "data": [{"domain": "mixed", "count": 512, "size": [96, 128], "far": 25}],
    "augment": {"sizes": [[48, 64]], "crop": [0.75, 1.0], "colour": 0.2},
    "logging": {"tensorboard": False},
    "speed": {"threads": 1},
    "steps": 100_000,
    "precision": "bf16",
}
CASES: dict[str, dict[str, Any]] = {
    "cached latents, batch 16": {"loss": {"latent": 1.0}, "loader": {"batch_size": 16, "latent_variants": 1}},
    "cached latents, batch 32": {"loss": {"latent": 1.0}, "loader": {"batch_size": 32, "latent_variants": 1}},
    "images, encoded and decoded in the step, batch 16": {"loss": {"mse": 1.0}, "loader": {"batch_size": 16}},
}


def bare_step(training: Training, batches: list[Any]) -> Callable[[], None]:
    """A step over batches in memory, of a copy of the engine's network."""
    parts = training.stage.parts
    unet, vae = copy.deepcopy(parts.denoiser), parts.vae
    unet.set_attn_processor(AttnProcessor())
    recipe, context = training.recipe, parts.prompts.fixed
    params = [p for p in unet.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(params, lr=1e-6, fused=True)
    average = [p.detach().clone() for p in params]
    scale, number = vae.config["scaling_factor"], iter(range(10**9))
    pixels = "mse" in recipe.loss

    def step() -> None:
        batch = batches[next(number) % len(batches)]
        with torch.autocast("cpu", torch.bfloat16):
            if pixels:
                with torch.no_grad():
                    z_x = vae.encode(batch.images).latent_dist.mode() * scale
            else:
                z_x, z_y = batch.latents.chunk(2)
            estimate = -unet(z_x, 1, context.expand(len(z_x), -1, -1)).sample
            if pixels:
                answer = vae.decode(estimate / scale).sample.float().mean(1, keepdim=True)
                loss = mse_loss(answer, batch.target.map.mean(1, keepdim=True))
            else:
                loss = mse_loss(estimate.float(), z_y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        with torch.no_grad():
            torch._foreach_lerp_(average, [p.detach() for p in params], 0.001)

    return step


def compare(case: dict[str, Any], folder: Path, rounds: int, steps: int) -> dict[str, float]:
    """Seconds per step of both, medians over the rounds; the engine's share of waiting; seconds to make a batch."""
    training = Training(recipes.parse(COMMON | case), folder, resume=False)
    make = Making(training.stage, training.split)
    kept = [make(n) for n in range(4)]
    bare = bare_step(training, kept)
    stream = Prefetch(make, 0, 1, 4)
    batches = iter(stream)

    def engine() -> None:
        training.step([next(batches)])

    found: dict[str, list[float]] = {"engine": [], "bare": []}
    for number in range(rounds + 1):  # the first is warm-up
        for name, step in (("engine", engine), ("bare", bare)):
            begin = time.perf_counter()
            for _ in range(steps):
                step()
            if number:
                found[name].append((time.perf_counter() - begin) / steps)
        if not number:
            stream.waited = 0.0
    stream.close()
    begin = time.perf_counter()
    for n in range(16):
        make(1000 + n)
    alone = (time.perf_counter() - begin) / 16
    ratios = [b / e for e, b in zip(found["engine"], found["bare"], strict=True)]
    engine_s = statistics.median(found["engine"])
    return {
        "engine": engine_s,
        "bare": statistics.median(found["bare"]),
        "ratio": statistics.median(ratios),
        "waiting": stream.waited / (sum(found["engine"]) * steps),
        "batch": alone / engine_s,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=6)
    options = parser.parse_args()
    lines = [
        "# The training engine against a bare loop",
        "",
        f"{made(__file__)}, one thread. Both take turns in one process; medians of "
        f"{options.rounds} rounds of {options.steps} steps. The embedded base (4.3 M parameters), 48 x 64, bf16.",
        "",
        "| | engine, images/s | bare loop, images/s | engine / bare | waiting for data | making a batch, of a step |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, case) in enumerate(CASES.items()):
            found = compare(case, Path(folder) / str(number), options.rounds, options.steps)
            size = case["loader"]["batch_size"]
            lines.append(
                f"| {name} | {size / found['engine']:.1f} | {size / found['bare']:.1f} | {found['ratio']:.3f}"
                f" | {found['waiting']:.1%} | {found['batch']:.1%} |"
            )
            print(lines[-1], flush=True)
    lines += ["", (__doc__ or "").split("\n\n", 2)[2].strip()]
    if options.out:
        options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
