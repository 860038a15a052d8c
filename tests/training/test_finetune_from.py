"""What a run of fine-tuning takes over from the model it starts from, and what the model it saves knows of itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import genpercept
from genpercept.checkpoints.parts import MANIFEST
from genpercept.training.stages.finetune import FinetuneStage
from tests.support.finetuning import SIZE, open_stage, step


def taught(folder: Path, task: str, **table: Any) -> FinetuneStage:
    scenes = {"name": "synthetic", "count": 2, "size": (48, 64), "domain": "closeup"}
    table = {"data": [scenes], "loader": {"batch_size": 2, "cache": False}, "augment": {"sizes": [SIZE]}} | table
    return open_stage(folder, task=task, **table)


@pytest.mark.parametrize(
    ("task", "width", "learn", "kept"),
    [
        ("matting", 8, {}, True),
        ("dis", 8, {}, True),
        ("matting", 8, {"head": "scratch"}, False),
        ("matting", 16, {}, False),
        ("normals", 8, {}, False),
    ],
)
def test_a_head_goes_on_in_a_task_of_as_many_maps(
    task: str, width: int, learn: dict[str, str], kept: bool, tmp_path: Path
) -> None:
    """Matting may start from the whole of a model of dis, whose head has the same form."""
    first = taught(tmp_path, "dis", model={"head": "dpt", "head_config": {"fusion_hidden_size": 8}})
    step(first)
    first.save(tmp_path / "dis")
    model = {"base": str(tmp_path / "dis"), "head": "dpt", "head_config": {"fusion_hidden_size": width}}
    second = taught(tmp_path, task, model=model, learn=learn)
    before, after = (stage.parts.head_module.state_dict() for stage in (first, second))
    same = before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert same == kept


def test_a_saved_model_knows_how_images_come_to_it(tmp_path: Path) -> None:
    """`resize_mode` of a recipe: a wide image has as many pixels as one of 4:3; said otherwise in a call, it has not."""
    taught(tmp_path, "depth", resolution=48, resize_mode="area").save(tmp_path / "model")
    pipe = genpercept.load(tmp_path / "model")
    wide = np.zeros((50, 200, 3), np.uint8)
    assert pipe(wide).meta["resolution"] == [24, 88]  # 20.8 x 83.1, up to multiples of 8
    assert pipe(wide, resize_mode="fit").meta["resolution"] == [16, 48]
    settings = json.loads((tmp_path / "model" / MANIFEST).read_text())
    settings["resize_mode"] = "round"
    (tmp_path / "model" / MANIFEST).write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=r"resize_mode.*fit, area, official"):
        genpercept.load(tmp_path / "model")
