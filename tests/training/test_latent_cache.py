"""Cached latents: encoded in batches, in the order of their records; kept under the content of what they were made from."""

from __future__ import annotations

import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from genpercept.data import synthetic
from genpercept.tasks import TASKS
from genpercept.training.recipe import Augment, DataSet, Loader, Recipe
from genpercept.training.samples import encoding, identity, latents, shard_cache
from genpercept.training.samples.records import image_tensor, to_sample
from genpercept.training.samples.sources import Rendered, open_source

SIZE = (8, 12)


class Codec:
    """The mean of 4 x 4 pixels, and how many images it has seen."""

    stride, channels = 4, 3

    def __init__(self) -> None:
        self.module: Any = nn.Linear(1, 1)
        self.module.config = {"scaling_factor": 1.0}
        self.seen = 0

    def encode(self, image: Tensor) -> Tensor:
        self.seen += len(image)
        return nn.functional.avg_pool2d(image, 4)

    def decode(self, latent: Tensor) -> Tensor:
        return latent


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Five images with depth; shards hold two records."""
    monkeypatch.setattr(latents, "SHARD", 2)
    monkeypatch.setattr(shard_cache, "SHARD", 2)
    monkeypatch.setattr(identity, "_DOUBTFUL", -1e9)  # these files are seconds old, and nobody else changes them
    rng = np.random.default_rng(0)
    folder = tmp_path / "data"
    for name in ("images", "depth"):
        (folder / name).mkdir(parents=True)
    for i in range(5):
        Image.fromarray(rng.integers(0, 255, (*SIZE, 3), np.uint8)).save(folder / "images" / f"{i}.bmp")
        np.save(folder / "depth" / f"{i}.npy", rng.uniform(1, 9, SIZE).astype(np.float32))
    return folder


def encoded(root: Path, codec: Codec, **changes: Any) -> tuple[int, list[tuple[np.ndarray, np.ndarray]]]:
    """How many images were encoded, and the pairs (record after record, variant after variant)."""
    recipe = Recipe(
        stage="finetune",
        model=cast(Any, {"base": "mini/base"}),
        data=(DataSet(name="folder", root=root, split="all", size=SIZE, skip_bad=changes.pop("skip_bad", False)),),
        augment=Augment(flip=0, sizes=()),
        loader=Loader(latent_variants=2, cache_dir=root.parent / "cache"),
        **changes,
    )
    task = TASKS.find(recipe.task)

    def pair(record: Any) -> tuple[Tensor, Tensor, Tensor]:
        target = task.encode(to_sample(record))
        return image_tensor(record["image"]) * 2 - 1, target.map[0], target.valid[0, :, ::4, ::4]

    before, sources = codec.seen, [open_source(recipe.data[0], recipe.loader, print)]
    found = latents.open_pairs(recipe, sources, codec, lambda record, rng: record, pair, lambda line: None)[0]
    return codec.seen - before, [found.pair(i, variant) for i in range(len(sources[0])) for variant in range(2)]


def test_pairs_are_those_of_their_records(root: Path) -> None:
    count, pairs = encoded(root, Codec())
    assert count == 5 * 2 * 2
    for i in range(5):
        image = torch.from_numpy(np.asarray(Image.open(root / "images" / f"{i}.bmp")).transpose(2, 0, 1).copy())
        expected = nn.functional.avg_pool2d(image.float() / 255 * 2 - 1, 4).numpy()
        for pair, valid in pairs[2 * i : 2 * i + 2]:
            np.testing.assert_allclose(pair[0], expected, atol=1e-3)
            assert valid.all() and pair[1].std() > 0.01


def test_what_is_changed_is_encoded_anew_and_found_again_when_put_back(root: Path) -> None:
    codec = Codec()
    _, first = encoded(root, codec)
    assert encoded(root, codec)[0] == 0
    image, depth = root / "images" / "3.bmp", root / "depth" / "0.npy"
    times = image.stat()
    old = image.read_bytes()
    image.write_bytes(old[:-1] + bytes([old[-1] ^ 255]))  # one pixel; the same size
    os.utime(image, ns=(times.st_atime_ns, times.st_mtime_ns))  # and the same time of change
    count, second = encoded(root, codec)
    assert count == 2 * 2 * 2  # of its shard alone
    changed = [not np.array_equal(a, b) for (a, _), (b, _) in zip(first, second, strict=True)]
    assert changed == [False] * 6 + [True] * 2 + [False] * 2
    image.write_bytes(old)
    count, third = encoded(root, codec)
    assert count == 0 and all(np.array_equal(a, b) for (a, _), (b, _) in zip(first, third, strict=True))
    np.save(depth, np.load(depth) ** 2)  # a label
    assert encoded(root, codec)[0] == 8
    (root / "images" / "9.bmp").write_bytes(old)  # another record: the shards that were whole stay
    np.save(root / "depth" / "9.npy", np.load(depth))
    assert encoded(root, codec)[0] == 8


def test_a_copied_tree_has_the_same_latents(root: Path, tmp_path: Path) -> None:
    codec = Codec()
    encoded(root, codec)
    shutil.copytree(root, tmp_path / "moved", copy_function=shutil.copyfile)
    shutil.rmtree(root)
    assert encoded(tmp_path / "moved", codec)[0] == 0


def test_what_else_latents_depend_on(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights and configuration of the codec, the precision, and the code of the task."""
    codec = Codec()
    encoded(root, codec)
    codec.module.config["scaling_factor"] = 2.0
    assert encoded(root, codec)[0] == 20
    codec.module.weight.data.add_(1)
    assert encoded(root, codec)[0] == 20
    source = identity._source
    changed = "genpercept.tasks._affine"  # which the depth task imports
    monkeypatch.setattr(identity, "_source", lambda name: b"x = 1" if name == changed else source(name))
    identity.code.cache_clear()
    assert encoded(root, codec)[0] == 20
    monkeypatch.undo()
    identity.code.cache_clear()


def test_a_bad_image_among_others(root: Path) -> None:
    """With skip_bad, another takes its place: so all depend on all."""
    codec = Codec()
    (root / "images" / "1.bmp").write_bytes(b"no image")
    _, pairs = encoded(root, codec, skip_bad=True)
    assert np.array_equal(pairs[2][0], pairs[4][0])  # the next one's
    with pytest.raises(ValueError, match=r"1\.bmp"):
        encoded(root, codec)
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(root / "images" / "1.bmp")
    assert encoded(root, codec, skip_bad=True)[0] == 20


def test_files_that_may_still_change_are_read_again(tmp_path: Path) -> None:
    """What is as new as its digest is in doubt, as is what comes out of the future; an old file is read once."""
    young, future, gone = tmp_path / "young", tmp_path / "future", tmp_path / "gone"
    young.write_bytes(b"1")
    future.write_bytes(b"2")
    os.utime(future, (time.time() + 9999,) * 2)
    contents = identity.Contents(tmp_path, print)
    assert contents.of([gone])[gone] == "" and len(set(contents.of([young, future]).values())) == 2
    assert identity.Contents(tmp_path, print)._known == {}
    (tmp_path / "digests.json").write_text("{torn")
    assert identity.Contents(tmp_path, print).of([young])[young] == identity.digest_of(young)


def test_a_changed_world_is_rendered_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """The recorded code is that of this version: who changes genpercept.world raises WORLD_VERSION where pictures change, and
    records the new code in either case."""
    assert shard_cache.world_code() == synthetic.WORLD_CODE
    before = Rendered(DataSet(count=4)).key
    monkeypatch.setattr(synthetic, "WORLD_VERSION", synthetic.WORLD_VERSION + 1)
    raised = Rendered(DataSet(count=4)).key
    monkeypatch.undo()
    source = identity._source
    monkeypatch.setattr(
        identity, "_source", lambda name: (source(name) or b"") + b"\n#" * (name == "genpercept.world.shade")
    )
    identity.code.cache_clear()
    assert len({before, raised, Rendered(DataSet(count=4)).key}) == 3
    identity.code.cache_clear()


def test_records_are_made_ahead_in_order_and_errors_come_out() -> None:
    working: set[int] = set()

    def make(i: int) -> int:
        working.add(threading.get_ident())
        time.sleep(0.001 * (7 - i % 7))
        if i == 40:
            raise ValueError("40.png: torn")
        return i

    found = encoding.made_ahead(make, range(50), 5)
    assert [next(found) for _ in range(40)] == list(range(40)) and threading.get_ident() not in working
    with pytest.raises(ValueError, match=r"40\.png"):
        next(found)


def test_batches_and_precision() -> None:
    cpu = torch.device("cpu")
    assert [encoding.batch_size(*size, cpu) for size in ((48, 64), (128, 128), (768, 768))] == [64, 16, 1]
    assert encoding.precision("fp32", cpu) == "fp32" == encoding.precision("fp16", cpu)
    assert encoding.precision("bf16", torch.device("cuda")) == "bf16"
    seen: list[int] = []

    def compute(images: Tensor) -> Tensor:
        seen.append(len(images))
        return images[:, :, 0, 0]

    images = [torch.full((3, 48, 64), float(i)) for i in range(130)]
    answer = encoding.in_batches(compute, images, cpu, "fp32")
    assert seen == [64, 64, 2] and answer.dtype == torch.float16 and answer[:, 0].tolist() == list(range(130))
