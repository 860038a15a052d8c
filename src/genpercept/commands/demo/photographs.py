"""What the demo looks at: photographs that come with scikit-image and scikit-learn, and scenes of the synthetic world."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from genpercept.core.values import Sample
from genpercept.imaging.colour import colourise

SCENE_SIZE = (192, 256)
_CHUNK = 50
_WORDS = Path(__file__).with_name("photographs.toml")


@dataclass(frozen=True)
class Case:
    """An image (H, W, 3) uint8, and what is known of it: depth (H, W) in metres, normals (H, W, 3), valid (H, W).

    boxes (N, 4): x, y, width, height in pixels of the people in it, given by hand. says: by task, what its embedded
    model's answer is like.
    """

    name: str
    image: NDArray[np.uint8]
    depth: NDArray[np.floating[Any]] | None = None
    normals: NDArray[np.floating[Any]] | None = None
    valid: NDArray[np.bool_] | None = None
    protocol: str | None = None
    note: str = ""
    boxes: NDArray[np.floating[Any]] | None = None
    says: dict[str, str] = field(default_factory=dict)

    def sample(self) -> Sample:
        """With its depth, for what compares a prediction with it."""
        assert self.depth is not None and self.valid is not None
        image = torch.from_numpy(self.image.copy()).permute(2, 0, 1).float() / 255
        depth = torch.from_numpy(np.asarray(self.depth, np.float32))
        return Sample(self.name, image, depth=depth, valid=torch.from_numpy(self.valid))


def opening() -> tuple[Case, Case]:
    """The photograph that the page opens with, of a person in a landscape, and one of things on an even surface."""
    from skimage import data

    camera, coins = data.camera(), data.coins()
    return _case("camera", camera), _case("coins", coins)


def photographs() -> list[Case]:
    """The photographs inside the scikit-image and scikit-learn wheels, the one with depth first (no download).

    ValueError where a package is missing.
    """
    try:
        from skimage import data
        from sklearn.datasets import load_sample_image
    except ImportError as error:
        raise ValueError(f"{error.name} is not installed: pip install 'genpercept[demo]'") from None
    loaders = {
        "astronaut": data.astronaut,
        "coffee": data.coffee,
        "chelsea": data.chelsea,
        "rocket": data.rocket,
        "china": lambda: load_sample_image("china.jpg"),
        "flower": lambda: load_sample_image("flower.jpg"),
    }
    return [motorcycle(), *(_case(name, load()) for name, load in loaders.items())]


def place(case: Case) -> int:
    """Where it stands in photographs.toml, which has the best first."""
    return [*_words()].index(case.name)


def _case(name: str, image: np.ndarray) -> Case:
    about = _words()[name]
    rgb = np.repeat(image[..., None], 3, axis=-1) if image.ndim == 2 else image
    people = about.get("boxes")
    boxes = None if people is None else np.array(people, np.float64)
    return Case(name, np.asarray(rgb), note=about["credit"], boxes=boxes, says=about["says"])


@cache
def _words() -> dict[str, Any]:
    return tomllib.loads(_WORDS.read_text(encoding="utf-8"))


def motorcycle() -> Case:
    """Middlebury 2014 "Motorcycle" at a quarter of its size, as scikit-image ships it, with depth from its disparity.

    depth = baseline * focal length / (disparity + offset of the principal points), from the data set's calibration.
    """
    from skimage import data

    left, _, disparity = data.stereo_motorcycle()
    valid = np.isfinite(disparity)
    depth = np.full(disparity.shape, np.nan, np.float32)
    depth[valid] = 0.193001 * 994.978 / (disparity[valid] + 31.086)
    about = _words()["motorcycle"]
    return Case("motorcycle", left, depth, None, valid, "middlebury", about["credit"], says=about["says"])


def held_out(indices: Sequence[int], domain: str = "mixed", size: tuple[int, int] = SCENE_SIZE) -> list[Case]:
    """Scenes of the synthetic world's test split, which no training sees, with exact depth and normals."""
    from genpercept.data import synthetic

    cases = []
    for start in range(0, len(indices), _CHUNK):  # a scene carries a dozen labels; only three of them are kept
        part = indices[start : start + _CHUNK]
        scenes = synthetic.render(part, domain=domain, split="test", size=size, workers=os.cpu_count() or 1)
        for n, i in enumerate(part):
            labels = scenes.depth[n], scenes.normals[n], scenes.valid[n]
            case = Case(f"scene_{i:04d}", scenes.image[n], *labels, "synthetic", scenes.caption[n])
            cases.append(case)
    return cases


def depth_picture(case: Case) -> Any:
    """True depth from its 2nd to its 98th percentile, as predictions are coloured; grey where there is none."""
    assert case.depth is not None and case.valid is not None
    limit = 25.0 if case.protocol == "synthetic" else np.inf
    valid = case.valid & np.isfinite(case.depth) & (np.nan_to_num(case.depth, nan=np.inf) < limit)
    if not valid.any():
        return colourise(np.zeros_like(case.depth), "depth_affine", valid)
    low, high = np.percentile(case.depth[valid], (2, 98))
    scaled = np.clip((np.where(valid, case.depth, low) - low) / max(high - low, 1e-6), 0, 1)
    return colourise(scaled, "depth_affine", valid)


def versions(pipe: Any) -> dict[str, str]:
    """Of the software, and where it ran."""
    packages = ("genpercept", "torch", "diffusers", "numpy", "scikit-image", "scikit-learn")
    where = f"{pipe.device} · {platform.system()} {platform.machine()}"
    return {name: importlib.metadata.version(name) for name in packages} | {
        "Python": platform.python_version(),
        "device": where,
    }
