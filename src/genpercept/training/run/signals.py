"""Ctrl-C and SIGTERM in a run: it ends after the step they fall into."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def noted(note: Callable[[int], None]) -> Iterator[None]:
    """Within it the first of them calls `note` with its number; a second one ends the run at once, as it would have before."""

    def handle(number: int, frame: Any) -> None:
        note(number)
        _restore(before)

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
