"""A clip's frames through a network, as a steady clip: shots found, one range per shot, smoothed along the motion.

The contract, of kinds that are right up to scale and shift (depth, disparity):

- Each frame is fitted to its shot by a scale and a shift (`align`). They alone decide the shot's range: from the lowest to the
  highest value that any frame's own range [0, 1] reaches. Nothing is clipped, a resting camera's frames keep their range, and a
  clip of one frame is what the image alone would be.
- So a shot's frames come when its end has been seen. Until then the network's answers lie on disk, frame by frame, and the
  frames are read a second time: neither memory nor the network's work is the more for it.
- `live`: frames come at once, from any iterator. The range is that of the shot's first frame; where later ones leave it, it
  grows by at most a fiftieth a frame and never shrinks, and what is beyond it meanwhile is clipped.

Other quantities (normals, masks, mattes, scores) are smoothed alone; names and points (classes, keypoints) stay as they are.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from genpercept.imaging.kinds import KINDS
from genpercept.imaging.prediction import Prediction
from genpercept.imaging.video import Clip, Frame
from genpercept.pipeline.video.ahead import ahead
from genpercept.pipeline.video.align import Aligner, Line, known_part
from genpercept.pipeline.video.answers import Answers
from genpercept.pipeline.video.motion import Flow, Look, Motion
from genpercept.pipeline.video.smooth import Flicker, Smoother

Predict = Callable[[list[np.ndarray]], Sequence[Prediction]]  # of images (H, W, 3) uint8, in their order

_GROWS = 0.02  # of a live shot's range, a frame


@dataclass(frozen=True)
class How:
    """How a clip is made steady. smooth: 0 (not) to below 1. align: one range per shot, for kinds that need it.

    batch_size: frames at once. live: each frame at once. answers: where the network's answers lie and stay; None: in a
    temporary folder, as long as they are needed.
    """

    smooth: float = 0.0
    align: bool = True
    batch_size: int = 1
    live: bool = False
    answers: Path | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.smooth < 1:
            raise ValueError(f"smooth={self.smooth:g}: the weight of the frame before, from 0 to below 1")
        if self.batch_size < 1:
            raise ValueError(f"batch_size={self.batch_size}: must be at least 1")


@dataclass
class Report:
    """What was found. shots: the first frame of each. before, after: flicker of the answers, and of what was made of them.

    Flicker: by how much a pixel changes from frame to frame along its motion, in shares of the values' span (`smooth.Flicker`).
    """

    shots: list[int] = field(default_factory=list)
    frames: int = 0
    before: float | None = None
    after: float | None = None


@dataclass
class Shot:
    """first: frame index. lines: of its frames, in the units of the first one's values."""

    number: int
    first: int
    lines: list[Line] = field(default_factory=list)


class Video:
    """Predictions of a clip's frames, in order, by iterating; then `report` is whole.

    Each one's meta has, beside the network's: frame (from 0), time (seconds), shot (from 0), and, where frames are aligned,
    scale and shift: value = scale * the network's value + shift. clip: a Clip, or with `live` any frames.
    """

    def __init__(self, clip: Clip | Iterable[Frame], predict: Predict, how: How | None = None) -> None:
        self._clip, self._predict, self._how = clip, predict, how or How()
        self.report = Report()

    def __iter__(self) -> Iterator[Prediction]:
        for _, prediction in self.pairs():
            yield prediction

    def pairs(self) -> Iterator[tuple[Frame, Prediction]]:
        """Each frame with its Prediction."""
        self.report = Report()
        with ExitStack() as stack:
            folder = self._how.answers
            if folder is None:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="genpercept-clip-")))
            answers = None if self._how.live else Answers(folder)
            pairs = self._answered(answers)
            first = next(pairs, None)
            if first is None:
                return
            row = KINDS[first[1].kind]
            whole = not self._how.live and self._how.align and row.is_affine
            steps = self._whole_shots(_before(first, pairs), answers) if whole else self._running(_before(first, pairs))
            for frame, prediction in steps:
                self.report.frames += 1
                yield frame, prediction

    # ---- the network

    def _frames(self) -> Iterator[Frame]:
        return iter(self._clip.frames()) if hasattr(self._clip, "frames") else iter(self._clip)  # type: ignore[arg-type]

    def _answered(self, answers: Answers | None) -> Iterator[tuple[Frame, Prediction]]:
        """Frames with their answers, read and predicted ahead. What a clip's end raises comes behind the last of them."""
        if answers is None:
            for frame in self._frames():
                yield frame, self._predict([frame.image])[0]
            return
        yield from ahead(self._remembered(answers), self._how.batch_size)

    def _remembered(self, answers: Answers) -> Iterator[tuple[Frame, Prediction]]:
        waiting: list[Frame] = []

        def asked() -> Iterator[tuple[Frame, Prediction]]:
            found = self._predict([frame.image for frame in waiting]) if waiting else ()
            for frame, prediction in zip(waiting, found, strict=True):
                answers.put(frame.index, prediction)
                yield frame, answers.take(frame.index)  # as a run that is resumed here has it
            waiting.clear()

        frames = self._frames()
        while True:
            try:
                frame = next(frames, None)
            except BaseException:
                yield from asked()  # what came before the damage is kept
                raise
            if frame is None:
                break
            try:
                known = answers.take(frame.index) if frame.index in answers else None
            except KeyError:
                known = None
            if known is not None:
                yield from asked()
                yield frame, known
                continue
            waiting.append(frame)
            if len(waiting) == self._how.batch_size:
                yield from asked()
        yield from asked()

    # ---- shots

    def _running(self, pairs: Iterator[tuple[Frame, Prediction]]) -> Iterator[tuple[Frame, Prediction]]:
        """Each frame as it comes."""
        tracker, finisher = Tracker(self._how.align), None
        grown = Grown()
        for frame, prediction in pairs:
            finisher = finisher or Finisher(prediction.kind, self._how.smooth)
            step = tracker.add(frame, prediction)
            if step.motion is None:
                self.report.shots.append(frame.index)
                grown = Grown()
            line = step.line.then(grown.add(step.line)) if tracker.aligns(prediction) else None
            out = finisher.add(frame, prediction, step.shot, line, step.motion)
            self.report.before, self.report.after = finisher.before.mean, finisher.after.mean
            yield frame, out

    def _whole_shots(
        self, pairs: Iterator[tuple[Frame, Prediction]], answers: Answers | None
    ) -> Iterator[tuple[Frame, Prediction]]:
        """Each shot's frames when its end is known."""
        assert answers is not None
        again, finisher, flow = self._frames(), None, Flow()
        for shot in _shots(pairs, Tracker(True)):
            self.report.shots.append(shot.first)
            shared = shared_range(shot.lines)
            before: Look | None = None
            for line, frame in zip(shot.lines, again, strict=False):
                prediction = answers.take(frame.index)
                if self._how.answers is None:
                    answers.drop(frame.index)
                finisher = finisher or Finisher(prediction.kind, self._how.smooth)
                look = Look.at(frame.image)
                motion = None if before is None else flow.between(before, look)
                before = look
                out = finisher.add(frame, prediction, shot.number, line.then(shared), motion)
                self.report.before, self.report.after = finisher.before.mean, finisher.after.mean
                yield frame, out


@dataclass(frozen=True, eq=False)
class Step:
    """shot: from 0. line: to the units of the shot's first frame. motion: back to the frame before; None in a shot's first."""

    shot: int
    line: Line
    motion: Motion | None


class Tracker:
    """Cuts and lines, frame by frame. align: whether lines are fitted to kinds that need them."""

    def __init__(self, align: bool) -> None:
        self._align, self._aligner, self._flow = align, Aligner(), Flow()
        self._before: Look | None = None
        self._shot = -1

    def aligns(self, prediction: Prediction) -> bool:
        return self._align and KINDS[prediction.kind].is_affine

    def add(self, frame: Frame, prediction: Prediction) -> Step:
        """ValueError for a frame of another size than the one before."""
        look = Look.at(frame.image)
        if self._before is not None and look.rgb.shape != self._before.rgb.shape:
            raise ValueError(
                f"frame {frame.index + 1}: of another size than those before: frames of one clip are of one size"
            )
        motion = None if self._before is None else self._flow.between(self._before, look)
        if motion is None or motion.is_cut:
            motion, self._shot = None, self._shot + 1
            self._aligner = Aligner()
        self._before = look
        line = Line()
        if self.aligns(prediction):
            line = self._aligner.add(_finite(prediction.values), prediction.valid, motion)
        return Step(self._shot, line, motion)


class Finisher:
    """Lines applied, values smoothed, flicker measured before and after. smooth: as `How` has it."""

    def __init__(self, kind: str, smooth: float) -> None:
        row = KINDS[kind]
        self._steadies = row.steadies
        self._limits = row.limits
        span = None if row.is_affine or row.limits is None else row.limits[1] - row.limits[0]
        self.before, self.after = Flicker(span), Flicker(span)
        self._smoother = Smoother(smooth if row.steadies else 0.0, span or 1.0, row.directions)

    def add(
        self, frame: Frame, prediction: Prediction, shot: int, line: Line | None, motion: Motion | None
    ) -> Prediction:
        """The frame's Prediction as it goes out."""
        told = copy(prediction)  # not `replace`, which would look through all values once more
        told.meta = {**prediction.meta, "frame": frame.index, "time": float(frame.time), "shot": shot}
        if line is not None:
            told.meta |= {"scale": line.scale, "shift": line.shift}
        if not self._steadies:
            return told
        known, values = known_part(prediction.values, prediction.valid), _finite(prediction.values)
        self.before.add(values, known, motion)
        out = self._smoother.add(values if line is None else line(values), known, motion)
        self.after.add(out, known, motion)
        told.values = out if self._limits is None else np.clip(out, *self._limits)
        if line is not None and prediction.uncertainty is not None:
            told.uncertainty = prediction.uncertainty * np.float32(abs(line.scale))
        return told


def shared_range(lines: Sequence[Line]) -> Line:
    """What brings all values of a shot to [0, 1]: from the lowest to the highest that a frame's own [0, 1] reaches."""
    low, high = min(line.shift for line in lines), max(line.scale + line.shift for line in lines)
    return Line(1 / (high - low), -low / (high - low))


class Grown:
    """The range of a live shot: its first frame's, and what later ones reach beyond it, little by little."""

    def __init__(self) -> None:
        self._low, self._high = 0.0, 1.0

    def add(self, line: Line) -> Line:
        step = _GROWS * (self._high - self._low)
        self._low = min(self._low, max(line.shift, self._low - step))
        self._high = max(self._high, min(line.scale + line.shift, self._high + step))
        return Line(1 / (self._high - self._low), -self._low / (self._high - self._low))


def _shots(pairs: Iterator[tuple[Frame, Prediction]], tracker: Tracker) -> Iterator[Shot]:
    """Shots as they end; the last one before what the clip's end raises."""
    shot: Shot | None = None
    try:
        for frame, prediction in pairs:
            step = tracker.add(frame, prediction)
            if step.motion is None:
                if shot is not None:
                    yield shot
                shot = Shot(step.shot, frame.index)
            assert shot is not None
            shot.lines.append(step.line)
    except ValueError:
        if shot is not None:
            yield shot
        raise
    if shot is not None:
        yield shot


def _finite(values: np.ndarray) -> np.ndarray:
    """Without NaN, which flow would spread."""
    return values if np.isfinite(values).all() else np.nan_to_num(values)


def _before(
    first: tuple[Frame, Prediction], rest: Iterator[tuple[Frame, Prediction]]
) -> Iterator[tuple[Frame, Prediction]]:
    yield first
    yield from rest
