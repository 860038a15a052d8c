"""A folder that recipes and studies run in: `data/` with every set in miniature, `bases/` with stand-ins of published bases."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from tests.support.miniature import depth, other

TREES: dict[str, Callable[[Path], None]] = {
    "hypersim": depth.hypersim,
    "vkitti2": depth.vkitti2,
    "taskonomy": depth.taskonomy,
    "cityscapes": depth.cityscapes,
    "kitti": depth.kitti,
    "nyuv2": depth.nyuv2,
    "nyuv2_normals": depth.nyuv2_normals,
    "scannet": depth.scannet,
    "scannet_normals": depth.scannet_normals,
    "diode": depth.diode,
    "eth3d": depth.eth3d,
    "ade20k": other.ade20k,
    "dis5k": other.dis5k,
    "p3m10k": other.p3m10k,
    "composition1k": other.composition1k,
    "coco_keypoints": other.coco_keypoints,
    "mhp": other.mhp,
    "mvtec_ad": other.mvtec_ad,
}
# What a recipe's model.base names -> the folder in bases/ that stands for it
STAND_INS = {
    "stable-diffusion-2-1": "sd21",
    "stabilityai/stable-diffusion-2-1": "sd21",
    "PixArt-alpha/PixArt-XL-2-512x512": "pixart",
    "facebook/dinov2-giant": "dinov2",
    "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k": "clip",
}


def build(folder: Path, sets: tuple[str, ...] = (), bases: bool = True) -> Path:
    """`folder`/data and `folder`/bases, or of the data only `sets`; what is there already stays."""
    for name in sets or TREES:
        root = folder / "data" / name
        if not root.is_dir():
            part = root.with_name(f".{name}.part")
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            TREES[name](part)
            part.rename(root)
    if bases:
        _bases(folder / "bases")
    return folder


def _bases(folder: Path) -> None:
    from tests.support.bases import clip_base, dinov2_base, pixart_base
    from tests.support.paths import SD_TINY

    if not (folder / "sd21").is_dir():
        shutil.copytree(SD_TINY, folder / "sd21")
    for name, make in (("dinov2", dinov2_base), ("clip", clip_base), ("pixart", pixart_base)):
        if not (folder / name).is_dir():
            make(folder / name)
