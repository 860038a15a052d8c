"""`genpercept serve` under twice the load that it can bear, each answer compared with what `predict` writes for its image.

    python tools/campaigns/serve_load.py --minutes 30 --out benchmarks/robustness/serve_load.md

First `predict` and the server take turns on the same photographs, `--rounds` of each: the server's throughput is measured with
32 clients that ask again as soon as they are answered. Then requests come at twice that rate, whether the others are answered
or not, for --minutes, each on a connection of its own; at most --clients wait at once. Exit code 1 where an answer is wrong, a
request has neither an answer nor a refusal, the server ends or says a traceback, or throughput is under 0.9 of predict's.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # where `benchmarks` and `tools` lie
os.environ.setdefault("OMP_NUM_THREADS", "1")

from benchmarks._page import made, show
from tools.campaigns._serving import Server, ask, photographs, steps_apart

_CLOSED = 32  # clients that measure throughput
_RATE = re.compile(r"([\d.]+) images/s$", re.MULTILINE)


@dataclass
class Tally:
    """What has come of the requests."""

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)  # of those that were answered with a picture
    apart: Counter[int] = field(default_factory=Counter)  # steps of 65535 between answer and file; -1: the same bytes
    waits: Counter[str] = field(default_factory=Counter)  # Retry-After of refusals
    broken: list[str] = field(default_factory=list)
    most: int = 0  # that waited at once
    kept: int = 0  # that were not sent, because so many waited

    def quantile(self, share: float) -> float:
        found = sorted(self.seconds)
        return found[min(len(found) - 1, int(share * len(found)))] if found else 0.0

    @property
    def wrong(self) -> int:
        """Answers further from the file than the last bit of a float may bring them."""
        return sum(count for steps, count in self.apart.items() if steps > 1)


class Load:
    """Requests for one server about `images`; `truth`: the bytes of predict's files."""

    def __init__(self, server: Server, images: dict[str, bytes], truth: dict[str, bytes], path: str) -> None:
        self._server, self._images, self._truth, self._path = server, images, truth, path

    async def closed(self, count: int) -> float:
        """Images per second, over `count` of them."""
        names, tally = iter(list(islice(cycle(self._images), count))), Tally()

        async def client() -> None:
            for name in names:
                await self._one(name, tally)

        started = time.monotonic()
        await asyncio.gather(*(client() for _ in range(_CLOSED)))
        assert tally.statuses == {200: count}, (tally.statuses, tally.broken[:3])
        return count / (time.monotonic() - started)

    async def offered(self, rate: float, seconds: float, clients: int, draw: random.Random) -> Tally:
        """Requests at random times, `rate` per second on average."""
        tally, running, names = Tally(), set[asyncio.Task[None]](), list(self._images)
        started = time.monotonic()
        due = started
        while due < started + seconds and self._server.alive:
            due += draw.expovariate(rate)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            if len(running) >= clients:
                tally.kept += 1
                continue
            task = asyncio.create_task(self._one(draw.choice(names), tally))
            running.add(task)
            task.add_done_callback(running.discard)
            tally.most = max(tally.most, len(running))
        await asyncio.gather(*running)
        return tally

    async def _one(self, name: str, tally: Tally) -> None:
        headers = {"Content-Type": "image/jpeg"}
        reply = await ask(self._server.host, self._server.port, "POST", self._path, self._images[name], headers)
        tally.statuses[reply.status] += 1
        if reply.status == 200 and reply.whole:
            tally.seconds.append(reply.seconds)
            same = reply.body == self._truth[name]
            tally.apart[-1 if same else steps_apart(reply.body, self._truth[name])] += 1
        elif reply.status == 429:
            tally.waits[reply.headers.get("retry-after", "none")] += 1
        else:
            tally.broken.append(f"{name}: {reply.status} {reply.headers.get('error', '')} {reply.body[:100]!r}")


def predicted(folder: Path, out: Path, options: argparse.Namespace) -> tuple[float, float]:
    """`genpercept predict`: images per second, and seconds of processor time for each image without the start."""
    words = [folder, "--out", out, "--model", options.model, "--format", "png", "--device", "cpu"]
    words += ["--batch-size", options.batch_size, "--overwrite"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "genpercept", "predict", *map(str, words)]
    run = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = _RATE.findall(run.stderr)
    assert found, run.stderr
    return float(found[-1]), after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(options: argparse.Namespace, folder: Path) -> list[str]:
    draw, images = random.Random(options.seed), photographs(folder / "in")
    many = folder / "many"
    many.mkdir()
    for i, name in enumerate(islice(cycle(images), options.images)):
        (many / f"{i:05d}.jpg").hardlink_to(folder / "in" / name)
    predicted(folder / "in", folder / "out", options)
    truth = {name: (folder / "out" / f"{Path(name).stem}_{options.task}.png").read_bytes() for name in images}
    words = ("--model", options.model, "--device", "cpu", "--batch-size", options.batch_size)
    with Server(*words) as server:
        load = Load(server, images, truth, f"/v1/predict/{options.task}?format=png")
        asyncio.run(load.closed(_CLOSED))  # to be warm
        turns: list[tuple[float, float, float]] = []
        for i in range(options.rounds):
            ours, processor = predicted(many, folder / f"many{i}", options)[0], server.processor()
            theirs = asyncio.run(load.closed(options.images))
            turns.append((ours, theirs, (server.processor() - processor) / options.images))
            print(f"predict {ours:.2f}, serve {theirs:.2f} images/s, {turns[-1][2]:.3f} s of processor", flush=True)
        capacity, start = statistics.median(turn[1] for turn in turns), server.memory()
        tally = asyncio.run(load.offered(2 * capacity, 60 * options.minutes, options.clients, draw))
        end, alive, said = server.memory(), server.alive, server.said()
        replaced = server.ask("GET", "/metrics").body.decode()
    return page(options, turns, tally, (start, end), alive and "Traceback" not in said, capacity, replaced)


def page(
    options: argparse.Namespace,
    turns: Sequence[tuple[float, float, float]],
    tally: Tally,
    memory: tuple[int, int],
    lives: bool,
    capacity: float,
    metrics: str,
) -> list[str]:
    ratio = statistics.median(turn[1] / turn[0] for turn in turns)
    refused = tally.statuses[429]
    batches = {
        name: float(value) for name, value in re.findall(r"^genpercept_batch_images_(sum|count) (\S+)", metrics, re.M)
    }
    other = {status: n for status, n in tally.statuses.items() if status not in (200, 429)}
    good = not tally.wrong and not tally.broken and not other and lives and ratio >= 0.9
    rows = [
        ("requests", f"{tally.statuses.total():,} at {2 * capacity:.1f} per second"),
        ("answered", f"{tally.statuses[200]:,}"),
        ("refused, 429", f"{refused:,}; Retry-After {', '.join(f'{k} s' for k in sorted(tally.waits)) or '-'}"),
        ("anything else", f"{other or 0}"),
        ("most that waited at once; not sent for that", f"{tally.most}; {tally.kept}"),
        ("p50, p95, p99 of the answered", ", ".join(f"{tally.quantile(q):.2f} s" for q in (0.5, 0.95, 0.99))),
        ("the same bytes as predict's file", f"{tally.apart[-1]:,}"),
        ("the same but for a step of 65535", f"{tally.apart[0] + tally.apart[1]:,}"),
        ("wrong", f"{tally.wrong}"),
        ("images of a batch, on average", f"{batches.get('sum', 0) / max(1, batches.get('count', 0)):.2f}"),
        ("memory with its children at the start, at the end", " and ".join(f"{m / 2**20:.0f} MiB" for m in memory)),
        ("alive at the end, without a traceback", "yes" if lives else "NO"),
    ]
    return [
        "# `serve` under twice the load that it can bear",
        "",
        f"{made(__file__, argv=sys.argv[1:])}. {options.model}, {len(os.sched_getaffinity(0))} cores, which the clients share;"
        f" batches of {options.batch_size}; load of the machine at the end: {os.getloadavg()[1]:.1f}.",
        "",
        f"**Throughput: {ratio:.2f} of predict's** (median of {len(turns)} turns; asked for: 0.9).",
        "",
        "| turn | predict, images/s | serve, images/s | ratio | processor time of serve for each image |",
        "| ---: | ---: | ---: | ---: | ---: |",
        *(f"| {i} | {p:.2f} | {s:.2f} | {s / p:.2f} | {c:.3f} s |" for i, (p, s, c) in enumerate(turns, 1)),
        "",
        f"## {options.minutes:g} minutes at twice its capacity",
        "",
        "| | |",
        "| --- | --- |",
        *(f"| {name} | {value} |" for name, value in rows),
        "",
        *(f"- {line}" for line in tally.broken[:20]),
        f"All as promised: {'yes' if good else 'NO'}.",
    ]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=200, help="in each turn")
    parser.add_argument("--clients", type=int, default=200, help="that wait at most")
    parser.add_argument(
        "--batch-size", default="auto", help="of both; 1: all answers have the bytes of predict's files"
    )
    parser.add_argument("--model", default="mini/depth")
    parser.add_argument("--task", default="depth")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        lines = measure(options, Path(folder))
    show(lines, options.out)
    return 0 if lines[-1].endswith("yes.") else 1


if __name__ == "__main__":
    raise SystemExit(main())
