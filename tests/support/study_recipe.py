"""The recipe that the arms of a study in the tests change: two steps of the tiny Stable Diffusion, on a folder."""

from __future__ import annotations

from tests.support.paths import SD_TINY

RECIPE = f"""
stage = "finetune"
steps = 2
loss = {{ latent = 1.0 }}
[model]
base = "{SD_TINY}"
[[data]]
name = "folder"
root = "DATA"
split = "all"
size = [16, 16]
[loader]
batch_size = 2
[validation]
every = 1
count = 2
split = "all"
[speed]
threads = 1
[logging]
tensorboard = false
"""
