"""A depth model that is the image's red channel, for what happens around a network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from genpercept.imaging.prediction import Prediction


class Red:
    """Answers as GenPerceptPipeline does; `before` is called with each image, and may raise or wait."""

    task = "depth"

    def __init__(self, before: Callable[[np.ndarray], Any] = lambda image: None) -> None:
        self.before, self.seen = before, 0

    def check_request(self, *request: Any) -> None: ...

    def __call__(self, images: list[np.ndarray], **options: Any) -> list[Prediction]:
        for one in images:
            self.before(one)
        self.seen += len(images)
        return [Prediction(one[..., 0] / 255, "depth_affine", meta={"model": "red"}) for one in images]

    def load(self, model: str, **options: Any) -> Red:
        return self


def picture(path: Path, red: int = 100, size: tuple[int, int] = (8, 6)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (red, 0, 0)).save(path)
    return path


def tree(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
