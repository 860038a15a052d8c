"""Exported graphs against the pipeline: error and time of each on ten images.

    python benchmarks/exported.py                     # benchmarks/exported.md: mini/depth and mini/normals
    python benchmarks/exported.py --models mini/depth --variants onnx-fp32 --rounds 1 --out check.md    # of this script

Errors are of raw maps, against the plain pipeline in float32. Times are medians over rounds of all ten images, one by one,
network only; the plain pipeline is timed first and last, which shows how steady the machine is.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import statistics
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from _network import seconds, where

import genpercept
from genpercept import exported
from genpercept._export import check
from genpercept._export.write import SUFFIX, write
from genpercept.pipeline import GenPerceptPipeline

VARIANTS = ["onnx-fp32", "onnx-fp16", "openvino-fp32", "openvino-fp16", "openvino-int8"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["mini/depth", "mini/normals"])
    parser.add_argument("--variants", nargs="+", default=VARIANTS, choices=VARIANTS)
    parser.add_argument("--images", nargs="*", default=[], help="files or folders; default: drawn images")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = [row for model in args.models for row in measure(model, args)]
    args.out.write_text(page(rows, args), encoding="utf-8")
    print(args.out.read_text(encoding="utf-8"))


def measure(model: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    plain = genpercept.load(model, device="cpu", specialised=False)
    pictures = check.images(plain, args.images)
    rows = [{"model": model, "variant": "pipeline, float32", "seconds": median(plain, pictures, args.rounds)}]
    with tempfile.TemporaryDirectory() as folder:
        for variant in args.variants:
            to, dtype = variant.split("-")
            path = Path(folder) / f"{variant}{SUFFIX[to]}"
            found = write(plain, to, path, dtype, args.images)
            row = {"model": model, "variant": f"{to}, {dtype}", "largest": found["largest"], "mean": found["mean"]}
            row["bytes"] = sum(part.stat().st_size for part in Path(folder).glob(f"{path.stem}.*"))
            rows.append(row | {"seconds": median(exported.load(path), pictures, args.rounds)})
            if variant == "openvino-fp32":
                quick = exported.load(path, torch.bfloat16)
                found = check.compare(plain, quick, pictures)
                row = {"model": model, "variant": "openvino, fp32 computed in bf16", "bytes": row["bytes"]}
                row |= {"largest": found["largest"], "mean": found["mean"]}
                rows.append(row | {"seconds": median(quick, pictures, args.rounds)})
            print(rows[-1], flush=True)
    rows.append({"model": model, "variant": "pipeline, again", "seconds": median(plain, pictures, args.rounds)})
    return rows


def median(pipe: GenPerceptPipeline, pictures: list[torch.Tensor], rounds: int) -> float:
    """Of a round's mean time per image, in seconds, after a round of warm-up."""
    return statistics.median([seconds(pipe, pictures) for _ in range(rounds + 1)][1:])


def page(rows: list[dict[str, Any]], args: argparse.Namespace) -> str:
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "onnxruntime", "openvino"))
    load = ", ".join(f"{x:.1f}" for x in os.getloadavg())
    lines = [
        "# Exported graphs against the pipeline",
        "",
        f"`python benchmarks/exported.py`, {datetime.now(UTC):%Y-%m-%d}; {where(args.threads)}, load "
        f"average {load} at the end; {versions}; {args.rounds} rounds of ten {'given' if args.images else 'drawn'} images.",
        "Differences of raw maps, which lie about in [-1, 1], from the pipeline's in float32.",
        "",
        "| model | variant | largest difference | mean difference | MB | ms per image |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        apart = [f"{row[key]:.1e}" if key in row else "" for key in ("largest", "mean")]
        size = f"{row['bytes'] / 1e6:.1f}" if "bytes" in row else ""
        cells = [row["model"], row["variant"], *apart, size, f"{row['seconds'] * 1e3:.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
