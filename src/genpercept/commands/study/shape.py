"""What the runs of a study take from one base, so that a study fits whatever base it is given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from genpercept.checkpoints import hub, shapes
from genpercept.commands.study.schema import Shape
from genpercept.core.files import read_json
from genpercept.models.codecs import CODECS
from genpercept.pipeline.folder import base_backbone


def of_arm(shape: Shape | None) -> dict[str, Any]:
    """Keys of a fine-tuning recipe, "a.b" -> value: the images' size, the model's resolution, and the base itself."""
    if shape is None:
        return {}
    size = pixels(shape)
    return {"model.base": shape.base, "augment.sizes": [list(size)], "resolution": max(size)}


def of_pretraining(shape: Shape | None) -> dict[str, Any]:
    """Keys of a denoiser stage's recipe: the codec, the denoiser's sizes, the images' size.

    How many channels the denoiser has, the stage takes from the codec.
    """
    if shape is None:
        return {}
    name, folder = base_backbone(_folder(shape))
    config = read_json(folder / "config.json")
    sizes = {key: value for key, value in config.items() if not key.startswith("_") and value is not None}
    sizes |= {"sample_size": list(shape.latent)}
    parts = {"model.codec": shape.base, "model.backbone": name, "model.backbone_config": sizes}
    return {**parts, "augment.sizes": [list(pixels(shape))]}


def pixels(shape: Shape) -> tuple[int, int]:
    """Height and width of an image whose latent has the shape's."""
    config = read_json(_folder(shape) / "vae" / "config.json")
    with shapes.shapes_only(), shapes.memory():
        stride = CODECS.find("kl").wrap(CODECS.find("kl").build(config)).stride
    return shape.latent[0] * stride, shape.latent[1] * stride


def _folder(shape: Shape) -> Path:
    return hub.resolve(shape.base)
