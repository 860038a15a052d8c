"""What a process that another of ours starts does: end when that one is gone, which after an outright kill cannot say so."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from multiprocessing.connection import wait

STARTED_BY = os.getppid()  # as early as this is known
_LAUNCHED = ("TORCHELASTIC_RUN_ID", "ACCELERATE_MIXED_PRECISION")  # what torchrun and `accelerate launch` set


def end_with_parent() -> None:
    """For the beginning of one of multiprocessing's workers: it ends with the process that uses it."""
    _ask_the_kernel()
    threading.Thread(target=_wait, daemon=True).start()


def end_with(parent: int) -> None:
    """For the beginning of a process that `parent` started as a program: it ends when its parent is another than that.

    Outright, as its parent did. What it is writing is hidden and swept, as after any kill.
    """
    _ask_the_kernel()
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def end_with_launcher() -> None:
    """For a process of torchrun or `accelerate launch`, as the environment says: it ends with that one."""
    if any(name in os.environ for name in _LAUNCHED):
        end_with(STARTED_BY)


def _ask_the_kernel() -> None:
    """On Linux the system kills this process when the thread that started it ends, though it hang or hold Python's lock."""
    if sys.platform.startswith("linux"):
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _wait() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
