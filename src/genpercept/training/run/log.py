"""What a run tells: a progress bar on a terminal, plain lines elsewhere, TensorBoard, a JSON line per validation."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from genpercept.core import said
from genpercept.core.files import atomic
from genpercept.training.recipe import Logging
from genpercept.training.run.trackers import Trackers
from genpercept.training.run.unwritable import Unwritable, explained, probe


class Reporter:
    def __init__(
        self, run: Path, options: Logging, total: int, silent: bool = False, config: Mapping[str, Any] | None = None
    ) -> None:
        """`silent`: say and write nothing (all but the first of several processes). `config`: what trackers file."""
        self._run, self._options, self._total, self._silent = run, options, total, silent
        self._last_line = 0.0
        self._config = config or {}
        self._trackers: Trackers | None = None
        self._bar: Any = None
        self._task: Any = None

    def open(self, step: int) -> None:
        if self._silent:
            return
        self._trackers = Trackers(self._options, self._run, self._config, step, self._tracker_failed)
        if sys.stderr.isatty() and not said.quiet():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[line]}"))
            self._bar = Progress(*columns, console=Console(stderr=True))
            self._task = self._bar.add_task("train", total=self._total, completed=step, line="")
            self._bar.start()

    def line(self, text: str) -> None:
        """One plain line, above the bar where there is one."""
        if self._silent or said.quiet():
            return
        if self._bar is not None:
            self._bar.console.print(text, highlight=False, markup=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def progress(self, step: int, figures: Mapping[str, float], left: float) -> None:
        """After a step: figures as `name value`, `left` in seconds."""
        text = "  ".join(f"{name} {value:.4g}" for name, value in figures.items()) + f"  left {clock(left)}"
        if self._bar is not None:
            self._bar.update(self._task, completed=step, line=text)
        elif time.monotonic() - self._last_line > self._options.seconds:
            self._last_line = time.monotonic()
            self.line(f"step {step}/{self._total}  {text}")

    def scalars(self, step: int, figures: Mapping[str, float], prefix: str = "train") -> None:
        if self._trackers is not None:
            self._trackers.log(step, {f"{prefix}/{name}": value for name, value in figures.items()})

    def validation(self, step: int, figures: Mapping[str, float], picture: np.ndarray | None) -> None:
        """Figures as a line and in log.jsonl, the picture (H, W, 3) uint8 as PNG and in TensorBoard. Raises Unwritable."""
        self.line(f"step {step}: " + ", ".join(f"{name} {value:.4g}" for name, value in figures.items()))
        path = self._run / "log.jsonl"
        with explained(self._run, path.name), path.open("a", encoding="utf-8") as log:
            log.write(json.dumps({"step": step, **figures}) + "\n")
        self.scalars(step, figures, "validation")
        if picture is None:
            return
        folder = self._run / "pictures"
        with explained(self._run, "pictures/"):
            folder.mkdir(exist_ok=True)
            with atomic(folder / f"{step:07d}.png") as temp:
                Image.fromarray(picture).save(temp, "PNG")
        if self._trackers is not None:
            self._trackers.picture(step, picture)

    def _tracker_failed(self, line: str) -> None:
        """It is no reason to stop, unless it is the disk that this run is on."""
        self.line(line)
        probe(self._run)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
        if self._trackers is not None:
            with suppress(Unwritable):  # all that counts has been written, or its error is on the way already
                self._trackers.close()


def clock(seconds: float) -> str:
    minutes, s = divmod(max(0, round(seconds)), 60)
    h, m = divmod(minutes, 60)
    return f"{h}:{m:02d}:{s:02d}"


def grid(rows: list[list[np.ndarray]], gap: int = 2) -> np.ndarray:
    """Pictures (H, W, 3) uint8 in rows -> one picture; smaller ones are padded with white to the largest."""
    h = max(p.shape[0] for row in rows for p in row) + gap
    w = max(p.shape[1] for row in rows for p in row) + gap
    sheet = np.full((h * len(rows), w * max(len(row) for row in rows), 3), 255, np.uint8)
    for i, row in enumerate(rows):
        for j, picture in enumerate(row):
            sheet[i * h : i * h + picture.shape[0], j * w : j * w + picture.shape[1]] = picture
    return sheet


def to_picture(image_CHW: Any) -> np.ndarray:
    """Tensor (3, H, W) in [-1, 1] -> (H, W, 3) uint8."""
    return ((image_CHW.detach().float().cpu().clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
