"""Several processes of one run on one machine, each with its share of every batch (gloo or NCCL).

On a CPU two processes of one thread beat one process of two: the arithmetic of a small network is many short operations,
and threads wait for each other at the end of each. `accelerate launch` and torchrun do the same over several machines.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from genpercept.core import workers
from genpercept.core.interrupts import Presses

_LAUNCHER = "GENPERCEPT_LAUNCHER"  # its process id, for those that it starts


def wanted(processes: int) -> bool:
    """Whether this process is to start `processes` others, rather than being one of them."""
    return processes > 1 and "RANK" not in os.environ


def launch(processes: int, recipe: str | Path, overrides: Sequence[str], out: Path, resume: bool) -> int:
    """Run the training in `processes` processes; returns the first exit status that is not 0. Signals are passed on."""
    command = [
        sys.executable,
        "-m",
        "genpercept.training",
        str(recipe),
        str(out),
        *(["--resume"] if resume else []),
        *overrides,
    ]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    threads = str(max(1, (os.cpu_count() or 1) // processes))
    shared = {
        "WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": threads,
        _LAUNCHER: str(os.getpid()),
    }
    # In groups of their own: Ctrl-C in a terminal reaches this process alone, which passes it on, once
    children = [
        subprocess.Popen(
            command, env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}, process_group=0
        )
        for rank in range(processes)
    ]
    presses = Presses()

    def pass_on(number: int, frame: Any) -> None:
        if presses.again(number) is None:
            return
        for child in children:
            if child.poll() is None:
                child.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        return _wait(children)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def leads() -> bool:
    """Whether this process answers for a run's folder: it trains alone, is the first of several, or their launcher."""
    return _LAUNCHER not in os.environ and os.environ.get("RANK", "0") == "0"


def end_with_launcher() -> None:
    """End when the process that launched this one is gone, where one did: killed outright, it passes nothing on.

    Otherwise a run would train on unseen, beside the one that is resumed in the same folder.
    """
    if launcher := os.environ.get(_LAUNCHER):
        workers.end_with(int(launcher))
    else:
        workers.end_with_launcher()


def _wait(children: list[subprocess.Popen[bytes]]) -> int:
    """Until all have ended; when one fails the others, which would wait for it for ever, are ended."""
    while True:
        codes = [child.poll() for child in children]
        failed = [code for code in codes if code]
        if failed or all(code == 0 for code in codes):
            break
        time.sleep(0.1)
    deadline = time.monotonic() + (10 if failed else 0)
    for child in children:
        try:
            child.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    return abs(failed[0]) if failed else 0
