"""Weights & Biases, trackio and TensorBoard: one that fails is left out from there on, and the run goes on."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from genpercept.core.texts import one_line
from genpercept.training.recipe import Logging


def find(names: Sequence[str]) -> list[Any]:
    """The trackers' modules. ValueError for one that is not installed."""
    found = []
    for name in names:
        try:
            found.append(importlib.import_module(name))
        except ImportError:
            raise ValueError(
                f"logging.trackers: {name} is not installed: pip install {name}, or leave it out"
            ) from None
    return found


class Trackers:
    def __init__(
        self, options: Logging, run: Path, config: Mapping[str, Any], step: int, failed: Callable[[str], None]
    ) -> None:
        """Those that `options` name, for a run that goes on at `step`. failed: is told, in a line, of one that fails."""
        self._failed = failed
        self._running: dict[str, Any] = {}
        if options.tensorboard:
            self._try("tensorboard", lambda: self._running.update(tensorboard=_TensorBoard(run, step)))
        for name, module in zip(options.trackers, find(options.trackers), strict=True):
            self._running[name] = module
            self._try(name, lambda m=module: m.init(project=options.project, name=run.name, config=dict(config)))

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        for name, tracker in [*self._running.items()]:
            self._try(name, lambda t=tracker: t.log(dict(figures), step=step))

    def picture(self, step: int, picture: np.ndarray) -> None:
        """(H, W, 3) uint8; TensorBoard alone has pictures."""
        if "tensorboard" in self._running:
            self._try("tensorboard", lambda: self._running["tensorboard"].picture(step, picture))

    def close(self) -> None:
        for name, tracker in [*self._running.items()]:
            self._try(name, tracker.finish)

    def _try(self, name: str, call: Callable[[], Any]) -> None:
        try:
            call()
        except Exception as error:  # noqa: BLE001  whatever a tracker's network or disk does
            self._running.pop(name, None)
            self._failed(f"{name} is left out from here on: {one_line(error, 200)}")


class _TensorBoard:
    """With the calls of the others."""

    def __init__(self, run: Path, step: int) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        _quiet()
        self._writer = SummaryWriter(str(run / "tensorboard"), purge_step=step or None)

    def log(self, figures: Mapping[str, float], step: int) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def picture(self, step: int, picture: np.ndarray) -> None:
        self._writer.add_image("validation", picture, step, dataformats="HWC")

    def finish(self) -> None:
        self._writer.close()


def _quiet() -> None:
    """TensorBoard's thread raises what it meets here, at the next call: it need not print a traceback beside that."""
    before = threading.excepthook
    if getattr(before, "quiet", False):
        return

    def hook(args: Any) -> None:
        if type(args.thread).__module__.partition(".")[0] != "tensorboard":
            before(args)

    hook.quiet = True  # type: ignore[attr-defined]
    threading.excepthook = hook
