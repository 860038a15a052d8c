"""Feature pyramids of plain transformers: the token maps behind a few chosen blocks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from genpercept.checkpoints import schema

LEVELS = 4  # of the pyramid: as many as the U-Net of Stable Diffusion gives and DPT reads
KEY = "pyramid_blocks"  # of config.json


def choose(blocks: Sequence[int] | None, count: int) -> tuple[int, ...]:
    """The blocks to read, counted from 0: those asked for, or four evenly spaced ones that end with the last.

    Of 40 blocks 9, 19, 29 and 39, as DINOv2's and Depth Anything's DPT heads. ValueError for blocks that are not there.
    """
    if not blocks:
        levels = min(LEVELS, count)
        return tuple((i + 1) * count // levels - 1 for i in range(levels))
    if list(blocks) != sorted(set(blocks)) or not 0 <= blocks[0] <= blocks[-1] < count:
        raise ValueError(f"{KEY} {list(blocks)}: must rise and lie between 0 and {count - 1}, the last block")
    return tuple(int(block) for block in blocks)


def check(config: dict, path: Path) -> None:
    """ValueError where the configuration says of the blocks to read what is no list of numbers."""
    if config.get(KEY) is not None:
        schema.check(path, KEY, config[KEY], list[int])


def check_size(name: str, x_BCHW: Tensor, patch: int) -> tuple[int, int]:
    """Rows and columns of tokens. ValueError for an input that whole patches do not fill."""
    h, w = int(x_BCHW.shape[-2]), int(x_BCHW.shape[-1])
    if h % patch or w % patch:
        raise ValueError(
            f"backbone {name!r} reads patches of {patch} x {patch}, but got {h} x {w}: pad to multiples of {patch} "
            "(resize_mode 'fit' does)"
        )
    return h // patch, w // patch


def to_map(tokens_BNC: Tensor, grid: tuple[int, int]) -> Tensor:
    """Tokens, row by row -> (B, C, rows, columns)."""
    return tokens_BNC.transpose(1, 2).unflatten(2, grid).contiguous()
