"""Batches made ahead by threads beside the step, handed out in order."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")


class Prefetch(Generic[T]):
    """Iterates over make(0), make(1), ... from `start`; `waited` sums the seconds the step stood idle for data."""

    def __init__(self, make: Callable[[int], T], start: int, threads: int, ahead: int) -> None:
        self._make, self._next, self._ahead = make, start, ahead
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="batch")
        self._queue: deque[Future[T]] = deque()
        self.waited = 0.0

    def __iter__(self) -> Iterator[T]:
        while True:
            while len(self._queue) < self._ahead:
                self._queue.append(self._pool.submit(self._make, self._next))
                self._next += 1
            begin = time.perf_counter()
            item = self._queue.popleft().result()
            self.waited += time.perf_counter() - begin
            yield item

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
