"""Damage to DepthFM's checkpoint, one pickled file: what of its silent failures can be told. Cases for damaged_checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

FILE = "depthfm-v1.ckpt"
Edit = Callable[[dict[str, Any]], object]


def changed(edit: Edit) -> Callable[[Path], None]:
    """The file with what it holds edited; an array in it becomes a tensor, which is read, too."""

    def damage(work: Path) -> None:
        from genpercept.checkpoints import pickles

        found = pickles.read_content(work / "m" / FILE)
        found["state_dict"] = {name: tensor.clone() for name, tensor in found["state_dict"].items()}
        edit(found)
        (work / "m" / FILE).unlink()
        torch.save(found, work / "m" / FILE)

    return damage


def arguments(**new: Any) -> Edit:
    return lambda content: content["ldm_hparams"].update(new)


def cases() -> Iterator[tuple[str, Callable[[Path], object]]]:
    """What was done, and what does it. The heads are the first: no tensor shows them."""
    yield "DepthFM: heads are not said", changed(lambda c: c["ldm_hparams"].pop("num_heads"))
    yield "DepthFM: heads by level, as Stable Diffusion 2.1's", changed(arguments(num_heads=0, num_head_channels=64))
    yield "DepthFM: heads that no level can have", changed(arguments(num_heads=7))
    yield "DepthFM: no noising step", changed(lambda c: c.pop("noising_step"))
    yield "DepthFM: a noising step out of its schedule", changed(lambda c: c.update(noising_step=1200))
    yield "DepthFM: no prompt", changed(lambda c: c.pop("empty_text_embedding"))
    yield "DepthFM: a prompt of zeros", changed(lambda c: c.update(empty_text_embedding=torch.zeros(1, 77, 16)))
    yield "DepthFM: another model's prompt", changed(lambda c: c.update(empty_text_embedding=torch.ones(1, 77, 1024)))
    yield "DepthFM: a tensor is missing", changed(lambda c: c["state_dict"].pop("out.2.bias"))
    yield "DepthFM: a tensor too many", changed(lambda c: c["state_dict"].update({"label_emb.0.0.bias": torch.ones(1)}))
    yield "DepthFM: an argument that changes the network", changed(arguments(use_scale_shift_norm=True))
