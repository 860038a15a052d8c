"""Training: every stage end to end, stopping at any moment, and what the loop promises."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, cast

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import load_file

import genpercept
from genpercept.core import rng
from genpercept.training import loop
from genpercept.training import recipe as recipes
from genpercept.training.optim.schedule import rate
from genpercept.training.recipe import Augment, DataSet, Optim
from genpercept.training.run import state
from genpercept.training.samples import shard_cache
from genpercept.training.samples.augment import augment, crop, mirror
from genpercept.training.samples.order import Order
from genpercept.training.samples.records import to_sample
from genpercept.training.stages.autoencoder import AutoencoderStage

COMMON = """
steps = 3
[[data]]
count = 8
size = [32, 32]
[loader]
batch_size = 4
cache = false
cache_dir = "{cache}"
prefetch = 2
[optim]
lr = 1e-3
warmup = 2
[validation]
every = 2
count = 4
pictures = 2
[checkpoint]
every = 2
[speed]
threads = 1
[logging]
tensorboard = false
"""
CODEC = """
[model.codec_config]
block_out_channels = [8, 8]
down_block_types = ["DownEncoderBlock2D", "DownEncoderBlock2D"]
up_block_types = ["UpDecoderBlock2D", "UpDecoderBlock2D"]
norm_num_groups = 4
"""
DENOISER = """
[model]
codec = "{codec}"
[model.unet_config]
block_out_channels = [16, 16]
down_block_types = ["CrossAttnDownBlock2D", "DownBlock2D"]
up_block_types = ["UpBlock2D", "CrossAttnUpBlock2D"]
attention_head_dim = [2, 2]
cross_attention_dim = 16
norm_num_groups = 4
[denoiser]
sample_steps = 2
"""


def write(path: Path, stage: str, *parts: str, **values: Any) -> Path:
    text = f'stage = "{stage}"\n' + COMMON + "".join(parts)
    for key, value in values.items():
        text = text.replace("{" + key + "}", str(value))
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("train")


@pytest.fixture(scope="module")
def codec_recipe(work: Path) -> Path:
    return write(work / "codec.toml", "autoencoder", CODEC, cache=work / "cache")


@pytest.fixture(scope="module")
def codec(work: Path, codec_recipe: Path) -> Path:
    assert loop.main(codec_recipe, ["logging.tensorboard=true"], work / "codec") == 0
    return work / "codec"


@pytest.fixture(scope="module")
def base(work: Path, codec: Path) -> Path:
    path = write(work / "base.toml", "denoiser", DENOISER, cache=work / "cache", codec=codec / "model")
    assert loop.main(path, ["precision=bf16"], work / "base") == 0
    return work / "base"


def test_autoencoder(codec: Path) -> None:
    config = json.loads((codec / "model" / "config.json").read_text())
    assert config["scaling_factor"] > 0 and config["scaling_factor"] != 0.18215
    assert [p.name for p in sorted((codec / "pictures").iterdir())] == ["0000002.png", "0000003.png"]
    rows = [json.loads(line) for line in (codec / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 3] and {"psnr", "psnr_depth", "psnr_normals"} <= rows[0].keys()
    assert list((codec / "tensorboard").iterdir()) and (codec / "best" / "config.json").exists()
    assert len(list((codec / "checkpoints").iterdir())) == 2


def test_a_codec_of_photographs_without_labels_beside_scenes(work: Path, codec_recipe: Path) -> None:
    """Labels are painted of the set that has them; set alone, or first, the photographs are asked for them in vain."""
    from PIL import Image

    folder = work / "photographs" / "images"
    folder.mkdir(parents=True)
    for i in range(4):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (40, 40, 3), np.uint8)).save(folder / f"{i}.png")
    recipe = recipes.load(codec_recipe, ["autoencoder.paint={depth = 1.0}"])
    photographs = DataSet(name="folder", root=folder.parent, split="all")
    both = recipe.model_copy(update={"data": (*recipe.data, photographs)})
    stage = AutoencoderStage(both, lambda line: None)
    images = cast(torch.Tensor, stage.make_batch(0, range(32)).images)
    grey = [bool((x == x[:1]).all()) for x in images]  # depth is, noise is not
    assert any(grey) and not all(grey)
    assert "psnr_depth" in stage.validate(2)[0]
    alone = recipe.model_copy(update={"data": (photographs,)})
    with pytest.raises(ValueError, match="has no depth"):
        AutoencoderStage(alone, lambda line: None).validate(2)


def test_denoiser_is_a_stable_diffusion_pipeline(base: Path) -> None:
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(base / "model")
    pipe.set_progress_bar_config(disable=True)
    image = pipe("a room", num_inference_steps=2, height=32, width=32).images[0]  # type: ignore[operator]
    assert image.size == (32, 32)


@pytest.mark.parametrize(
    ("task", "overrides"),
    [
        ("depth", ["loss={latent = 1.0}", "augment.colour=0.5", "augment.crop=[0.5, 1.0]", "augment.jpeg=1.0"]),
        ("normals", ["loss={latent = 0.5, angular = 1.0}", "model.train_decoder=true", "loader.micro_batch=2"]),
        ("depth", ["model.init=scratch", "precision=bf16", "augment.sizes=[[16, 32], [32, 16]]"]),
        ("depth", ["loss={latent = 1.0}", "loader.latent_variants=2", "augment.colour=0.5"]),
        ("normals", ["loss={latent = 1.0, l1 = 1.0}", "pixel_share=0.5"]),
    ],
)
def test_one_step(work: Path, base: Path, tmp_path: Path, task: str, overrides: list[str]) -> None:
    path = write(tmp_path / "r.toml", "one_step", f'[model]\nbase = "{base / "model"}"\n', cache=work / "cache")
    assert loop.main(path, [f'task="{task}"', *overrides], tmp_path / "run") == 0
    pipe = genpercept.load(tmp_path / "run" / "model")
    prediction = pipe(np.zeros((20, 30, 3), np.uint8))
    assert prediction.values.shape[:2] == (20, 30) and pipe.info["recipe"]["steps"] == 3
    before = load_file(base / "model" / "vae" / "diffusion_pytorch_model.safetensors")
    after = load_file(tmp_path / "run" / "model" / "vae" / "diffusion_pytorch_model.safetensors")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert bool(changed) == ("model.train_decoder=true" in overrides)
    assert not any(name.startswith(("encoder", "quant_conv")) for name in changed)


def test_one_step_goes_on_from_a_predictor(work: Path, base: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "r.toml", "one_step", f'[model]\nbase = "{base / "model"}"\n', cache=work / "cache")
    options = ["loss={latent = 1.0}", "optim.warmup=0"]
    assert loop.main(path, options, tmp_path / "first") == 0
    further = [*options, f'model.base="{tmp_path / "first" / "model"}"', "steps=1", "optim.lr=1e-12"]
    assert loop.main(path, further, tmp_path / "second") == 0
    image = np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)
    first, second = (genpercept.load(tmp_path / run / "model")(image).values for run in ("first", "second"))
    np.testing.assert_allclose(first, second, atol=1e-4)  # it started where the first one ended
    assert loop.main(path, [*further, 'task="normals"'], tmp_path / "third") == 0  # and for another task
    assert genpercept.load(tmp_path / "third" / "model").task == "normals"


def test_cached_latents_are_those_of_the_step(work: Path, base: Path, tmp_path: Path) -> None:
    """Without augmentation, a cached pair is what encoding in the step gives; with a pixel loss it is refused."""
    from genpercept.training.stages.finetune import FinetuneStage

    text = f'[model]\nbase = "{base / "model"}"\n'
    path = write(tmp_path / "r.toml", "one_step", text, cache=work / "cache")
    plain = ["loss={latent = 1.0}", "augment.flip=0.0"]
    fresh, cached = (
        FinetuneStage(recipes.load(path, [*plain, f"loader.latent_variants={n}"]), lambda line: None) for n in (0, 1)
    )
    with torch.no_grad():
        a, b = (stage.encode(stage.make_batch(3, range(4))) for stage in (fresh, cached))
    assert a.latents is not None and b.latents is not None
    difference = (a.latents - b.latents).norm() / a.latents.norm()
    assert float(difference) < 5e-4  # the step's own precision (float32), stored as float16
    pa, pb = fresh.training_pair(a), cached.training_pair(b)
    assert pa.valid is not None and pb.valid is not None and torch.equal(pa.valid, pb.valid)
    with pytest.raises(ValueError, match="serve the latent loss alone, but loss has l1"):
        FinetuneStage(recipes.load(path, ["loss={l1 = 1.0}", "loader.latent_variants=1"]), lambda line: None)


def start(path: Path, out: Path, *extra: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "genpercept.training", str(path), str(out), *extra]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def wait_for_checkpoint(process: subprocess.Popen[str], out: Path, after: int) -> None:
    def newest() -> int:
        return max((int(p.name[5:]) for p in (out / "checkpoints").glob("step-*")), default=0)

    while newest() <= after:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.005)


def test_stopped_runs_end_as_if_never_stopped(codec_recipe: Path, tmp_path: Path) -> None:
    """SIGTERM, then kill -9, then on to the end: bit-identical weights, average and optimiser, nothing half-written."""
    settings = ["steps=60", "checkpoint.every=2", "validation.every=0", "logging.seconds=1000"]
    assert loop.main(codec_recipe, settings, tmp_path / "whole") == 0

    out = tmp_path / "stopped"
    process = start(codec_recipe, out, *settings)
    wait_for_checkpoint(process, out, 0)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + signal.SIGTERM and "--resume" in said

    process = start(codec_recipe, out, "--resume", *settings)
    wait_for_checkpoint(process, out, int(state.Checkpoints(out, 2).list()[-1].name[5:]))
    process.kill()
    process.communicate(timeout=60)
    steps = [state.read_checkpoint(folder)[0].step for folder in state.Checkpoints(out, 2).list()]
    assert steps and steps[-1] < 60, "the run ended before it was killed"

    assert loop.main(codec_recipe, settings, out, resume=True) == 0
    for name in ("model/diffusion_pytorch_model.safetensors", "checkpoints/step-0000060/weights.safetensors"):
        one, other = load_file(tmp_path / "whole" / name), load_file(out / name)
        assert one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)
    assert not list(out.rglob("*.part")) and not list((out / "checkpoints").glob(".*"))


def test_damaged_checkpoint_falls_back(codec_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = ["checkpoint.every=1", "validation.every=0"]
    assert loop.main(codec_recipe, settings, tmp_path / "run") == 0
    newest = state.Checkpoints(tmp_path / "run", 2).list()[-1]
    (newest / "weights.safetensors").write_bytes(b"short")
    assert loop.main(codec_recipe, [*settings, "steps=4"], tmp_path / "run", resume=True) == 0
    said = capsys.readouterr().err
    assert "falling back" in said and "resumed at step 2" in said


def test_another_run_is_not_overwritten(codec: Path, codec_recipe: Path) -> None:
    with pytest.raises(ValueError, match="--resume"):
        loop.main(codec_recipe, [], codec)


def test_bad_steps_are_left_out_then_stop_the_run(
    codec_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from genpercept.training.stages.autoencoder import AutoencoderStage

    original = AutoencoderStage.loss
    calls = Counter[str]()

    def loss(self: Any, output: Any, pair: Any) -> Any:
        calls["n"] += 1
        total, parts = original(self, output, pair)
        return (total * float("nan") if calls["n"] in bad else total), parts

    monkeypatch.setattr(AutoencoderStage, "loss", loss)
    bad: set[int] = {2}
    assert loop.main(codec_recipe, [], tmp_path / "a") == 0
    assert state.read_checkpoint(state.Checkpoints(tmp_path / "a", 2).list()[-1])[0].skipped == 1
    weights = load_file(tmp_path / "a" / "model" / "diffusion_pytorch_model.safetensors")
    assert all(torch.isfinite(w).all() for w in weights.values())
    calls.clear()
    bad = set(range(100))
    with pytest.raises(ValueError, match=r"2 steps in a row .* lower optim.lr"):
        loop.main(codec_recipe, ["guard.limit=2"], tmp_path / "b")


def test_time_budget_ends_the_run(codec_recipe: Path, tmp_path: Path) -> None:
    assert loop.main(codec_recipe, ["steps=100000", "max_minutes=0.02", "validation.every=0"], tmp_path / "run") == 0
    assert (tmp_path / "run" / "model" / "config.json").exists()


@pytest.mark.slow
def test_several_processes_train_as_one(codec_recipe: Path, tmp_path: Path) -> None:
    """Three have 1, 1 and 2 of 4 samples; in passes of one, two of them have nothing left for the second."""
    settings = ["steps=10", "validation.every=0"]
    for n, micro in ((1, 0), (2, 0), (3, 1), (4, 0)):
        asked = [f"speed.processes={n}", f"loader.micro_batch={micro}"]
        assert loop.main(codec_recipe, [*settings, *asked], tmp_path / str(n)) == 0
    one, *others = (load_file(tmp_path / n / "checkpoints" / "step-0000010" / "weights.safetensors") for n in "1234")
    assert all(torch.allclose(one[k], other[k], rtol=1e-3, atol=1e-5) for k in one for other in others)


@pytest.mark.slow
def test_sharded_processes_train_as_one(
    work: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FSDP by accelerate's settings, over gloo; stopped and resumed. Its checkpoints hold whole tensors, as any other's."""
    path = write(tmp_path / "r.toml", "finetune", f'[model]\nbase = "{base / "model"}"\n', cache=work / "cache")
    settings = ["loss={latent = 1.0, l1 = 1.0}", "optim.decay_steps=4", "checkpoint.every=2"]
    assert loop.main(path, [*settings, "steps=4"], tmp_path / "plain") == 0
    for name, value in (
        ("ACCELERATE_USE_FSDP", "true"),
        ("FSDP_VERSION", "2"),
        ("FSDP_AUTO_WRAP_POLICY", "TRANSFORMER_BASED_WRAP"),
        ("FSDP_TRANSFORMER_CLS_TO_WRAP", "BasicTransformerBlock,ResnetBlock2D"),
    ):
        monkeypatch.setenv(name, value)
    settings.append("speed.processes=2")
    assert loop.main(path, [*settings, "steps=2"], tmp_path / "sharded") == 0
    assert loop.main(path, [*settings, "steps=4"], tmp_path / "sharded", resume=True) == 0
    at_the_end = Path("checkpoints", "step-0000004")
    for file in (
        at_the_end / "weights.safetensors",
        at_the_end / "average.safetensors",
        Path("model/unet/diffusion_pytorch_model.safetensors"),
    ):
        plain, sharded = (load_file(tmp_path / run / file) for run in ("plain", "sharded"))
        assert plain.keys() == sharded.keys()
        assert all(torch.allclose(plain[k], sharded[k], rtol=1e-3, atol=1e-5) for k in plain)


@pytest.mark.slow
def test_version_1_of_fsdp_is_refused(codec_recipe: Path, tmp_path: Path) -> None:
    environment = os.environ | {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "1"}
    command = [sys.executable, "-m", "genpercept", "train", str(codec_recipe), "--out", str(tmp_path / "run")]
    done = subprocess.run(
        [*command, "--set", "speed.processes=2"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and "fsdp_version: 2" in done.stderr


# Parts of the loop ------------------------------------------------------------------------------------------------------


def test_order_is_a_permutation_per_epoch_and_keeps_shares() -> None:
    order = Order([10, 7], [3, 1], seed=0, batch=5, one_set_per_batch=False)
    draws = [order[step, slot] for step in range(400) for slot in range(5)]
    assert draws == [Order([10, 7], [3, 1], 0, 5, False)[s, i] for s in range(400) for i in range(5)]
    first = [index for which, index in draws if which == 0]
    assert len(first) == 1500 and all(sorted(first[i : i + 10]) == list(range(10)) for i in range(0, 1500, 10))
    assert first[:10] != first[10:20]


def test_order_one_set_per_batch() -> None:
    order = Order([10, 7], [1, 1], seed=0, batch=5, one_set_per_batch=True)
    for step in range(50):
        assert len({order[step, slot][0] for slot in range(5)}) == 1


def record(size: int = 24) -> dict[str, Any]:
    g = rng.generator(0, 0, 0, "scene")
    normals = g.standard_normal((size, size, 3)).astype(np.float32)
    return {
        "image": g.integers(0, 256, (size, size, 3)).astype(np.uint8),
        "depth": g.random((size, size), np.float32) + 1,
        "normals": normals / np.linalg.norm(normals, axis=-1, keepdims=True),
        "valid": np.ones((size, size), bool),
        "keypoints": np.concatenate([g.uniform(0, size, (17, 2)), np.full((17, 1), 2)], 1).astype(np.float32),
        "intrinsics": np.array([[20, 0, 11], [0, 20, 12], [0, 0, 1]], np.float32),
    }


def test_mirror_keeps_labels_right() -> None:
    """Back-projected points are mirrored in x; mirroring twice changes nothing."""
    r = record()
    m = mirror(r)
    assert np.array_equal(m["normals"][:, ::-1, 0], -r["normals"][..., 0])
    x = (np.arange(24) + 0.5 - r["intrinsics"][0, 2]) / 20
    x_mirrored = (np.arange(24) + 0.5 - m["intrinsics"][0, 2]) / 20
    np.testing.assert_allclose(x_mirrored[::-1], -x, atol=1e-6)
    assert m["keypoints"][1, 0] == pytest.approx(24 - r["keypoints"][2, 0])
    twice = mirror(m)
    assert all(np.allclose(twice[k], r[k]) for k in r)


def test_crop_moves_intrinsics_and_keypoints_with_the_pixels() -> None:
    r = record()
    r["depth"] = np.broadcast_to(
        (np.arange(24, dtype=np.float32) + 0.5)[None], (24, 24)
    ).copy()  # each pixel says its x
    out = crop(r, (12, 12), (0.5, 0.5), rng.generator(1, 0, 0, "augment"))
    shift = out["depth"][0] - (np.arange(12) + 0.5)  # factor 1: a plain cut
    left = r["intrinsics"][0, 2] - out["intrinsics"][0, 2]
    assert np.allclose(shift, shift[0]) and abs(shift[0] - left) <= 0.5
    inside = out["keypoints"][:, 2] > 0
    np.testing.assert_allclose(out["keypoints"][inside, 0], r["keypoints"][inside, 0] - left, atol=1e-4)


def test_augment_is_a_function_of_its_key() -> None:
    options = Augment(crop=(0.5, 1.0), colour=1, grayscale=0.5, blur=1, noise=1, jpeg=1)
    a, b, c = (augment(record(), (16, 20), options, rng.generator(0, step, 3, "augment")) for step in (5, 5, 6))
    assert np.array_equal(a["image"], b["image"]) and not np.array_equal(a["image"], c["image"])
    sample = to_sample(a)
    assert sample.image.shape == (3, 16, 20) and sample.depth is not None and sample.depth.shape == (16, 20)


def test_scene_cache_is_complete_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shard that was not finished is made again; finished ones are left alone; values are those of the world."""
    from genpercept.data import synthetic

    monkeypatch.setattr(shard_cache, "SHARD", 2)
    data = DataSet(count=2, size=(32, 32))
    shards = shard_cache.scenes(tmp_path, data, 1, report=lambda _: None)
    folder = shard_cache.shard_folder(tmp_path / shards.key, 0)
    (tmp_path / shards.key / ".shard-00000.1.part").mkdir()
    stamp = (folder / "image.npy").stat().st_mtime_ns
    again = shard_cache.scenes(tmp_path, data, 1, report=lambda _: None)
    assert (folder / "image.npy").stat().st_mtime_ns == stamp
    scene, cached = synthetic.render([1], size=(32, 32)), again[1]
    assert np.array_equal(scene.image[0], cached["image"]) and cached["caption"] == scene.caption[0]
    near = scene.valid[0]
    np.testing.assert_allclose(cached["depth"][near], scene.depth[0][near], rtol=1e-3)
    assert np.abs(cached["normals"] - scene.normals[0])[near].max() < 0.02


def test_two_runs_share_the_rendering(tmp_path: Path) -> None:
    """What another run has made meanwhile is not made again, and both do not begin at the same end."""
    shard_cache.shard_folder(tmp_path, 3).mkdir()
    folders = [shard_cache.shard_folder(tmp_path, number) for number in range(40)]
    orders = [shard_cache.missing_shards(folders) for _ in range(2)]
    assert orders[0] != orders[1] and all(sorted(o) == [n for n in range(40) if n != 3] for o in orders)
    assert shard_cache.render_shard(tmp_path, 3, {}) == 3 and not list(shard_cache.shard_folder(tmp_path, 3).iterdir())


@pytest.mark.parametrize("number", [pytest.param(signal.SIGKILL, marks=pytest.mark.slow), signal.SIGINT])
def test_rendering_ends_with_its_run(tmp_path: Path, number: signal.Signals) -> None:
    """Neither a kill nor Ctrl-C leaves processes that render on, nor waits for what is queued."""
    script = "from pathlib import Path; from genpercept.training.recipe import DataSet; "
    script += "from genpercept.training.samples import shard_cache; "
    script += f"shard_cache.scenes(Path({str(tmp_path)!r}), DataSet(count=10**6, size=(64, 64)), 2)"
    run = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 90
        while not list(tmp_path.glob("*/shard-*")) and time.monotonic() < deadline:
            time.sleep(0.1)
        workers = psutil.Process(run.pid).children(recursive=True)
        assert len(workers) >= 2
        run.send_signal(number)
        run.wait(20)
        assert not psutil.wait_procs(workers, timeout=20)[1]
    finally:
        run.kill()


def test_learning_rate() -> None:
    options = Optim(warmup=10, decay="cosine", final=0.1)
    assert rate(options, 0, 0.0) == pytest.approx(0.1) and rate(options, 10, 0.0) == 1
    assert rate(options, 100, 1.0) == pytest.approx(0.1) and rate(options, 100, 2.0) == pytest.approx(0.1)
