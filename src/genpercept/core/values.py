"""The values that pass between the parts. Shapes are named by their axes: B batch, C channels, H height, W width.

Nothing here knows a model, a task or a file format. Labels are described by `genpercept.core.labels`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from genpercept.core import arrays, resampling
from genpercept.core.labels import BESIDE, LABELS
from genpercept.core.options import RESIZE_MODES, check_choice, check_integer
from genpercept.core.resampling import Size, resize

if TYPE_CHECKING:
    from genpercept.core.arrays import Map

__all__ = ["Features", "Geometry", "PublicSize", "Region", "Sample", "Size", "Target", "planes", "resize", "to_tensor"]


@dataclass(frozen=True)
class PublicSize:
    """How the public code of a model's family sizes an image, which is what mode "official" follows.

    Edges are truncated to integers, then rounded to a multiple of `multiple` pixels, half to even, at least one of it (1: not
    rounded). pillow: the filter of Pillow's that resizes 8-bit pixels; "": torch's antialiased bilinear, rounded to 8 bits.
    back: how an answer is brought back to the image's size: by that filter of Pillow's on floats, within its own range, or
    nearest, whose source row of row i is floor(i h / H); "": as in mode "fit".
    """

    multiple: int = 1
    pillow: str = ""
    back: str = ""

    def __post_init__(self) -> None:
        check_integer("multiple", self.multiple, 1, 4096)
        check_choice("pillow", self.pillow, ("", *resampling.PILLOW))
        check_choice("back", self.back, ("", resampling.NEAREST, *resampling.PILLOW))

    def of(self, height: float, width: float) -> Size:
        """The network's size for an image of these edges, which need not be integers yet."""
        h, w = (
            max(self.multiple, round(max(1, int(edge)) / self.multiple) * self.multiple) for edge in (height, width)
        )
        return h, w

    def resize(self, image_BCHW: Map, size: Size) -> Map:
        """An image in [0, 1] at this size, its values rounded to 8 bits."""
        if isinstance(image_BCHW, np.ndarray):  # what is rounded wants torch's own sums, or Pillow's
            return self.resize(torch.from_numpy(image_BCHW), size).numpy()
        if self.pillow:
            return resampling.by_pillow(image_BCHW, size, self.pillow)
        return (arrays.floats(resize(image_BCHW, size)) * 255).round() / 255


@dataclass(frozen=True)
class Geometry:
    """How an image became the network's input, and the way back: original -> resized -> padded, and reversed.

    Padding is on the right and at the bottom only, so pixel (0, 0) stays where it is.
    """

    original: Size
    resized: Size
    padded: Size
    mode: str = "fit"  # one of RESIZE_MODES; "official" has no padding, and `public` describes it
    public: PublicSize = PublicSize()  # frozen

    @classmethod
    def plan(
        cls,
        size: Size,
        resolution: int | None,
        stride: int,
        mode: str = "fit",
        public: PublicSize = PublicSize(),  # frozen
    ) -> Geometry:
        """To `resolution` pixels (None or 0: native size) as the mode has it, then up to a multiple of `stride`.

        "fit" and "official": the longest edge has so many. "area": the image has as many as one of 4:3 whose longest edge has
        so many, so that a wide or a tall one costs as much, and shows as much. ValueError for an empty image, a negative
        resolution or an unknown mode.
        """
        h, w = size
        if h < 1 or w < 1:
            raise ValueError(f"image size {h} x {w}: both edges must be at least 1 pixel")
        if resolution is not None and resolution < 0:
            raise ValueError(f"processing resolution {resolution}: must be positive, or 0 for the image's own size")
        check_choice("resize_mode", mode, RESIZE_MODES)
        edge = math.sqrt(h * w * 4 / 3) if mode == "area" else max(h, w)  # of the image; the longest of one of 4:3
        scale = resolution / edge if resolution else 1
        if mode == "official":
            resized = public.of(h * scale, w * scale)
            return cls((h, w), resized, resized, mode, public)
        resized = (max(1, round(h * scale)), max(1, round(w * scale))) if resolution else (h, w)
        up = [-(-edge // stride) * stride for edge in resized]
        return cls((h, w), resized, (up[0], up[1]), mode)

    def apply(self, image_BCHW: Map) -> Map:
        """Image (B, C, *original) in [0, 1] -> (B, C, *padded), antialiased bilinear, replicated at the padding."""
        if self.mode == "official":
            return image_BCHW if self.resized == self.original else self.public.resize(image_BCHW, self.resized)
        x, (h, w) = resize(image_BCHW, self.resized), self.resized
        return arrays.pad(x, 0, self.padded[1] - w, 0, self.padded[0] - h, edge=True)

    def apply_pixels(self, image_HWC: Map) -> Map:
        """`apply` of one image (*original, C), uint8 in [0, 255] or float32 in [0, 1] -> (1, C, *padded), contiguous.

        Where it shrinks there is no copy in floats of all of it; the answer is that of `apply` to a few 1e-7.
        """
        height, width = self.resized[0], self.original[1]
        if self.mode == "official" or height >= self.original[0]:
            return self.apply(planes(image_HWC))
        rows = resampling.shrink_rows(image_HWC, height)
        return replace(self, original=(height, width)).apply(planes(rows, 255 if _bytes(image_HWC) else 1))

    def apply_array(self, image_HWC: np.ndarray) -> Tensor:
        """`apply_pixels` of an array, by torch."""
        return self.apply_pixels(torch.from_numpy(image_HWC))

    def invert(self, map_BCHW: Map) -> Map:
        """Network-sized map (B, C, *padded) -> (B, C, *original): crop the padding, resize back."""
        h, w = self.resized
        cropped = map_BCHW[..., :h, :w]
        if self._own_way_back:
            return resampling.back(cropped, self.original, self.public.back)
        if isinstance(cropped, np.ndarray) or self.resized == self.original:
            return resize(cropped, self.original)
        here = cropped.device.type == "cpu" and cropped.dtype == torch.float32 and not cropped.requires_grad
        return (resampling.by_strips if here else resize)(cropped, self.original)

    def back(self, map_BCHW: Map) -> Map:
        """A map without its padding -> (B, C, *original)."""
        return self.invert(map_BCHW) if self._own_way_back else resize(map_BCHW, self.original)

    def seen(self, map_BCHW: Map) -> Geometry:
        """Of an image that is as large as its map without the padding. A codec leaves out what is no whole cell of its own."""
        h, w = map_BCHW.shape[-2:] if self._own_way_back else self.resized
        return Geometry((h, w), (h, w), self.padded, self.mode)

    @property
    def keeps_values(self) -> bool:
        """Whether what `invert` gives are values of the map and no mixtures of them."""
        return self.public.back == resampling.NEAREST if self._own_way_back else self.resized == self.original

    @property
    def _own_way_back(self) -> bool:
        return self.mode == "official" and self.public.back != ""

    def strips(self, map_CHW: Map) -> Iterator[tuple[slice, Map]]:
        """`invert` of one map (C, *padded), strip by strip: its rows, and (C, rows, width), which the next one overwrites."""
        h, w = self.resized
        cropped = arrays.floats(map_CHW[..., :h, :w])
        if self._own_way_back:
            whole: Any = self.invert(cropped[None])[0]
            return iter([(slice(0, self.original[0]), whole)])
        return resampling.strips(cropped if isinstance(cropped, np.ndarray) else cropped.cpu(), self.original)


def planes(image_HWC: Map, white: float | None = None) -> Map:
    """An image (H, W, C) -> (1, C, H, W) float32, divided by `white`; None: 255 for uint8 in [0, 255], 1 for floats."""
    xp = arrays.space(image_HWC)
    x = xp.moveaxis(image_HWC, -1, 0)[None]
    out = xp.empty(x.shape, dtype=xp.float32)  # one copy: of a large image two would be gigabytes
    out[...] = x
    divisor = white or (255 if _bytes(image_HWC) else 1)
    if divisor != 1:
        out /= divisor
    return out


def to_tensor(image_HWC: np.ndarray) -> Tensor:
    """An image (H, W, C), uint8 in [0, 255] or float32 in [0, 1] -> (1, C, H, W) float32 in [0, 1]."""
    return planes(torch.from_numpy(image_HWC))


def _bytes(image: Map) -> bool:
    return bool(image.dtype == arrays.space(image).uint8)


@dataclass(slots=True)  # so that a label set under a name that is no field is an error
class Sample:
    """One image with what is known about it, in physical units. Absent labels are None.

    image (3, H, W) float32 in [0, 1]. depth (H, W) metres along the optical axis. normals (3, H, W) unit vectors in the
    camera frame, x right, y up, z towards the viewer. class_ids (H, W) int64. mask (H, W) and defect (H, W) bool. alpha
    (H, W) in [0, 1], trimap (H, W) uint8: 0, 128 (unknown), 255. keypoints (N, 17, 3): x, y in pixels, visibility 0, 1 or 2
    (COCO), and of the same N people boxes (N, 4): x, y, width, height in pixels. intrinsics (3, 3) in pixels. valid (H, W)
    bool: where depth and normals are meaningful (False at the sky). meta: what else a data set says and a metric reads, such as
    the ids and areas of annotated people; plain values. extra: labels that other packages have added to LABELS, by name.

    ValueError for a label in `extra` that no row of LABELS knows, or that is a field.
    """

    name: str
    image: Tensor
    depth: Tensor | None = None
    normals: Tensor | None = None
    class_ids: Tensor | None = None
    mask: Tensor | None = None
    alpha: Tensor | None = None
    keypoints: Tensor | None = None
    defect: Tensor | None = None
    valid: Tensor | None = None
    intrinsics: Tensor | None = None
    trimap: Tensor | None = None
    boxes: Tensor | None = None
    caption: str = ""
    domain: str = ""
    meta: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.extra:
            if name in _FIELDS:
                raise ValueError(f"sample {self.name!r}: {name} is a field of its own, not one of extra")
            try:
                LABELS.find(name)
            except ValueError as error:
                raise ValueError(f"sample {self.name!r}: {error}") from None

    def label(self, name: str) -> Tensor:
        """The label called `name`. ValueError for one that there is not, or that this sample lacks."""
        value = getattr(self, name) if name in _FIELDS else self.extra.get(LABELS.find(name).name)
        if value is None:
            raise ValueError(f"sample {self.name!r} has no {name}: choose a data set that provides it")
        return value

    def labels(self) -> dict[str, Tensor]:
        """Every label that this sample has, by name."""
        own = {name: value for name in _FIELDS if (value := getattr(self, name)) is not None}
        return own | self.extra

    def with_labels(self, labels: Mapping[str, Tensor]) -> Sample:
        """The sample with these labels, each where it belongs. ValueError for one that no row of LABELS knows."""
        own = {name: value for name, value in labels.items() if name in _FIELDS}
        return replace(self, **own, extra=self.extra | {k: v for k, v in labels.items() if k not in own})

    def valid_or_all(self) -> Tensor:
        """`valid`, or all True where the data set gives none. (H, W) bool."""
        if self.valid is not None:
            return self.valid
        return torch.ones(self.image.shape[-2:], dtype=torch.bool, device=self.image.device)


_FIELDS = tuple(f.name for f in fields(Sample) if f.name not in BESIDE)  # that are labels


@dataclass(frozen=True)
class Region:
    """A part of an image as a network is to see it: image (1, 3, h, w) in [0, 1], an array or a tensor as the whole was, and
    the box (x, y, width, height) it shows.

    Edges of the box are edges of the part: x + u / w * width is where its column edge u lies in the image. score: how sure a
    detector was of it; None where nobody had to find it.
    """

    image: Any
    box: tuple[float, float, float, float]
    score: float | None = None


@dataclass
class Target:
    """A label as the network is to give it: `map` (B, C, H, W) float32, `valid` (B, 1 or C, H, W) bool, in `space`.

    space "image": 3 channels in [-1, 1], which a codec can encode. Other spaces are named by the head that makes them.
    """

    map: Tensor
    valid: Tensor
    space: str = "image"

    @classmethod
    def cat(cls, targets: Sequence[Target]) -> Target:
        """One batch out of several; they must share a space."""
        spaces = {t.space for t in targets}
        if len(spaces) != 1:
            raise ValueError(f"targets of different spaces in one batch: {sorted(spaces)}")
        return cls(torch.cat([t.map for t in targets]), torch.cat([t.valid for t in targets]), spaces.pop())


@dataclass
class Features:
    """What a backbone gives: `latent` (B, 4, h, w) or None, and the pyramid (B, C_i, h_i, w_i), finest last.

    size: height and width of the backbone's input; None: those of the finest map. image: the photograph (B, 3, H, W) in
    [-1, 1], which the pipeline adds for decoders that are guided by it.
    """

    latent: Tensor | None = None
    pyramid: tuple[Tensor, ...] = field(default_factory=tuple)
    size: Size | None = None
    image: Tensor | None = None

    def with_latent(self, latent: Tensor) -> Features:
        return replace(self, latent=latent)

    def require_latent(self) -> Tensor:
        """The latent, or a ValueError: a multi-step paradigm or a VAE head was paired with a part that has none."""
        if self.latent is None:
            raise ValueError("this needs a latent output, which the chosen backbone and head do not give")
        return self.latent
