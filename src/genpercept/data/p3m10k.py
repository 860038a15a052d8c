"""P3M-10k: portraits with mattes, faces blurred for privacy (Li et al., ACM MM 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from genpercept.core.values import Sample
from genpercept.data._files import About, FileDataset, images_in, read_grey, read_rgb, same_size, same_stem

# split -> folder, and its folder of images
_PLACES = {
    "train": ("train", "blurred_image"),
    "test_p": ("validation/P3M-500-P", "blurred_image"),
    "test_np": ("validation/P3M-500-NP", "original_image"),
}


@dataclass(frozen=True)
class Entry:
    name: str
    image: Path
    alpha: Path
    trimap: Path | None


@dataclass(frozen=True)
class P3m10k(FileDataset):
    """No options. Splits test_p (P3M-500-P, faces blurred) and test_np (P3M-500-NP, faces as they are)."""

    name = "p3m10k"
    about = About(
        title="P3M-10k",
        url="https://github.com/JizhiziLi/P3M",
        obtain="Agree to the release agreement in the repository and fetch P3M-10k.zip (Google Drive or Baidu).",
        licence="P3M-10k release agreement, which its repository calls MIT",
        layout=(
            "train/blurred_image/NAME.jpg and train/mask/NAME.png, or all of it in P3M-10k/",
            "validation/P3M-500-P/{blurred_image,mask,trimap}/",
            "validation/P3M-500-NP/{original_image,mask,trimap}/",
        ),
        provides=("alpha", "trimap"),
        splits=tuple(_PLACES),
        protocols={"matting": "p3m"},
        reference="Li et al., Privacy-Preserving Portrait Matting, ACM Multimedia 2021",
    )

    def index(self, root: Path | None, split: str) -> Sequence[Entry]:
        root = self.folder(root, split)
        home = root / "P3M-10k" if (root / "P3M-10k").is_dir() else root
        place, folder = _PLACES[split]
        images = images_in(home / place / folder)
        if not images or not (home / place / "mask").is_dir():
            self.wrong_layout(home, f"{place}/{folder}/*.jpg and {place}/mask/*.png")
        trimaps = home / place / "trimap"
        return [
            Entry(
                name=f"{Path(place).name}/{image.stem}",
                image=image,
                alpha=same_stem(home / place / "mask", image),
                trimap=same_stem(trimaps, image) if trimaps.is_dir() else None,
            )
            for image in images
        ]

    def load(self, entry: Entry) -> Sample:
        image, alpha = read_rgb(entry.image), read_grey(entry.alpha)
        same_size(entry.alpha, alpha, image)
        sample = Sample(entry.name, image, alpha=torch.from_numpy(alpha.astype(np.float32) / 255))
        if entry.trimap is not None:
            trimap = read_grey(entry.trimap)
            same_size(entry.trimap, trimap, image)
            sample.trimap = torch.from_numpy(np.where((trimap > 0) & (trimap < 255), 128, trimap).astype(np.uint8))
        return sample


PLUGIN = P3m10k()
