"""The fine-tuning stage: every paradigm, part and prompt takes one step; what learns changes, what does not stays; it saves."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel

import genpercept
from genpercept.core.rng import Rng
from genpercept.models import adapters
from genpercept.models.paradigms import PARADIGMS
from genpercept.tasks import TASKS
from genpercept.training.recipe_samples import HeldOut, Loader
from genpercept.training.run.held_out import OpenSet
from tests.support.depthmaster import checkpoint
from tests.support.finetuning import SIZE, open_stage, step
from tests.support.paths import SD_TINY
from tests.support.planes import planes


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planes(tmp_path_factory.mktemp("data"), 6, SIZE, normals=True, intrinsics=(30, 30, 20, 16))


DECODER = ("vae.decoder", "vae.post_quant", "vae.decoding")


def parts_of(names: set[str]) -> set[str]:
    """denoiser, lora, controlnet, decoder, encoder, head."""
    found = set()
    for name in names:
        found |= {kind for kind in ("lora", "controlnet") if kind in name} or {
            {"unet": "denoiser", "head": "head"}.get(
                name.split(".")[0], "decoder" if name.startswith(DECODER) else "encoder"
            )
        }
    return found


LATENT = {"loss": {"latent": 1.0}}
TWICE = {"model": {"upsample": 2}, "augment": {"sizes": [[64, 80]]}}
DPT = {"head": "dpt", "head_config": {"fusion_hidden_size": 16}}
CASES: list[tuple[str, dict[str, Any], set[str]]] = [
    ("one step", LATENT, {"denoiser"}),
    ("one step, random timestep, pixel losses", {"paradigm_options": {"random_timestep": True}}, {"denoiser"}),
    ("rgb blending", {"paradigm": "deterministic_multi_step", **LATENT}, {"denoiser"}),
    ("rgb blending, pixel losses", {"paradigm": "deterministic_multi_step", "loss": {"mse": 1.0}}, {"denoiser"}),
    ("gaussian", {"paradigm": "stochastic_multi_step", **LATENT}, {"denoiser"}),
    (
        "gaussian, pixel losses",
        {"paradigm": "stochastic_multi_step", "loss": {"latent": 1.0, "mse": 1.0}},
        {"denoiser"},
    ),
    ("flow matching", {"paradigm": "flow_matching", **LATENT}, {"denoiser"}),
    (
        "flow matching of log-depth, pixel losses",
        {"paradigm": "flow_matching", "task_options": {"log": True}, "loss": {"latent": 1.0, "mse": 1.0}},
        {"denoiser"},
    ),
    (
        "gaussian, scratch",
        {"paradigm": "stochastic_multi_step", **LATENT, "learn": {"denoiser": "scratch"}},
        {"denoiser"},
    ),
    ("scratch", {**LATENT, "learn": {"denoiser": "scratch"}}, {"denoiser"}),
    ("lora", {**LATENT, "learn": {"denoiser": "lora"}, "lora": {"rank": 4}}, {"lora"}),
    ("controlnet", {**LATENT, "learn": {"denoiser": "controlnet"}}, {"controlnet"}),
    ("decoder too", {"learn": {"decoder": "finetune"}}, {"denoiser", "decoder"}),
    ("decoder alone", {"learn": {"denoiser": "frozen", "decoder": "scratch"}}, {"decoder"}),
    ("twice the size", {**TWICE, "learn": {"decoder": "finetune"}}, {"denoiser", "decoder"}),
    ("twice, some maps", {**TWICE, "learn": {"decoder": "finetune"}, "pixel_share": 0.5}, {"denoiser", "decoder"}),
    ("twice, decoder alone", {**TWICE, "learn": {"denoiser": "frozen", "decoder": "scratch"}}, {"decoder"}),
    ("dpt", {"model": DPT, "loss": {"mse": 1.0, "ssi": 0.5}}, {"denoiser", "head"}),
    ("dpt, frozen", {"model": DPT, "loss": {"vnl": 1.0, "hdn": 1.0}, "learn": {"denoiser": "frozen"}}, {"head"}),
    ("dpt, lora", {"model": DPT, "loss": {"l1": 1.0}, "learn": {"denoiser": "lora"}}, {"lora", "head"}),
    ("dpt, direct", {"model": DPT, "loss": {"l1": 1.0}, "paradigm": "direct"}, {"denoiser", "head"}),
    ("dpt, normals", {"model": DPT, "task": "normals"}, {"denoiser", "head"}),
    ("normals", {"task": "normals", "pixel_share": 0.5}, {"denoiser"}),
    ("disparity", {"task": "disparity"}, {"denoiser"}),
    ("fixed prompt", {**LATENT, "prompt": {"kind": "fixed", "text": "a depth map"}}, {"denoiser"}),
]


@pytest.mark.parametrize(("table", "learns"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_a_step_changes_what_learns_and_the_model_is_saved(
    data: Path, tmp_path: Path, table: dict[str, Any], learns: set[str]
) -> None:
    stage = open_stage(data, **{"steps": 1 if "one" in str(table.get("paradigm", "one")) else 0, **table})
    _, changed = step(stage)
    assert parts_of(changed) == learns
    assert {n for n, p in stage.net.named_parameters() if not p.requires_grad}.isdisjoint(changed)
    stage.net.eval()
    stage.save(tmp_path / "model")
    pipe = genpercept.load(tmp_path / "model", device="cpu")
    size = stage.recipe.sizes()[0]
    image = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
    seen = pipe(image, processing_resolution=0)
    assert seen.values.shape[:2] == size and np.isfinite(seen.values).all()
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        z_x, fixed = stage.parts.codec.encode(pixels), stage.parts.prompts.fixed
        raw = stage.net.predict(z_x, fixed, 0, Rng(0, 0, [0]), pixels)
    # what was trained is what was saved
    np.testing.assert_allclose(raw[0].numpy(), cast(Any, seen.raw), atol=2e-4, rtol=1e-4)


def test_validation_scores_what_the_model_predicts(data: Path) -> None:
    figures, picture = open_stage(data, paradigm="deterministic_multi_step", steps=2, **LATENT).validate(2)
    assert {"loss", "abs_rel", "delta1"} <= figures.keys() and picture is not None and picture.shape[2] == 3


def test_lora_is_saved_as_an_adapter_too(data: Path, tmp_path: Path) -> None:
    """The adapter on the base's denoiser is the merged predictor."""
    stage = open_stage(data, **LATENT, learn={"denoiser": "lora"}, lora={"rank": 2, "alpha": 4})
    step(stage)
    stage.save(tmp_path / "model")
    merged: Any = genpercept.load(tmp_path / "model", device="cpu").unet
    base: Any = genpercept.GenPerceptPipeline.from_base(SD_TINY, "depth").unet
    adapters.load_lora(base, tmp_path / "model" / "lora")
    x, t, context = torch.randn(1, 4, 8, 8), torch.tensor([1]), torch.randn(1, 2, 32)
    with torch.no_grad():
        torch.testing.assert_close(base(x, t, context).sample, merged(x, t, context).sample, atol=1e-5, rtol=1e-4)


def test_controlnet_is_saved_for_diffusers_too(data: Path, tmp_path: Path) -> None:
    stage = open_stage(data, **LATENT, learn={"denoiser": "controlnet"})
    step(stage)
    stage.save(tmp_path / "model")
    saved = cast(Any, ControlNetModel.from_pretrained(tmp_path / "model" / "controlnet")).state_dict()
    here = cast(Any, stage.parts.denoiser).controlnet.state_dict()
    assert saved.keys() == here.keys() and all(torch.equal(saved[k], here[k]) for k in here)


def test_each_part_has_its_rate(data: Path) -> None:
    rates = {"lr": 1e-3, "lr_decoder": 2e-3, "lr_head": 3e-3}
    stage = open_stage(data, learn={"decoder": "finetune"}, optim=rates)
    assert [g["lr"] for g in stage.groups()] == [1e-3, 2e-3]
    stage = open_stage(data, model=DPT, loss={"mse": 1.0}, optim=rates)
    assert [g["lr"] for g in stage.groups()] == [1e-3, 3e-3]
    learning = {id(p) for p in stage.net.parameters() if p.requires_grad}
    assert {id(p) for g in stage.groups() for p in g["params"]} == learning


def test_training_goes_on_from_a_trained_head(data: Path, tmp_path: Path) -> None:
    stage = open_stage(data, model=DPT, loss={"mse": 1.0})
    step(stage)
    stage.save(tmp_path / "model")
    again = open_stage(data, model=DPT | {"base": str(tmp_path / "model")}, loss={"mse": 1.0})
    for name, value in cast(Any, stage.parts.head_module).state_dict().items():
        assert torch.equal(value, cast(Any, again.parts.head_module).state_dict()[name])


def test_a_public_checkpoint_with_a_block_of_its_own_is_trained_further(data: Path, tmp_path: Path) -> None:
    """DepthMaster's: the block learns with the rest, on roots of disparity, and is saved; nothing drops it."""
    public = genpercept.load(checkpoint(tmp_path / "public"), device="cpu")
    public.save_pretrained(tmp_path / "dm")
    settings = {"task": "disparity", "task_options": {"root": True}}
    settings |= {"paradigm_options": {"timestep": 1, "prediction_type": "sample"}}
    stage = open_stage(data, model={"base": str(tmp_path / "dm")}, **settings)
    _, changed = step(stage)
    block = {name for name in stage.net.state_dict() if "fftblock." in name}
    assert len(block) == 16 and block <= changed and parts_of(changed) == {"denoiser"}
    figures, _ = stage.validate(2)
    assert np.isfinite(figures["abs_rel"])
    stage.net.eval()
    stage.save(tmp_path / "model")
    pipe = genpercept.load(tmp_path / "model", device="cpu")
    assert pipe.info["backbone"] == "sd21_fourier" and pipe.task_plugin.kind == "root_disparity_affine"
    trained = stage.net.state_dict()
    assert all(torch.equal(t, trained[f"unet.{name}"]) for name, t in pipe.unet.state_dict().items())


def test_random_prompts(data: Path) -> None:
    """Each sample draws its own, keyed by the step; the empty prompt, as long as they, predicts."""
    stage = open_stage(data, **LATENT, prompt={"kind": "random", "texts": ["a wall", "a tree", "two cups"]})
    pool = stage.parts.prompts.pool
    assert len(pool) == 3 and pool.shape[1] == stage.parts.prompts.fixed.shape[1] > 2
    drawn = [stage.training_pair(stage.encode(stage.make_batch(s, range(2)))).inputs[2] for s in (0, 0, *range(1, 8))]
    assert torch.equal(drawn[0], drawn[1]) and len({float(d.sum()) for d in drawn}) > 2
    assert all(any(torch.equal(row, p) for p in pool) for d in drawn for row in d)
    made_up = open_stage(data, **LATENT, prompt={"kind": "random"}).parts.prompts.pool
    assert len(made_up) == 64 and len({float(p.sum()) for p in made_up}) > 32


def test_padded_prompt(data: Path) -> None:
    empty, padded = (open_stage(data, **LATENT, prompt={"padded": flag}).parts.prompts.fixed for flag in (False, True))
    assert empty.shape[1] == 2 and padded.shape[1] > 2


def test_checkpointing_changes_no_gradient(data: Path) -> None:
    found = []
    for flag in (False, True):
        stage = open_stage(data, loss={"latent": 1.0, "mse": 1.0}, speed={"checkpointing": flag})
        step(stage)
        found.append({n: p.grad for n, p in stage.net.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(a, b) for a, b in zip(found[0].values(), found[1].values(), strict=True))


def test_a_share_behind_the_head_keeps_the_losses_weight(data: Path) -> None:
    """Losses on half of the batch, doubled, have the mean of the samples that were looked at; context is cut alike."""
    stage = open_stage(data, model=DPT, loss={"vnl": 1.0}, pixel_share=0.5)
    with torch.no_grad():
        batch = stage.encode(stage.make_batch(0, range(2)))
        stage.net.train()
        pair = stage.training_pair(batch)
        a, _ = stage.loss(stage.net(*pair.inputs), pair)
        stage.net.eval()
        pair = stage.training_pair(batch)
        b, _ = stage.loss(stage.net(*pair.inputs), pair)
    assert float(a[0]) == 0 and float(a[1]) == pytest.approx(2 * float(b[1]), rel=1e-4)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"learn": {"denoiser": "frozen"}, **LATENT}, "nothing learns"),
        ({"learn": {"decoder": "finetune"}, **LATENT}, "only a loss behind the decoder"),
        ({"learn": {"decoder": "finetune"}, "model": DPT, "loss": {"mse": 1.0}}, "the decoder never runs"),
        ({"model": DPT, **LATENT}, "no latent to compare"),
        ({"model": DPT, "loss": {"mse": 1.0}, "learn": {"head": "frozen"}}, "has no trained head"),
        ({"model": {"head_config": {"activation": "elu"}}}, "takes no configuration"),
        ({"learn": {"denoiser": "lora"}, "paradigm": "stochastic_multi_step", **LATENT}, "widened first convolution"),
        ({"learn": {"denoiser": "lora"}, "lora": {"targets": ["to_x"]}, **LATENT}, "lora.targets"),
        ({"paradigm_options": {"timestp": 3}}, "did you mean 'timestep'"),
        ({"loss": {"mse": 1.0}, "loss_options": {"mse": {"scale": 3}}}, "'scale'"),
    ],
)
def test_what_cannot_be_trained_is_refused(data: Path, table: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError) as error:
        open_stage(data, **table)
    assert says in str(error.value)


def test_a_loss_that_needs_intrinsics_names_the_sample_without(data: Path, tmp_path: Path) -> None:
    for kind in ("images", "depth"):
        (tmp_path / kind).symlink_to(data / kind)
    stage = open_stage(tmp_path, loss={"vnl": 1.0})
    with pytest.raises(ValueError, match=r"sample '\d' has no intrinsics"):
        stage.make_batch(0, range(2))


CLASSES = {"classes": "synthetic"}
TAUGHT = [
    ("disparity", {}),
    ("segmentation", {"task_options": {"classes": "synthetic"}}),
    (
        "segmentation",
        {"task_options": {"classes": "synthetic"}, "model": {"head": "upernet", "head_config": {"hidden_size": 8}}},
    ),
    ("dis", {}),
    ("dis", {"model": {"head": "dpt", "head_config": {"fusion_hidden_size": 8}}}),
    ("matting", {"loss": {"latent": 1.0}}),
    ("matting", {"paradigm": "stochastic_multi_step", "loss": {"latent": 1.0}, "steps": 2}),
    ("pose", {"task_options": {"height": 32, "width": 24}, "augment": {"sizes": [[32, 24]], "crop": [1, 1]}}),
    ("anomaly", {}),
]


@pytest.mark.parametrize(("task", "table"), TAUGHT)
def test_every_task_is_trained_here(task: str, table: dict[str, Any], tmp_path: Path) -> None:
    """On scenes of the synthetic world: a step, a validation with the task's metric, further scenes of another size scored as
    `evaluate` would, a saved model that predicts."""
    table = dict(table)
    if task == "pose":
        table["model"] = {"head_config": {"hidden_size": 8}}
    if table.get("model", {}).get("head") == "upernet" or task == "pose":
        table["paradigm"] = "direct"
    scenes = {"name": "synthetic", "count": 4, "size": (48, 64), "domain": "closeup"}
    stage = open_stage(
        tmp_path,
        task=task,
        data=[scenes],
        loader={"batch_size": 2, "cache": False},
        **{"augment": {"sizes": [SIZE]}} | table,
    )
    _, changed = step(stage)
    assert "denoiser" in parts_of(changed)
    figures, picture = stage.validate(2)
    assert np.isfinite(figures["loss"]) and len(figures) > 1 and picture is not None
    further = HeldOut(count=2, size=(40, 56), domain="closeup")
    scored = OpenSet(further, stage.task, Loader(cache=False), lambda line: None).score(stage.pipeline(), 0, 2)
    assert scored.keys() == figures.keys() - {"loss"}
    stage.save(tmp_path / "model")
    pipe = genpercept.load(tmp_path / "model")
    prediction = pipe(np.zeros((20, 30, 3), np.uint8))
    assert pipe.task == task and prediction.kind == TASKS.find(task).kind
    assert pipe.task_plugin.options == stage.task.options


@pytest.mark.parametrize("name", PARADIGMS.names())
def test_every_paradigm_is_trained_here(name: str) -> None:
    assert any(case[1].get("paradigm", "one_step") == name for case in CASES)


def test_frozen_encoder_in_pure_bf16(data: Path) -> None:
    """A copy of the encoder alone: latents as near as bf16 is, the codec's own weights as they were, saved as they were."""
    settings: dict[str, Any] = {"precision": "bf16", "loss": {"mse": 1.0}}
    plain = open_stage(data, **settings, speed={"encoder": "mixed"})
    pure = open_stage(data, **settings, speed={"encoder": "bf16"})
    here = torch.device("cpu")
    assert not plain._encoder.pure(here) and pure._encoder.pure(here)
    assert not open_stage(data, **settings)._encoder.pure(here)  # auto: GPUs only
    assert not open_stage(data, loss={"mse": 1.0}, speed={"encoder": "bf16"}, precision="fp32")._encoder.pure(here)
    images = torch.rand(2, 3, *SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        exact = plain.parts.codec.encode(images)
        with torch.autocast("cpu", torch.bfloat16):
            mixed, found = plain._encoder(images), pure._encoder(images)
    assert found.dtype == torch.float32 and not torch.equal(found, mixed)
    errors = [float((z - exact).abs().mean() / exact.abs().mean()) for z in (mixed, found)]
    assert errors[1] < 2 * errors[0] + 0.01
    vae = cast(torch.nn.Module, pure.parts.vae)
    assert all(p.dtype == torch.float32 for p in vae.parameters())
    halved = cast(Any, pure._encoder._halved).module
    assert halved.decoder is vae.get_submodule("decoder")  # not copied
