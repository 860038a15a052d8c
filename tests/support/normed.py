"""Runs whose heads have batch norms, as small as they can be: UperNet and ViTPose's classic decoder on a tiny DINOv2."""

from __future__ import annotations

from pathlib import Path

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
workers = 1
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
