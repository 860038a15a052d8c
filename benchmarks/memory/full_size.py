"""A full-size Stable-Diffusion-2.1-shaped predictor with random weights: built, saved, loaded and run on the CPU.

    python benchmarks/memory/full_size.py          # writes full_size.md beside it

Every stage runs in a process of its own, so that its peak memory is its own. Needs about 8 GB of memory and, for the
saved folder, 4 GB of disk.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from genpercept.models.codecs import CODECS

UNET_PARAMETERS, VAE_PARAMETERS = 865_910_724, 83_653_863
_GIB = 2**30


def main(argv: Sequence[str] | None = None) -> int:
    args = arguments(argv)
    if args.stage:
        torch.set_num_threads(args.threads)
        print(json.dumps(STAGES[args.stage](args)))
        return 0
    with tempfile.TemporaryDirectory(prefix="full_size_", dir=args.temp) as temp:
        folder = Path(temp) / "model"
        free = shutil.disk_usage(temp).free
        if free < 5 * _GIB:
            raise ValueError(f"{temp}: {free / _GIB:.1f} GiB free, 5 are needed; choose another place with --temp")
        results = {stage: run_stage(stage, folder, args) for stage in STAGES}
    text = markdown(results, args)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(text, encoding="utf-8")
    print(text)
    return 0


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    parser.add_argument("--resolution", type=int, default=384, help="edge of the square image")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--machine", default="2 cores, AMD EPYC, 24 GiB")
    parser.add_argument("--temp", help="folder for the saved model; the system's own by default")
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def run_stage(stage: str, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    options = {"stage": stage, "folder": folder, "threads": args.threads, "resolution": args.resolution}
    command = [sys.executable, __file__, *(f"--{key}={value}" for key, value in options.items())]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


# ---- stages ----------------------------------------------------------------------------------------------------------


def build(args: argparse.Namespace) -> dict[str, Any]:
    """Parts from their configs with random weights, counted, and saved as a model folder."""
    from genpercept import GenPerceptPipeline
    from genpercept.models.backbones.sd21 import SD21_CONFIG, SD21UNet
    from genpercept.models.codecs.kl import SD_VAE_CONFIG

    torch.manual_seed(0)
    start = time.perf_counter()
    unet = cast(torch.nn.Module, SD21UNet.from_config(SD21_CONFIG))
    vae = CODECS.find("kl").build(SD_VAE_CONFIG)
    built = time.perf_counter() - start
    counts = tuple(sum(p.numel() for p in part.parameters()) for part in (unet, vae))
    assert counts == (UNET_PARAMETERS, VAE_PARAMETERS), counts
    prompt = torch.randn(1, 2, 1024)
    pipe = GenPerceptPipeline.from_parts(unet=unet, vae=vae, prompt_embeds=prompt, task="depth", resolution=768)
    start = time.perf_counter()
    pipe.save_pretrained(args.folder)
    saved = time.perf_counter() - start
    size = sum(path.stat().st_size for path in args.folder.rglob("*") if path.is_file())
    return {"build_s": built, "save_s": saved, "folder_gib": size / _GIB, "peak_gib": peak_gib()}


def run_fp32(args: argparse.Namespace) -> dict[str, Any]:
    return load_and_predict(args, torch.float32)


def run_bf16(args: argparse.Namespace) -> dict[str, Any]:
    return load_and_predict(args, torch.bfloat16)


def load_and_predict(args: argparse.Namespace, dtype: torch.dtype) -> dict[str, Any]:
    """Load the folder in `dtype`, predict one square image twice; the second time is the one without set-up."""
    from genpercept import GenPerceptPipeline

    start = time.perf_counter()
    pipe = GenPerceptPipeline.from_pretrained(args.folder, torch_dtype=dtype)
    loaded, loaded_peak = time.perf_counter() - start, peak_gib()
    edge = args.resolution
    image = np.random.default_rng(0).integers(0, 256, (edge, edge, 3), dtype=np.uint8)
    times = []
    for _ in range(2):
        start = time.perf_counter()
        values = pipe(image, processing_resolution=edge).values
        times.append(time.perf_counter() - start)
        assert values.shape == (edge, edge) and np.isfinite(values).all()
    return {
        "load_s": loaded,
        "load_peak_gib": loaded_peak,
        "first_s": times[0],
        "second_s": times[1],
        "peak_gib": peak_gib(),
    }


STAGES = {"build": build, "run_fp32": run_fp32, "run_bf16": run_bf16}


def peak_gib() -> float:
    """Largest resident memory of this process so far, in GiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / _GIB


def markdown(results: dict[str, dict[str, Any]], args: argparse.Namespace) -> str:
    built = results["build"]
    rows = [
        f"| {name} | {r['load_s']:.1f} s | {r['load_peak_gib']:.1f} GiB | {r['first_s']:.1f} s | {r['second_s']:.1f} s "
        f"| {r['peak_gib']:.1f} GiB |"
        for name, r in (("float32", results["run_fp32"]), ("bfloat16", results["run_bf16"]))
    ]
    edge = args.resolution
    return "\n".join(
        [
            "# A full-size model on the CPU",
            "",
            f"{time.strftime('%Y-%m-%d')}, {args.machine}, {args.threads} threads, PyTorch {torch.__version__}. Stable "
            "Diffusion 2.1's shape with",
            f"random weights: {UNET_PARAMETERS:,} parameters in the denoiser, {VAE_PARAMETERS:,} in the autoencoder. "
            f"Building takes {built['build_s']:.0f} s,",
            f"saving {built['save_s']:.0f} s; the folder holds {built['folder_gib']:.2f} GiB (float32) and the peak "
            f"memory until then is {built['peak_gib']:.1f} GiB.",
            f"Then `GenPerceptPipeline.from_pretrained` and one {edge} x {edge} image, one step. By",
            "`python benchmarks/memory/full_size.py`.",
            "",
            "| dtype | load | memory after loading (peak) | first image | second image | peak memory |",
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
