"""What the app keeps of its visitors: photographs and answers in memory, pictures in a folder that goes with the process."""

from __future__ import annotations

import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from genpercept.imaging.prediction import Prediction

KEPT_SECONDS = 1800  # after the last use
KEPT_BYTES = 2 * 2**30  # of all visitors together; the longest unused go first

# Waits until the program is gone, however it went, then removes the folder.
_GUARD = "import shutil, sys; sys.stdin.read(); shutil.rmtree(sys.argv[1], ignore_errors=True)"


@dataclass(frozen=True)
class Photograph:
    """What a visitor chose. data: the file's bytes; image (H, W, 3) uint8 or float32; preview: what pages show of it.

    example: its name among the package's own photographs, "" for a visitor's.
    """

    name: str
    data: bytes
    image: np.ndarray
    preview: Image.Image
    example: str = ""

    @property
    def stem(self) -> str:
        return Path(self.name).stem

    @property
    def bytes(self) -> int:
        return len(self.data) + self.image.nbytes + self.preview.width * self.preview.height * 3


@dataclass(frozen=True)
class Answer:
    """What a model said of a photograph. cut: its foreground as RGBA, once somebody has asked for it."""

    photograph: Photograph
    prediction: Prediction
    task: str
    cut: Image.Image | None = None
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24))

    @property
    def stem(self) -> str:
        """Of its files."""
        return f"{self.photograph.stem}_{self.task}"

    @property
    def bytes(self) -> int:
        p = self.prediction
        arrays = (a for a in (p.values, p.valid, p.uncertainty, p.raw) if a is not None)
        return sum(a.nbytes for a in arrays) + (self.cut.width * self.cut.height * 4 if self.cut else 0)


@dataclass
class Visitor:
    """An open page: its photograph, the newest answer of each tab, and when it was last used."""

    photograph: Photograph | None = None
    answers: dict[str, Answer] = field(default_factory=dict)
    used: float = 0.0

    @property
    def bytes(self) -> int:
        return (self.photograph.bytes if self.photograph else 0) + sum(a.bytes for a in self.answers.values())


class Store:
    """Visitors by the hash of their page. Thread-safe. seconds, most: when the longest unused are forgotten."""

    def __init__(
        self, seconds: float = KEPT_SECONDS, most: int = KEPT_BYTES, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._seconds, self._most, self._clock = seconds, most, clock
        self._visitors: OrderedDict[str, Visitor] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._visitors)

    def photograph(self, page: str) -> Photograph | None:
        visitor = self._visit(page)
        return None if visitor is None else visitor.photograph

    def answer(self, page: str, tab: str) -> Answer | None:
        visitor = self._visit(page)
        return None if visitor is None else visitor.answers.get(tab)

    def by_token(self, token: str) -> Answer | None:
        """The answer whose files are asked for; whoever knows its token may have them."""
        with self._lock:
            self._expire()
            found = (a for v in self._visitors.values() for a in v.answers.values())
            return next((a for a in found if secrets.compare_digest(a.token, token)), None)

    def choose(self, page: str, photograph: Photograph | None) -> None:
        """Another photograph: the answers to the one before are forgotten with it."""
        with self._lock:
            self._visitors.pop(page, None)
            if photograph is not None:
                self._visitors[page] = Visitor(photograph, used=self._clock())
            self._expire()

    def keep(self, page: str, tab: str, answer: Answer) -> None:
        """Unless the photograph has changed since it was asked."""
        with self._lock:
            visitor = self._visitors.get(page)
            if visitor is not None and visitor.photograph is answer.photograph:
                visitor.answers[tab] = answer
                self._expire()

    def forget(self, page: str) -> None:
        """The page was closed."""
        with self._lock:
            self._visitors.pop(page, None)

    def expire(self) -> None:
        """Forget what was not used for so long. For a clock to call: other calls do it for themselves."""
        with self._lock:
            self._expire()

    def _visit(self, page: str) -> Visitor | None:
        with self._lock:
            self._expire()
            visitor = self._visitors.get(page)
            if visitor is not None:
                visitor.used = self._clock()
                self._visitors.move_to_end(page)
            return visitor

    def _expire(self) -> None:
        oldest = self._clock() - self._seconds
        for page in [p for p, v in self._visitors.items() if v.used < oldest]:
            del self._visitors[page]
        while len(self._visitors) > 1 and sum(v.bytes for v in self._visitors.values()) > self._most:
            self._visitors.popitem(last=False)


class Folder:
    """A folder for this process alone, which is removed at `close`, or by a guard when the process is gone without it."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="genpercept-app-"))
        command = [sys.executable, "-I", "-S", "-c", _GUARD, str(self.path)]
        self._guard = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)

    def close(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        assert self._guard.stdin is not None
        self._guard.stdin.close()
        self._guard.wait()
