"""An iterator that works ahead of whoever takes from it, in a thread of its own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable
from typing import TypeVar

T = TypeVar("T")


def ahead(items: Iterable[T], most: int = 2) -> Generator[T, None, None]:
    """The items in their order, of which up to `most` are made before they are asked for; what making them raises, here."""
    waiting: queue.Queue[tuple[bool, T | BaseException | None]] = queue.Queue(most)
    gone = threading.Event()

    def put(entry: tuple[bool, T | BaseException | None]) -> bool:
        while not gone.is_set():
            try:
                waiting.put(entry, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in items:
                if not put((True, item)):
                    break
            else:
                put((False, None))
        except BaseException as error:  # noqa: BLE001  raised where the items are taken
            put((False, error))
        finally:
            if (close := getattr(items, "close", None)) is not None:
                close()

    thread = threading.Thread(target=work, name="ahead", daemon=True)
    thread.start()
    try:
        while True:
            good, item = waiting.get()
            if good:
                yield item  # type: ignore[misc]
            elif item is None:
                return
            else:
                raise item  # type: ignore[misc]
    finally:
        gone.set()
        thread.join()
