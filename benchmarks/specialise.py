"""A plain pipeline against its specialised forms: memory format, folding and compiling apart and together.

    python benchmarks/specialise.py                    # benchmarks/specialise.md: Stable Diffusion 2.1's shapes and mini/depth
    python benchmarks/specialise.py --models tiny      # a check of this script: the shapes at a tenth of the width

Random weights for Stable Diffusion 2.1: time does not depend on them. One process; variants one after another, because
compiled ones hold weights of their own; the plain pipeline in float32 first and last, which shows how steady the machine is.
The clock runs around encoder, denoiser and decoder of one image, without reading or writing it. Errors are against the plain
pipeline in float32, on raw maps, as a share of their largest value.
"""

from __future__ import annotations

import argparse
import gc
import os
import resource
import statistics
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from _network import where
from torch import Tensor

import genpercept
from genpercept import GenPerceptPipeline, plugins
from genpercept._runs import Run
from genpercept.backbones.sd21 import SD21_CONFIG
from genpercept.codecs.kl import SD_VAE_CONFIG

TINY_UNET = {"block_out_channels": [32, 64, 128, 128], "attention_head_dim": [1, 2, 4, 4], "cross_attention_dim": 64}
TINY_VAE = {"block_out_channels": [32, 32, 64, 64]}
# model: pixels (height, width) that the network sees
SIZES = {"sd21": (384, 384), "mini/depth": (96, 128), "tiny": (64, 64)}
VARIANTS: dict[str, dict[str, Any] | None] = {
    "plain": None,
    "channels-last": {"fold": False, "layout": "channels_last"},
    "folded": {"layout": "contiguous"},
    "folded, channels-last": {"layout": "channels_last"},
    "compiled": {"fold": False, "layout": "contiguous", "compile": "static"},
    "folded, compiled": {"layout": "contiguous", "compile": "static"},
    "folded, compiled, dynamic sizes": {"layout": "contiguous", "compile": "dynamic"},
    "folded, channels-last, compiled": {"layout": "channels_last", "compile": "static"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["sd21", "mini/depth"], choices=list(SIZES))
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = [row for model in args.models for row in measure(model, args)]
    args.out.write_text(page(rows, args), encoding="utf-8")
    print(args.out.read_text(encoding="utf-8"))


def measure(model: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each dtype and variant, and the plain pipeline again at the end."""
    exact = pipeline(model)
    image = torch.rand(1, 3, *SIZES[model], generator=torch.Generator().manual_seed(0))
    want = answer(exact, image)
    rows: list[dict[str, Any]] = []
    todo = [(dtype, variant) for dtype in args.dtypes for variant in args.variants]
    for dtype, variant in [*todo, ("float32", "plain, again")]:
        settings = VARIANTS.get(variant)
        pipe = exact
        if settings is not None:
            pipe = genpercept.specialise(exact, dtype=dtype, **settings)
        elif dtype != "float32":
            pipe = plain_in(exact, getattr(torch, dtype))
        seconds, first = timed(pipe, image, args)
        error = float((answer(pipe, image) - want).abs().max() / want.abs().max())
        rows.append(
            {"model": model, "dtype": dtype, "variant": variant, "seconds": seconds, "first": first, "error": error}
        )
        print(rows[-1], flush=True)
        del pipe
        torch._dynamo.reset()
        gc.collect()
    return rows


def pipeline(model: str) -> GenPerceptPipeline:
    if model == "mini/depth":
        return genpercept.load(model, device="cpu")
    small = model == "tiny"
    torch.manual_seed(0)
    unet = plugins.find("backbones", "sd21").build(SD21_CONFIG | (TINY_UNET if small else {}))
    vae = plugins.find("codecs", "kl").build(SD_VAE_CONFIG | (TINY_VAE if small else {}))
    width = TINY_UNET["cross_attention_dim"] if small else SD21_CONFIG["cross_attention_dim"]
    prompt = torch.randn(1, 2, int(width), generator=torch.Generator().manual_seed(1))
    return GenPerceptPipeline.from_parts(unet=unet, vae=vae, prompt_embeds=prompt, task="depth")


def plain_in(pipe: GenPerceptPipeline, dtype: torch.dtype) -> GenPerceptPipeline:
    """A copy of the plain pipeline in another dtype."""
    from genpercept._specialise.fold import twin

    parts = [None if part is None else twin(part, dtype) for part in (pipe.unet, pipe.vae, pipe.head)]
    assert parts[0] is not None
    return GenPerceptPipeline(parts[0], parts[1], pipe.prompt_embeds, pipe.info, parts[2])


@torch.inference_mode()
def answer(pipe: GenPerceptPipeline, image: Tensor) -> Tensor:
    return pipe._forward(image, Run(pipe.paradigm(), 1), None)


def timed(pipe: GenPerceptPipeline, image: Tensor, args: argparse.Namespace) -> tuple[float, float]:
    """Median seconds of an image, and of the first one (compiling included)."""
    start = time.perf_counter()
    answer(pipe, image)
    first = time.perf_counter() - start
    times = []
    for i in range(args.warmup + args.rounds):
        start = time.perf_counter()
        answer(pipe, image)
        if i >= args.warmup:
            times.append(time.perf_counter() - start)
    return statistics.median(times), first


def page(rows: list[dict[str, Any]], args: argparse.Namespace) -> str:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    head = (
        f"# Specialised pipelines\n\n{datetime.now(UTC):%Y-%m-%d}, {where(args.threads)}, torch "
        f"{torch.__version__}. `python benchmarks/specialise.py`: one image at a time; medians of {args.rounds} after "
        f"{args.warmup} for warming up; peak memory of the whole run {peak:.1f} GiB.\n"
    )
    parts = [head]
    for model in args.models:
        mine = [row for row in rows if row["model"] == model]
        base = next((r["seconds"] for r in mine if r["dtype"] == "float32"), mine[0]["seconds"])
        parts.append(f"\n## {model}, {SIZES[model][0]} x {SIZES[model][1]}\n")
        parts.append("| dtype | variant | ms | times as fast | largest error | first call, s |")
        parts.append("| --- | --- | ---: | ---: | ---: | ---: |")
        parts += [
            f"| {r['dtype']} | {r['variant']} | {r['seconds'] * 1e3:.1f} | {base / r['seconds']:.2f} | {r['error']:.1e} | "
            f"{r['first']:.1f} |"
            for r in mine
        ]
    return "\n".join(parts) + "\n\n" + " ".join((__doc__ or "").split("\n\n")[-1].split("\n")) + "\n"


if __name__ == "__main__":
    main()
