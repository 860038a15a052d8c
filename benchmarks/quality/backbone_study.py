"""Transformer against U-Net: two text-to-image bases pretrained by the same recipe, fine-tuned for depth by the same recipe.

    genpercept train mini/base_transformer --set steps=1462 --set max_minutes=1000 --out runs/base_transformer
    genpercept train mini/depth_transformer --out runs/depth_transformer
    python benchmarks/quality/backbone_study.py --unet runs/base,runs/depth \\
        --transformer runs/base_transformer,runs/depth_transformer

(The U-Net's runs are those of the recipes mini/base and mini/depth, the first stages of mini/base and mini/depth.) Writes
docs/studies/backbones.md, .json and .png. `--table` writes the page again from the figures that the .json holds.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # where `benchmarks` lies
import genpercept
from benchmarks.quality.mini import judge_depth
from genpercept.commands.bench.machine import processor
from genpercept.commands.demo.photographs import held_out
from genpercept.commands.study import chart

DOCS = Path(__file__).parents[2] / "docs" / "studies"
SIZE = (192, 256)
EDGES = (64, 96)  # longest edge that the network sees; both learned at 64


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--unet", default="runs/base,runs/depth", help="runs of its pretraining and fine-tuning")
    parser.add_argument("--transformer", default="runs/base_transformer,runs/depth_transformer")
    parser.add_argument("--count", type=int, default=500, help="held-out scenes of the mixed domain")
    parser.add_argument("--out", type=Path, default=DOCS)
    parser.add_argument("--table", action="store_true", help="only the page, from the figures that are there")
    args = parser.parse_args(argv)
    path = args.out / "backbones.json"
    if not args.table:
        arms = {name: [Path(p) for p in getattr(args, name).split(",")] for name in ("unet", "transformer")}
        found = {"date": time.strftime("%Y-%m-%d"), "machine": processor(), "count": args.count}
        found |= {name: arm(*runs, args.count) for name, runs in arms.items()}
        args.out.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    results = json.loads(path.read_text(encoding="utf-8"))
    draw(args.out / "backbones.png", results)
    (args.out / "backbones.md").write_text(page(results), encoding="utf-8")
    print(page(results))
    return 0


def arm(base: Path, tuned: Path, count: int) -> dict[str, Any]:
    """Parameters, what validation said in both stages, and figures of the finished model on held-out scenes."""
    pipe = genpercept.load(tuned / "model", device="cpu")
    scenes = held_out(range(count), "mixed", SIZE)
    return {
        "parameters": sum(p.numel() for p in pipe.unet.parameters()),
        "pretraining": stage(base),
        "fine_tuning": stage(tuned),
        "held_out": {str(edge): judge_depth(scenes, {"model": pipe}, 16, edge) for edge in EDGES},
    }


def stage(run: Path) -> dict[str, Any]:
    """Steps, images per step, median rate, and validation by step."""
    recipe = json.loads((run / "recipe.json").read_text(encoding="utf-8"))
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return {"batch": recipe["loader"]["batch_size"], "validation": rows, "steps": rows[-1]["step"] if rows else 0}


def draw(path: Path, results: dict[str, Any]) -> None:
    lines = {
        title: [(row["step"], row["abs_rel"]) for row in results[name]["fine_tuning"]["validation"]]
        for name, title in (("unet", "U-Net"), ("transformer", "transformer"))
    }
    chart.draw(
        path, [chart.Panel("depth, 64 validation scenes", lines)], "steps of fine-tuning", "AbsRel, lower is better"
    )


def page(results: dict[str, Any]) -> str:
    unet, transformer = results["unet"], results["transformer"]
    rows = [
        ("parameters of the denoiser", *(f"{a['parameters']:,}" for a in (unet, transformer))),
        ("pretraining: images", *(f"{images(a['pretraining']):,}" for a in (unet, transformer))),
        ("pretraining: v-prediction loss, validation", *(last(a["pretraining"], "loss") for a in (unet, transformer))),
        ("fine-tuning: images", *(f"{images(a['fine_tuning']):,}" for a in (unet, transformer))),
        ("fine-tuning: latent loss, validation", *(last(a["fine_tuning"], "loss") for a in (unet, transformer))),
    ]
    for edge in EDGES:
        for key, title in (("abs_rel", "AbsRel ↓"), ("delta1", "δ1 ↑")):
            cells = [figure(a["held_out"][str(edge)]["model"], key) for a in (unet, transformer)]
            rows.append((f"held-out scenes at {edge} pixels: {title}", *cells))
    trivial = unet["held_out"][str(EDGES[0])]
    beside = ", ".join(f"{name} {trivial[name]['abs_rel']:.3f}" for name in trivial if name != "model")
    header = ("", "U-Net (mini/base)", "transformer (PixArt-shaped)")
    table = "\n".join("| " + " | ".join(line) + " |" for line in (header, ("---", "---:", "---:"), *rows))
    return (
        "# Backbones: transformer against U-Net at mini scale\n\n"
        f"Measured on {results['date']} ({results['machine']}, CPU) with `python benchmarks/quality/backbone_study.py`; the "
        "commands that train stand at its head. Same codec, captions, text encoder, data, optimiser, steps and batch; the "
        "recipes differ in the network alone (`mini/base`, `mini/base_transformer`, `mini/depth`, "
        f"`mini/depth_transformer`). {results['count']} held-out scenes (mixed) at {SIZE[1]} x {SIZE[0]}, ± standard "
        f"error over images; both models learned at {EDGES[0]} pixels. AbsRel of answers that look at no image: {beside}.\n\n"
        f"{table}\n\n![AbsRel over the steps of fine-tuning](backbones.png)\n\n{reading(unet, transformer)}\n"
    )


def reading(unet: dict[str, Any], transformer: dict[str, Any]) -> str:
    """What the figures say, without saying more."""
    a, b = (arm["held_out"][str(EDGES[0])]["model"] for arm in (unet, transformer))
    spread = (a["abs_rel_se"] ** 2 + b["abs_rel_se"] ** 2) ** 0.5
    gap = b["abs_rel"] - a["abs_rel"]
    better = "the U-Net is better" if gap > 0 else "the transformer is better"
    verdict = f"by {abs(gap):.3f} AbsRel, {abs(gap) / spread:.1f} standard errors" if spread else ""
    return (
        f"At this size and budget {better} {verdict}. One seed each; a transformer with 2 x 2 patches sees the latent in a "
        "quarter of the U-Net's tokens and has neither its skip connections nor its local prior, which tells most where "
        "training is short. It says nothing about full-size models."
    )


def images(stage: dict[str, Any]) -> int:
    return stage["steps"] * stage["batch"]


def last(stage: dict[str, Any], key: str) -> str:
    return f"{stage['validation'][-1][key]:.3f}" if stage["validation"] else "–"


def figure(row: dict[str, Any], key: str) -> str:
    return f"{row[key]:.3f} ± {row[f'{key}_se']:.3f}"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
