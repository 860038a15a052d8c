"""What speed costs: the embedded depth model with cheaper ends, number formats and runtimes; accuracy beside time.

    python benchmarks/quality/trade.py --slim runs/distil_depth_decoder/model --dpt runs/depth_dpt/model \\
        --tiny runs/tiny_depth_encoder/model runs/tiny_depth_decoder/model                          # writes trade.md beside it
    python benchmarks/quality/trade.py --count 6 --rounds 1 --timed 2 --out check.md                # a check of this script

`--tiny`, `--slim` and `--dpt` take folders: a tiny codec of the model's latent space (the recipes tiny_depth_encoder and
tiny_depth_decoder of mini), models with a slim end (distil_depth_decoder), models with a DPT head (depth_dpt); without them
there is no such row.
Accuracy: held-out scenes of the synthetic world, aligned by least squares per image, sky and beyond 25 m left out, as
benchmarks/quality/mini.py has it. Time: the network alone, one image at a time; in each round every variant has its turn, so
that a machine that slows down slows all of them; medians over rounds.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2]))  # where `benchmarks` lies
import genpercept
from benchmarks._network import in_turns
from benchmarks._page import made
from benchmarks.quality.mini import pair, predict, summarise
from genpercept.commands.demo.photographs import Case, held_out
from genpercept.commands.export.write import write
from genpercept.core.values import Geometry, to_tensor
from genpercept.data import synthetic
from genpercept.metrics import METRICS
from genpercept.pipeline import exported

# target and dtype of an exported graph, what OpenVINO computes in, the row's name
GRAPHS = (
    ("onnx", "fp32", None, "ONNX Runtime, fp32"),
    ("openvino", "fp32", None, "OpenVINO, fp32"),
    ("openvino", "fp32", torch.bfloat16, "OpenVINO, fp32 computed in bf16"),
    ("openvino", "int8", None, "OpenVINO, int8"),
)
_CALIBRATION = 10  # scenes of the validation split by which int8's ranges are chosen


def main(argv: Sequence[str] | None = None) -> int:
    """Accuracy of every variant, then all of them timed in turns; writes the page. Exit status 0."""
    args = arguments(argv)
    torch.set_num_threads(args.threads)
    cases = held_out(range(args.count), "mixed", args.size)
    with tempfile.TemporaryDirectory() as folder:
        pipes = dict(variants(args, Path(folder)))
        rows = {name: accuracy(pipe, cases, args.batch_size) for name, pipe in pipes.items()}
        pictures = {name: padded(pipe, cases[: args.timed]) for name, pipe in pipes.items()}
        times = in_turns(pipes, pictures, args.rounds)
    for name, pipe in pipes.items():
        rows[name] |= {"ms": 1000 * times[name], "parameters": parameters(pipe)}
    args.out.write_text(page(rows, args), encoding="utf-8")
    print(args.out.read_text(encoding="utf-8"))
    return 0


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line, None: this process's own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini/depth")
    parser.add_argument(
        "--tiny",
        type=Path,
        nargs="+",
        help="folder of a tiny codec of the model's latent space, or two: one for its encoder, one for its decoder",
    )
    parser.add_argument(
        "--slim", type=Path, nargs="*", default=[], help="folders of models with a slim end (stage distil)"
    )
    parser.add_argument("--dpt", type=Path, nargs="*", default=[], help="folders of models with a DPT head")
    parser.add_argument("--graphs", nargs="*", default=[g[3] for g in GRAPHS], choices=[g[3] for g in GRAPHS])
    parser.add_argument("--count", type=int, default=500, help="held-out scenes")
    parser.add_argument("--size", type=pair, default=(192, 256), help="height x width of the scenes")
    parser.add_argument("--batch-size", type=int, default=8, help="where accuracy is measured")
    parser.add_argument("--timed", type=int, default=20, help="scenes that are timed")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    args = parser.parse_args(argv)
    if args.tiny and len(args.tiny) > 2:
        parser.error(f"--tiny takes one folder, or two, not {len(args.tiny)}")
    if min(args.count, args.timed, args.rounds) < 1:
        parser.error("--count, --timed and --rounds must be at least 1")
    return args


def variants(args: argparse.Namespace, folder: Path) -> Iterator[tuple[str, Any]]:
    """Name of a row and its pipeline, the plain one first."""
    plain = genpercept.load(args.model, device="cpu", specialised=False)
    yield "float32", plain
    yield "bf16", genpercept.load(args.model, device="cpu", torch_dtype=torch.bfloat16, specialised=False)
    yield from quicker("", plain, args.model)
    if args.tiny:
        for ends in (("encoder",), ("decoder",), ("encoder", "decoder")):
            sources = {"encoder": args.tiny[0], "decoder": args.tiny[-1]}
            given: dict[str, Any] = {end: sources[end] for end in ends}
            name = f"tiny codec: {' and '.join(ends)}"
            pipe = genpercept.load(args.model, device="cpu", specialised=False, **given)
            yield name, pipe
            yield from quicker(f"{name}, ", pipe, args.model, **given)
    for kind, folders in (("slim", args.slim), ("DPT head", args.dpt)):
        for path in folders:
            pipe = genpercept.load(path, device="cpu", specialised=False)
            name = described(kind, path, pipe, plain.info["model_sha256"])
            yield name, pipe
            yield from quicker(f"{name}, ", pipe, path)
    for to, dtype, computed, name in GRAPHS:
        if name not in args.graphs:
            continue
        path = folder / f"{to}-{dtype}{exported.SUFFIXES[to]}"
        if not path.exists():
            write(plain, to, path, dtype, [calibration(folder, args.size)])
        yield name, exported.load(path, computed)


def quicker(prefix: str, pipe: Any, model: str | Path, **codec: Any) -> Iterator[tuple[str, Any]]:
    """`pipe`, which is `model` with this codec in float32, specialised; and so in bf16."""
    yield f"{prefix}float32, specialised", genpercept.specialise(pipe)
    load: dict[str, Any] = {"device": "cpu", "torch_dtype": torch.bfloat16, "specialised": True}
    yield f"{prefix}bf16, specialised", genpercept.load(model, **load, **codec)


def described(kind: str, path: Path, pipe: Any, whole: str) -> str:
    """The row's name: what was distilled, and whether from the model of the other rows, or the head; the folder of its run."""
    if kind == "slim":
        distilled = pipe.info.get("distilled") or {}
        if not distilled:
            raise ValueError(f"--slim {path}: nothing in it was distilled; pass a model that stage distil made")
        ends = [
            f"{said['form']} {part} of width {said['width']:g}, {said['steps']:,} steps"
            for part, said in distilled.items()
        ]
        other = "" if any(said["of_sha256"] == whole for said in distilled.values()) else ", of another model"
        return f"{' and '.join(ends)}{other} ({path.resolve().parent.name})"
    steps = (pipe.info.get("recipe") or {}).get("steps", 0)
    return f"{pipe.info['head'].upper()} head, {steps:,} steps ({path.resolve().parent.name})"


def calibration(folder: Path, size: tuple[int, int]) -> Path:
    """Scenes of the validation split as files: int8's ranges must not come from what is judged."""
    target = folder / "calibration"
    if not target.is_dir():
        target.mkdir()
        scenes = synthetic.render(range(_CALIBRATION), domain="mixed", split="val", size=size)
        for i, image in enumerate(scenes.image):
            Image.fromarray(image).save(target / f"{i}.png")
    return target


def accuracy(pipe: Any, cases: Sequence[Case], batch_size: int) -> dict[str, Any]:
    """Means over the scenes, with their standard errors."""
    answers = predict(pipe, cases, batch_size)
    figures = [
        METRICS.find("depth")(protocol=case.protocol).update(answer, case.depth, case.valid, case.name)
        for case, answer in zip(cases, answers, strict=True)
    ]
    return summarise(figures, ("abs_rel", "delta1"))


def padded(pipe: Any, cases: Sequence[Case]) -> list[Tensor]:
    """Images as the network sees them, (1, 3, H, W) in [0, 1]."""
    images = [to_tensor(case.image) for case in cases]
    plans = [Geometry.plan((x.shape[-2], x.shape[-1]), pipe.resolution, pipe.stride) for x in images]
    return [plan.apply(x) for plan, x in zip(plans, images, strict=True)]


def parameters(pipe: Any) -> float | None:
    """Millions, of the parts as they are saved; None for a graph."""
    parts = [part for part in (pipe.unet, pipe.vae, pipe.head) if part is not None]
    return sum(p.numel() for part in parts for p in part.parameters()) / 1e6 if parts else None


def page(rows: dict[str, dict[str, Any]], args: argparse.Namespace) -> str:
    """What the rows say, as Markdown."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("onnxruntime", "openvino"))
    height, width = args.size
    used = next(iter(rows.values()))["images"]
    head = (
        f"{made(__file__, args.threads)}, {versions}; load average {os.getloadavg()[0]:.1f} at the end. "
        f"{args.model} on {used} held-out scenes of the mixed domain at "
        f"{width} x {height}, ± standard error over images; {args.timed} of them timed, {args.rounds} rounds."
    )
    first = next(iter(rows.values()))["ms"]
    half = rows["bf16"]["ms"]
    lines = [
        "# Accuracy beside speed",
        "",
        head,
        "",
        " ".join((__doc__ or "").split("\n\n")[-1].split("\n")).partition("such row. ")[2].strip(),
        "",
        "| variant | AbsRel ↓ | δ1 ↑ | ms per image | times as fast, equal dtype | over float32 | M parameters |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, row in rows.items():
        size = "" if row["parameters"] is None else f"{row['parameters']:.2f}"
        equal = "-" if "int8" in name else f"{(half if 'bf16' in name else first) / row['ms']:.2f}"
        speed = [f"{row['ms']:.1f}", equal, f"{first / row['ms']:.2f}"]
        cells = [name, figure(row, "abs_rel"), figure(row, "delta1"), *speed, size]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def figure(row: dict[str, Any], key: str) -> str:
    """A mean with its standard error, where there is one."""
    spread = row[f"{key}_se"]
    return f"{row[key]:.4f}" + ("" if spread is None else f" ± {spread:.4f}")


if __name__ == "__main__":
    raise SystemExit(main())
