"""Any image to (H, W, 3) RGB. What cannot be read is a one-line ValueError: what was given, the rule, what to do.

Conventions, because formats leave them open:

- Transparency is composited over white, as viewers show it; colours hidden under it never reach a network.
- 16-bit greys are scaled by 1/257, so that 0 and 65535 become 0 and 255 (never clipped, never their low byte).
- 32-bit integers within [0, 65535] are 16-bit greys. Floats within [0, 1] are fractions of white, within [0, 255] 8-bit
  greys. All other 32-bit images carry no white level: their smallest to largest value is stretched to 0 .. 255.
- EXIF orientation is applied, to opened PIL images as well. Of several frames or pages the first is taken.
- Float TIFFs with colours follow the rule of floats, by the lowest and highest value of all three colours.
- Embedded colour profiles are ignored, as by the public training and evaluation code of the field.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from PIL import Image

from genpercept.core.texts import shown
from genpercept.imaging import camera
from genpercept.imaging.camera import Camera
from genpercept.imaging.decode import MAX_PIXELS, SUFFIXES, from_file, from_pil, pixel_limit
from genpercept.imaging.pixels import by_257

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["MAX_PIXELS", "SUFFIXES", "Source", "pixel_limit", "read", "read_many", "read_photograph", "shown"]

Source: TypeAlias = "str | os.PathLike[str] | Image.Image | np.ndarray | Tensor"


def read(source: Source, max_pixels: int | None = None) -> np.ndarray:
    """One image as (H, W, 3) RGB: uint8 in [0, 255], or float32 in [0, 1] where the source is float.

    source: a path; a PIL image; an array (H, W) or (H, W, 1..4), uint8, uint16, bool or float in [0, 1]; a tensor
    (H, W), (C, H, W) or (1, C, H, W), uint8 or float in [0, 1]. max_pixels: refuse larger files before decoding them
    (default: the environment variable GENPERCEPT_MAX_PIXELS, or 178,956,970).

    Raises ValueError for all else: missing, damaged, empty or too large files, NaN, values out of range.
    """
    return read_photograph(source, max_pixels)[0]


def read_photograph(source: Source, max_pixels: int | None = None) -> tuple[np.ndarray, Camera | None]:
    """(image, camera): what `read` gives, and the camera that the file's or the PIL image's EXIF tells, upright as the image.

    None where there is no EXIF, or it does not say; an array has none.
    """
    found: list[Camera | None] = []

    def look(image: Image.Image) -> None:
        found.append(camera.of_exif(image))

    if isinstance(source, str | os.PathLike):
        pixels = from_file(Path(source).expanduser(), max_pixels, look)
    elif isinstance(source, Image.Image):
        pixels = from_pil(source, "the PIL image", look=look)
    else:
        pixels = _of_arrays(source)
    return pixels, found[0] if found else None


def _of_arrays(source: Any) -> np.ndarray:
    if isinstance(source, np.ndarray):
        return _from_array(source, "array")
    torch = sys.modules.get("torch")  # whoever holds a tensor has imported torch; nobody else should wait for it
    if torch is not None and isinstance(source, torch.Tensor):
        return _from_tensor(source)
    raise ValueError(f"an image of type {type(source).__name__}: give a path, a PIL image, an array or a tensor")


def size_of(path: Path) -> tuple[int, int] | None:
    """(W, H) as a file's header says; None where Pillow does not read it. Orientation is not applied."""
    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def read_many(
    source: Source | list[Any] | tuple[Any, ...],
) -> tuple[list[tuple[np.ndarray, Camera | None]], bool]:
    """(photographs, single): a list or tuple of sources, or a (B, C, H, W) tensor, gives many; anything else gives one."""
    if isinstance(source, list | tuple):
        if not source:
            raise ValueError("an empty list of images: give at least one")
        return [read_photograph(one) for one in source], False
    if _is_batch(source):
        return [read_photograph(one) for one in source], False  # type: ignore[union-attr]
    return [read_photograph(source)], True


def _from_tensor(tensor: Any) -> np.ndarray:
    shape = tuple(tensor.shape)
    x = tensor.detach()
    if x.ndim == 4:
        if shape[0] != 1:
            raise ValueError(f"tensor {shape}: a batch where one image is read; pass it to the pipeline or as a list")
        x = x[0]
    if x.ndim == 3:
        if x.shape[0] not in (1, 2, 3, 4):
            hint = "; permute (H, W, C) to (C, H, W)" if x.shape[-1] in (1, 3, 4) else ""
            raise ValueError(f"tensor {shape}: must be (C, H, W) or (B, C, H, W) with 1 to 4 channels{hint}")
        x = x.permute(1, 2, 0)
    if x.is_floating_point():
        x = x.float()
    return _from_array(x.cpu().numpy(), "tensor")


def _from_array(array: np.ndarray, what: str) -> np.ndarray:
    shape = tuple(array.shape)
    x = array[..., None] if array.ndim == 2 else array
    if x.ndim != 3 or x.shape[2] not in (1, 2, 3, 4):
        hint = "; transpose (C, H, W) to (H, W, C)" if array.ndim == 3 and shape[0] in (1, 3, 4) else ""
        raise ValueError(f"{what} {shape}: must be (H, W) or (H, W, C) with 1 to 4 channels{hint}")
    if x.size == 0:
        raise ValueError(f"{what} {shape}: an empty image; both edges must be at least 1 pixel")
    return _three_channels(_in_range(x, what))


def _in_range(x: np.ndarray, what: str) -> np.ndarray:
    """To uint8, or to float32 in [0, 1]; refuse everything whose white level is unknown."""
    if x.dtype == np.uint8:
        return x
    if x.dtype == np.bool_:
        return x.astype(np.uint8) * 255
    if x.dtype == np.uint16:
        return by_257(x)
    if not np.issubdtype(x.dtype, np.floating):
        raise ValueError(f"{what} of {x.dtype}: must be uint8, uint16, bool, or float in [0, 1]; convert it")
    if not np.isfinite(x).all():
        raise ValueError(f"{what} of {x.dtype} holds NaN or infinite values; replace them by numbers in [0, 1]")
    low, high = float(x.min()), float(x.max())
    if low < -1e-5 or high > 1 + 1e-5:  # rounding of earlier steps is not a mistake; everything else is
        hint = (
            "scale [-1, 1] by (x + 1) / 2" if -1 - 1e-5 <= low < 0 and high <= 1 + 1e-5 else "divide by the white level"
        )
        raise ValueError(f"{what} of {x.dtype} with values {low:.6g} to {high:.6g}: float images are in [0, 1]; {hint}")
    return np.clip(x.astype(np.float32), 0.0, 1.0)


def _three_channels(x: np.ndarray) -> np.ndarray:
    """(H, W, 1..4) -> (H, W, 3), a copy; alpha, the last of 2 or 4 channels, over white."""
    c = x.shape[2]
    colour = x[..., : c - 1] if c in (2, 4) else x
    if c in (2, 4):
        white = 255.0 if x.dtype == np.uint8 else 1.0
        alpha = x[..., -1:].astype(np.float32) / white
        mixed = colour * alpha + white * (1 - alpha)
        colour = (np.rint(mixed) if x.dtype == np.uint8 else mixed).astype(x.dtype)
    if colour.shape[2] == 1:
        colour = np.repeat(colour, 3, axis=2)
    return np.array(colour, order="C")


def _is_batch(source: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(source, torch.Tensor) and source.ndim == 4
