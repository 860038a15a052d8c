"""Worker processes make the batches that threads make, and end as quietly."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from torch import Tensor

from genpercept.commands.data import prepare
from genpercept.core.rng import Rng
from genpercept.core.values import Target
from genpercept.training import loop, stages
from genpercept.training import recipe as recipes
from genpercept.training.run.batches import Split
from genpercept.training.samples.prefetch import OnDevice, Prefetch, Workers, ahead, heavy, light
from genpercept.training.stages.base import Batch, Making

STAGES = {
    "finetune": 'stage = "finetune"\nmodel = {base = "mini/base"}\nloss = {l1 = 1.0, vnl = 1.0}\n',
    "cached": 'stage = "finetune"\nmodel = {base = "mini/base"}\nloss = {latent = 1.0}\n',
    "pose": 'stage = "finetune"\ntask = "pose"\nmodel = {base = "mini/base"}\n',
    "denoiser": 'stage = "denoiser"\nmodel = {codec = "mini/base"}\n',
    "autoencoder": 'stage = "autoencoder"\nmodel = {codec = "mini/base"}\nautoencoder = {paint = {}}\n',
    "distil": 'stage = "distil"\nmodel = {base = "mini/depth"}\n',
}


def write_images(folder: Path, count: int = 7) -> Path:
    rng = np.random.default_rng(0)
    for name in ("images", "depth"):
        (folder / name).mkdir(parents=True)
    for i in range(count):
        Image.fromarray(rng.integers(0, 255, (48, 64, 3), np.uint8)).save(folder / "images" / f"{i}.png")
        np.save(folder / "depth" / f"{i}.npy", rng.uniform(1, 9, (48, 64)).astype(np.float32))
    (folder / "dataset.toml").write_text("intrinsics = [50, 50, 32, 24]\n")
    return folder


def write_recipe(folder: Path, kind: str, root: Path | None = None) -> Path:
    data = f'name = "folder"\nroot = "{root}"\nsplit = "all"\nsize = [32, 32]' if root else "count = 8\nsize = [32, 32]"
    loader = f'batch_size = 6\nmicro_batch = 4\ncache = false\ncache_dir = "{folder / "cache"}"'
    loader += f"\nlatent_variants = {int(kind == 'cached')}"
    text = f"{STAGES[kind]}[[data]]\n{data}\n[loader]\n{loader}\n[augment]\ncolour = 0.5\ncrop = [0.5, 1.0]\n"
    (folder / "r.toml").write_text(text)
    return folder / "r.toml"


def making(path: Path, *overrides: str, report: Any = None) -> Making:
    recipe = recipes.load(path, overrides)
    loader = recipe.loader
    return Making(
        stages.build(recipe, report or (lambda line: None)), Split(loader.batch_size, micro=loader.micro_batch)
    )


def tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Batch):
        return [
            t for name in ("images", "target", "latents", "tokens", "labels") for t in tensors(getattr(value, name))
        ]
    if isinstance(value, Target):
        return [*tensors(value.map), value.valid]
    if isinstance(value, dict):
        return [t for one in value.values() for t in tensors(one)]
    return [value] if isinstance(value, Tensor) else []


def same(a: Batch, b: Batch) -> bool:
    found, expected = tensors(a), tensors(b)
    assert len(found) == len(expected) > 0 and a.rng == b.rng
    return all(torch.equal(x, y) for x, y in zip(found, expected, strict=True))


@pytest.mark.parametrize("kind", STAGES)
def test_a_stage_without_its_networks_makes_the_same_batches(kind: str, tmp_path: Path) -> None:
    make = making(write_recipe(tmp_path, kind, None if kind == "pose" else write_images(tmp_path / "data")))
    pickled = light(make)
    assert len(pickled) < 1_000_000
    worker = heavy(pickled)
    assert all(same(make(number), worker(number)) for number in (0, 5))


def test_the_same_bits_whoever_makes_them(tmp_path: Path) -> None:
    """From the number where a run goes on."""
    path = write_recipe(tmp_path, "finetune", write_images(tmp_path / "data"))
    make = making(path)
    workers = ahead(make, 5, recipes.load(path, ["loader.workers=2", "loader.prefetch=2"]).loader)
    threads = ahead(make, 5, recipes.load(path, ["loader.threads=2"]).loader)
    assert isinstance(workers, Workers) and isinstance(threads, Prefetch)
    state = torch.get_rng_state()
    try:
        assert all(same(a, b) for a, b in itertools.islice(zip(workers, threads, strict=False), 4))
    finally:
        workers.close()
        threads.close()
    assert torch.equal(state, torch.get_rng_state())


def test_a_bad_image_is_said_as_a_thread_says_it(tmp_path: Path) -> None:
    """One line that names the file; with skip_bad, the same lines once, whoever met it."""
    root = write_images(tmp_path / "data")
    path = write_recipe(tmp_path, "autoencoder", root)
    (root / "images" / "2.png").write_bytes(b"no image")
    said: dict[int, list[str]] = {}
    for workers in (0, 2):
        loader = recipes.load(path, [f"loader.workers={workers}"]).loader
        batches = ahead(making(path), 0, loader)
        with pytest.raises(ValueError, match=r"2\.png") as error:
            list(itertools.islice(batches, 12))
        assert "\n" not in str(error.value)
        batches.close()
        lines = said[workers] = []
        batches = ahead(making(path, "data.0.skip_bad=true", report=lines.append), 0, loader)
        assert len(list(itertools.islice(batches, 12))) == 12
        batches.close()
    assert said[0] == said[2] and len(said[0]) == 1 and "left out (1 of 7 so far)" in said[0][0]


SCRIPT = """
import sys
sys.path.insert(0, {root!r})
from pathlib import Path
from genpercept.training.samples.prefetch import Workers
from tests.training.test_workers import making
if __name__ == "__main__":
    for batch in Workers(making(Path({recipe!r})), 0, 2, 2):
        print("batch", flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_their_run(tmp_path: Path, number: signal.Signals) -> None:
    recipe = write_recipe(tmp_path, "autoencoder", write_images(tmp_path / "data"))
    text = SCRIPT.format(root=str(Path(__file__).parents[2]), recipe=str(recipe))
    (tmp_path / "main.py").write_text(text)
    run = subprocess.Popen(
        [sys.executable, str(tmp_path / "main.py")], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        assert run.stdout is not None and run.stdout.readline() == b"batch\n"
        children = psutil.Process(run.pid).children(recursive=True)
        assert len(children) >= 2
        run.send_signal(number)
        run.stdout.close()
        run.wait(20)
        assert not psutil.wait_procs(children, timeout=20)[1]
    finally:
        run.kill()


@pytest.mark.slow
def test_a_killed_worker_is_one_line(tmp_path: Path) -> None:
    make = making(write_recipe(tmp_path, "autoencoder", write_images(tmp_path / "data")))
    batches = Workers(make, 0, 1, 1)
    with pytest.raises(ValueError, match=r"use fewer loader\.workers") as error:
        for _ in batches:
            mine = [p for p in psutil.Process().children(recursive=True) if p.pid != os.getpid()]
            newest = max(mine, key=lambda p: p.create_time())
            newest.kill()
            time.sleep(0.1)
    assert "\n" not in str(error.value)
    batches.close()


def test_training_on_prepared_data_is_training_on_the_original(tmp_path: Path) -> None:
    """The same losses and, after three steps, the same weights."""
    published = write_images(tmp_path / "data")
    prepare.main("folder", published, tmp_path / "prepared", splits=["all"], processes=1)
    losses, weights = [], []
    for root in (published, tmp_path / "prepared"):
        path = write_recipe(tmp_path, "finetune", root)
        quick = ["steps=3", "checkpoint.every=0", "logging.every=1", "validation.split=all", "validation.count=1"]
        out = tmp_path / f"run-{root.name}"
        assert loop.main(path, quick, out) == 0
        rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
        losses.append([row["loss"] for row in rows if "loss" in row])
        weights.append([file.read_bytes() for file in sorted((out / "model").rglob("*.safetensors"))])
    assert losses[0] == losses[1] and losses[0]
    assert weights[0] == weights[1] and weights[0]


@pytest.mark.parametrize("last", [False, True])
def test_batches_on_the_device_are_the_same_in_order(last: bool) -> None:
    """The path of GPUs, with the CPU as the device: each batch once, in order, images laid out as asked."""

    def make(number: int) -> Batch:
        image = torch.full((2, 3, 4, 6), float(number))
        target = Target(image[:, :1].clone(), torch.ones(2, 1, 4, 6, dtype=torch.bool))
        return Batch(Rng(0, number, [0, 1]), images=image, target=target, labels={"intrinsics": torch.eye(3)[None]})

    batches = OnDevice(Prefetch(make, 5, 1, 2), torch.device("cpu"), last)
    found = list(itertools.islice(batches, 4))
    batches.close()
    assert [batch.rng.step for batch in found] == [5, 6, 7, 8]
    for batch in found:
        assert batch.images is not None and batch.target is not None
        assert (batch.images == batch.rng.step).all()
        assert batch.images.is_contiguous(memory_format=torch.channels_last) == last
        assert len(batch.tensors()) == 4
    assert batches.waited > 0
