"""Cost against size, 256 to 2048 pixels: time and memory of each stage, fitted exponents, and what remedies do.

    python benchmarks/memory/size_curve.py            # on the fastest device there is; size_curve.md, .json, .png beside it
    python benchmarks/memory/size_curve.py --dtype fp32 --repeats 1 --remedied-from 1024 \\
        --remedies 'plain,strips,tiled codec'

The second is for two cores and 24 GiB, and takes more than an hour; --resume goes on after a stop.

Random weights in Stable Diffusion 2.1's shape. An exponent is the slope of log(cost) over log(pixels): 1 is linear in the
pixels, 2 is what attention without a memory-saving kernel comes to. Local slopes, from one size to the next, show cliffs.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))  # where `benchmarks` lies
from benchmarks._page import command
from genpercept.commands.bench import output
from genpercept.commands.bench.machine import processor
from genpercept.commands.bench.session import Session
from genpercept.commands.bench.setting import Effort, Setting
from genpercept.commands.bench.stages import NETWORK
from genpercept.commands.study.chart import Panel, draw
from genpercept.core.devices import pick_device

SIZES = (256, 384, 512, 768, 1024, 1536, 2048)
REMEDIES: dict[str, dict[str, Any]] = {
    "plain": {},
    "strips": {"specialised": True, "strips": True},
    "tiled codec": {"vae_tiling": True},
    "sliced attention": {"attention_slicing": True},
}
_OFF = {key: False for way in REMEDIES.values() for key in way}
Curve = list[tuple[float, float]]  # (pixels of the edge, cost)
CLIFF = 1.6  # a local slope over this, in time or memory, is named


def main(argv: Sequence[str] | None = None) -> int:
    """Measure all sizes, and write the page and its plot. Exit status: 1 when a setting failed."""
    args = arguments(argv)
    device = pick_device(args.device)
    base = Setting(device=device, dtype=args.dtype, threads=args.threads)
    effort, sizes = (
        Effort(0, args.repeats, args.seconds, file_to_file=False),
        [int(size) for size in args.sizes.split(",")],
    )
    if args.smoke:
        base, effort, sizes = (
            replace(base, shape="mini", threads=1),
            Effort(0, 1, 0.1, 0.05, file_to_file=False),
            [32, 48],
        )
    session = Session(effort, deadline=args.deadline)
    known = measured(args.out / "size_curve.json", session) if args.resume else {}
    for size in sizes:
        for name in args.remedies:
            if name != "plain" and size < args.remedied_from:
                continue
            setting = replace(base, resolution=size, **REMEDIES[name])
            if setting in known:
                session.result["rows"].append(known[setting])
            else:
                session.effort = replace(effort, stages=name == "plain")
                session.add(setting, cold=False)
            write(session, args.out, base, argv)  # after each: the large sizes take an hour, and may not fit
    output.show(session.result)
    print(f"wrote {args.out / 'size_curve.md'}")
    return 1 if session.failed else 0


def measured(file: Path, session: Session) -> dict[Setting, dict[str, Any]]:
    """Rows of an earlier run on this machine with this effort, whose machine becomes the session's; none of other ones."""
    if not file.is_file():
        return {}
    stored = json.loads(file.read_text(encoding="utf-8"))
    same = stored["machine"].get("processor") == processor()
    if not same or asdict(Effort()) | stored["effort"] != asdict(session.effort):
        return {}
    session.result["machine"] = stored["machine"]
    return {Setting(**row["setting"]): row for row in stored["rows"] if "error" not in row}


def write(session: Session, folder: Path, base: Setting, argv: Sequence[str] | None) -> None:
    """The page and the plot of what has been measured so far."""
    found = curves(session.result)
    folder.mkdir(parents=True, exist_ok=True)
    if any(len(line) > 1 for by_stage in found.values() for line in by_stage.values()):
        plot(folder / "size_curve.png", found)
    lead = [
        "![Time and memory against size](size_curve.png)",
        fits(found),
        cliffs(found),
        f"By `{command(__file__, argv)}`.",
    ]
    title = f"Cost against size, {base.dtype}, {'one GPU' if base.device.startswith('cuda') else 'CPU'}"
    output.save(session.result, folder, "size_curve", title, lead)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line, None: this process's own."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", choices=("fp32", "bf16", "fp16"), default="bf16")
    parser.add_argument("--threads", type=int, default=0, help="0: as many as torch takes")
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="edges in pixels, rising")
    parser.add_argument("--remedies", default=",".join(REMEDIES), help="separated by commas")
    parser.add_argument("--remedied-from", type=int, default=0, help="smaller sizes are measured plain only")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--deadline", type=float, default=math.inf, help="seconds after which nothing new is begun")
    parser.add_argument("--resume", action="store_true", help="keep the rows of an earlier run on this machine")
    parser.add_argument("--smoke", action="store_true", help="tiny networks: does everything run?")
    args = parser.parse_args(argv)
    args.remedies = args.remedies.split(",")
    if unknown := [name for name in args.remedies if name not in REMEDIES]:
        parser.error(f"--remedies {', '.join(unknown)}: choose of {', '.join(REMEDIES)}")
    return args


def curves(result: dict[str, Any]) -> dict[str, dict[str, Curve]]:
    """{"time" in seconds or "memory" in GiB: {stage or whole network, with its remedy: points}}."""
    found: dict[str, dict[str, Curve]] = {"time": {}, "memory": {}}
    for row in result["rows"]:
        if "error" in row:
            continue
        setting = Setting(**row["setting"])
        remedy = next(name for name, way in REMEDIES.items() if replace(setting, **{**_OFF, **way}) == setting)
        stages = ("network", *NETWORK) if remedy == "plain" else ("network",)
        for stage in stages:
            name = stage if remedy == "plain" else f"{stage}, {remedy}"
            seconds = row["network"]["median"] if stage == "network" else row["stages"][stage]["median"]
            peak = row["peak"] if stage == "network" else row["stage_peaks"][stage]
            found["time"].setdefault(name, []).append((float(setting.resolution), seconds))
            found["memory"].setdefault(name, []).append((float(setting.resolution), peak / 2**30))
    return found


def exponent(line: Curve) -> float:
    """Slope of log(cost) over log(pixels of the image), least squares."""
    if len(line) < 2:
        return math.nan
    x, y = np.log([edge * edge for edge, _ in line]), np.log([cost for _, cost in line])
    return float(np.polyfit(x, y, 1)[0])


def slopes(line: Curve) -> list[float]:
    """The exponent from each size to the next."""
    return [exponent([a, b]) for a, b in pairwise(line)]


def fits(found: dict[str, dict[str, Curve]]) -> str:
    """A table of exponents, over all sizes and over the last step."""
    lines = []
    for name in found["time"]:
        cells = [name]
        for what in ("time", "memory"):
            line = found[what][name]
            cells += [f"{exponent(line):.2f}", f"{(slopes(line) or [math.nan])[-1]:.2f}"]
        lines.append(cells)
    header = ["", "time, exponent", "time, last step", "memory, exponent", "memory, last step"]
    return output.markdown_table(header, lines)


def cliffs(found: dict[str, dict[str, Curve]]) -> str:
    """The steps at which a cost rises steeper than pixels to the power of CLIFF, in words."""
    steep = []
    for what, lines in found.items():
        for name, line in lines.items():
            for ((a, _), (b, _)), slope in zip(pairwise(line), slopes(line), strict=True):
                if slope > CLIFF:
                    steep.append(f"{what} of {name} from {a:g} to {b:g} px (exponent {slope:.2f})")
    return f"Steeper than pixels ^ {CLIFF}: {'; '.join(steep) or 'nowhere'}. Remedies: docs/speed.md, Large images."


def plot(path: Path, found: dict[str, dict[str, Curve]]) -> None:
    """Both costs over the edge, all axes logarithmic: in such a picture a power is a straight line."""
    titles = {"time": "time, s", "memory": "peak memory, GiB"}
    panels = [Panel("", lines, titles[what]) for what, lines in found.items()]
    draw(path, panels, "edge of the image, pixels", powers=True)


if __name__ == "__main__":
    raise SystemExit(main())
