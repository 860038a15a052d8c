"""Speed on one GPU: 768 x 768, codecs, heads, dtypes, specialised or not, batches, and peers in the same way.

    benchmarks/speed/gpu.sh            # on a GPU; what is there already is not measured again
    benchmarks/speed/gpu.sh --plan     # what would run, with the seconds that each job may take
    benchmarks/speed/gpu.sh --smoke --out DIR

Random weights in Stable Diffusion 2.1's shape. Each job has a process of its own, which is ended when its time is over, and
none begins that could not end within the whole. What matters most comes first. Results are stored after each job; what failed
or was left out is tried by the next run.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from genpercept.commands.bench import output, peers
from genpercept.commands.bench.session import Session
from genpercept.commands.bench.setting import Effort, Setting
from genpercept.core import files
from genpercept.core.devices import pick_device
from genpercept.core.said import say

RESOLUTION, WHOLE = 768, 480.0  # pixels; seconds of a run of all
QUICK: dict[str, Any] = {"dtype": "bf16", "specialised": True, "cuda_graphs": True}
TINY = {"codec": "tiny", "head": "dpt"}
AIMS = (
    "Aims: 60 % of the measured ceiling at the best batch; 20 ms per image with the VAE decoder, 6 ms with tiny codec and "
    "DPT; 3 GB at batch 1 with DPT. Peak memory is that of tensors on the device."
)


@dataclass(frozen=True)
class Job:
    """seconds: that it may take. ways: of a Setting; of a peer, of `peers.Way`. host: whether file to file is measured, too."""

    seconds: float
    ways: dict[str, Any] = field(default_factory=dict)
    batches: tuple[int, ...] = (1,)
    peer: str = ""
    host: bool = False

    def label(self, plain: Setting) -> str:
        if self.peer:
            return ", ".join(filter(None, [f"peer {self.peer}", plain.dtype, peers.Way(**self.ways).label]))
        return replace(plain, **self.ways).label


JOBS = (
    Job(55, TINY | QUICK, (1, 4, 16), host=True),
    Job(50, QUICK, (1, 4, 16)),
    Job(25, {"cuda_graphs": True}, peer="depth-anything-v2-large"),
    Job(30, {"cuda_graphs": True}, peer="marigold-1"),
    Job(25, {"dtype": "bf16"}),
    Job(25, TINY | {"dtype": "bf16"}),
    Job(20, {"cuda_graphs": True}, peer="depth-anything-v2-small"),
    *(Job(20, QUICK | {"layout": layout}) for layout in ("contiguous", "channels_last")),
    Job(75, TINY | QUICK | {"compile": "static"}),
    Job(60, {"compile": "static", "cuda_graphs": True}, peer="depth-anything-v2-large"),
    Job(25, {"cuda_graphs": True}, peer="marigold-4"),
    Job(25, QUICK | {"dtype": "fp32"}),
    Job(25, QUICK | {"head": "dpt"}),
)
SMOKE = (
    Job(0.5, {"dtype": "bf16"}),  # is ended, and said to be
    Job(900, TINY | {"specialised": True}, (1, 2), host=True),
    Job(900, {"compile": ""}, peer="depth-anything-v2-small"),
)


def main(argv: Sequence[str] | None = None) -> int:
    args = arguments(argv)
    jobs, whole = (SMOKE, sum(job.seconds for job in SMOKE)) if args.smoke else (JOBS, WHOLE)
    device = "cpu" if args.smoke or args.plan else pick_device("cuda")
    plain = Setting(resolution=RESOLUTION, dtype="bf16", device=device)
    effort = Effort(2, 15, 1.0, 0.3, host=False, file_to_file=False)
    if args.smoke:
        plain = replace(plain, shape="mini", resolution=32, threads=1, dtype="fp32")
        effort = Effort(1, 2, 0.2, 0.05, host=False, file_to_file=False)
    if args.plan:
        files.write_text(args.out / "gpu_plan.md", f"# What `gpu.sh` would run\n\n{plan(jobs, plain, whole)}\n")
        print(plan(jobs, plain, whole))
        return 0
    begun, store = time.monotonic(), args.out / "gpu_jobs.json"
    done: dict[str, Any] = {} if args.again or not store.is_file() else json.loads(store.read_text(encoding="utf-8"))
    left_out = []
    for job in jobs:
        name = job.label(plain)
        if name in done and not failed(done[name]):
            continue
        passed = time.monotonic() - begun
        if passed + job.seconds > whole:
            left_out.append(name)
            continue
        say(f"{passed:5.0f} s  {name}, up to {job.seconds:g} s")
        done[name] = measured(job, plain, effort)
        args.out.mkdir(parents=True, exist_ok=True)
        files.write_json(store, done)
    result = gathered([done[name] for job in jobs if (name := job.label(plain)) in done], effort, left_out)
    lead = [AIMS, best_batches(result), plan(jobs, plain, whole), f"By `{command(args)}`."]
    output.show(result)
    for path in output.save(result, args.out, "gpu", f"Speed on one GPU, {plain.resolution} pixels", lead):
        print(f"wrote {path}")
    ended = SMOKE[0].label(plain)
    return int(any(failed(done[name]) for name in done if not (args.smoke and name == ended)))


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--smoke", action="store_true", help="tiny networks on the CPU: does everything run?")
    parser.add_argument("--plan", action="store_true", help="what would run, to gpu_plan.md; nothing is measured")
    parser.add_argument("--again", action="store_true", help="measure what is there already, too")
    return parser.parse_args(argv)


def command(args: argparse.Namespace) -> str:
    return "benchmarks/speed/gpu.sh" + (" --smoke" if args.smoke else "")


def plan(jobs: Sequence[Job], plain: Setting, whole: float) -> str:
    """A table: the jobs in their order, the batches, and the seconds that each may take."""
    rows = [[job.label(plain), ", ".join(map(str, job.batches)), f"{job.seconds:g}"] for job in jobs]
    total = f"{sum(job.seconds for job in jobs):g} of {whole:g}"
    return output.markdown_table(["job", "batches", "at most, s"], [*rows, ["in all", "", total]])


def measured(job: Job, plain: Setting, effort: Effort) -> dict[str, Any]:
    """The result of one job, as a session has it."""
    effort = replace(effort, limit=job.seconds, host=job.host, file_to_file=job.host)
    session = Session(effort, quiet=True)
    if job.peer:
        session.peers([job.peer], plain, **job.ways)
    else:
        session.add(replace(plain, **job.ways), job.batches, cold=False)
    return session.result


def failed(result: dict[str, Any]) -> bool:
    return any("error" in row for row in (*result["rows"], *result["peers"]))


def gathered(results: Sequence[dict[str, Any]], effort: Effort, left_out: list[str]) -> dict[str, Any]:
    """One session's result out of those of all jobs."""
    session = Session(effort, quiet=True)
    session.quote()
    for result in results:
        session.result["machine"] = session.result["machine"] or result["machine"]
        session.result["rows"] += result["rows"]
        session.result["peers"] += result["peers"]
    return session.result | {"effort": asdict(effort), "left_out": left_out}


def best_batches(result: dict[str, Any]) -> str:
    """A table: milliseconds per image at batch 1 and at the quickest batch of each setting."""
    rows = [row for row in result["rows"] if "error" not in row]
    lines = []
    for label in dict.fromkeys(row["label"] for row in rows):
        one, best = (
            min((row for row in rows if row["label"] == label), key=key)
            for key in (lambda row: row["batch"], lambda row: row["network"]["median"] / row["batch"])
        )
        cells = [label, per_image(one), f"{one['peak'] / 2**30:.2f}", str(best["batch"]), per_image(best)]
        lines.append([*cells, f"{best['share']:.0%}", f"{best['peak'] / 2**30:.2f}"])
    header = [
        "setting",
        "ms/image, batch 1",
        "peak, GiB",
        "best batch",
        "ms/image there",
        "of the ceiling",
        "peak, GiB",
    ]
    return output.markdown_table(header, lines)


def per_image(row: dict[str, Any]) -> str:
    return f"{1e3 * row['network']['median'] / row['batch']:.2f}"


if __name__ == "__main__":
    raise SystemExit(main())
