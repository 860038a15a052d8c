"""What a run says on stderr while it goes on."""

from __future__ import annotations

import sys
import time
from typing import Any

from genpercept.commands.predict.request import Outcome
from genpercept.core import said
from genpercept.core.said import say
from genpercept.core.texts import time_left


class Progress:
    """A bar with images/s and time left on a terminal, a line now and then elsewhere; the sum at the end."""

    _EVERY = 5.0  # seconds between lines where there is no terminal

    def __init__(self, total: int, outcome: Outcome, quiet: bool = False, noun: str = "image") -> None:
        self._total, self._outcome, self._quiet = total, outcome, quiet or said.quiet()
        self._noun = noun
        self._bar: Any = None

    def __enter__(self) -> Progress:
        self._start = self._last = time.monotonic()
        if sys.stderr.isatty() and self._total > 1 and not self._quiet:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = (
                "predict",
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
            )
            self._bar = Bar(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task("predict", total=self._total, rate="")
        return self

    def restart(self) -> None:
        """The clock starts anew: loading the model is no part of images/s."""
        self._start = self._last = time.monotonic()

    def update(self) -> None:
        """The bar as far as the outcome is; without a terminal a line, if the last one is some seconds old."""
        seen = self._outcome.seen
        now = time.monotonic()
        rate = self._outcome.done / max(now - self._start, 1e-9)
        if self._bar is not None:
            self._bar.update(self._task, completed=seen, rate=f"{rate:.2f} {self._noun}s/s")
        elif now - self._last >= self._EVERY and seen < self._total and not self._quiet:
            self._last = now
            seconds = now - self._start
            at_this_rate = f"{rate:.2f} {self._noun}s/s, {time_left(seen, self._total, seconds)}"
            say(f"{seen}/{self._total} {self._noun}s, {at_this_rate if seen else f'{seconds:.0f} s so far'}")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
        if kind is None and (self._outcome.done or self._outcome.skipped) and not self._quiet:
            seconds = time.monotonic() - self._start
            images = f"1 {self._noun}" if self._outcome.done == 1 else f"{self._outcome.done} {self._noun}s"
            parts = [f"{images} predicted in {seconds:.1f} s"]
            if self._outcome.done:
                parts.append(f"{self._outcome.done / max(seconds, 1e-9):.2f} {self._noun}s/s")
            parts += [f"{self._outcome.skipped} done before"] if self._outcome.skipped else []
            parts += [f"{self._outcome.failures} failed"] if self._outcome.failures else []
            say(", ".join(parts))


def complain(line: str) -> None:
    """What --quiet does not silence."""
    print(line, file=sys.stderr, flush=True)
