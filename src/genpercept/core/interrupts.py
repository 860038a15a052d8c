"""Ctrl-C and SIGTERM: the first asks a program to end, the second ends it, whatever hangs."""

from __future__ import annotations

import os
import signal
import threading
import time

# Seconds: a launcher that was told by Ctrl-C tells its processes by SIGTERM, which Ctrl-C has reached already.
_PASSED_ON = 5.0
_pipe: int | None = None  # its end that the system writes to, while a thread watches the other one


class Presses:
    """Tells a second request from the first one that comes by two ways."""

    def __init__(self) -> None:
        self._first: tuple[int, float] | None = None

    def again(self, number: int) -> bool | None:
        """False: this signal is the first. True: it is another. None: it is the first one, passed on by a launcher."""
        now = time.monotonic()
        if self._first is None:
            self._first = number, now
            return False
        first, then = self._first
        return None if number != first and now - then < _PASSED_ON else True


def leave_at_second(seconds: float = 1.5) -> None:
    """For a program's start, in its main thread: a second Ctrl-C or SIGTERM ends the process within `seconds`.

    Until then it may end by itself, as its handlers of signals have it. They run between two steps of the interpreter, for
    which a call that hangs leaves no room: this is done by a thread that the system wakes. Ignored signals do not count.
    """
    global _pipe
    if _pipe is not None or os.name != "posix":
        return
    read, write = os.pipe()
    os.set_blocking(write, False)
    try:
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    except ValueError:  # not the main thread: the program is somebody else's
        os.close(read)
        os.close(write)
        return
    _pipe = write
    os.register_at_fork(after_in_child=forget)
    threading.Thread(target=_watch, args=(read, seconds), name="interrupts", daemon=True).start()


def forget() -> None:
    """For a process that goes on as another program, and for forks, whose signals are their own: nobody watches any more."""
    global _pipe
    if _pipe is not None:
        signal.set_wakeup_fd(-1)
        os.close(_pipe)  # which ends the thread
        _pipe = None


def _watch(read: int, seconds: float) -> None:
    presses = Presses()
    while data := os.read(read, 1):
        number = data[0]
        if number in (signal.SIGINT, signal.SIGTERM) and presses.again(number):
            time.sleep(seconds)
            os._exit(128 + number)
    os.close(read)
