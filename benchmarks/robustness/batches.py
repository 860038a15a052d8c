"""One recipe with its batch divided in every way: over 1, 2, 3 and 4 processes (gloo), in passes of 1, 2 and all samples.

python benchmarks/robustness/batches.py --out benchmarks/robustness/batches.md
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # where `benchmarks` lies
from benchmarks._page import made, show

ROOT = Path(__file__).parents[2]
STEPS, BATCH = 20, 8
WAYS = ((1, 0), (1, 2), (1, 1), (2, 0), (3, 1), (4, 0), (4, 1))  # processes, micro_batch; the first is the measure
COMMON = (
    f"steps={STEPS}",
    f"loader.batch_size={BATCH}",
    "loader.workers=1",
    "data.0.count=32",
    "augment.sizes=[[32, 48]]",
    "precision=fp32",
    "validation={every = 0, count = 2, pictures = 1}",
    "checkpoint={every = 0}",
    "optim.kind=fused",
    "optim.lr=1e-4",
    "optim.warmup=5",
    "speed={threads = 1}",
    "logging={tensorboard = false, seconds = 1000}",
)
# What is compared: a recipe and what is changed in it beside COMMON
RECIPES: dict[str, tuple[str, tuple[str, ...]]] = {
    "latent loss": ("mini/depth", ("model.base=mini/base", "loader.latent_variants=0")),
    "losses behind the decoder, on half of the samples": (
        "mini/depth_pixels",
        ("model.base=mini/depth", "pixel_share=0.5"),
    ),
}


def record(recipe: str, overrides: list[str], out: Path) -> None:
    """Train, and write the loss of each step into OUT/losses.json."""
    from genpercept.training import recipe as recipes
    from genpercept.training.loop import Training

    training = Training(recipes.load(recipe, overrides), out, resume=False)
    losses: list[float] = []
    step = training.step

    def recorded(batches):
        figures = step(batches)
        losses.append(figures["loss"])
        return figures

    training.step = recorded
    training.run()
    if training.first:
        (out / "losses.json").write_text(json.dumps(losses), encoding="utf-8")
    sys.stdout.flush()
    os._exit(0)  # as genpercept.training does: the other process may be gone


def curve(recipe: str, overrides: tuple[str, ...], out: Path, processes: int, micro: int) -> list[float]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [sys.executable, __file__, "--record", recipe, "--to", str(out)]
    command += [*COMMON, *overrides, f"loader.micro_batch={micro}"]
    shared = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    env = os.environ | {"OMP_NUM_THREADS": "1"} | (shared if processes > 1 else {})
    ranks = [{"RANK": str(r), "LOCAL_RANK": str(r)} if processes > 1 else {} for r in range(processes)]
    children = [subprocess.Popen(command, env=env | rank, stderr=subprocess.DEVNULL, cwd=ROOT) for rank in ranks]
    if codes := [code for child in children if (code := child.wait())]:
        raise SystemExit(f"a process failed with status {codes[0]}")
    return json.loads((out / "losses.json").read_text(encoding="utf-8"))


def compared(title: str, folder: Path) -> tuple[float, list[str]]:
    """The largest relative difference of a step's loss from the first way's, and a table."""
    recipe, overrides = RECIPES[title]
    curves = {way: curve(recipe, overrides, folder / f"{way[0]}-{way[1]}", *way) for way in WAYS}
    whole = curves[WAYS[0]]
    lines = ["", f"## {title.capitalize()}", "", f"`{recipe}` with `{' '.join(overrides)}`", ""]
    lines += ["| processes | passes x samples | first loss | last loss | largest relative difference |"]
    lines += ["| ---: | ---: | ---: | ---: | ---: |"]
    worst = 0.0
    for (processes, micro), losses in curves.items():
        said = json.loads((folder / f"{processes}-{micro}" / "batches.json").read_text(encoding="utf-8"))
        apart = max(abs(a - b) / abs(a) for a, b in zip(whole, losses, strict=True))
        worst = max(worst, apart)
        shown = f"{apart:.1e}" if (processes, micro) != WAYS[0] else "–"
        passes = f"{said['passes']} x {said['micro_batch']}"
        lines.append(f"| {processes} | {passes} | {losses[0]:.7f} | {losses[-1]:.7f} | {shown} |")
    return worst, lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--record", help=argparse.SUPPRESS)
    parser.add_argument("--to", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("overrides", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.record:
        record(options.record, options.overrides, options.to)
    found = {}
    for title in RECIPES:
        with tempfile.TemporaryDirectory() as folder:
            found[title] = compared(title, Path(folder))
    worst = max(apart for apart, _ in found.values())
    lines = [
        "# One batch, divided in every way",
        "",
        f"{made(__file__)}. {STEPS} steps with a batch of {BATCH} in float32, divided over processes (gloo, one thread each;"
        " three have 2, 3 and 3 samples) and within each process over passes through the network. The loss is that of the"
        " whole batch before the step.",
        "",
        f"**Largest relative difference of the loss over {STEPS} steps and {len(WAYS) - 1} ways: {worst:.1e}** (asked for:"
        " 1e-4).",
    ]
    show([*lines, *(line for _, table in found.values() for line in table)], options.out)
    sys.exit(0 if worst <= 1e-4 else 1)


if __name__ == "__main__":
    main()
