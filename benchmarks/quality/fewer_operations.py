"""What fewer operations cost in accuracy: mini/depth with a half-resolution decoder, a slim U-Net, and both; its edges.

    genpercept train mini/half_depth_decoder --out runs/half_depth_decoder
    genpercept train mini/slim_depth_unet --out runs/slim_depth_unet
    python benchmarks/quality/fewer_operations.py --half runs/half_depth_decoder/model --rgbd ../shared/rgbd \\
        --slim runs/slim_depth_unet/model                            # writes fewer_operations.md beside it

`--rgbd`: a folder of real frames with depth and an index.csv that names them (columns name, set, scene, tier, unit);
without it there is no such column. `--half-normals`: the same decoder for mini/normals.

AbsRel: aligned by least squares per image; of scenes without sky and what is beyond 25 m. Of real frames, means are
over scenes. Change: against the whole model's, with the standard error of the paired differences. Edges: scenes
rendered at the network's own size, so that an edge of one pixel can be met; F1 of pairs of neighbouring pixels whose
depths differ by a factor, mean over factors of 1.05 to 1.25 (as Depth Pro, Bochkovskii et al. 2024, section 3.3, has
it); near edges: within two pixels of a factor of 1.1. Bilinear and guided filter (He et al. 2013) bring up the whole
decoder's answer, averaged to the small size.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2]))  # where `benchmarks` lies
import genpercept
from benchmarks._page import made
from benchmarks.quality.mini import predict
from benchmarks.quality.real_frames import by_scene
from genpercept.commands.bench import flops
from genpercept.commands.demo.photographs import Case, held_out
from genpercept.metrics import METRICS
from genpercept.models.codecs import half
from genpercept.pipeline.call import Run

_NETWORK = (72, 96)  # height and width that mini's models see of a 4 : 3 image
_FAR = 25.0  # metres
_FACTORS = np.linspace(1.05, 1.25, 9)
_NEAR, _AT_EDGE = 2, 1.1
_RADIUS, _EPSILON = 2, 1e-3  # of the guided filter, in small pixels, and its regularisation for images in [-1, 1]


class Reduced:
    """A codec whose decoder's answer is averaged to 1 / factor of the size and brought up again."""

    def __init__(self, codec: Any, factor: int, up: Callable[[Tensor, Tensor], Tensor]) -> None:
        self._codec, self._factor, self._up = codec, factor, up

    def __getattr__(self, name: str) -> Any:
        return getattr(self._codec, name)

    def decode_guided(self, latent: Tensor, image: Tensor) -> Tensor:
        return self._up(F.avg_pool2d(self._codec.decode(latent), self._factor), image)


def bilinear(low: Tensor, image: Tensor) -> Tensor:
    return F.interpolate(low, image.shape[-2:], mode="bilinear", align_corners=False)


def guided_filter(low: Tensor, image: Tensor) -> Tensor:
    """He, Sun & Tang 2013, guided by the grey image, its coefficients brought up from the small size ("fast", 2015)."""
    grey = image.mean(1, keepdim=True)
    small = F.interpolate(grey, low.shape[-2:], mode="area")

    def mean(x: Tensor) -> Tensor:
        edge = 2 * _RADIUS + 1
        return F.avg_pool2d(F.pad(x, [_RADIUS] * 4, mode="replicate"), edge, 1)

    m_i, m_p = mean(small), mean(low)
    slope = (mean(small * low) - m_i * m_p) / (mean(small * small) - m_i * m_i + _EPSILON)
    return bilinear(mean(slope), image) * grey + bilinear(mean(m_p - slope * m_i), image)


def main(argv: Sequence[str] | None = None) -> int:
    """Judge every variant and write the page. Exit status 0."""
    args = arguments(argv)
    torch.set_num_threads(args.threads)
    cases = held_out(range(args.count), "mixed", (192, 256))
    sharp = held_out(range(args.count, args.count + args.edges), "mixed", _NETWORK)
    real = frames(args.rgbd, args.frames) if args.rgbd else []
    pipes = variants(args)
    rows = {}
    for name, pipe in pipes.items():
        row = {"scenes": abs_rel(pipe, cases), "frames": abs_rel(pipe, real), "edges": edges(pipe, sharp)}
        rows[name] = row | {"giga": operations(pipe)}
        print(name, row["scenes"].mean(), np.nanmean(row["edges"], 0), file=sys.stderr, flush=True)
    seconds = in_turns(pipes, args.rounds)
    normals = judge_normals(args, cases)
    args.out.write_text(page(args, rows, seconds, [case.note for case in real], normals), encoding="utf-8")
    print(args.out.read_text(encoding="utf-8"))
    return 0


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line, None: this process's own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini/depth")
    parser.add_argument("--half", nargs="*", default=[], help="models whose decoder is guided")
    parser.add_argument("--slim", nargs="*", default=[], help="models whose U-Net is slim")
    parser.add_argument("--half-normals", nargs="*", default=[])
    parser.add_argument("--rgbd", type=Path)
    parser.add_argument("--count", type=int, default=150, help="held-out scenes")
    parser.add_argument("--edges", type=int, default=150, help="further ones, at the network's size")
    parser.add_argument("--frames", type=int, default=0, help="of --rgbd at most; 0: all of tier A")
    parser.add_argument("--rounds", type=int, default=5, help="of timing")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    return parser.parse_args(argv)


def variants(args: argparse.Namespace) -> dict[str, Any]:
    """Name -> pipeline. A guided decoder stands in with a slim U-Net, too, the first of each."""

    def load(name: str) -> Any:
        return genpercept.load(name, device="cpu")

    found = {"whole": load(args.model)}
    halves = {folder: load(folder) for folder in args.half}
    for pipe in halves.values():
        said = pipe.info["distilled"]["decoder"]
        found[f"guided decoder at 1/{2 ** said['levels']}"] = pipe
    for way, up in (("bilinear", bilinear), ("guided filter", guided_filter)):
        for factor in (2, 4):
            pipe = load(args.model)
            pipe._codec = Reduced(pipe._codec, factor, up)
            found[f"whole decoder averaged to 1/{factor}, {way}"] = pipe
    for folder in args.slim:
        pipe = load(folder)
        left = pipe.info["distilled"]["denoiser"]["parameters"]
        name = f"slim U-Net, {left['after'] / 1e6:.2f} of {left['before'] / 1e6:.2f} M parameters"
        found[name] = pipe
        if halves:
            first = next(iter(halves.values()))
            found[f"{name}, and guided decoder"] = pipe.with_codec(decoder=half(first.vae, "decoder"))
    return found


# ---- accuracy
# ------------------------------------------------------------------------------------------------------------


def frames(folder: Path, most: int) -> list[Case]:
    """Real frames of rooms and streets (tier A); the note is the scene, since frames of one are not independent."""
    with (folder / "index.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["tier"] == "A"]
    cases = []
    for row in rows[:most] if most else rows:
        stem = folder / row["set"] / row["name"]
        image = np.asarray(Image.open(f"{stem}_rgb.jpg").convert("RGB"))
        depth = np.asarray(Image.open(f"{stem}_depth.png")).astype(np.float32) / {"mm": 1000, "cm": 100}[row["unit"]]
        cases.append(Case(row["name"], image, depth, None, depth > 0, None, row["scene"]))
    return cases


def abs_rel(pipe: Any, cases: Sequence[Case]) -> np.ndarray:
    """Of each case."""
    found = [
        METRICS.find("depth")(protocol=case.protocol).update(answer, case.depth, case.valid, case.name)["abs_rel"]
        for case, answer in zip(cases, predict(pipe, cases, 16), strict=True)
    ]
    return np.array(found)


def edges(pipe: Any, cases: Sequence[Case]) -> np.ndarray:
    """F1 of edges, and AbsRel near them, of each case that has some: (n, 2)."""
    found = []
    for case, answer in zip(cases, predict(pipe, cases, 16), strict=True):
        truth = np.asarray(case.depth, np.float64)
        valid = case.valid & np.isfinite(truth) & (np.nan_to_num(truth, nan=np.inf) < _FAR)
        scores = _edges(np.asarray(answer.values, np.float64), truth, valid)
        found.append(scores if scores is not None else (np.nan, np.nan))
    return np.array(found)


def _edges(given: np.ndarray, truth: np.ndarray, valid: np.ndarray) -> tuple[float, float] | None:
    if valid.sum() < 100:
        return None
    columns = np.stack([given[valid], np.ones(valid.sum())], 1)
    scale, shift = np.linalg.lstsq(columns, truth[valid], rcond=None)[0]
    aligned = np.maximum(given * scale + shift, 0.05)
    score = [f1(aligned, truth, valid, factor) for factor in _FACTORS]
    near = _dilated(_steps(truth, valid, _AT_EDGE)) & valid
    if not near.any() or all(np.isnan(score)):
        return None
    return float(np.nanmean(score)), float((np.abs(aligned - truth)[near] / truth[near]).mean())


def _ratios(depth: np.ndarray, valid: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """By direction: the factor from each pixel to its neighbour, and where both are valid."""
    return [
        (depth[:, 1:] / depth[:, :-1], valid[:, 1:] & valid[:, :-1]),
        (depth[1:] / depth[:-1], valid[1:] & valid[:-1]),
    ]


def f1(given: np.ndarray, truth: np.ndarray, valid: np.ndarray, factor: float) -> float:
    """Of pairs that step by `factor` or more, in the same direction; NaN where the truth has none."""
    met = wanted = said = 0
    for (own, both), (real, _) in zip(_ratios(given, valid), _ratios(truth, valid), strict=True):
        for mine, theirs in ((own > factor, real > factor), (own < 1 / factor, real < 1 / factor)):
            met += int((mine & theirs & both).sum())
            wanted += int((theirs & both).sum())
            said += int((mine & both).sum())
    return 2 * met / (wanted + said) if wanted else float("nan")


def _steps(truth: np.ndarray, valid: np.ndarray, factor: float) -> np.ndarray:
    """Pixels beside such a step."""
    found = np.zeros(truth.shape, bool)
    (across, both), (down, over) = _ratios(truth, valid)
    step = both & (np.maximum(across, 1 / across) > factor)
    found[:, 1:] |= step
    found[:, :-1] |= step
    step = over & (np.maximum(down, 1 / down) > factor)
    found[1:] |= step
    found[:-1] |= step
    return found


def _dilated(mask: np.ndarray) -> np.ndarray:
    grown = F.max_pool2d(torch.from_numpy(mask)[None, None].float(), 2 * _NEAR - 1, 1, _NEAR - 1)
    return grown[0, 0].numpy() > 0


def judge_normals(args: argparse.Namespace, cases: Sequence[Case]) -> dict[str, np.ndarray]:
    """Mean angle of each case, of mini/normals and of those with a guided decoder."""
    found = {}
    for name in ["mini/normals", *args.half_normals] if args.half_normals else []:
        pipe = genpercept.load(name, device="cpu")
        metric = METRICS.find("normals")()
        rows = [
            metric.update(answer, case.normals, None, case.name)
            for case, answer in zip(cases, predict(pipe, cases, 16), strict=True)
        ]
        said = pipe.info.get("distilled", {}).get("decoder")
        found[f"guided decoder at 1/{2 ** said['levels']}" if said else "whole"] = np.array(
            [row["mean"] for row in rows]
        )
    return found


# ---- cost
# ------------------------------------------------------------------------------------------------------------------


def operations(pipe: Any) -> dict[str, float]:
    """GFLOP by stage at the network's size."""
    if isinstance(pipe._codec, Reduced):
        return {}
    return {stage: 1000 * count["total"] for stage, count in flops.by_stage(pipe, _NETWORK).items()}


@torch.inference_mode()
def in_turns(pipes: Mapping[str, Any], rounds: int) -> dict[str, float]:
    """CPU seconds of an image, the least of the rounds after one that is not counted: others make none shorter."""
    image = torch.rand(1, 3, *_NETWORK, generator=torch.Generator().manual_seed(0))
    found: dict[str, list[float]] = {name: [] for name in pipes}
    for _ in range(rounds + 1):
        for name, pipe in pipes.items():
            start = time.process_time()
            for _ in range(3):
                pipe._forward(image, Run(pipe.paradigm(), 1), None)
            found[name].append((time.process_time() - start) / 3)
    return {name: min(taken[1:]) for name, taken in found.items()}


# ---- page
# ------------------------------------------------------------------------------------------------------------------


def change(values: np.ndarray, whole: np.ndarray, scenes: Sequence[str] = ()) -> str:
    """Mean over images, or over scenes, and how far above the whole model's in per cent, with its standard error."""
    own, first = (by_scene(x, scenes) if scenes else x for x in (values, whole))
    good = np.isfinite(own) & np.isfinite(first)
    own, first = own[good], first[good]
    error = (own - first).std(ddof=1) / np.sqrt(len(own)) if len(own) > 1 else np.nan
    base = first.mean()
    return f"{own.mean():.4f} ({100 * (own.mean() / base - 1):+.1f} ± {100 * error / base:.1f} %)"


def page(
    args: argparse.Namespace,
    rows: Mapping[str, Mapping[str, Any]],
    seconds: Mapping[str, float],
    scenes: Sequence[str],
    normals: Mapping[str, np.ndarray],
) -> str:
    """What the rows say, as Markdown."""
    whole = rows["whole"]
    real = f"; {len(scenes)} real frames of {len(set(scenes))} scenes" if scenes else ""
    lines = [
        "# Fewer operations: accuracy",
        "",
        f"{made(__file__, args.threads)}. {args.model}; {len(whole['scenes'])} held-out scenes of the mixed domain at "
        f"256 x 192, {len(whole['edges'])} at 96 x 72 for edges{real}. CPU time: one image of 96 x 72, the least of rounds "
        "in which each variant had its turn.",
        "",
        " ".join((__doc__ or "").split("\n\n")[-1].split("\n")).strip(),
        "",
    ]
    header = [
        "variant",
        "AbsRel ↓, scenes",
        *(["AbsRel ↓, real frames"] if scenes else []),
        "edge F1 ↑",
        "AbsRel ↓ near edges",
    ]
    header += ["GFLOP", "encoder + U-Net + decoder", "CPU ms"]
    lines += [f"| {' | '.join(header)} |", f"| --- |{' ---: |' * (len(header) - 1)}"]
    for name, row in rows.items():
        cells = [name, change(row["scenes"], whole["scenes"])]
        cells += [change(row["frames"], whole["frames"], scenes)] if scenes else []
        cells += [change(row["edges"][:, k], whole["edges"][:, k]) for k in (0, 1)]
        giga = row["giga"]
        cells += [f"{sum(giga.values()):.2f}" if giga else "-", " + ".join(f"{x:.2f}" for x in giga.values()) or "-"]
        lines.append(f"| {' | '.join([*cells, f'{1000 * seconds[name]:.0f}'])} |")
    if normals:
        lines += ["", "| normals of the same scenes | mean angle ↓ |", "| --- | ---: |"]
        lines += [f"| {name} | {change(values, normals['whole'])} |" for name, values in normals.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    raise SystemExit(main())
