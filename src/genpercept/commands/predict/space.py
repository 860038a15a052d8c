"""What `predict` does in space: the camera of each photograph, known distances beside it, metres, and what --show shows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from genpercept.commands.files.results import Job
from genpercept.commands.predict.request import Request
from genpercept.core.said import detail, say
from genpercept.core.texts import shown
from genpercept.imaging import known, metric, sidecars
from genpercept.imaging.camera import Camera
from genpercept.imaging.kinds import KINDS
from genpercept.imaging.known import Known
from genpercept.imaging.prediction import Prediction

Seen = Callable[[str, Prediction, np.ndarray], None]  # name, prediction, image (H, W, 3)


@dataclass(frozen=True)
class Beside:
    """What is known of an image beside its pixels. version: of the file of known distances, for the sidecar."""

    camera: Camera | None = None
    known: Known | None = None
    version: dict[str, Any] | None = None


def check(request: Request, kind: str, show: bool = False) -> None:
    """ValueError where distances are asked of a kind that tells none."""
    if KINDS.find(kind).distance is not None:
        return
    for flag, wanted in (("--fit", request.fit is not None), ("--show", show)):
        if wanted:
            raise ValueError(f"{flag}: {kind} tell no distance: it needs depth or disparity")


def located(request: Request, jobs: int) -> Request:
    """With the whole path of --fit, for workers elsewhere. ValueError for nothing there, and for one file of several images."""
    if request.fit is None:
        return request
    where = Path(request.fit).expanduser()
    if not where.exists():
        raise ValueError(f"--fit {shown(where)}: no such file or folder; check the path")
    if jobs > 1 and not where.is_dir():
        raise ValueError(
            f"--fit {shown(where)}: one file for {jobs} images: name a folder with one for each, of its name"
        )
    return replace(request, fit=str(where.absolute()))


def version(request: Request, job: Job) -> dict[str, Any] | None:
    """Which version of which file of known distances an image has; None without --fit. ValueError where there is none."""
    if request.fit is None:
        return None
    path = known.find(Path(request.fit).expanduser(), job.name)
    found = path.stat()
    return {"path": str(path.absolute()), "bytes": found.st_size, "modified_ns": found.st_mtime_ns}


def beside(request: Request, job: Job, size: tuple[int, int], camera: Camera | None) -> Beside:
    """Of an image of `size` (height, width) whose file tells of `camera`. ValueError for known distances that are no such."""
    if request.fov is not None:
        camera = Camera.of_fov(request.fov, size)
    if request.fit is None:
        return Beside(camera)
    told = version(request, job)
    assert told is not None
    return Beside(camera, known.distances(told["path"], size, request.fit_scale), told)


def placed(prediction: Prediction, found: Beside) -> Prediction:
    """The prediction with its camera, in metres where distances are known; the one that is given stays as it is."""
    meta = dict(prediction.meta)
    if found.camera is not None:
        meta["camera"] = found.camera.to_meta()
    if found.version is not None:
        meta["known"] = found.version
    if found.known is None or KINDS[prediction.kind].distance is None:  # normals, say, of a model that answers both
        return prediction.told(meta)
    fitted = prediction.fit(found.known)
    return fitted.told({**fitted.meta, **meta})


def fits(jobs: Iterable[Job], tasks: Sequence[str]) -> dict[Job, dict[str, Any]]:
    """Of the images that are in metres: how well their known distances agree, as the sidecars of their results have it."""
    found: dict[Job, dict[str, Any]] = {}
    for job in jobs:
        for about in filter(None, (sidecars.read(job.sidecar(task)) for task in tasks)):
            if "fit" in about["meta"]:
                found[job] = about["meta"]["fit"]
    return found


def tell(found: Mapping[Job, dict[str, Any]]) -> None:
    """What is left of the known distances: of one image a line, of several the worst one's; each with --verbose."""
    if not found:
        return
    worst = max(found, key=lambda job: found[job]["residual_median"])
    of = "" if len(found) == 1 else f" of {len(found)} images, the worst of them {worst.shown}"
    say(f"genpercept: --fit{of}: {metric.words(found[worst])}")
    for job, fit in found.items() if of else ():
        detail(f"genpercept: --fit of {job.shown}: {metric.words(fit)}")
