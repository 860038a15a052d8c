"""What a public checkpoint's folder shows without its weights: configs, file names, tensor shapes out of the headers."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genpercept.checkpoints import parts, schema
from genpercept.checkpoints.weights import weight_files
from genpercept.models.backbones import BACKBONES

# The output layers of a U-Net; one that was trained with a pyramid head has none of them.
OUTPUT = ("conv_norm_out.weight", "conv_norm_out.bias", "conv_out.weight", "conv_out.bias")
INDEX, SCHEDULER = "model_index.json", "scheduler/scheduler_config.json"
_INDEX_TYPES: dict[str, Any] = {  # of what is read of an index
    "default_denoising_steps": int,
    "default_processing_resolution": int,
    "prediction_type": str,
    "target_properties": dict,
}
# GenPercept's first release: these folders beside each other, with the VAE and the prompt's embedding.
RELEASE_V1 = re.compile(r"unet_[a-z_]+_v1")
_WIDTH = "attn2.to_k.weight"  # of cross-attention: its input is the text's width


@dataclass(frozen=True)
class Layout:
    """root holds all of the checkpoint, `unet` its U-Net (one folder, or two).

    places: folders in which it brings further parts of a pipeline, none where the U-Net alone was pointed at. index and
    scheduler: the contents of model_index.json and scheduler_config.json, empty without them.
    """

    root: Path
    unet: Path
    config: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]
    places: tuple[Path, ...] = ()
    index: dict[str, Any] = field(default_factory=dict)
    scheduler: dict[str, Any] = field(default_factory=dict)

    @property
    def pipeline(self) -> str:
        """The class that model_index.json names, "" without one."""
        return str(self.index.get("_class_name", ""))

    @property
    def in_channels(self) -> int:
        return self._edge("conv_in.weight", 1, "in_channels")

    @property
    def out_channels(self) -> int:
        return self._edge("conv_out.weight", 0, "out_channels")

    @property
    def text_width(self) -> int:
        """Of the text that the U-Net's cross-attention reads."""
        found = [s[1] for name, s in sorted(self.shapes.items()) if name.endswith(_WIDTH) and len(s) > 1]
        stated = self.config.get("cross_attention_dim")
        return found[0] if found else stated if isinstance(stated, int) else 0

    @property
    def class_width(self) -> int:
        """Of the class labels that a projection embeds (Lotus, GeoWizard), 0 without one."""
        return self._edge("class_embedding.linear_1.weight", 1, "") if self.has_class_embedding else 0

    @property
    def has_class_embedding(self) -> bool:
        return any(name.startswith("class_embedding.") for name in self.shapes)

    @property
    def lacks_output(self) -> bool:
        return self.shapes.keys().isdisjoint(OUTPUT)

    def part(self, *names: str) -> Path | None:
        """The folder or file that the checkpoint brings itself; of several that belong together, the folder of them all."""
        for place in self.places:
            if all((place / name).exists() for name in names):
                return place / names[0] if len(names) == 1 else place
        return None

    def _edge(self, tensor: str, axis: int, key: str) -> int:
        shape = self.shapes.get(tensor, ())
        return shape[axis] if len(shape) > axis else int(self.config.get(key) or 0)


def read_layout(folder: Path, *, allow_pickle: bool = False) -> Layout:
    """ValueError when the folder holds no U-Net: neither its own, nor in unet/."""
    folder = folder.resolve()
    alone = folder.name == "unet"
    root = folder.parent if alone else folder
    unet = root / "unet" if (root / "unet").is_dir() else root
    places = () if alone else (root, root.parent) if RELEASE_V1.fullmatch(root.name) else (root,)
    if unet == root and not (unet / "config.json").is_file():
        raise parts.no_model_in(root)
    config = parts.read_json(unet / "config.json")
    BACKBONES.find("sd21").check(config, unet / "config.json")
    shapes: dict[str, tuple[int, ...]] = {}
    for path in weight_files(unet, allow_pickle=allow_pickle):
        shapes |= parts.tensor_shapes(path, allow_pickle=allow_pickle)
    index, scheduler = ({}, {}) if alone else (_json(root / INDEX), _json(root / SCHEDULER))
    for key, hint in _INDEX_TYPES.items():
        if index.get(key) is not None:
            schema.check(root / INDEX, key, index[key], hint)
    return Layout(root, unet, config, shapes, places, index, scheduler)


def _json(path: Path) -> dict[str, Any]:
    return parts.read_json(path) if path.is_file() else {}
