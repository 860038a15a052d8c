"""A real server on a real socket: what only a whole process can show."""

from __future__ import annotations

import asyncio
import io
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from genpercept.pipeline.loading import load
from tests.support.commands import Call
from tools.campaigns._serving import Reply, Server, answer, ask, request, scratch

PATH = "/v1/predict/disparity"
PNG = {"Content-Type": "image/png"}
KEY = "0123456789abcdef"
PIXELS = np.ascontiguousarray(data.chelsea()[::2, ::2])


def encoded(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


PHOTO = encoded(PIXELS)


@contextmanager
def started() -> Iterator[Server]:
    words = ("--model", "mini/disparity", "--device", "cpu", "--batch-size", 1, "--queue", 3, "--max-body", 1)
    times = ("--header-seconds", 1, "--body-seconds", 1.5, "--stall-seconds", 1, "--drain", 20, "--connections", 40)
    with Server(*words, *times) as running:
        yield running


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with started() as running:
        yield running


@pytest.fixture
def ended() -> Iterator[Server]:
    """One that a test may end: others, in whatever order, need theirs."""
    with started() as running:
        yield running


def error(reply: Reply, status: int) -> str:
    assert reply.status == status, (reply, reply.body[:200])
    return re.fullmatch(r'\{"error": ?"(.*)"\}', reply.body.decode())[1]  # type: ignore[index]


async def raw(server: Server, *pieces: bytes, pause: float = 0.0) -> Reply:
    """What comes back where so many pieces are sent, with a pause after each, and then nothing."""
    started = time.monotonic()
    reader, writer = await asyncio.open_connection(server.host, server.port)
    for piece in pieces:
        writer.write(piece)
        await asyncio.sleep(pause)
    reply = await answer(reader)
    reply.seconds = time.monotonic() - started
    writer.close()
    return reply


def figure(server: Server, name: str) -> float:
    text = server.ask("GET", "/metrics").body.decode()
    return float(re.findall(rf"^{name} (\S+)$", text, re.MULTILINE)[0])


def until(what: str, value: float, server: Server) -> None:
    end = time.monotonic() + 10
    while figure(server, what) != value and time.monotonic() < end:
        time.sleep(0.05)
    assert figure(server, what) == value


def test_the_bytes_are_those_of_predicts_file(server: Server, tmp_path: Path) -> None:
    torch.set_num_threads(1)  # as the server has it
    load("mini/disparity", device="cpu")(PIXELS).save(tmp_path / "a", ("png", "color"))
    for name, file in (("png", "a.png"), ("color", "a_color.png")):
        reply = server.ask("POST", f"{PATH}?format={name}", PHOTO, PNG)
        assert reply.status == 200 and reply.body == (tmp_path / file).read_bytes()


def test_slow_headers_and_slow_bodies_are_told(server: Server) -> None:
    whole = request("POST", PATH, PHOTO, PNG)
    silent = asyncio.run(raw(server, b""))
    assert "headers" in error(silent, 408) and silent.seconds < 5
    drip = asyncio.run(raw(server, *(whole[i : i + 1] for i in range(8)), pause=0.1))
    assert "headers" in error(drip, 408)
    half = asyncio.run(raw(server, whole[: len(whole) // 2]))
    assert "upload was not there after 1.5 seconds" in error(half, 408) and half.headers["connection"] == "close"
    until("genpercept_queue_requests", 0, server)


def test_a_connection_is_kept_for_the_next_request_and_no_longer(server: Server) -> None:
    async def twice() -> list[int]:
        reader, writer = await asyncio.open_connection(server.host, server.port)
        found = []
        for _ in range(2):
            writer.write(request("POST", PATH, PHOTO, PNG | {"Connection": ""}))
            found.append((await answer(reader)).status)
        writer.write(b"GET /heal")  # and nothing more
        found.append((await answer(reader)).status)
        writer.close()
        return found

    assert asyncio.run(twice()) == [200, 200, 408]


def test_no_http_is_told_in_json(server: Server) -> None:
    assert "HTTP" in error(asyncio.run(raw(server, b"\x16\x03\x01\x02\x00hello\r\n\r\n")), 400)
    assert error(asyncio.run(raw(server, b"GET / HTTP/1.1\r\nHost: a\r\n" + b"A: b\r\n" * 9000)), 400)


def test_too_large_is_told_while_the_client_still_sends(server: Server) -> None:
    declared = server.ask("POST", PATH, bytes(3 * 2**20), PNG)
    assert "3,145,728 bytes: at most 1,048,576" in error(declared, 413)
    chunked = b"".join([b"10000\r\n", bytes(2**16), b"\r\n"]) * 20
    head = request("POST", PATH, b"", PNG | {"Content-Length": "", "Transfer-Encoding": "chunked"})
    assert "more than 1,048,576" in error(asyncio.run(raw(server, head, chunked)), 413)


def test_a_full_queue_says_when_to_come_back(server: Server) -> None:
    async def many() -> list[Reply]:
        return await asyncio.gather(*(ask(server.host, server.port, "POST", PATH, PHOTO, PNG) for _ in range(12)))

    replies = asyncio.run(many())
    refused = [reply for reply in replies if reply.status == 429]
    assert {reply.status for reply in replies} == {200, 429} and len(refused) <= 9
    assert all(1 <= int(reply.headers["retry-after"]) <= 60 and "try again" in error(reply, 429) for reply in refused)
    assert len({reply.body for reply in replies if reply.status == 200}) == 1
    until("genpercept_queue_bytes", 0, server)


def test_the_work_of_clients_that_leave_is_dropped(server: Server) -> None:
    departed, predicted = figure(server, "genpercept_departed_total"), figure(server, "genpercept_predicted_total")

    async def leave() -> None:
        for _ in range(3):
            _, writer = await asyncio.open_connection(server.host, server.port)
            writer.write(request("POST", PATH, PHOTO, PNG))
            await writer.drain()
            await asyncio.sleep(0.02)
            writer.transport.abort()

    asyncio.run(leave())
    until("genpercept_queue_requests", 0, server)
    gone = figure(server, "genpercept_departed_total") - departed
    assert gone >= 1 and gone + figure(server, "genpercept_predicted_total") - predicted <= 3
    assert server.ask("POST", PATH, PHOTO, PNG).status == 200


def test_who_does_not_read_is_given_up(server: Server) -> None:
    large = encoded(np.zeros((3000, 3000, 3), np.uint8))
    with socket.create_connection((server.host, server.port)) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(request("POST", f"{PATH}?format=npy", large, PNG))
        time.sleep(1)
        until("genpercept_queue_requests", 1, server)
        until("genpercept_queue_requests", 0, server)  # its place is free again
        client.settimeout(5)
        got = 0
        with pytest.raises(ConnectionError):
            while piece := client.recv(2**20):
                got += len(piece)
            raise ConnectionError("ended")
        assert got < 36_000_000


def test_a_killed_child_is_nobodys_fault(server: Server) -> None:
    for _ in range(3):
        children = server.children()
        assert len(children) == 2
        os.kill(children[0], signal.SIGKILL)
        assert server.ask("POST", PATH, PHOTO, PNG).status == 200


def test_more_connections_than_allowed(server: Server) -> None:
    held = [socket.create_connection((server.host, server.port)) for _ in range(40)]
    try:
        assert "too many connections" in error(server.ask("GET", "/healthz"), 503)
    finally:
        for each in held:
            each.close()
    time.sleep(0.1)
    assert server.ask("GET", "/healthz").status == 200


def test_sigterm_answers_what_is_in_hand_and_leaves_nothing(ended: Server) -> None:
    server = ended
    """The last of this file: it ends the server."""
    family, pid = server.children(), server.process.pid

    async def asked() -> list[Reply]:
        asking = [asyncio.create_task(ask(server.host, server.port, "POST", PATH, PHOTO, PNG)) for _ in range(3)]
        await asyncio.sleep(0.1)
        server.process.send_signal(signal.SIGTERM)
        return list(await asyncio.gather(*asking))

    assert [reply.status for reply in asyncio.run(asked())] == [200, 200, 200]
    assert server.process.wait(25) == 0
    assert not [child for child in family if Path(f"/proc/{child}").exists()]
    assert not [path for path in scratch() if f"-{pid}-" in path]
    assert "Traceback" not in server.said()


# ---- what does not start ---------------------------------------------------------------------------------------------


def test_others_reach_needs_a_key(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GENPERCEPT_API_KEY", raising=False)
    for host in ("0.0.0.0", "::", "example.org"):
        code, _, said = call("serve", "--host", host, "--port", 0)
        assert code == 2 and "set GENPERCEPT_API_KEY" in said
    monkeypatch.setenv("GENPERCEPT_API_KEY", "short")
    assert "at least 16" in call("serve", "--port", 0)[2]


def test_what_cannot_be_served_is_told_in_a_line(call: Call, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "cannot listen there" in call("serve", "--port", taken.getsockname()[1])[2]
    for words, message in (
        (("--model", "=x"), "write NAME=FOLDER"),
        (("--model", "mini/dis", "--model", "mini/dis"), "named twice"),
        (("--queue-memory", "1"), "hold no upload"),
    ):
        code, _, said = call("serve", "--port", 0, *words)
        assert code == 2 and message in said and said.count("\n") == 1


def test_a_model_that_does_not_load_ends_the_server_in_a_line(call: Call, tmp_path: Path) -> None:
    code, _, said = call("serve", "--port", 0, "--model", f"mine={tmp_path / 'nothing'}", "--decoders", 1)
    assert code == 2 and "no such folder" in said.splitlines()[-1] and "Traceback" not in said
    assert not [path for path in scratch() if f"-{os.getpid()}-" in path]


def test_the_help_is_quick_and_a_missing_extra_is_named(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import sys; from genpercept.commands import cli; assert not {'fastapi', 'uvicorn', 'torch'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    monkeypatch.delenv("GENPERCEPT_API_KEY", raising=False)
    for package in ("fastapi", "uvicorn", "prometheus_client", "python_multipart"):
        with monkeypatch.context() as patched:
            for name in [name for name in sys.modules if name.startswith("genpercept.commands.serve.")]:
                if not name.endswith(".options"):
                    patched.delitem(sys.modules, name)
                    patched.delattr(name, raising=False)
            for name in [name for name in sys.modules if name.startswith(f"{package}.")]:
                patched.delitem(sys.modules, name)
            patched.setitem(sys.modules, package, None)
            said = call("serve", "--host", "0.0.0.0", "--port", 0)[2]  # which ends without a key, if not before
            assert said == f"genpercept: error: this needs the package {package}: pip install 'genpercept[serve]'\n"
