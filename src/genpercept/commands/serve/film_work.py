"""What `film_child` does with its order: it predicts one film as `genpercept predict` would, and says what came of it."""

from __future__ import annotations

import shutil
import sys
import traceback
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genpercept.commands.files.results import NO_MEMORY, SHOWN_BY_DEBUG, Job, Output
from genpercept.commands.predict.clips.plan import Asked, Clip
from genpercept.commands.predict.clips.run import predict
from genpercept.commands.predict.model import Model
from genpercept.commands.predict.request import Machine, Outcome, Request
from genpercept.commands.predict.stopping import Stop
from genpercept.core.texts import one_line
from genpercept.imaging import sidecars

FILM = "the film"  # as which messages and sidecars have it, in place of a path
STEM = "film"  # of the results' names


@dataclass(frozen=True)
class _Named(Request):
    """A request whose record has the server's name of the model: where that lies is nobody's business."""

    name: str = ""

    def record(self) -> dict[str, Any]:
        return {key: value for key, value in super().record().items() if key != "name"} | {"model": self.name}


def done(order: dict[str, Any]) -> dict[str, Any]:
    """{"error", "damage", "frames"}, see `film_child`."""
    source, out = Path(order["source"]), Path(order["out"])
    job, outcome = Job(source, out / STEM, given=FILM), Outcome()
    model = Model(_Named(**order["request"], name=order["name"]), Machine(**order["machine"]))
    asked = Asked(smooth=order["smooth"], beside=order["side_by_side"], formats=tuple(order["formats"]))
    try:
        predict([Clip(job)], model, asked, Output(out), outcome, Stop())
        if failed := next(iter(outcome.failed.values()), ""):
            return _failed(_said(failed, source))
        _zip(job.base(model.task))
        about = sidecars.read(job.sidecar(model.task))
        assert about is not None  # it has just been written
    except (ValueError, ImportError) as error:
        return _failed(one_line(error))
    except Exception:  # noqa: BLE001  told in the log; whoever has sent the film can do nothing about it
        traceback.print_exc()
        return _failed("the model failed; the server's log says more")
    damage = _said(next(iter(outcome.problems), ""), source)
    return {"error": "", "damage": damage, "frames": about["video"]["frames"]}


def _failed(line: str) -> dict[str, Any]:
    return {"error": line, "damage": "", "frames": 0}


def _said(line: str, source: Path) -> str:
    """A line about a failure for somebody who has sent the film, and knows nothing of paths and flags."""
    if NO_MEMORY in line:
        return f"{NO_MEMORY} for this film; set a smaller processing_resolution"
    if line.endswith(SHOWN_BY_DEBUG):
        print(f"genpercept: error: {line}", file=sys.stderr, flush=True)
        return "the model failed; the server's log says more"
    return line.replace(str(source), FILM)


def _zip(frames: Path) -> None:
    """The folder of frames becomes FRAMES.zip, not compressed once more: pictures are already."""
    if not frames.is_dir():
        return
    with zipfile.ZipFile(frames.with_name(f"{frames.name}.zip"), "w") as archive:
        for file in sorted(frames.iterdir()):
            archive.write(file, file.name)
            file.unlink()
    shutil.rmtree(frames)
