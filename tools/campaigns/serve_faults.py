"""`genpercept serve` against damaged uploads, slow clients, clients that leave, kills of its children, and SIGTERM under load.

    python tools/campaigns/serve_faults.py --uploads 20000 --out benchmarks/robustness/serve_faults.md

Damaged upload number n is the same wherever it runs: a mutant of the reader's campaign, every tenth one a form that is damaged
as well. Each must have a picture, or a line of JSON without a path, in time. --only runs one part (uploads, slow, leaving,
children, term). No part begins another request after --minutes. Exit code 1 where something is not as promised.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # where `benchmarks` and `tools` lie
os.environ.setdefault("OMP_NUM_THREADS", "1")

from benchmarks._page import made, show
from tools.campaigns._serving import Reply, Server, answer, ask, enlarged, photographs, request, scratch
from tools.campaigns.mutations import mutant
from tools.campaigns.reader import MAX_PIXELS, number, seeds

_MODEL = ("--model", "mini/disparity", "--device", "cpu", "--batch-size", "1")
_PATH = "/v1/predict/disparity?processing_resolution=32"
_JPEG = {"Content-Type": "image/jpeg"}
_TOO_LONG = 60.0  # seconds for one answer
_A_PATH = re.compile(r"/(?:dev|tmp|proc|usr|home|root|var|opt)/|\.py\b|Traceback")
_BOUNDARY = b"--------------------------d74496d66958873e"


@dataclass
class Part:
    """What was tried, what came of it, and what is not as promised."""

    name: str
    tried: int = 0
    came: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def judge(self, what: str, reply: Reply, allowed: Sequence[int]) -> None:
        """Count an answer; it is wrong unless its status is allowed, and a refusal is a line of JSON without a path."""
        self.tried += 1
        self.came[str(reply.status)] += 1
        if reply.status not in allowed or not reply.whole or reply.seconds > _TOO_LONG:
            self.wrong.append(
                f"{what}: {reply.status} after {reply.seconds:.1f} s {reply.headers} {reply.body[:200]!r}"
            )
        elif reply.status != 200:
            try:
                line = json.loads(reply.body)["error"]
            except (ValueError, KeyError, TypeError):
                line = "\n"
            if "\n" in line or _A_PATH.search(line):
                self.wrong.append(f"{what}: {reply.body[:300]!r}")

    def check_alive(self, server: Server, image: bytes, truth: bytes) -> None:
        """After all that a good image is answered as before, the queue is empty, and no traceback was said."""
        reply = server.ask("POST", _PATH, image, _JPEG)
        if reply.body != truth:
            self.wrong.append(f"afterwards a good image had {reply.status} {reply.body[:100]!r}")
        figures = server.ask("GET", "/metrics").body.decode()
        for name in ("genpercept_queue_requests", "genpercept_queue_bytes"):
            if f"\n{name} 0.0" not in figures:
                self.wrong.append(f"{name} is not 0 at the end")
        if not server.alive or "Traceback" in server.said():
            self.wrong.append(f"the server said: {server.said()[-2000:]}")


async def together(count: int, clients: int, one: Callable[[int], Awaitable[None]], end: float) -> None:
    """one(n) for n below `count`, by so many clients, until the time has come."""
    numbers = iter(range(count))

    async def client() -> None:
        for n in numbers:
            if time.monotonic() > end:
                return
            await one(n)

    await asyncio.gather(*(client() for _ in range(clients)))


# ---- the parts -------------------------------------------------------------------------------------------------------


def uploads(options: argparse.Namespace, image: bytes, draw: random.Random, end: float) -> Part:
    part, files = Part("damaged uploads"), seeds()
    slowest = 0.0
    with Server(*_MODEL, "--max-pixels", MAX_PIXELS) as server:
        truth, start = server.ask("POST", _PATH, image, _JPEG).body, server.memory()

        async def one(n: int) -> None:
            nonlocal slowest
            kind, data = number(n, options.seed, files)
            headers = {"Content-Type": "application/octet-stream"}
            if n % 10 == 9:
                data = mutant([form(data)], 0, random.Random(options.seed * 1_000_003 + n))
                headers = {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY.decode()}"}
            reply = await ask(server.host, server.port, "POST", _PATH, data, headers)
            slowest = max(slowest, reply.seconds)
            part.judge(f"number {n}, {kind}", reply, (200, 400, 413, 422))
            if n % 1000 == 999:
                print(f"{n + 1} uploads: {dict(part.came)}, {len(part.wrong)} wrong", flush=True)

        asyncio.run(together(options.uploads, 16, one, end))
        part.check_alive(server, image, truth)
        replaced = re.findall(
            r'decoders_replaced_total\{why="(\w+)"\} (\d+)', server.ask("GET", "/metrics").body.decode()
        )
        part.notes.append(
            f"slowest answer {slowest:.2f} s; children replaced: {', '.join(f'{n} {why}' for why, n in replaced)}"
        )
        part.notes.append(f"memory {start / 2**20:.0f} MiB before, {server.memory() / 2**20:.0f} MiB after")
    return part


def form(image: bytes) -> bytes:
    """A form as curl makes it."""
    head = b'\r\nContent-Disposition: form-data; name="%s"'
    field_ = b"--" + _BOUNDARY + head % b"seed" + b"\r\n\r\n1\r\n"
    file = b"--" + _BOUNDARY + head % b"image" + b'; filename="../../a.jpg"\r\nContent-Type: image/jpeg\r\n\r\n' + image
    return field_ + file + b"\r\n--" + _BOUNDARY + b"--\r\n"


def slow(options: argparse.Namespace, image: bytes, draw: random.Random, end: float) -> Part:
    """Clients that send their headers or their body byte by byte, or do not read; beside them one that behaves."""
    part, larger = Part("slow clients"), enlarged(image, (3000, 2000))
    limits = ("--header-seconds", 2, "--body-seconds", 3, "--stall-seconds", 2, "--connections", 100)
    with Server(*_MODEL, *limits) as server:
        truth = server.ask("POST", _PATH, image, _JPEG).body

        async def trickle(what: str, data: bytes, first: int) -> None:
            """`first` bytes at once, then one each tenth of a second."""
            started = time.monotonic()
            reader, writer = await asyncio.open_connection(server.host, server.port)
            coming = asyncio.create_task(answer(reader))
            writer.write(data[:first])
            with suppress(OSError):
                for i in range(first, len(data)):
                    if coming.done():
                        break
                    writer.write(data[i : i + 1])
                    await writer.drain()
                    await asyncio.wait({coming}, timeout=0.1)
            reply = await coming
            reply.seconds = time.monotonic() - started
            part.judge(what, reply, (408,))
            if reply.seconds > 8:
                part.wrong.append(f"{what}: told after {reply.seconds:.1f} s")
            writer.close()

        async def deaf(n: int) -> None:
            """Asks for 24 MB and reads none of them; the server must give the connection up, and its place in the queue."""
            with socket.socket() as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                client.setblocking(False)
                loop = asyncio.get_running_loop()
                await loop.sock_connect(client, (server.host, server.port))
                path = "/v1/predict/disparity?processing_resolution=32&format=npy"
                await loop.sock_sendall(client, request("POST", path, larger, _JPEG))
                await asyncio.sleep(25)
                got = 0
                with suppress(OSError, TimeoutError):
                    while piece := await asyncio.wait_for(loop.sock_recv(client, 2**16), 5):
                        got += len(piece)
            part.tried += 1
            part.came["deaf, given up"] += 1
            if got > 20_000_000:
                part.wrong.append(f"all {got:,} bytes were kept for a client that did not read")

        async def good(n: int) -> None:
            reply = await ask(server.host, server.port, "POST", _PATH, image, _JPEG)
            part.judge("a good client beside them", reply, (200, 429))
            await asyncio.sleep(0.2)

        async def all_() -> None:
            whole = request("POST", _PATH, image, _JPEG)
            head = whole.index(b"\r\n\r\n") + 4
            tasks = [trickle("slow headers", whole, 10) for _ in range(options.slow)]
            tasks += [trickle("silent", whole[:1], 0) for _ in range(options.slow)]
            tasks += [trickle("slow body", whole, head + 100) for _ in range(options.slow)]
            tasks += [deaf(n) for n in range(options.slow)]
            await asyncio.gather(*tasks, together(60, 2, good, end))

        asyncio.run(all_())
        part.check_alive(server, image, truth)
        asyncio.run(crowd(part, server, 100))
    return part


async def crowd(part: Part, server: Server, most: int) -> None:
    """More connections than are allowed: the next one is told so, and there is room again when the others' time is over."""
    held = [await asyncio.open_connection(server.host, server.port) for _ in range(most)]
    part.judge("one connection too many", await ask(server.host, server.port, "GET", "/healthz"), (503,))
    await asyncio.sleep(4)
    part.judge("afterwards", await ask(server.host, server.port, "GET", "/healthz"), (200,))
    for _, writer in held:
        writer.close()


def leaving(options: argparse.Namespace, image: bytes, draw: random.Random, end: float) -> Part:
    """Clients that go in the middle of their upload, or while their image waits or is computed."""
    part = Part("clients that leave")
    with Server(*_MODEL) as server:
        truth = server.ask("POST", _PATH, image, _JPEG).body
        whole = request("POST", _PATH, image, _JPEG)

        async def one(n: int) -> None:
            _, writer = await asyncio.open_connection(server.host, server.port)
            cut = draw.randrange(len(whole)) if n % 2 else len(whole)
            writer.write(whole[:cut])
            with suppress(OSError):
                await writer.drain()
                await asyncio.sleep(draw.choice((0, 0.001, 0.01, 0.1)))
            if n % 4 < 2:
                writer.transport.abort()
            writer.close()
            part.tried += 1

        async def good(n: int) -> None:
            reply = await ask(server.host, server.port, "POST", _PATH, image, _JPEG)
            part.judge("a good client beside them", reply, (200, 429))
            if reply.status == 200 and reply.body != truth:
                part.wrong.append("a good client had another's answer")

        async def both() -> None:
            await asyncio.gather(together(options.leaving, 16, one, end), together(options.leaving // 20, 2, good, end))
            await asyncio.sleep(3)

        asyncio.run(both())
        part.check_alive(server, image, truth)
        figures = server.ask("GET", "/metrics").body.decode()
        counts = {name: re.findall(rf"genpercept_{name}_total (\d+)", figures)[0] for name in ("departed", "predicted")}
        part.notes.append(
            f"of them departed while their image was in hand: {counts['departed']}; predicted: {counts['predicted']}"
        )
    return part


def children(options: argparse.Namespace, image: bytes, draw: random.Random, end: float) -> Part:
    """kill -9 of a decoding child, again and again, under load."""
    part, killed = Part("killed children"), 0
    with Server(*_MODEL) as server:
        truth = server.ask("POST", _PATH, image, _JPEG).body

        async def one(n: int) -> None:
            reply = await ask(server.host, server.port, "POST", _PATH, image, _JPEG)
            part.judge("an image whose child may be killed", reply, (200,))
            if reply.status == 200 and reply.body != truth:
                part.wrong.append("a wrong answer")

        async def killer(asking: asyncio.Task[None]) -> None:
            nonlocal killed
            while not asking.done():
                await asyncio.sleep(draw.uniform(1, 2.5))  # a new one must have begun to work
                if there := server.children():
                    with suppress(ProcessLookupError):
                        os.kill(draw.choice(there), signal.SIGKILL)
                        killed += 1

        async def both() -> None:
            asking = asyncio.create_task(together(options.kills * 15, 8, one, end))
            await asyncio.gather(asking, killer(asking))

        asyncio.run(both())
        part.check_alive(server, image, truth)
        part.notes.append(f"{killed} children killed")
    return part


def term(options: argparse.Namespace, image: bytes, draw: random.Random, end: float) -> Part:
    """SIGTERM under load: all that was accepted is answered or told 503 within the deadline, and nothing is left."""
    part = Part("SIGTERM under load")
    for run in range(options.terms):
        drain = (0.5, 20)[run % 2]
        before = set(scratch())
        with Server(*_MODEL, "--drain", drain) as server:
            truth = server.ask("POST", _PATH, image, _JPEG).body
            family, pid = server.children(), server.process.pid
            asyncio.run(_ended_under_load(part, server, image, truth, drain, draw.uniform(0.5, 2)))
            time.sleep(0.1)
            part.wrong += [f"run {run}: child {child} is left" for child in family if Path(f"/proc/{child}").exists()]
            part.wrong += [f"run {run}: {path} is left" for path in set(scratch()) - before if f"-{pid}-" in path]
            if "Traceback" in server.said():
                part.wrong.append(server.said()[-2000:])
    return part


async def _ended_under_load(part: Part, server: Server, image: bytes, truth: bytes, drain: float, after: float) -> None:
    """40 clients that ask all the time; SIGTERM `after` so many seconds."""
    told = float("inf")

    async def one(n: int) -> None:
        began = time.monotonic()
        reply = await ask(server.host, server.port, "POST", _PATH, image, _JPEG)
        if reply.status == 0 and began > told:  # the socket is closed, or closes before the request is read
            part.came["not accepted any more"] += 1
            await asyncio.sleep(0.1)
            return
        part.judge(f"--drain {drain:g}, sent {began - told:+.3f} s from SIGTERM", reply, (200, 429, 503))
        if reply.status == 200 and reply.body != truth:
            part.wrong.append("a wrong answer")

    asking = asyncio.create_task(together(10**6, 40, one, time.monotonic() + 4))
    await asyncio.sleep(after)
    told = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    while server.alive and time.monotonic() < told + drain + 10:
        await asyncio.sleep(0.01)
    took = time.monotonic() - told
    part.notes.append(f"--drain {drain:g}: ended after {took:.2f} s")
    if server.process.poll() != 0 or took > drain + 4:
        part.wrong.append(f"exit code {server.process.poll()} after {took:.1f} s of {drain:g}")
    await asking


PARTS = {"uploads": uploads, "slow": slow, "leaving": leaving, "children": children, "term": term}


def page(parts: Sequence[Part]) -> list[str]:
    return [
        "# `serve` and everything that goes wrong",
        "",
        f"{made(__file__, argv=sys.argv[1:])}.",
        "",
        "| | tried | came of it | not as promised |",
        "| --- | ---: | --- | ---: |",
        *(
            f"| {part.name} | {part.tried:,} | {', '.join(f'{n:,} {what}' for what, n in sorted(part.came.items()))} |"
            f" {len(part.wrong)} |"
            for part in parts
        ),
        "",
        *(f"- {part.name}: {note}" for part in parts for note in part.notes),
        *(f"- WRONG, {part.name}: {' '.join(line.split())[:600]}" for part in parts for line in part.wrong[:20]),
    ]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--uploads", type=int, default=20_000)
    parser.add_argument("--slow", type=int, default=10, help="clients of each kind of slowness")
    parser.add_argument("--leaving", type=int, default=400)
    parser.add_argument("--kills", type=int, default=40, help="of children, about")
    parser.add_argument("--terms", type=int, default=6, help="servers that are ended under load")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=[*PARTS])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(argv)
    end, parts = time.monotonic() + 60 * options.minutes, list[Part]()
    with tempfile.TemporaryDirectory() as folder:
        image = next(iter(photographs(Path(folder), (0.5,)).values()))
    for name, part in PARTS.items():
        if options.only in (None, name):
            parts.append(part(options, image, random.Random(options.seed), end))
            print(f"{name}: {dict(parts[-1].came)}; wrong: {parts[-1].wrong[:3]}", flush=True)
    show(page(parts), options.out)
    return 1 if any(part.wrong for part in parts) else 0


if __name__ == "__main__":
    raise SystemExit(main())
