"""Speed on the CPU: Stable Diffusion 2.1's shape, random weights, 384 x 384, against the plain modules in float32, in one run.

    python benchmarks/speed/cpu_speed.py            # writes cpu_speed.md and .json beside it

The settings are gone through in order, then in reverse, and so on, so that a machine that slows down or speeds up meanwhile
does not favour one of them; the best of a setting's medians counts. Depth Anything V2-L is measured after them, as a ruler.
Needs about 8 GB of memory, a quiet machine and 10 to 20 minutes a round.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # where `benchmarks` lies
from benchmarks._page import command
from benchmarks._ruler import RULER
from genpercept.commands.bench import output
from genpercept.commands.bench.session import Session
from genpercept.commands.bench.setting import Effort, Setting

PLAIN = Setting(resolution=384, device="cpu")
WAYS: dict[str, dict[str, Any]] = {
    "float32, plain": {},
    "float32, specialised": {"specialised": True},
    "float32, specialised and compiled": {"specialised": True, "compile": "static"},
    "float32, DPT head": {"head": "dpt"},
    "float32, tiny codec": {"codec": "tiny"},
    "float32, tiny codec, specialised": {"codec": "tiny", "specialised": True},
    "bf16, same weights": {"dtype": "bf16"},
    "bf16, specialised": {"dtype": "bf16", "specialised": True},
    "bf16, specialised and compiled": {"dtype": "bf16", "specialised": True, "compile": "static"},
    "float32, OpenVINO": {"runtime": "openvino"},
    "bf16, OpenVINO": {"runtime": "openvino", "dtype": "bf16"},
    "int8, OpenVINO": {"runtime": "openvino-int8"},
    "bf16, DPT head": {"dtype": "bf16", "head": "dpt"},
    "bf16, DPT head, specialised": {"dtype": "bf16", "head": "dpt", "specialised": True},
    "bf16, tiny codec": {"dtype": "bf16", "codec": "tiny"},
    "bf16, tiny codec, specialised": {"dtype": "bf16", "codec": "tiny", "specialised": True},
    "bf16, tiny codec, DPT head, specialised": {"dtype": "bf16", "codec": "tiny", "head": "dpt", "specialised": True},
}
AIMS = (
    "Aims: bf16 with the same weights 3.3 x of float32 where bf16 is quick, float32 at 1e-5 1.3 x. `equal dtype` is against "
    "the plain modules with Stable Diffusion's codec and decoder in the same dtype, `over float32` mixes dtypes. The plain "
    "modules are diffusers' own, called by the pipeline. Errors are against the same networks in float32, not specialised, "
    "over the standard deviation of their raw map."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write the page after each setting. Exit status: 1 when a setting failed. ValueError when none is chosen."""
    args = arguments(argv)
    plain, effort = replace(PLAIN, threads=args.threads), Effort(1, args.repeats, args.seconds, file_to_file=False)
    ruler = RULER
    if args.smoke:
        plain, effort = replace(plain, shape="mini", resolution=32), Effort(1, 2, 0.2, 0.05, file_to_file=False)
        ruler = "depth-anything-v2-small"
    chosen = {
        name: way
        for name, way in WAYS.items()
        if any(text in name for text in args.only) and not any(text in name for text in args.skip)
    }
    if not chosen:
        raise ValueError(f"--only {args.only}, --skip {args.skip}: no setting is left of {'; '.join(WAYS)}")
    settings = {replace(plain, **way): name for name, way in chosen.items()}
    session = Session(effort)
    title = f"Speed on the CPU, {plain.resolution} x {plain.resolution}"
    written: list[Path] = []
    order = [setting for i in range(args.rounds) for setting in (reversed(settings) if i % 2 else settings)]
    for i, setting in enumerate(order):
        session.add(setting, cold=False, compare=i < len(settings))
        lead = [AIMS, speed_ups(session.result, settings, plain), f"By `{command(__file__, argv)}`."]
        written = output.save(session.result, args.out, args.name, title, lead)  # each time: a stop loses one setting
    for dtype in dict.fromkeys(setting.dtype for setting in settings):
        session.peers([ruler], replace(plain, dtype=dtype))
        output.save(session.result, args.out, args.name, title, lead)
    output.show(session.result)
    for path in written:
        print(f"wrote {path}")
    return 1 if session.failed else 0


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line, None: this process's own."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--name", default="cpu_speed", help="of the page; another processor's may stand beside it")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each figure, after which it repeats no more")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", nargs="+", default=[""], metavar="TEXT", help="settings whose name has one of them")
    parser.add_argument("--skip", nargs="+", default=[], metavar="TEXT", help="those whose name has one are left out")
    parser.add_argument("--smoke", action="store_true", help="tiny networks: does everything run?")
    return parser.parse_args(argv)


def speed_ups(result: dict[str, Any], settings: dict[Setting, str], plain: Setting) -> str:
    """A table: seconds per image, times as quick as `plain` in the same dtype and in float32, error, memory, ceiling."""
    best: dict[str, dict[str, Any]] = {}
    for row in result["rows"]:
        if "error" in row:
            continue
        name = settings[Setting(**row["setting"])]
        kept = best.get(name, row)
        best[name] = min(row, kept, key=lambda one: one["network"]["median"]) | {"difference": kept.get("difference")}

    def quicker(base: Setting, row: dict[str, Any]) -> str:
        first = best.get(settings.get(base, ""))
        return f"{first['network']['median'] / row['network']['median']:.2f} x" if first else "-"

    lines = []
    for name, row in best.items():
        times = row["network"]
        own = Setting(**row["setting"])
        equal = "-" if own.runtime == "openvino-int8" else quicker(replace(plain, dtype=own.dtype), row)
        off = row["difference"]
        error = f"{off['rms']:.1e} ({off['max']:.1e})" if off else "-"
        spread = f"{times['low']:.3g} to {times['high']:.3g}"
        cells = [
            name,
            f"{times['median']:.3g}",
            spread,
            str(times["runs"]),
            equal,
            quicker(plain, row),
            error,
            f"{row['peak'] / 2**30:.2f}",
        ]
        lines.append([*cells, f"{row['share']:.0%} of {row['ceiling']['tflops']:.3g}"])
    header = [
        "setting",
        "s/image",
        "quartiles",
        "runs",
        "equal dtype",
        "over float32",
        "error: rms (largest)",
        "peak, GiB",
        "of the matmul ceiling, TFLOP/s",
    ]
    return output.markdown_table(header, lines)


if __name__ == "__main__":
    raise SystemExit(main())
