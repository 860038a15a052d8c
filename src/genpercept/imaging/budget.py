"""Memory that readers share: bytes are taken before an image is decoded and given back afterwards."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Budget:
    """At most `capacity` bytes at once, in all threads of a process together; one image is always let through."""

    def __init__(self, capacity: int) -> None:
        self.capacity, self.taken = capacity, 0
        self._changed = threading.Condition()

    @contextmanager
    def take(self, count: int) -> Iterator[None]:
        """Wait until `count` bytes are free, or all are, and hold them for the block."""
        with self._changed:
            self._changed.wait_for(lambda: self.taken == 0 or self.taken + count <= self.capacity)
            self.taken += count
        try:
            yield
        finally:
            with self._changed:
                self.taken -= count
                self._changed.notify_all()

    def forget(self) -> None:
        """Nothing is taken: for a forked process, in which the threads that held something are not."""
        self.taken = 0
        self._changed = threading.Condition()


READING = Budget(2**29)  # 64 megapixels of ordinary images

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=READING.forget)
