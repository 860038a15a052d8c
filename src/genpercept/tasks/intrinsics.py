"""Intrinsic images (Marigold): albedo, roughness and metallicity, shading, residual, predicted together. Inference only.

Which images, in which order, and what their values mean, the checkpoint says (`target_properties` of its model_index.json):
"srgb" (gamma-encoded colours), "linear" (light; up_to_scale: its unit is unknown) or "stack" (three single-channel maps, such
as roughness, metallicity and none).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from genpercept.core import arrays
from genpercept.core.values import Geometry, Sample, Target
from genpercept.imaging.prediction import Prediction
from genpercept.tasks._task import TaskOptions, on_host

if TYPE_CHECKING:
    from genpercept.core.arrays import Map

SPACES = ("srgb", "linear", "stack")


@dataclass(frozen=True)
class Intrinsics(TaskOptions):
    """targets: names of the images in their order. properties: of each, and of the maps of a stack, prediction_space,
    up_to_scale and sub_target_names, as diffusers has them."""

    targets: tuple[str, ...] = ("albedo", "shading", "residual")
    properties: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    name = "intrinsics"
    kind = "intrinsics"
    takes_arrays = True
    spaces = ("image",)
    labels = ()
    head = "vae"
    losses: ClassVar[Mapping[str, Mapping[str, float]]] = {}
    metric = ""

    def __post_init__(self) -> None:
        if not self.targets or not all(isinstance(t, str) and t for t in self.targets):
            raise ValueError(
                f"targets={self.targets!r}: give the names of the intrinsic images, such as albedo, shading"
            )
        if len(set(self.targets)) != len(self.targets):
            raise ValueError(f"targets={self.targets!r}: each name once")
        for name in self.targets:
            _described(name, self.properties)

    def outputs(self, space: str) -> int:
        return 3 * len(self.targets)

    def described(self) -> list[dict[str, Any]]:
        """Of each image its name, the space of its values and, of a stack, the names of its maps: as `meta` has it."""
        return [_described(name, self.properties) for name in self.targets]

    def encode(self, sample: Sample, space: str = "image") -> Target:
        """ValueError: no data set here has such labels."""
        raise ValueError(
            f"{sample.name}: task 'intrinsics' is for published checkpoints; there are no labels to train on"
        )

    def decode(self, raw: Map, geometry: Geometry) -> Prediction:
        """(1, 3 n, H, W), clipped to [-1, 1], to [0, 1], at the image's size: (H, W, 3 n)."""
        values_CHW, raw_CHW = on_host(geometry.invert((arrays.floats(raw).clip(-1, 1) + 1) / 2)[0], raw)
        meta = {"targets": self.described()}
        return Prediction(values_CHW.transpose(1, 2, 0), self.kind, raw=raw_CHW, meta=meta)

    def truth(self, sample: Sample) -> dict[str, Any]:
        """ValueError: no data set here has such labels."""
        raise ValueError(f"{sample.name}: no data set here has intrinsic images to compare with")


def _described(name: str, properties: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """ValueError for a space that is none, and for a stack that does not name its three maps."""
    stated = properties.get(name, {})
    space = stated.get("prediction_space", "srgb")
    if space not in SPACES:
        raise ValueError(f"prediction_space={space!r} of {name}: choose {', '.join(SPACES)}")
    entry = {"name": name, "space": space, "up_to_scale": bool(stated.get("up_to_scale", False))}
    if space != "stack":
        return entry
    maps = stated.get("sub_target_names")
    if not isinstance(maps, list | tuple) or len(maps) != 3 or not all(m is None or isinstance(m, str) for m in maps):
        raise ValueError(f"sub_target_names={maps!r} of {name}: a stack names its three maps, null where there is none")
    return entry | {"maps": [None if m is None else _described(m, properties) for m in maps]}


PLUGIN = Intrinsics()
