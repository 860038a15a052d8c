"""A recipe of two steps on a folder DATA of slanted planes, for studies."""

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
