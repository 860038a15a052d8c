"""Work beside the step: one piece at a time, in a thread that does not outlive the process."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Background:
    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def start(self, work: Callable[[], None]) -> None:
        """Begin `work`, once the piece before it has ended; raises what that one raised."""
        self.wait()

        def run() -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001  told in the main thread
                self._error = error

        # a daemon: a second Ctrl-C ends the run at once, and what it leaves half-written is hidden and swept
        self._thread = threading.Thread(target=run, name="background", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Until the last piece has ended; raises what it raised."""
        if (error := self.end()) is not None:
            raise error

    def end(self) -> BaseException | None:
        """Until the last piece has ended; what it raised, once."""
        if self._thread is not None:
            self._thread.join()
        return self.failure()

    def failure(self) -> BaseException | None:
        """What the last piece raised, once, if it has ended by now."""
        error, self._error = self._error, None
        return error
