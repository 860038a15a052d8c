"""Training state on disk: folders that are complete or absent; the latest ones and the best are kept."""

from __future__ import annotations

import errno
import json
import os
import pickle
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from genpercept.core import files
from genpercept.core.texts import one_line

# What reading a damaged checkpoint raises, and what writing to a full disk does
_UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    RuntimeError,
    EOFError,
    SafetensorError,
    pickle.UnpicklingError,
)
UNWRITABLE = (OSError, RuntimeError, SafetensorError)


@dataclass
class State:
    """Where a run stands, beside its weights."""

    step: int = 0  # optimiser steps done, left-out ones included
    seconds: float = 0.0  # trained so far, over all sittings
    skipped: int = 0  # steps left out for a non-finite or exploding gradient
    skipped_in_a_row: int = 0  # of them, those since the last one that was taken
    usual_norm: float = 0.0  # running mean of the gradient norm
    best: float | None = None  # best validation figure
    best_by: str = ""  # which figure that is
    scaler: dict[str, Any] | None = None  # of fp16's loss scaling


class Checkpoints:
    """RUN/checkpoints/step-0000123: weights and average as safetensors, optimiser by torch (weights_only), state as JSON.

    Weights are all tensors that a step changes, batch norms' running statistics among them.
    """

    def __init__(self, run: Path, keep: int) -> None:
        self.folder, self._keep = run / "checkpoints", keep

    @staticmethod
    def name(step: int) -> str:
        return f"step-{step:07d}"

    def save(
        self, state: State, weights: dict[str, Tensor], average: dict[str, Tensor], optimiser: dict[str, Any]
    ) -> Path:
        """Write to a hidden folder, flush to disk, rename; then drop what is older than the last `keep`.

        Raises one of UNWRITABLE, with nothing left of the new checkpoint and the old ones as they were; also where the run's
        folder is gone, which is not made anew.
        """
        if not self.folder.parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.folder.parent))
        final = self.folder / self.name(state.step)
        files.sweep(self.folder)
        with files.atomic_folder(final) as part:
            self._write(part, state, weights, average, optimiser)
        for old in self.list()[: -self._keep]:
            files.discard(old)
        return final

    def _write(
        self,
        part: Path,
        state: State,
        weights: dict[str, Tensor],
        average: dict[str, Tensor],
        optimiser: dict[str, Any],
    ) -> None:
        save_file(weights, part / "weights.safetensors")
        if average:
            save_file(average, part / "average.safetensors")
        with (part / "optimiser.pt").open("wb") as file:  # by its name, torch would not say why it cannot be written
            torch.save(optimiser, file)
        sums = {path.name: _checksum(path) for path in part.iterdir()}
        (part / "state.json").write_text(json.dumps(asdict(state) | {"checksums": sums}), encoding="utf-8")

    def list(self) -> list[Path]:
        """Complete checkpoints, oldest first."""
        return sorted(p for p in self.folder.glob("step-*") if p.is_dir())

    def load_latest(
        self, report: Callable[[str], None]
    ) -> tuple[State, dict[str, Tensor], dict[str, Tensor], dict[str, Any]] | None:
        """The newest readable checkpoint, or None; a damaged one is passed over with a line that says so."""
        for folder in reversed(self.list()):
            try:
                return read_checkpoint(folder)
            except _UNREADABLE as error:
                reason = one_line(error)
                report(f"checkpoint {folder.name} is damaged ({reason}); falling back to the one before")
        return None


def read_checkpoint(folder: Path) -> tuple[State, dict[str, Tensor], dict[str, Tensor], dict[str, Any]]:
    """A checkpoint's state, weights, average and optimiser. One of many exceptions when a file is damaged."""
    content = files.read_json(folder / "state.json")
    for name, checksum in content.pop("checksums", {}).items():
        if _checksum(folder / name) != checksum:
            raise ValueError(f"{name} is not as it was written")
    state = State(**content)
    average = folder / "average.safetensors"
    optimiser = torch.load(folder / "optimiser.pt", weights_only=True, map_location="cpu")
    return state, load_file(folder / "weights.safetensors"), load_file(average) if average.exists() else {}, optimiser


def _checksum(path: Path) -> int:
    """CRC-32: what it must find is damage, not malice."""
    value = 0
    for block in files.blocks(path):
        value = zlib.crc32(block, value)
    return value
