"""GeoWizard (Fu et al. 2024): depth and normals out of one noise by one U-Net, whose two rows see each other.

Row 0 is depth, row 1 normals (`sd21_joint`); a class embedding says which is which. v1 is told the domain there, too, and reads
CLIP's embedding of the image; v2 reads the domain in words, by Stable Diffusion 2's text encoder. Facts of
github.com/fuxiao0719/GeoWizard at deee629. Its folder says that it holds Stable Diffusion's own U-Net, whose attention is not
this one. Normals: what is decoded has x right, y down, z into the picture, as its training data.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from genpercept.checkpoints import parts
from genpercept.core.options import check_choice
from genpercept.models import image_prompt
from genpercept.pipeline import joint
from genpercept.pipeline.families import Candidate
from genpercept.pipeline.families._family import UNetFamily
from genpercept.pipeline.families._from_base import Base, check_vae, lacking, prompt
from genpercept.pipeline.families._headers import Layout
from genpercept.pipeline.families._marigold_index import schedule

DOMAINS = ("indoor", "outdoor", "object")
FOLDER_V2 = "unet_v2"  # in the release's repository
VIEW = [[1, 0, 0], [0, -1, 0], [0, 0, -1]]  # takes x right, y down, z into the picture to our axes
_BOTH = ("depth", "normals")
_WIDTHS = {
    10: "v1",
    4: "v2",
}  # of the class labels: a pair for the row, and in v1 a triple for the domain, sines and cosines
# What its U-Nets change of Stable Diffusion 2's configuration. v1: 861,186,244 parameters, v2: 867,568,324.
_JOINT: dict[str, Any] = {"in_channels": 8, "class_embed_type": "projection"}
UNETS: dict[str, dict[str, Any]] = {
    "v1": _JOINT | {"projection_class_embeddings_input_dim": 10, "cross_attention_dim": 768},
    "v2": _JOINT | {"projection_class_embeddings_input_dim": 4},
}
_ROWS = ((0, 1), (1, 0))  # depth's, normals'
_EXTRACTOR = "feature_extractor"
_OFFICIAL = {"pillow": "bicubic"}
ANSWERS: dict[str, dict[str, Any]] = {
    "depth": {
        "task_options": {"stretch": True},
        "ensembling": {"solver": "min_max"},
        "official_size": _OFFICIAL | {"back": "bicubic"},
    },
    "normals": {
        "task_options": {"clip": False, "soften": 1e-5},
        "axes": VIEW,
        "ensembling": {"reduction": "member"},
        "official_size": _OFFICIAL | {"back": "nearest"},
    },
}


@dataclass(frozen=True)
class GeoWizard(UNetFamily):
    """domain: what the photographs show: indoor, outdoor or object. Its own code wants it said each time; here it is indoor
    where nobody says.
    """

    domain: str = DOMAINS[0]

    name = "geowizard"
    published: ClassVar[Mapping[str, str]] = {
        "lemonaddie/geowizard": ",".join(_BOTH),
        f"lemonaddie/geowizard/{FOLDER_V2}": ",".join(_BOTH),
    }
    base = "Stable Diffusion 2 (768, v-prediction), for v2 alone"
    tasks = _BOTH
    backbone = "sd21_joint"

    def __post_init__(self) -> None:
        check_choice("domain", self.domain, DOMAINS)

    def candidate(self, layout: Layout) -> Candidate | None:
        version = _WIDTHS.get(layout.class_width)
        if version is None or (layout.in_channels, layout.out_channels) != (8, 4):
            return None
        why = f"class embedding of width {layout.class_width} and 8 input channels: GeoWizard {version}"
        named = layout.unet.name == FOLDER_V2
        if version == "v2":
            why += f" in {FOLDER_V2}, as it is released" if named else ", or Lotus-G, which has its shapes"
        return Candidate(self.name, self.tasks, why, sure=version == "v1" or named, backbone=self.backbone)

    def lacking(self, folder: Path, *, allow_pickle: bool = False) -> list[str]:
        layout = self.layout(folder, allow_pickle=allow_pickle)
        if _is_v1(layout):
            return [] if layout.part("vae") else ["vae"]
        return lacking(layout)

    def check(self, layout: Layout, base: Base | None, *, allow_pickle: bool = False) -> None:
        """v1 reads no text and is whole; the text of v2's base is checked with its prompt, and any schedule can be sampled."""
        if _is_v1(layout):
            for name in (image_prompt.FOLDER, _EXTRACTOR):
                if layout.part(name) is None:
                    raise ValueError(
                        f"{layout.root}: has no {name}/ beside unet/, by which GeoWizard v1 reads the image: pass the "
                        "release's whole folder"
                    )
        check_vae(layout, base)

    def prompt(self, layout: Layout, base: Base | None, *, allow_pickle: bool = False) -> Tensor:
        if _is_v1(layout):
            return torch.zeros(1, 0, layout.text_width)
        return prompt(layout, base, self._words, pad=False, allow_pickle=allow_pickle)

    def load_image_encoder(self, layout: Layout, dtype: torch.dtype | None, *, allow_pickle: bool) -> nn.Module | None:
        folder = layout.part(image_prompt.FOLDER)
        if not _is_v1(layout) or folder is None:
            return None
        from genpercept.models.image_encoder import PLUGIN  # transformers', which other families do without

        encoder = parts.load_part(PLUGIN, folder, dtype, allow_pickle=allow_pickle)
        width = int(encoder.config.projection_dim)  # type: ignore[union-attr]
        if width != layout.text_width:
            raise ValueError(
                f"{layout.unet}: its cross-attention reads a width of {layout.text_width}, but {folder} gives {width}: they "
                "do not belong together; copy both again"
            )
        return encoder

    def settings(self, layout: Layout, base: Base | None, task: str) -> dict[str, Any]:
        options, source = schedule(layout, base)
        version = _WIDTHS[layout.class_width]
        decided = {
            "version": f"{version}: class labels of {layout.class_width} numbers",
            "domain": self.domain + (" where no other is asked for" if self.domain == DOMAINS[0] else ""),
            "scheduler": f"DDIM {options['spacing']}, {options['prediction_type']}: {source}",
            "axes": "normals: x right, y down, z into the picture (GeoWizard's training data): y and z negated",
            "context": "the image, by CLIP" if version == "v1" else f"the words {self._words!r}, not padded",
        }
        found: dict[str, Any] = {
            "variant": version,
            "paradigm": "stochastic_multi_step",
            "paradigm_options": options | {"targets": len(_BOTH), "shared_noise": True},
            "num_inference_steps": 10,
            "conditions": {"class_labels": labels(self.domain if version == "v1" else None)},
            "prompt": "" if version == "v1" else self._words,
            "decided": decided,
        }
        if (extractor := layout.part(_EXTRACTOR)) is not None and version == "v1":
            found[image_prompt.FOLDER] = image_prompt.settings(extractor / image_prompt.PROCESSOR)
        return found | joint.settings(ANSWERS, task)

    @property
    def _words(self) -> str:
        return f"{self.domain} geometry"


def labels(domain: str | None) -> list[float]:
    """The class labels of both rows, one after the other: of each its pair of numbers, with the domain's three, if any.

    Each group g as sines, then cosines of its numbers, as radians.
    """
    of_domain = [] if domain is None else _waves([float(domain == each) for each in DOMAINS])
    return [number for row in _ROWS for number in (*_waves(row), *of_domain)]


def _waves(numbers: Sequence[float]) -> list[float]:
    return [*map(math.sin, numbers), *map(math.cos, numbers)]


def _is_v1(layout: Layout) -> bool:
    return _WIDTHS.get(layout.class_width) == "v1"


PLUGIN = GeoWizard()
