"""Exported graphs against the pipeline: error and time of each on ten images.

    python benchmarks/speed/exported.py                     # exported.md beside it: mini/depth and mini/normals
    python benchmarks/speed/exported.py --models mini/depth --variants onnx-fp32 --rounds 1 --out check.md    # of this script

Errors are of raw maps, against the plain pipeline in float32. Times are of the network alone, ten images one by one; in each
round every variant has its turn, so that a machine that slows down slows all of them; medians over rounds.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))  # where `benchmarks` lies
import genpercept
from benchmarks._network import in_turns
from benchmarks._page import made
from genpercept.commands.export import check
from genpercept.commands.export.write import write
from genpercept.pipeline import exported

VARIANTS = ["onnx-fp32", "onnx-fp16", "openvino-fp32", "openvino-fp16", "openvino-int8"]


def main() -> None:
    """Export, compare and time every variant of every model, and write the page."""
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
    """The pipeline's row, and one for each variant: errors, size, and seconds per image in turns."""
    plain = genpercept.load(model, device="cpu", specialised=False)
    pictures = check.images(plain, args.images)
    pipes: dict[str, Any] = {"pipeline, float32": plain}
    rows: dict[str, dict[str, Any]] = {"pipeline, float32": {}}
    with tempfile.TemporaryDirectory() as folder:
        for variant in args.variants:
            to, dtype = variant.split("-")
            path = Path(folder) / f"{variant}{exported.SUFFIXES[to]}"
            name, found = f"{to}, {dtype}", write(plain, to, path, dtype, args.images)
            size = {"bytes": sum(part.stat().st_size for part in Path(folder).glob(f"{path.stem}.*"))}
            rows[name], pipes[name] = found | size, exported.load(path)
            if variant == "openvino-fp32":
                name = "openvino, fp32 computed in bf16"
                pipes[name] = exported.load(path, torch.bfloat16)
                rows[name] = check.compare(plain, pipes[name], pictures) | size
        times = in_turns(pipes, dict.fromkeys(pipes, pictures), args.rounds)
    return [row | {"model": model, "variant": name, "seconds": times[name]} for name, row in rows.items()]


def page(rows: list[dict[str, Any]], args: argparse.Namespace) -> str:
    """What the rows say, as Markdown."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("onnxruntime", "openvino"))
    load = ", ".join(f"{x:.1f}" for x in os.getloadavg())
    lines = [
        "# Exported graphs against the pipeline",
        "",
        f"{made(__file__, args.threads)}, {versions}; load average {load} "
        f"at the end. {args.rounds} rounds of ten {'given' if args.images else 'drawn'} images.",
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
