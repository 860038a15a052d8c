"""What a reader noticed about a file that it could read all the same: said to whoever listens, and to nobody otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_heard: ContextVar[list[tuple[str, str]] | None] = ContextVar("notes", default=None)


def note(text: str, seen: str = "") -> None:
    """text: the same words for every file, so that they can be counted; seen: what it was in this one."""
    heard = _heard.get()
    if heard is not None:
        heard.append((text, seen))


@contextmanager
def heard() -> Iterator[list[tuple[str, str]]]:
    """The notes, (text, seen), of what is read inside, in this thread."""
    found: list[tuple[str, str]] = []
    before = _heard.set(found)
    try:
        yield found
    finally:
        _heard.reset(before)
