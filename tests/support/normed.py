"""Runs whose heads have batch norms, as small as they can be: UperNet and ViTPose's classic decoder on a tiny DINOv2."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from genpercept.training import recipe as recipes
from genpercept.training.loop import Training
from genpercept.training.run.state import Checkpoints, read_checkpoint
from tests.support.bases import dinov2_base

RECIPE = """
stage = "finetune"
steps = {steps}
paradigm = "direct"
[[data]]
domain = "outdoor"
having = "keypoints"
count = 24
size = [28, 42]
[loader]
batch_size = 4
cache_dir = "{cache}"
render_workers = 1
[optim]
lr = 1e-3
warmup = 2
[ema]
decay = 0.9
[validation]
every = 0
count = 2
pictures = 1
split = "train"
[checkpoint]
every = {every}
[speed]
threads = 1
[logging]
tensorboard = false
seconds = 1000
"""
TASKS = {
    "upernet": """
task = "segmentation"
task_options = { classes = "synthetic" }
[model]
head = "upernet"
head_config = { hidden_size = 8 }
""",
    "pose": """
task = "pose"
task_options = { height = 28, width = 42 }
[model]
head_config = { hidden_size = 8 }
""",
}

FSDP = {  # accelerate's settings that shard such a run
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_TRANSFORMER_CLS_TO_WRAP": "Dinov2Layer",
}


def write(folder: Path, head: str, steps: int, every: int) -> Path:
    """A base, and a recipe for it with head "upernet" or "pose", under `folder`; the recipe's path."""
    base = folder / "dinov2"
    if not base.exists():
        dinov2_base(base)
    common = RECIPE.format(steps=steps, every=every, cache=folder / "cache")
    top, sections = common.split("[[data]]")
    text = top + TASKS[head] + f'base = "{base}"\n[[data]]' + sections
    path = folder / f"{head}.toml"
    path.write_text(text, encoding="utf-8")
    return path


def record(path: Path, out: Path, overrides: Sequence[str] = ()) -> int:
    """Train from the first step on, and write each step's loss into OUT/losses.json."""
    training = Training(recipes.load(path, overrides), out, resume=False)
    step, losses = training.step, []

    def recorded(batches: Any) -> dict[str, float]:
        figures = step(batches)
        losses.append(figures["loss"])
        return figures

    training.step = recorded  # type: ignore[method-assign]
    code = training.run()
    if training.first:
        (out / "losses.json").write_text(json.dumps(losses), encoding="utf-8")
    return code


def tensors(run: Path) -> dict[str, Tensor]:
    """All of a run's newest checkpoint and of its model, by name."""
    _, weights, average, optimiser = read_checkpoint(Checkpoints(run, 2).list()[-1])
    found = {f"weights {k}": v for k, v in weights.items()} | {f"average {k}": v for k, v in average.items()}
    for number, moments in optimiser["state"].items():
        found |= {f"optimiser {number} {k}": v for k, v in moments.items() if isinstance(v, Tensor)}
    for path in sorted((run / "model").rglob("*.safetensors")):
        found |= {f"{path.relative_to(run)} {k}": v for k, v in load_file(path).items()}
    return found
