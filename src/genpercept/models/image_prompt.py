"""What a denoiser reads in the place of a prompt: the image itself, as CLIP embeds it (GeoWizard v1). One token an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genpercept.checkpoints.schema import check
from genpercept.checkpoints.stand_ins import read_json
from genpercept.core.resampling import Size

FOLDER = "image_encoder"  # of a model, as diffusers' layouts call it
PROCESSOR = "preprocessor_config.json"  # in feature_extractor/


def settings(path: Path) -> dict[str, Any]:
    """How an image is prepared, {"size": [h, w], "mean": 3 numbers, "std": 3 numbers}, of a feature extractor's settings.

    ValueError, with the key, for a file without them.
    """
    config = read_json(path)
    crop = config.get("crop_size")
    found = {"size": [crop, crop] if isinstance(crop, int) else None, "mean": config.get("image_mean")}
    if isinstance(crop, dict):
        found["size"] = [crop.get("height"), crop.get("width")]
    return checked(path, found | {"std": config.get("image_std")})


def checked(path: Path, found: Mapping[str, Any]) -> dict[str, Any]:
    """`settings` that the file `path` states. ValueError for those that no image could be prepared by."""
    kinds = {
        "size": (list[int], 2, (1, 4096)),
        "mean": (list[float], 3, (-10, 10)),
        "std": (list[float], 3, (1e-6, 10)),
    }
    for key, (hint, count, (low, high)) in kinds.items():
        value = found.get(key)
        check(path, key, value, hint)
        if len(cast(list, value)) != count or not all(low <= each <= high for each in cast(list, value)):
            raise ValueError(
                f"{path}: {key} is {str(value)[:60]}: must be {count} numbers from {low:g} to {high:g}, as CLIP's image "
                "processor has them; copy or download it again"
            )
    return {key: found[key] for key in kinds}


def embed(
    encoder: nn.Module,
    image_BCHW: Tensor,
    sizes: Sequence[Size],
    size: Size,
    mean: Sequence[float],
    std: Sequence[float],
) -> Tensor:
    """Images (B, 3, H, W) in [0, 1] -> one token each, (B, 1, width): CLIP's projected embedding, in the encoder's dtype.

    sizes: height and width of each without its padding; none: it has none. The whole image is brought to `size`, its aspect not
    kept, bicubic with antialiasing and without rounding, as GeoWizard's code does, which leaves the processor's own crop out.
    """
    weights = next(encoder.parameters())
    parts = [image_BCHW[i : i + 1, :, :h, :w] for i, (h, w) in enumerate(sizes)] or [image_BCHW]
    pixels = torch.cat([_resized(part.float(), (size[0], size[1])) for part in parts])
    middle, spread = (pixels.new_tensor(list(values)).view(1, 3, 1, 1) for values in (mean, std))
    found: Any = encoder(((pixels - middle) / spread).to(weights.device, weights.dtype))
    return cast(Tensor, found.image_embeds)[:, None]


def _resized(image_BCHW: Tensor, size: Size) -> Tensor:
    return F.interpolate(image_BCHW, size, mode="bicubic", align_corners=False, antialias=True)
