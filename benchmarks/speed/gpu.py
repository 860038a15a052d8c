"""Speed on one GPU: 768 x 768, codecs, heads, dtypes, specialised or not, batches, and peers in the same run.

    benchmarks/speed/gpu.sh

Random weights in Stable Diffusion 2.1's shape. What matters most is measured first; what does not fit into the time is listed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from genpercept.commands.bench import output, peers
from genpercept.commands.bench.session import Session
from genpercept.commands.bench.setting import Effort, Setting
from genpercept.core.devices import pick_device

RESOLUTION, BATCHES = 768, (1, 2, 4, 8, 16)
QUICK = {"specialised": True, "cuda_graphs": True}
COMPILED = {"specialised": True, "compile": "static", "cuda_graphs": True}
WAYS: tuple[dict[str, Any], ...] = (
    {"dtype": "bf16", **QUICK},
    {"codec": "tiny", "head": "dpt", "dtype": "bf16", **QUICK},
    {"head": "dpt", "dtype": "bf16", **QUICK},
    {"codec": "tiny", "dtype": "bf16", **QUICK},
    {"dtype": "bf16"},
    {"codec": "tiny", "head": "dpt", "dtype": "bf16"},
    {"codec": "tiny", "head": "dpt", "dtype": "bf16", **COMPILED},
    {"dtype": "bf16", **COMPILED},
    {"dtype": "fp16", **QUICK},
    {"codec": "tiny", "head": "dpt", "dtype": "fp16", **QUICK},
)
PEERS_AFTER = 5  # ways that are measured before the peers
DEADLINE = 390.0  # seconds: what has begun by then ends within 8 minutes
AIMS = (
    "Aims: 60 % of the measured ceiling at the best batch; 20 ms per image with the VAE decoder, 6 ms with tiny codec and "
    "DPT; 3 GB at batch 1 with DPT. Peak memory is that of tensors on the device."
)


def main(argv: Sequence[str] | None = None) -> int:
    args = arguments(argv)
    start = time.monotonic()
    plain = Setting(resolution=RESOLUTION, dtype="bf16", device=pick_device("cpu" if args.smoke else "cuda"))
    ways, batches, names = WAYS, BATCHES, [peer.name for peer in peers.PEERS]
    session = Session(Effort(2, 15, 1.5), deadline=args.deadline)
    if args.smoke:
        plain = replace(plain, shape="mini", resolution=32, threads=1)
        ways = tuple(way | {"cuda_graphs": False} for way in (*WAYS[:2], WAYS[4]))
        batches, names = (1, 2), ["depth-anything-v2-small"]
        session = Session(Effort(1, 2, 0.2, 0.05), deadline=args.deadline)
    for number, way in enumerate(ways):
        if number == min(PEERS_AFTER, len(ways) - 1):
            session.peers(names, plain)
        session.add(replace(plain, **way), batches, cold=number == 0)
    session.quote()
    lead = [AIMS, best_batches(session.result), f"By `benchmarks/speed/gpu.sh`, in {time.monotonic() - start:.0f} s."]
    output.show(session.result)
    for path in output.save(session.result, args.out, "gpu", f"Speed on one GPU, {plain.resolution} pixels", lead):
        print(f"wrote {path}")
    return 1 if session.failed else 0


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--smoke", action="store_true", help="tiny networks on the CPU: does everything run?")
    parser.add_argument("--deadline", type=float, default=DEADLINE, help="seconds after which nothing new is begun")
    return parser.parse_args(argv)


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
