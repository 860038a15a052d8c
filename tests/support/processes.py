"""Several processes that train together, forked from this one, which has imported everything already."""

from __future__ import annotations

import faulthandler
import os
import signal
import socket
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from multiprocessing import forkserver
from pathlib import Path

import torch
from accelerate.state import AcceleratorState

_PATIENCE = 240  # seconds


def together(count: int, work: Callable[[], object], log: Path, environment: Mapping[str, str] | None = None) -> None:
    """Run `work` in `count` processes over gloo. AssertionError with what they said when one fails, or none ends in time."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, **(environment or {})}
    children = [_fork(work, log, {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(count)]
    deadline, failed = time.monotonic() + _PATIENCE, False
    while children and not failed and time.monotonic() < deadline:
        for pid in list(children):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                children.remove(pid)
                failed = failed or status != 0
        time.sleep(0.01)
    for pid in children:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert not failed and not children, log.read_text(errors="replace")


def _fork(work: Callable[[], object], log: Path, environment: Mapping[str, str]) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads: the child uses none of them
        pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(said, stream)
        sys.stdout, sys.stderr = (os.fdopen(stream, "w", buffering=1, closefd=False) for stream in (1, 2))
        faulthandler.dump_traceback_later(0.9 * _PATIENCE, file=2)  # where one that hangs does
        os.environ.update(environment)
        forkserver._forkserver.__init__()  # type: ignore[attr-defined]  # the parent's is no child of this process
        torch.set_num_threads(1)  # a pool that was begun before the fork has lost its threads, and would be waited for
        AcceleratorState._reset_state(True)  # what this process was before is no process of a group
        code = int(work() or 0)  # type: ignore[call-overload]
    except BaseException:  # noqa: BLE001  the child must not return into pytest
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)
