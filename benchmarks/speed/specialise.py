"""A plain pipeline against its specialised forms: memory format, folding and compiling apart and together.

    python benchmarks/speed/specialise.py                # specialise.md beside it: Stable Diffusion 2.1's shapes and mini/depth
    python benchmarks/speed/specialise.py --models tiny  # a check of this script: the shapes at a tenth of the width

Random weights for Stable Diffusion 2.1: time does not depend on them. One process; variants one after another, because each
holds weights of its own, and each in turns with the plain pipeline in float32 and in its own dtype, because machines wander:
how many times as fast is the median of the rounds' ratios, the spread (most - least) / median of the variant's own times.
The clock runs around encoder, denoiser and decoder of one image, without reading or writing it. Errors are against the plain
pipeline in float32, on raw maps, as a share of their largest value.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import os
import resource
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2]))  # where `benchmarks` lies
import genpercept
from benchmarks._page import made
from benchmarks._ruler import ceilings, ceilings_line, ruler, ruler_lines
from genpercept import GenPerceptPipeline
from genpercept.models.backbones import BACKBONES
from genpercept.models.backbones.sd21 import SD21_CONFIG
from genpercept.models.codecs import CODECS
from genpercept.models.codecs.kl import SD_VAE_CONFIG
from genpercept.pipeline.call import Run

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
    """Time every variant of every model, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["sd21", "mini/depth"], choices=list(SIZES))
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--rounds", type=int, default=30, help="of a variant, at most")
    parser.add_argument(
        "--seconds", type=float, default=30.0, help="after which a variant that had three rounds has no more"
    )
    parser.add_argument("--ruler", action=argparse.BooleanOptionalAction, default=True, help="Depth Anything V2-L")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows: list[dict[str, Any]] = []
    names = {"float32": "fp32", "bfloat16": "bf16"}
    limits = ceilings([names[dtype] for dtype in args.dtypes])
    measured = ruler([*limits]) if args.ruler else []
    lines = ["", ceilings_line(limits), "", *ruler_lines(measured, limits)]
    for model in args.models:
        for row in measure(model, args):
            rows.append(row)
            print(row, flush=True)
            args.out.write_text(page(rows, args, lines), encoding="utf-8")  # after each: all of them take half an hour
    print(args.out.read_text(encoding="utf-8"))


def measure(model: str, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A row for each dtype and variant; of the plain pipeline itself, which is in every row, there is none."""
    exact = pipeline(model)
    image = torch.rand(1, 3, *SIZES[model], generator=torch.Generator().manual_seed(0))
    want = answer(exact, image)
    equals = {dtype: exact if dtype == "float32" else plain_in(exact, getattr(torch, dtype)) for dtype in args.dtypes}
    for dtype, variant in itertools.product(args.dtypes, args.variants):
        settings = VARIANTS[variant]
        if settings is not None:
            pipe = genpercept.specialise(exact, dtype=dtype, **settings)
        elif dtype != "float32":
            pipe = equals[dtype]
        else:
            continue
        first, _ = clock(pipe, image)
        error = float((answer(pipe, image) - want).abs().max() / want.abs().max())
        row = {"model": model, "dtype": dtype, "variant": variant, "first": first, "error": error}
        yield row | timed(exact, equals[dtype], pipe, image, args)
        del pipe
        torch._dynamo.reset()
        gc.collect()


def pipeline(model: str) -> GenPerceptPipeline:
    """The plain one in float32: embedded, or with random weights in Stable Diffusion 2.1's shape or a tenth of its width."""
    if model == "mini/depth":
        return genpercept.load(model, device="cpu")
    small = model == "tiny"
    torch.manual_seed(0)
    unet = BACKBONES.find("sd21").build(SD21_CONFIG | (TINY_UNET if small else {}))
    vae = CODECS.find("kl").build(SD_VAE_CONFIG | (TINY_VAE if small else {}))
    width = TINY_UNET["cross_attention_dim"] if small else SD21_CONFIG["cross_attention_dim"]
    prompt = torch.randn(1, 2, int(width), generator=torch.Generator().manual_seed(1))
    return GenPerceptPipeline.from_parts(unet=unet, vae=vae, prompt_embeds=prompt, task="depth")


def plain_in(pipe: GenPerceptPipeline, dtype: torch.dtype) -> GenPerceptPipeline:
    """A copy of the plain pipeline in another dtype."""
    from genpercept.pipeline.specialise.fold import twin

    parts = [None if part is None else twin(part, dtype) for part in (pipe.unet, pipe.vae, pipe.head)]
    assert parts[0] is not None
    return GenPerceptPipeline(parts[0], parts[1], pipe.prompt_embeds, pipe.info, parts[2])


@torch.inference_mode()
def answer(pipe: GenPerceptPipeline, image: Tensor) -> Tensor:
    return pipe._forward(image, Run(pipe.paradigm(), 1), None)


def clock(pipe: GenPerceptPipeline, image: Tensor) -> tuple[float, Tensor]:
    """Seconds of an answer, and the answer."""
    start = time.perf_counter()
    found = answer(pipe, image)
    return time.perf_counter() - start, found


def timed(
    exact: GenPerceptPipeline,
    equal: GenPerceptPipeline,
    pipe: GenPerceptPipeline,
    image: Tensor,
    args: argparse.Namespace,
) -> dict[str, Any]:
    """Median seconds, in turns, and the median of the rounds' ratios to the plain one in the same dtype and in float32."""
    found: list[tuple[float, float, float]] = []
    start = time.perf_counter()
    while len(found) < args.rounds and (len(found) < 3 or time.perf_counter() - start < args.seconds):
        plain = clock(exact, image)[0]
        same = plain if equal is exact else clock(equal, image)[0]
        found.append((plain, same, same if pipe is equal else clock(pipe, image)[0]))
    plains, sames, owns = zip(*found, strict=True)
    own = statistics.median(owns)
    return {
        "plain": statistics.median(plains),
        "seconds": own,
        "equal": statistics.median(a / b for a, b in zip(sames, owns, strict=True)),
        "mixed": statistics.median(a / b for a, b in zip(plains, owns, strict=True)),
        "rounds": len(found),
        "spread": (max(owns) - min(owns)) / own,
    }


def page(rows: list[dict[str, Any]], args: argparse.Namespace, ruled: Sequence[str]) -> str:
    """What the rows say, as Markdown."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    head = (
        f"# Specialised pipelines\n\n{made(__file__, args.threads)}. One image at a time; "
        f"medians of up to {args.rounds} rounds; "
        f"peak memory of the whole run {peak:.1f} GiB.\n"
    )
    parts = [head, *ruled]
    for model in args.models:
        parts.append(f"\n## {model}, {SIZES[model][0]} x {SIZES[model][1]}\n")
        parts.append(
            "| dtype | variant | ms | spread | rounds | plain float32 beside it, ms | times as fast, equal dtype "
            "| over float32 | largest error | first call, s |"
        )
        parts.append("| --- | --- |" + " ---: |" * 8)
        parts += [
            f"| {r['dtype']} | {r['variant']} | {r['seconds'] * 1e3:.1f} | {r['spread']:.0%} | {r['rounds']} "
            f"| {r['plain'] * 1e3:.1f} | {r['equal']:.2f} | {r['mixed']:.2f} | {r['error']:.1e} | {r['first']:.1f} |"
            for r in rows
            if r["model"] == model
        ]
    return "\n".join(parts) + "\n\n" + " ".join((__doc__ or "").split("\n\n")[-1].split("\n")) + "\n"


if __name__ == "__main__":
    main()
