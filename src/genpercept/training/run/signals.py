"""Ctrl-C and SIGTERM in a run: it ends after the step they fall into."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from genpercept.core.interrupts import Presses


@contextmanager
def noted(note: Callable[[int], None]) -> Iterator[None]:
    """Within it the first of them calls `note` with its number; a second one ends the run at once, as it would have before."""
    presses = Presses()

    def handle(number: int, frame: Any) -> None:
        again = presses.again(number)
        if again:
            _restore(before)
            os.kill(os.getpid(), number)
        elif again is False:
            note(number)

    before: dict[int, Any] = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, handle)
    except ValueError:  # not the main thread: the caller's business
        pass
    try:
        yield
    finally:
        _restore(before)


def _restore(before: dict[int, Any]) -> None:
    for number, handler in before.items():
        signal.signal(number, handler)
