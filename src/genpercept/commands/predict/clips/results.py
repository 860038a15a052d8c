"""What is written of a clip: DIR/<clip>_<task>.mp4, the folder DIR/<clip>_<task>/ of frames, and DIR/<clip>_<task>.json."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np

from genpercept.commands.files.results import Output, strange
from genpercept.commands.predict.clips.plan import FILM, Asked, Clip
from genpercept.commands.predict.model import Model
from genpercept.core import files
from genpercept.core.said import say
from genpercept.imaging import sidecars, write
from genpercept.imaging.colour import painted
from genpercept.imaging.kinds import KINDS
from genpercept.imaging.prediction import Prediction
from genpercept.imaging.video import Frame, Writer
from genpercept.pipeline.video.stream import Report

_WRITERS, _WAITING = 4, 8  # frames written at once, and waiting for it


class Results:
    """A context: `add` frame by frame, then `finish`. Without that nothing of the film is left; frames that are whole stay.

    whole: what the results are made from, for the sidecars.
    """

    def __init__(self, clip: Clip, model: Model, asked: Asked, output: Output, whole: dict[str, Any]) -> None:
        self._clip, self._model, self._asked, self._output, self._whole = clip, model, asked, output, whole
        self._film = clip.film(model.task) if FILM in asked.formats else None
        self._formats = tuple(name for name in asked.formats if name != FILM)
        self._folder = clip.frames(model.task)
        self._opened = clip.opened()
        self._scales: list[tuple[float, float]] = []
        self._first: Prediction | None = None
        self._frames, self._last = 0, 0.0
        self._waiting: deque[Future[None]] = deque()
        self._written: dict[Path, write.Digest] = {}

    def __enter__(self) -> Results:
        with ExitStack() as stack:
            self._sidecar = self._clip.job.sidecar(self._model.task)
            self._claimed = {"kind": self._model.kind, "meaning": KINDS[self._model.kind].meaning}
            self._claimed |= {"files": {FILM: self._film.name} if self._film else {}, "meta": self._whole}
            self._earlier = stack.enter_context(sidecars.claimed(self._sidecar, self._claimed, self._written))
            if self._formats:
                self._folder.mkdir(exist_ok=True)
                files.sweep(self._folder)
                sidecars.sweep(self._folder)
                self._pool = stack.enter_context(ThreadPoolExecutor(_WRITERS, "write"))
            self._inner = stack.enter_context(ExitStack())  # the film, which ends before the sidecar is written
            self._writer: Writer | None = None
            if self._film:
                opened = self._opened
                self._writer = self._inner.enter_context(Writer(self._film, opened.rate, opened.tick, self._clip.sound))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def add(self, frame: Frame, prediction: Prediction) -> None:
        """The next frame."""
        meta = prediction.meta
        if "scale" in meta:
            self._scales.append((meta["scale"], meta["shift"]))
        self._first = self._first or prediction
        self._frames, self._last = self._frames + 1, meta["time"]
        if self._writer is not None:
            named = meta.get(write.legend(prediction.kind))
            picture = painted(prediction.values, prediction.kind, prediction.valid, frame.image, named)
            if self._asked.beside:
                picture = np.concatenate([frame.image, picture], axis=1)
            self._writer.write(picture, frame.time)
        if self._formats:
            while len(self._waiting) >= _WAITING:
                self._waiting.popleft().result()
            self._waiting.append(self._pool.submit(self._save, frame, prediction))

    def finish(self, report: Report, damage: str) -> None:
        """The film and the sidecar."""
        while self._waiting:
            self._waiting.popleft().result()
        self._inner.close()
        if self._film is not None:
            self._written[self._film] = write.digest_of(self._film)
            if self._writer is not None and self._writer.silent:
                say(
                    f"genpercept: {self._clip.job.shown}: MP4 does not take its sound ({', '.join(self._writer.silent)})"
                )
        assert self._first is not None
        shape = [self._frames, *self._first.values.shape]
        of_frames = ("frame", "time", "shot", "scale", "shift")
        meta = {key: value for key, value in self._first.meta.items() if key not in of_frames} | self._whole
        about = self._claimed | {"shape": shape, "meta": meta, "video": self._told(report, damage)}
        files.write_json(self._sidecar, about | sidecars.told(self._written, self._earlier))

    def _told(self, report: Report, damage: str) -> dict[str, Any]:
        """Of the clip as a whole."""
        ends = [*report.shots[1:], self._frames]
        told: dict[str, Any] = {"frames": self._frames, "fps": float(self._opened.rate), "seconds": self._last}
        told["frames_folder"] = self._folder.name if self._formats else None
        told["shots"] = [{"first": a, "frames": b - a} for a, b in zip(report.shots, ends, strict=True)]
        told["flicker"] = {"before": report.before, "after": report.after}
        if self._scales:
            told["scale"], told["shift"] = (list(column) for column in zip(*self._scales, strict=True))
        return told | ({"damage": damage} if damage else {})

    def _save(self, frame: Frame, prediction: Prediction) -> None:
        """One frame's files, unless they are there already, made from the same."""
        stem = self._folder / f"{frame.index + 1:06d}"
        told = copy(prediction)
        told.meta = {**prediction.meta, **self._whole}
        sidecar = stem.with_name(f"{stem.name}.json")
        about = sidecars.read(sidecar) if self._output.resume else None
        if about is not None and about["meta"] == files.plain(told.meta) and _fit(sidecar, about):
            return
        if not self._output.overwrite:
            targets = [stem.with_name(stem.name + write.FORMATS[name].suffix) for name in self._formats]
            if line := strange(self._clip.job, sidecar, targets):
                raise ValueError(line)
        fov = self._model.request.fov
        told.save(sidecar, self._formats, image=frame.image, fov=fov, name=stem.name)


def is_whole(clip: Clip, task: str, whole: dict[str, Any]) -> str | None:
    """What was wrong with a clip whose results are all there, made from this, "" if nothing; None: they are not."""
    sidecar = clip.job.sidecar(task)
    about = sidecars.read(sidecar)
    if about is None or not isinstance(about.get("video"), dict) or not _fit(sidecar, about):
        return None
    if {key: about["meta"].get(key) for key in whole} != files.plain(whole):
        return None
    if about["video"].get("frames_folder"):
        for number in range(1, about["video"]["frames"] + 1):
            of_frame = clip.frames(task) / f"{number:06d}.json"
            known = sidecars.read(of_frame)
            if known is None or not _fit(of_frame, known):
                return None
    return str(about["video"].get("damage", ""))


def told_of(path: Path) -> dict[str, Any] | None:
    """A JSON object of ours; None where there is none."""
    try:
        found = files.read_json(path)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and "request" in found else None


def _fit(sidecar: Path, about: dict[str, Any]) -> bool:
    """Whether all files that a sidecar names are as they were written."""
    digests = sidecars.digests(about)
    return digests is not None and all(digest.fits(sidecar.with_name(name)) for name, digest in digests.items())
