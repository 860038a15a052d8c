"""Where an answer lies in space: its camera, and metres where a request knows distances."""

from __future__ import annotations

from genpercept.commands.serve.limits import Asked, Unacceptable
from genpercept.core.texts import one_line
from genpercept.imaging import known
from genpercept.imaging.camera import Camera
from genpercept.imaging.prediction import Prediction


def placed(prediction: Prediction, size: tuple[int, int], camera: Camera | None, asked: Asked) -> Prediction:
    """The prediction of an image of `size` (height, width) with its camera: the one asked for, else the one of its EXIF.

    In metres where distances are known. Unacceptable where these tell no scale and shift.
    """
    if asked.fov is not None:
        camera = Camera.of_fov(asked.fov, size)
    if camera is not None:
        prediction.meta["camera"] = camera.to_meta()
    if asked.known is None:
        return prediction
    try:
        return prediction.fit(known.of_text(asked.known, size, what="known"))
    except ValueError as error:
        raise Unacceptable(one_line(error)) from None
