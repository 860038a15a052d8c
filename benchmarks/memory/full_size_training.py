"""Full-size training steps on a GPU: images/s, peak memory, and the share of the matrix-multiply ceiling of the same run.

    python benchmarks/memory/full_size_training.py --out full_size_training.md

Stable Diffusion 2.1's shape with random weights, one step of `genpercept train` at 480 x 640: depth, losses behind the frozen
decoder, bf16, fused AdamW. Each case runs in a process of its own, which is ended when its time is over; none begins that could
not end within 8 minutes of the start. Figures are stored beside the page after each case, and the next run measures what is
missing (--again: all). A case that does not fit into memory says so. --tiny takes the same path with a small network on any
machine.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch.utils.flop_counter import FlopCounterMode

from genpercept.models.backbones import BACKBONES
from genpercept.models.codecs import CODECS

SIZE = (480, 640)
_GIB = 2**30
_TINY_SECONDS = 300.0  # of a case with --tiny, wherever that is
_WHOLE = 480.0  # seconds of a run of all, the model's random weights included
# name: batch, checkpointing, precision, most GiB that it should take (0: no bound asked for), most seconds
CASES: dict[str, tuple[int, bool, str, int, float]] = {
    "batch 1": (1, False, "bf16", 0, 70),
    "batch 1, checkpointing": (1, True, "bf16", 24, 70),
    "batch 4": (4, False, "bf16", 0, 75),
    "batch 16, checkpointing": (16, True, "bf16", 80, 90),
    "batch 1, checkpointing, fp16": (1, True, "fp16", 0, 70),
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--tiny", action="store_true", help="a small network, two cases, on whatever there is")
    parser.add_argument("--again", action="store_true", help="measure what is there already, too")
    parser.add_argument("--steps", type=int, default=5, help="timed, after two others")
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    parser.add_argument("--base", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.case:
        print(json.dumps(run(args)))
        return 0
    if not (torch.cuda.is_available() or args.tiny):
        raise ValueError("no CUDA device here: run it on a machine that has one, or try the path with --tiny")
    found = measured(args)
    text = markdown(found, args.tiny)
    print(text)
    if args.out:
        args.out.write_text(text, encoding="utf-8")
    return 0


def measured(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """The figures of each case, or why there are none."""
    begun, store = time.monotonic(), args.out and args.out.with_suffix(".json")
    kept = store and store.is_file() and not args.again
    found: dict[str, dict[str, Any]] = json.loads(store.read_text(encoding="utf-8")) if kept else {}
    names = list(CASES)[:2] if args.tiny else list(CASES)
    missing = [name for name in names if "failed" in found.get(name, {"failed": ""})]
    with tempfile.TemporaryDirectory(prefix="full_size_training_") as temp:
        if missing:
            build(Path(temp) / "base", args.tiny)
        for name in missing:
            seconds = _TINY_SECONDS if args.tiny else CASES[name][-1]
            if not args.tiny and time.monotonic() - begun + seconds > _WHOLE:
                found[name] = {"failed": "left out: the time was over; run it again"}
                continue
            found[name] = apart(name, Path(temp) / "base", args, seconds)
            if store:
                store.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return {name: found[name] for name in names}


def build(folder: Path, tiny: bool) -> None:
    """A model folder with random weights."""
    from genpercept import GenPerceptPipeline
    from genpercept.models.backbones.sd21 import SD21_CONFIG
    from genpercept.models.codecs.kl import SD_VAE_CONFIG

    unet_config, vae_config = dict(SD21_CONFIG), dict(SD_VAE_CONFIG)
    if tiny:
        unet_config |= {"block_out_channels": (32, 32, 64, 64), "attention_head_dim": (2, 2, 4, 4)}
        vae_config |= {"block_out_channels": (32, 32, 32, 32)}
    torch.manual_seed(0)
    unet, vae = BACKBONES.find("sd21").build(unet_config), CODECS.find("kl").build(vae_config)
    prompt = torch.randn(1, 2, unet_config["cross_attention_dim"])
    GenPerceptPipeline.from_parts(unet=unet, vae=vae, prompt_embeds=prompt, task="depth").save_pretrained(folder)


def apart(name: str, base: Path, args: argparse.Namespace, seconds: float) -> dict[str, Any]:
    """One case in its own process, ended after so many seconds; its figures, or why there are none."""
    command = [sys.executable, __file__, "--case", name, "--base", str(base), "--steps", str(args.steps)]
    command += ["--tiny"] if args.tiny else []
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds)
    except subprocess.TimeoutExpired:
        return {"failed": f"ended after {seconds:g} s"}
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return {"failed": "out of memory" if "OutOfMemory" in done.stderr else last}
    return json.loads(done.stdout.splitlines()[-1])


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Seconds per step (median), peak memory, arithmetic of a step, and what this device's matrix products reach."""
    from genpercept.training import recipe as recipes
    from genpercept.training.loop import Training

    batch, checkpointing, precision, *_ = CASES[args.case]
    size = (96, 128) if args.tiny else SIZE
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "stage": "finetune",
            "task": "depth",
            "precision": precision,
            "model": {"base": str(args.base)},
            "data": [{"count": 1, "size": (32, 32)}],
            "loader": {"batch_size": batch, "cache": False},
            "augment": {"sizes": [size]},
            "ema": {"decay": 0.0},
            "speed": {"checkpointing": checkpointing},
            "logging": {"tensorboard": False},
        }
        training = Training(recipes.parse(settings), Path(folder), resume=False)
        device = training.accelerator.device
        limit = ceiling(device, torch.float16 if precision == "fp16" else torch.bfloat16, args.tiny)
        with FlopCounterMode(display=False) as counter:
            training.step([batch_of(batch, size)])
        training.step([batch_of(batch, size)])
        seconds = sorted(timed(lambda: training.step([batch_of(batch, size)]), device) for _ in range(args.steps))
        peak = torch.cuda.max_memory_allocated() / _GIB if device.type == "cuda" else 0.0
    return {
        "seconds": seconds[len(seconds) // 2],
        "peak_gib": peak,
        "tflop": counter.get_total_flops() / 1e12,
        "ceiling": limit,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "CPU",
    }


def batch_of(count: int, size: tuple[int, int]) -> Any:
    """Noise as images and as depth: the arithmetic does not care."""
    from genpercept.core.rng import Rng
    from genpercept.core.values import Target
    from genpercept.training.stages.base import Batch

    image = torch.rand(count, 3, *size) * 2 - 1
    label = (torch.rand(count, 1, *size) * 2 - 1).expand(-1, 3, -1, -1).contiguous()
    target = Target(label, torch.ones(count, 1, *size, dtype=torch.bool))
    return Batch(Rng(0, 0, range(count)), images=image, target=target)


def timed(work: Any, device: torch.device) -> float:
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    begin = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - begin


def ceiling(device: torch.device, dtype: torch.dtype, tiny: bool) -> float:
    """TFLOP/s of the best of ten square matrix products."""
    n = 1024 if tiny else 8192
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    cast(Any, torch.matmul)(a, b)
    return 2 * n**3 / min(timed(lambda: a @ b, device) for _ in range(10)) / 1e12


def markdown(found: dict[str, dict[str, Any]], tiny: bool) -> str:
    rows, device = [], "no case ran"
    for name, figures in found.items():
        batch, _, _, bound, _ = CASES[name]
        if "failed" in figures:
            rows.append(f"| {name} | {figures['failed']} | | | | |")
            continue
        device = figures["device"]
        rate, limit = figures["tflop"] / figures["seconds"], f" (asked: under {bound})" if bound and not tiny else ""
        rows.append(
            f"| {name} | {batch / figures['seconds']:.2f} | {figures['peak_gib']:.1f} GiB{limit} | {figures['tflop']:.2f}"
            f" | {figures['ceiling']:.1f} | {rate / figures['ceiling']:.0%} |"
        )
    title = "A small network, to try the path" if tiny else "Full-size training steps"
    head = "| 480 x 640 | images/s | peak memory | TFLOP per step | matmul ceiling, TFLOP/s | share of it |"
    return "\n".join(
        [
            f"# {title}",
            "",
            f"{time.strftime('%Y-%m-%d')}, {device}, PyTorch {torch.__version__}. By `python"
            " benchmarks/memory/full_size_training.py`: random weights, losses behind the frozen decoder,"
            " encoding and optimiser in the step. Operations are counted, recomputed ones included.",
            "",
            head.replace("480 x 640", "96 x 128") if tiny else head,
            "| --- | ---: | ---: | ---: | ---: | ---: |",
            *rows,
            "",
        ]
    )


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ValueError as error:
        sys.exit(f"error: {error}")
