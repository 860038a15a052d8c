"""Films as jobs: a bounded queue, one process at a time, results that are kept for a while, one folder that goes with it all.

Knows nothing of HTTP and of models: what a job's process does is `film_child`. Threads may call all of it.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genpercept.commands.serve import film_process, scratch
from genpercept.commands.serve.limits import Broken, Busy, Ending, Limits, TooLarge, Unknown
from genpercept.core import files

ARRIVING, QUEUED, RUNNING, DONE, FAILED, CANCELLED = "arriving", "queued", "running", "done", "failed", "cancelled"
IN_HAND = (ARRIVING, QUEUED, RUNNING)
_OVER = (DONE, FAILED, CANCELLED)
_LOOK_SECONDS = 0.25  # between two looks at a process
_SUFFIXES = {"mp4": ".mp4", "zip": ".zip", "json": ".json"}  # of the files that a result may have


@dataclass(eq=False)
class Job:
    """A film on its way. folder: its own. source: the film; done, total: frames, total as far as is known. bytes: on disk.

    model: as requests name it. error: why it has failed. damage: what is wrong with a film that has a result all the same.
    """

    folder: Path
    source: Path
    id: str = field(default_factory=lambda: secrets.token_urlsafe(18))
    state: str = ARRIVING
    task: str = ""
    model: str = ""
    done: int = 0
    total: int | None = None
    bytes: int = 0
    error: str = ""
    damage: str = ""
    order: Mapping[str, Any] = field(default_factory=dict)
    began: float = 0.0
    ended: float = 0.0
    readers: int = 0
    process: subprocess.Popen[bytes] | None = None

    @property
    def over(self) -> bool:
        return self.state in _OVER

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def results(self) -> dict[str, Path]:
        """Of a job that is done: what there is of it, the usual one first."""
        found = {name: self.out / f"film_{self.task}{suffix}" for name, suffix in _SUFFIXES.items()}
        return {name: path for name, path in found.items() if path.is_file()} if self.state == DONE else {}


class Films:
    """The jobs of one engine. clock: seconds, for what expires. `close` ends and removes everything.

    home: where their folder will lie, which whoever has a better place may change before the first film.
    """

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits, self._clock, self.home = limits, clock, Path(tempfile.gettempdir())
        self._jobs: dict[str, Job] = {}
        self._rubbish: list[Path] = []
        self._changed = threading.Condition()
        self._folder: Path | None = None
        self._worker: threading.Thread | None = None
        self._closed, self._seconds = False, 30.0  # that a film takes, by the last one
        self.counts: dict[str, int] = dict.fromkeys(_OVER, 0)

    def count(self, *states: str) -> int:
        with self._changed:
            return sum(job.state in states for job in self._jobs.values())

    @property
    def bytes(self) -> int:
        """On disk, as far as was looked."""
        return sum(job.bytes for job in list(self._jobs.values()))

    # ---- a film comes

    @contextmanager
    def arriving(self, size: int = 0, source: Path | None = None) -> Iterator[Job]:
        """A place in the queue for a film, which comes within the block: into `job.source`, or is there already.

        Removed where the block does not end with `submit`. Busy where there is no place, or no room for `size` bytes.
        """
        with self._changed:
            self._open()
            if sum(job.state in IN_HAND for job in self._jobs.values()) >= self._limits.film_queue:
                raise self._busy(f"{self._limits.film_queue} films are in hand")
            assert self._folder is not None
            folder = self._folder / secrets.token_hex(8)
            job = Job(folder, source or folder / "film.mp4")  # which suffix does not matter: FFmpeg looks into it
            self._jobs[job.id] = job
        try:
            self.hold(job, size)
            job.out.mkdir(parents=True)
            yield job
        finally:
            if job.state == ARRIVING:
                with self._changed:
                    self._forget(job)

    def hold(self, job: Job, size: int) -> None:
        """An upload has `size` bytes from now on. Busy where there is no room for them, nor can be made."""
        with self._changed:
            if size > job.bytes and not self._room(size - job.bytes):
                raise self._busy(f"{self.bytes // 2**20} MiB of films are in hand")
            job.bytes = size

    def look(self, job: Job) -> tuple[int, int]:
        """The size (H, W) of the film's frames; notes how many there are. Broken, TooLarge. Blocks for a second or so."""
        limits = self._limits
        told = film_process.looked(job.source, limits)
        if "error" in told:
            line = str(told["error"]).partition(": raise")[0]
            raise TooLarge(line) if told["large"] else Broken(line)
        job.total = told["frames"]
        if job.total is not None and job.total > limits.film_frames:
            raise TooLarge(f"the film: {job.total:,} frames: at most {limits.film_frames:,} are taken")
        h, w = told["size"]
        return h, w

    def submit(self, job: Job, order: Mapping[str, Any]) -> None:
        """Its turn will come. order: what `film_child` reads, but "source" and "out". Ending where none comes any more."""
        with self._changed:
            self._open()
            job.state, job.order = QUEUED, {**order, "source": str(job.source), "out": str(job.out)}
            self._changed.notify_all()

    # ---- what becomes of it

    def find(self, number: str) -> Job:
        """By its id. Unknown where there is none, or none any more."""
        with self._changed:
            self._expire()
            job = self._jobs.get(number)
            if job is None or job.state == ARRIVING:
                raise Unknown("no such film here: it was removed, or its time is over")
            return job

    def before(self, job: Job) -> int:
        """How many have their turn earlier."""
        with self._changed:
            ahead = [other for other in self._jobs.values() if other.state in (QUEUED, RUNNING)]
            return ahead.index(job) if job in ahead else 0

    def left(self, job: Job) -> float:
        """Seconds for which it is kept."""
        return max(0.0, job.ended + self._limits.film_keep - self._clock()) if job.over else self._limits.film_keep

    def cancel(self, job: Job) -> None:
        """Its process has ended when this returns; what is over already stays as it is."""
        with self._changed:
            if job.over:
                return
            waited, process = job.state == QUEUED, job.process
            self._end(job, CANCELLED)
            if waited:
                job.bytes = 0
                self._throw(job)
        if process is not None:
            film_process.kill(process)

    def remove(self, job: Job) -> None:
        """Cancelled, where it is not over, and forgotten."""
        self.cancel(job)
        with self._changed:
            self._forget(job)

    @contextmanager
    def reading(self, job: Job, name: str) -> Iterator[Path]:
        """The file `name` of a result, which stays at least as long as the block. Unknown where it has just gone."""
        with self._changed:
            path = job.results.get(name)
            if path is None or job.id not in self._jobs:
                raise Unknown("no such film here: it was removed, or its time is over")
            job.readers += 1
        try:
            yield path
        finally:
            with self._changed:
                job.readers -= 1
                if not job.readers and job.id not in self._jobs:
                    self._throw(job)

    def stop(self) -> None:
        """No film is taken or goes on from now on; results stay."""
        with self._changed:
            self._closed = True
            unfinished = [job for job in self._jobs.values() if not job.over]
            self._changed.notify_all()
        for job in unfinished:
            self.cancel(job)
        if self._worker is not None:
            self._worker.join(5)

    def close(self) -> None:
        """Everything is gone."""
        self.stop()
        with self._changed:
            self._jobs.clear()
            folder, self._folder = self._folder, None
        if folder is not None:
            scratch.remove(folder)

    # ---- under the lock

    def _open(self) -> None:
        """The folder and the thread, which servers without films need not have."""
        if self._closed:
            raise Ending("the server is ending", 5)
        if self._folder is None:
            self._folder = scratch.make(self.home)
            self._worker = threading.Thread(target=self._work, name="films", daemon=True)
            self._worker.start()

    def _busy(self, held: str) -> Busy:
        return Busy(f"{held}: try again later", self._seconds)

    def _room(self, more: int) -> bool:
        """Whether there is room for `more` bytes; the oldest results go where that makes it."""
        most = self._limits.film_disk
        for old in sorted((job for job in self._jobs.values() if job.over), key=lambda job: job.ended):
            if self.bytes + more <= most:
                break
            self._forget(old)
        return self.bytes + more <= most

    def _expire(self) -> None:
        for job in [job for job in self._jobs.values() if job.over and not self.left(job)]:
            self._forget(job)

    def _forget(self, job: Job) -> None:
        if self._jobs.pop(job.id, None) is not None and not job.readers:
            self._throw(job)

    def _throw(self, job: Job) -> None:
        self._rubbish.append(job.folder)
        self._changed.notify_all()

    def _end(self, job: Job, state: str, error: str = "") -> None:
        job.state, job.error, job.ended = state, error, self._clock()
        self.counts[state] += 1

    # ---- the thread

    def _work(self) -> None:
        while True:
            self._tidy()
            with self._changed:
                if self._closed:
                    return
                job = next((job for job in self._jobs.values() if job.state == QUEUED), None)
                if job is None:
                    if not self._rubbish:
                        self._changed.wait(1.0)  # then some result may be too old
                    continue
                job.state, job.began = RUNNING, time.monotonic()
                try:
                    job.process = film_process.started(job.order, self._limits)
                except OSError as error:  # no process or memory to be had now
                    self._end(job, FAILED, f"no process could be started ({error.strerror}): try again later")
                    continue
            self._watch(job, job.process)

    def _tidy(self) -> None:
        with self._changed:
            self._expire()
            rubbish, self._rubbish = self._rubbish, []
        for folder in rubbish:
            files.discard(folder)

    def _watch(self, job: Job, process: subprocess.Popen[bytes]) -> None:
        """Until it is over, whichever way."""
        why = ""
        while not why:
            with suppress(subprocess.TimeoutExpired):
                process.wait(_LOOK_SECONDS)
                break
            self._tidy()
            why = self._excess(job)
        film_process.kill(process)
        told = {"error": why or CANCELLED} if why or job.over else film_process.told(process)
        if told["error"]:
            files.discard(job.folder)
        elif job.source.parent == job.folder:
            job.source.unlink(missing_ok=True)
        self._measure(job)
        with self._changed:
            job.process = None
            if job.over:  # it was cancelled
                job.bytes = 0
                self._throw(job)
            else:
                self._seconds = time.monotonic() - job.began
                self._settle(job, told)

    def _settle(self, job: Job, told: Mapping[str, Any]) -> None:
        self._end(job, FAILED if told["error"] else DONE, told["error"])
        if job.state == DONE:
            job.damage, job.done = told["damage"], told["frames"]
            job.total = job.done

    def _excess(self, job: Job) -> str:
        """What is too much of it; "": nothing."""
        limits = self._limits
        before = job.bytes
        self._measure(job)
        if time.monotonic() - job.began > limits.film_seconds:
            return f"the film takes more than {limits.film_seconds:g} seconds here: send a shorter or smaller one"
        if job.done > limits.film_frames:
            return f"the film: more than {limits.film_frames:,} frames"
        with self._changed:
            if job.bytes > before and not self._room(0):
                return f"films and their results would take more than {limits.film_disk:,} bytes: send a shorter one"
        return ""

    def _measure(self, job: Job) -> None:
        """Bytes on disk, and, while answers are kept, frames that the network has seen."""
        size, answers = 0, 0
        for folder, _, names in os.walk(job.folder):
            for name in names:
                with suppress(OSError):
                    size += (Path(folder) / name).stat().st_size
                answers += name.endswith(".answer")
        job.bytes = size
        job.done = max(job.done, answers)
