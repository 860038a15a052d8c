"""Fewer operations at full size: Stable Diffusion 2.1's shape at 384 x 384 against Depth Anything V2-L at 392.

    python benchmarks/speed/fewer_operations.py                        # writes fewer_operations.md and .json beside it
    python benchmarks/speed/fewer_operations.py --openvino fp32 int8   # and graphs of OpenVINO: 12 GB, an hour more

Each row runs in a process of its own, the rows one after the other, then in reverse, and so on, so that a machine
that slows down does not favour one. Of a row count the least CPU seconds and the least seconds of its runs: what else
runs beside makes neither shorter. The ratio to the ruler is that of CPU seconds. Needs about 8 GB of memory and, on a
quiet machine, half a minute a row and round.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))  # where `benchmarks` lies
from benchmarks._page import made
from genpercept.commands.bench import build, flops, machine, peers
from genpercept.commands.bench.setting import Setting
from genpercept.core import files
from genpercept.pipeline.call import Run

PLAIN = Setting(resolution=384, device="cpu")
RULER = "depth-anything-v2-large@392"
WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "specialised": {"specialised": True},
    "half-resolution decoder": {"decoder": "half"},
    "quarter-resolution decoder": {"decoder": "quarter"},
    "slim U-Net": {"unet": "slim"},
    "half-resolution decoder, slim U-Net": {"decoder": "half", "unet": "slim"},
    "quarter-resolution decoder, slim U-Net": {"decoder": "quarter", "unet": "slim"},
    "tiny codec": {"codec": "tiny"},
    "tiny codec, DPT head": {"codec": "tiny", "head": "dpt"},
    "tiny encoder, quarter-resolution decoder, slim U-Net": {"codec": "tiny", "decoder": "quarter", "unet": "slim"},
    "tiny codec, slim U-Net": {"codec": "tiny", "unet": "slim"},
    "tiny codec, slim U-Net, specialised": {"codec": "tiny", "unet": "slim", "specialised": True},
}
GRAPHS = {"fp32": "openvino", "int8": "openvino-int8"}
_GIB = 2**30


def main(argv: Sequence[str] | None = None) -> int:
    """Measure every row in turns, and write the page after each. Exit status: 1 where a row failed."""
    args = arguments(argv)
    if args.child:
        print(json.dumps(child(json.loads(args.child))))
        return 0
    plain = replace(PLAIN, threads=args.threads)
    if args.smoke:
        plain = replace(plain, shape="mini", resolution=32)
    ways = {RULER: {}} | WAYS | {f"OpenVINO, {kind}": {"runtime": GRAPHS[kind]} for kind in args.openvino}
    best = "tiny codec, slim U-Net"
    ways |= {f"{best}, OpenVINO {kind}": WAYS[best] | {"runtime": GRAPHS[kind]} for kind in args.openvino}
    chosen = {name: way for name, way in ways.items() if any(text in name for text in args.only)}
    kept = args.out / "fewer_operations.json"
    known = files.read_json(kept) if args.more and kept.is_file() else {}
    rows: dict[str, dict[str, Any]] = {
        name: known.get(name, {"runs": []}) for name in ways if name in {**known, **chosen}
    }
    with tempfile.TemporaryDirectory(prefix="genpercept_bench_") as graphs:
        for turn in range(args.rounds):
            for name in reversed(chosen) if turn % 2 else chosen:
                job = {"ruler": name == RULER, "setting": asdict(replace(plain, **chosen[name]))}
                job |= {"runs": args.runs, "folder": graphs, "known": "tflop" in rows[name]}
                if args.count:
                    rows[name] |= {} if job["known"] else counted(job)
                else:
                    take(rows[name], job)
                print(f"{time.strftime('%H:%M:%S')} {name}: {rows[name]}", file=sys.stderr, flush=True)
                write(args, rows)
    print((args.out / "fewer_operations.md").read_text(encoding="utf-8"))
    return 1 if any("error" in row for row in rows.values()) else 0


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line, None: this process's own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--runs", type=int, default=2, help="of a row in a round, after one that is not counted")
    parser.add_argument("--more", action="store_true", help="keep what the page has, and add runs")
    parser.add_argument("--count", action="store_true", help="operations and parameters alone, nothing is timed")
    parser.add_argument("--only", nargs="+", default=[""], metavar="TEXT", help="rows whose name has one of them")
    parser.add_argument("--openvino", nargs="*", default=[], choices=list(GRAPHS))
    parser.add_argument("--smoke", action="store_true", help="tiny networks: does everything run?")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def take(row: dict[str, Any], job: Mapping[str, Any]) -> None:
    """Another process's runs of a row."""
    done = subprocess.run(
        [sys.executable, __file__, "--child", json.dumps(job)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        row["error"] = (done.stderr.strip().splitlines() or [f"ended with code {done.returncode}"])[-1]
        return
    found = json.loads(done.stdout.strip().splitlines()[-1])
    row["runs"] += found.pop("runs")
    row["peak"] = max(row.get("peak", 0), found.pop("peak"))
    row |= found


def counted(job: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters and TFLOP by stage, on shapes alone."""
    of, peer = Setting(**job["setting"]), peers.find(RULER)
    if job["ruler"]:
        return {"parameters": peer.parameters, "tflop": {"total": peers.tflops(peer, of.resolution)}}
    return _counts(build.networks(of), of.resolution)


def child(job: Mapping[str, Any]) -> dict[str, Any]:
    """What `counted` gives, peak bytes, and runs as [CPU seconds, seconds]."""
    of = Setting(**job["setting"])
    torch.set_num_threads(of.threads)
    torch.manual_seed(0)
    call = _ruler(of) if job["ruler"] else _own(of, Path(job["folder"]))
    runs = []
    with torch.inference_mode():
        call()
        machine.reset_peak("cpu")
        for _ in range(job["runs"]):
            start = time.process_time(), time.perf_counter()
            call()
            runs.append([time.process_time() - start[0], time.perf_counter() - start[1]])
    peak = machine.peak("cpu")
    return ({} if job["known"] else counted(job)) | {"runs": runs, "peak": peak}


def _ruler(of: Setting) -> Callable[[], Any]:
    peer = peers.find(RULER)
    model = peer.build().eval()
    edge = peer.sees(of.resolution)
    image = torch.rand(1, 3, edge, edge)
    return lambda: model(image)


def _own(of: Setting, folder: Path) -> Callable[[], Any]:
    graph = None
    if of.runtime != "torch":
        place = folder / f"{of.runtime}-{of.codec}-{of.unet}"
        graph = next(iter([*place.glob("*.xml")]), None)
        if graph is None:
            place.mkdir()
            graph = build.export(of, place)
    pipe = build.pipeline(of, graph)
    image = torch.rand(1, 3, of.resolution, of.resolution)
    run = Run(pipe.paradigm(), 1)
    return lambda: pipe._forward(image, run, None)


def _counts(pipe: Any, resolution: int) -> dict[str, Any]:
    counts = {stage: found["total"] for stage, found in flops.by_stage(pipe, (resolution, resolution)).items()}
    parameters = sum(p.numel() for part in (pipe.unet, pipe.vae, pipe.head) if part for p in part.parameters())
    return {"parameters": parameters, "tflop": counts | {"total": sum(counts.values())}}


def write(args: argparse.Namespace, rows: Mapping[str, Mapping[str, Any]]) -> None:
    """The page and its figures."""
    known = {name: row for name, row in rows.items() if "tflop" in row}
    least = {name: [min(run[k] for run in row["runs"]) for k in (0, 1)] for name, row in known.items() if row["runs"]}
    lines = [
        "# Fewer operations at full size",
        "",
        f"{made(__file__, args.threads)}. Random weights, float32, 384 x 384; the ruler, Depth Anything V2-L of "
        "transformers, sees 392 x 392, the next size in whole patches. TFLOP are counted (convolutions, matrix products, "
        "attention) over the plain networks. Peak memory: of the whole process while the network runs.",
        "",
        " ".join((__doc__ or "").split("\n\n")[-1].split("\n")).strip(),
        "",
        "| row | CPU s | s | runs | CPU time over the ruler's | TFLOP | encoder + U-Net + decoder or head | parameters, M | "
        "peak, GiB |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, row in known.items():
        stages = " + ".join(f"{row['tflop'][k]:.3f}" for k in ("encode", "denoise", "head") if k in row["tflop"])
        cpu, wall = (f"{seconds:.1f}" for seconds in least[name]) if name in least else ("-", "-")
        ratio = f"{least[name][0] / least[RULER][0]:.2f}" if {name, RULER} <= least.keys() else "-"
        cells = [name, cpu, wall, str(len(row["runs"])), ratio, f"{row['tflop']['total']:.3f}", stages or "-"]
        peak = f"{row['peak'] / _GIB:.2f}" if "peak" in row else "-"
        cells += [f"{row['parameters'] / 1e6:.0f}", peak]
        lines.append(f"| {' | '.join(cells)} |")
    failed = [f"- {name}: {row['error']}" for name, row in rows.items() if "error" in row]
    lines += ["", "Not measured:", "", *failed] if failed else []
    files.write_text(args.out / "fewer_operations.md", "\n".join(lines) + "\n")
    files.write_json(args.out / "fewer_operations.json", dict(rows))


if __name__ == "__main__":
    raise SystemExit(main())
