"""Ctrl-C and SIGTERM: once, what is in hand is finished; twice, the process leaves at once, whatever hangs."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_AS_ONE = 1.0  # seconds: a launcher sends SIGTERM after the terminal's Ctrl-C, and means the same
_CLEANING = 1.0  # seconds that removing temporary files may take


class Stop:
    """Until it is entered as a context, in the main thread, it is never asked. `clean` runs before a sudden end.

    A thread reads the signals' numbers from a pipe that the system's own handler writes to: the main thread may be deep inside
    a library when the second one comes.
    """

    def __init__(self, clean: Callable[[], None] = lambda: None) -> None:
        self._clean, self._patient, self._before = clean, False, dict[int, Any]()
        self._pipe: tuple[int, int] | None = None
        self.number = 0  # of the first signal
        self.hung = False  # whether a thread is left that nobody can wait for

    @property
    def asked(self) -> bool:
        return self.number != 0

    @property
    def exit_code(self) -> int:
        return 128 + (self.number or signal.SIGINT)

    def __enter__(self) -> Stop:
        if os.name == "posix" and threading.current_thread() is threading.main_thread():
            self._pipe = os.pipe()
            os.set_blocking(self._pipe[1], False)
            self._before_fd = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
            heard = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]  # nohup, shells' "&"
            self._before = {number: signal.signal(number, self._first) for number in heard}
            threading.Thread(target=self._watch, args=(self._pipe[0],), name="signals", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._pipe is not None:
            for number, handler in self._before.items():  # a second signal on the way out is no second traceback
                signal.signal(number, self._at_once if self.asked else handler)
            signal.set_wakeup_fd(self._before_fd)
            os.close(self._pipe[1])  # which ends the thread
            self._pipe = None

    @contextmanager
    def patience(self, patient: bool = True) -> Iterator[None]:
        """Within the block the first signal only sets `asked`; elsewhere, and with patient=False, it is a KeyboardInterrupt."""
        before, self._patient = self._patient, patient
        try:
            yield
        finally:
            self._patient = before

    def leave(self) -> None:
        """End the process now: temporary files go, as far as a second suffices, and nothing is waited for."""
        cleaning = threading.Thread(target=self._clean, daemon=True)
        cleaning.start()
        cleaning.join(_CLEANING)
        os._exit(self.exit_code)

    def _first(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            return
        self.number = number
        if not self._patient:
            raise KeyboardInterrupt
        with suppress(OSError):  # not `print`, which may be what was interrupted
            os.write(2, b"\ngenpercept: stopping; what is in hand is finished first, Ctrl-C again leaves at once\n")

    def _at_once(self, number: int, frame: FrameType | None) -> None:
        os._exit(self.exit_code)

    def _watch(self, pipe: int) -> None:
        seen: list[tuple[int, float]] = []
        while data := os.read(pipe, 1):
            now, number = time.monotonic(), data[0]
            if number not in SIGNALS:
                continue
            if any(number == other or now - then > _AS_ONE for other, then in seen):
                self.number = self.number or number
                self.leave()
            seen.append((number, now))
        os.close(pipe)
