"""The same run in one process and in two (gloo): loss curves of 50 steps in float32.

python benchmarks/robustness/processes.py --out benchmarks/robustness/processes.md
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
from benchmarks._page import made
from benchmarks._tiny import write

STEPS, BATCH = 50, 8


def record(recipe: Path, out: Path) -> None:
    """Train, and write the loss of each step into OUT/losses.json."""
    from genpercept.training import recipe as recipes
    from genpercept.training.loop import Training

    training = Training(recipes.load(recipe), out, resume=False)
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


def curve(recipe: Path, out: Path, processes: int) -> list[float]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [sys.executable, __file__, "--record", str(recipe), "--to", str(out)]
    shared = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    env = os.environ | (shared if processes > 1 else {"OMP_NUM_THREADS": "1"})
    ranks = [{"RANK": str(r), "LOCAL_RANK": str(r)} if processes > 1 else {} for r in range(processes)]
    children = [subprocess.Popen(command, env=env | rank, stderr=subprocess.DEVNULL) for rank in ranks]
    if codes := [code for child in children if (code := child.wait())]:
        raise SystemExit(f"a process failed with status {codes[0]}")
    return json.loads((out / "losses.json").read_text(encoding="utf-8"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--record", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--to", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.record:
        record(options.record, options.to)
    with tempfile.TemporaryDirectory() as folder:
        recipe = write(Path(folder), STEPS, every=0, batch=BATCH)
        one, two = (curve(recipe, Path(folder) / str(n), n) for n in (1, 2))
    relative = [abs(a - b) / abs(a) for a, b in zip(one, two, strict=True)]
    lines = [
        "# One process and two",
        "",
        f"{made(__file__)}. {STEPS} steps of one recipe (batch {BATCH}, accumulation 2, float32), in one"
        " process and in two (gloo, half of each batch each). The loss is that of the whole batch before the step.",
        "",
        f"**Largest relative difference of the loss over {STEPS} steps: {max(relative):.1e}** (asked for: 1e-4).",
        "",
        "| step | one process | two processes | relative difference |",
        "| ---: | ---: | ---: | ---: |",
    ]
    shown = [s for s in range(len(one)) if s % 7 == 0]
    lines += [f"| {s} | {one[s]:.7f} | {two[s]:.7f} | {relative[s]:.1e} |" for s in shown]
    text = "\n".join(lines) + "\n"
    print(text)
    if options.out:
        options.out.write_text(text, encoding="utf-8")
    sys.exit(0 if max(relative) <= 1e-4 else 1)


if __name__ == "__main__":
    main()
