"""At which size the network sees an image, and in how many tiles, within what a server allows."""

from __future__ import annotations

from collections.abc import Sequence

from genpercept.commands.predict.model import Model
from genpercept.commands.serve.limits import Asked, Limits, TooLarge, Unacceptable


def seen_size(
    model: Model, shape: Sequence[int], asked: Asked, limits: Limits, resolution: int
) -> tuple[int, int] | None:
    """The size at which `model`, which has been asked so, sees an image of `shape` (height, width), padding and all.

    resolution: the model's own. None where it looks at parts of the image. TooLarge, and Unacceptable of tiles, for more than
    is allowed.
    """
    size = (shape[0], shape[1])
    padded = model.padded(size)
    if padded is None or min(size) == 0:
        return padded
    tiles = model.tiles_of(size)
    if tiles > limits.tiles:
        raise Unacceptable(
            f"{tiles} tiles of {size[1]} x {size[0]} pixels: at most {limits.tiles}; ask for larger ones"
        )
    most = max(limits.resolution, resolution)
    seen = max(padded) if tiles > 1 else max(size)
    if seen > most and (asked.processing_resolution == 0 or not (asked.processing_resolution or resolution)):
        raise TooLarge(f"{size[1]} x {size[0]} pixels at their own size: set processing_resolution, at most {most}")
    return padded
