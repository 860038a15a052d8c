"""The stage of fine-tuning over the tiny Stable Diffusion, and a step of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genpercept.training import recipe as recipes
from genpercept.training.optim.build import build
from genpercept.training.stages.finetune import FinetuneStage
from tests.support.paths import SD_TINY

SIZE = (32, 40)


def open_stage(folder: Path, **table: Any) -> FinetuneStage:
    model = {"base": str(SD_TINY)} | table.pop("model", {})
    settings = {
        "stage": "finetune",
        "data": [{"name": "folder", "root": str(folder), "split": "all", "size": SIZE}],
        "validation": {"split": "val" if "data" in table else "all", "count": 2, "steps": table.pop("steps", 0)},
        "loader": {"batch_size": 2},
        "optim": {"lr": 1e-2, "warmup": 0} | table.pop("optim", {}),
    }
    torch.manual_seed(0)
    return FinetuneStage(recipes.parse(settings | {"model": model} | table), lambda line: None)


def step(stage: FinetuneStage) -> tuple[dict[str, Tensor], set[str]]:
    """One optimiser step; the tensors before it, and the names of those that changed."""
    before = {k: v.detach().clone() for k, v in stage.net.state_dict().items()}
    optimiser = build(stage.groups(), stage.recipe.optim)
    stage.net.train()
    with torch.no_grad():
        batch = stage.encode(stage.make_batch(0, range(2)))
    pair = stage.training_pair(batch)
    losses, _ = stage.loss(stage.net(*pair.inputs), pair)
    assert losses.shape == (2,) and bool(torch.isfinite(losses).all())
    losses.mean().backward()
    optimiser.step()
    return before, {k for k, v in stage.net.state_dict().items() if not torch.equal(v, before[k])}
