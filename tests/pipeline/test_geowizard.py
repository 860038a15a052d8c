"""GeoWizard v1 and v2 against answers of the public code on tiny checkpoints (tests/golden/geowizard/README.md)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

import genpercept
from genpercept import GenPerceptPipeline
from genpercept.checkpoints import hub, parts
from genpercept.core.rng import Rng
from genpercept.imaging.prediction import Prediction
from genpercept.models import image_prompt
from genpercept.models.backbones import BACKBONES, sd21_joint
from genpercept.models.backbones.sd21 import SD21_CONFIG
from genpercept.models.image_encoder import PLUGIN as ENCODER
from genpercept.models.image_encoder import VIT_L_CONFIG
from genpercept.pipeline import loading
from genpercept.pipeline.families.geowizard import UNETS, labels
from tests.support.commands import Call
from tests.support.paths import GOLDEN

ROOT = GOLDEN / "geowizard"
WEIGHTS = "diffusion_pytorch_model.safetensors"
LEFT = [-1, 1, 1]  # the public code's axes: x left
DEPTH, NORMALS = 1e-4, 1e-3  # tolerances
VERSIONS = ("v1", "v2")


@pytest.fixture(scope="module")
def answers() -> dict[str, np.ndarray]:
    with np.load(ROOT / "answers.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stable Diffusion 2's parts that v2 takes; no U-Net."""
    folder = tmp_path_factory.mktemp("base")
    for part in ("vae", "text_encoder", "tokenizer", "scheduler"):
        shutil.copytree(ROOT / part, folder / part)
    return folder


@pytest.fixture(scope="module")
def load(base: Path) -> Callable[..., GenPerceptPipeline]:
    """A version's pipeline, each loaded once."""
    known: dict[tuple[str, str, str], GenPerceptPipeline] = {}

    def get(version: str, domain: str = "indoor", task: str = "depth") -> GenPerceptPipeline:
        key = (version, domain, task)
        if key not in known:
            where = ROOT if version == "v1" else ROOT / "unet_v2"
            given = None if version == "v1" else base
            family = f"geowizard,domain={domain}"
            known[key] = genpercept.load(where, base=given, family=family, task=task, device="cpu")
        return known[key]

    return get


def tensor(answers: dict[str, np.ndarray], key: str) -> Tensor:
    return torch.from_numpy(answers[key])


def differences(found: dict[str, Prediction], answers: dict[str, np.ndarray], key: str) -> tuple[float, float]:
    """Largest of depth, and of normals."""
    depth = np.abs(found["depth"].values - answers[f"depth_{key}"]).max()
    return float(depth), float(np.abs(found["normals"].values * LEFT - answers[f"normal_{key}"]).max())


def assert_right(found: dict[str, Prediction], answers: dict[str, np.ndarray], key: str) -> None:
    depth, normals = differences(found, answers, key)
    assert depth < DEPTH and normals < NORMALS, (key, depth, normals)


def run(
    pipe: GenPerceptPipeline, answers: dict[str, np.ndarray], x: str = "a", noise: str = "a", **options: Any
) -> Any:
    start = tensor(answers, f"noise_{noise}")
    options = {"processing_resolution": 0, "num_inference_steps": 2} | options
    return pipe.joint(answers[f"image_{x}"], latents=start, **options)


# ---- the network -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("version", "folder"), [("v1", "unet"), ("v2", "unet_v2")])
def test_rows_see_each_other(version: str, folder: str, answers: dict[str, np.ndarray]) -> None:
    """A stock U-Net takes the same weights, and gives what the public code gives where its switch is off."""
    joined: Any = parts.load_part(BACKBONES.find("sd21_joint"), ROOT / folder)
    stock: Any = parts.load_part(BACKBONES.find("sd21"), ROOT / folder)
    x, t, context, which, out, apart = (
        tensor(answers, f"unet_{version}_{key}") for key in ("x", "t", "context", "class", "out", "out_no_joint")
    )
    with torch.inference_mode():
        found = joined(x, t, context, class_labels=which).sample
        plain = stock(x, t, context, class_labels=which).sample
    torch.testing.assert_close(found, out, rtol=0, atol=1e-5)
    torch.testing.assert_close(plain, apart, rtol=0, atol=1e-5)
    assert float((out - apart).abs().max()) > 0.3


@pytest.mark.parametrize("how", ["set_default_attn_processor", "sliced", "copied", "bfloat16"])
def test_whatever_computes_attention_rows_stay_joined(how: str, answers: dict[str, np.ndarray]) -> None:
    """Processors are replaced by attention slicing, by offloading, by peft: what is joined is the layer."""
    unet: Any = parts.load_part(BACKBONES.find("sd21_joint"), ROOT / "unet")
    if how == "sliced":
        unet.set_attention_slice(1)
    elif how == "copied":
        import copy

        unet = copy.deepcopy(unet)
    elif how == "bfloat16":
        unet = unet.to(torch.bfloat16)
    else:
        unet.set_default_attn_processor()
    x, t, context, which, out, apart = (
        tensor(answers, f"unet_v1_{key}").to(unet.dtype)
        for key in ("x", "t", "context", "class", "out", "out_no_joint")
    )
    with torch.inference_mode():
        found = unet(x, t, context, class_labels=which).sample
    wrong, other = (float((found - each).abs().mean()) for each in (out, apart))
    assert wrong < (0.03 if how == "bfloat16" else 1e-6) and other > 0.05


def test_a_batch_pairs_its_rows(answers: dict[str, np.ndarray]) -> None:
    """Rows i and i + B belong together: a batch of two images gives what each gives alone."""
    unet: Any = parts.load_part(BACKBONES.find("sd21_joint"), ROOT / "unet")
    g = torch.Generator().manual_seed(0)
    x, context = torch.randn(3, 12, 6, 8, generator=g), torch.randn(3, 1, 24, generator=g)
    which = torch.tensor([labels("object")])
    t = torch.tensor([700, 700, 700])
    with torch.inference_mode():
        together = unet.forward_features(x, t, context, class_labels=which.expand(3, -1))
        alone = [
            unet.forward_features(x[i : i + 1], t[:1], context[i : i + 1], class_labels=which).latent for i in range(3)
        ]
    torch.testing.assert_close(together.latent, torch.cat(alone), rtol=0, atol=1e-5)
    channels = tuple(level.shape[1] for level in together.pyramid)
    assert channels == unet.pyramid_channels and unet.in_channels == 12
    with pytest.raises(ValueError, match="needs class_labels"):
        unet.forward_features(x, t, context)
    with pytest.raises(ValueError, match="needs 2 of each image"):
        unet(x[:1, :8], t[:1], context[:1], class_labels=torch.zeros(1, 10))


def test_full_size() -> None:
    """The public networks' own numbers of parameters, and how many layers are joined."""
    with torch.device("meta"):
        v1, v2 = (BACKBONES.find("sd21_joint").build(SD21_CONFIG | UNETS[version]) for version in VERSIONS)
        encoder = ENCODER.build(VIT_L_CONFIG)
    counts = [sum(p.numel() for p in module.parameters()) for module in (v1, v2, encoder)]
    assert counts == [861_186_244, 867_568_324, 303_966_208]
    assert [len(v.state_dict()) for v in (v1, v2)] == [690, 690]
    assert sum(isinstance(m, sd21_joint.JointAttention) for m in v1.modules()) == 16


def test_class_labels_and_context(load: Callable[..., GenPerceptPipeline], answers: dict[str, np.ndarray]) -> None:
    for version in VERSIONS:
        for domain in ("indoor", "outdoor", "object"):
            pipe = load(version, domain)
            found = torch.tensor(pipe.info["conditions"]["class_labels"]).reshape(2, -1)
            key = f"{version}_{domain}_steps2_a"
            torch.testing.assert_close(found, tensor(answers, f"class_{key}"), rtol=0, atol=1e-6)
            if version == "v2":
                wanted = tensor(answers, f"context_{key}")[:1]
                torch.testing.assert_close(pipe.prompt_embeds, wanted, rtol=0, atol=1e-5)
    encoder = load("v1").image_encoder
    assert encoder is not None
    image = torch.from_numpy(answers["image_a"]).permute(2, 0, 1)[None] / 255
    padded = torch.nn.functional.pad(image, (0, 8, 0, 16), value=0.5).repeat(2, 1, 1, 1)
    how = load("v1").info["image_encoder"]
    with torch.inference_mode():
        for found in (
            image_prompt.embed(encoder, image, [], **how),
            image_prompt.embed(encoder, padded, [(48, 64)] * 2, **how)[1:],  # the padding is not seen
        ):
            torch.testing.assert_close(found, tensor(answers, "image_embed_a"), rtol=0, atol=1e-5)


# ---- answers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("domain", ["indoor", "outdoor", "object"])
def test_domains(
    version: str, domain: str, load: Callable[..., GenPerceptPipeline], answers: dict[str, np.ndarray]
) -> None:
    found = run(load(version, domain), answers)
    assert_right(found, answers, f"{version}_{domain}_steps2_a")
    other = {"indoor": "outdoor", "outdoor": "object", "object": "indoor"}[domain]
    assert max(differences(found, answers, f"{version}_{other}_steps2_a")) > 0.1
    assert max(differences(found, answers, f"{version}_no_joint_indoor_steps2_a")) > 0.1


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("steps", [1, 4, 10])
def test_steps(
    version: str, steps: int, load: Callable[..., GenPerceptPipeline], answers: dict[str, np.ndarray]
) -> None:
    asked = {} if steps == 10 else {"num_inference_steps": steps}  # the default
    pipe = load(version)
    found = pipe.joint(answers["image_a"], latents=tensor(answers, "noise_a"), processing_resolution=0, **asked)
    assert_right(found, answers, f"{version}_indoor_steps{steps}_a")
    assert found["normals"].meta["steps"] == steps and found["normals"].meta["task"] == "normals"


@pytest.mark.parametrize("version", VERSIONS)
def test_ensembles(version: str, load: Callable[..., GenPerceptPipeline], answers: dict[str, np.ndarray]) -> None:
    """Depth: min-max of each run, the lower median; normals: one run as a whole. The members are the runs alone."""
    key = f"{version}_indoor_steps2_ens3_a"
    found = run(load(version), answers, noise="ens3_a", ensemble_size=3, batch_size=2)
    assert_right(found, answers, key)
    np.testing.assert_allclose(found["depth"].uncertainty, answers[f"uncertainty_{key}"], atol=DEPTH)
    members = answers[f"members_normal_{version}"].transpose(0, 2, 3, 1)
    wrong = [np.abs(found["normals"].values * LEFT - member).max() for member in members]
    assert sorted(wrong)[0] < NORMALS < sorted(wrong)[1]
    how = {"ensemble_size": 3, "tasks": ("normals",), "ensembling_kwargs": {"reduction": "mean"}}
    mixed = run(load(version), answers, noise="ens3_a", **how)
    assert np.abs(mixed["normals"].values * LEFT - answers[f"normal_{key}"]).max() > 0.05


@pytest.mark.parametrize("version", VERSIONS)
def test_official_sizes(version: str, load: Callable[..., GenPerceptPipeline], answers: dict[str, np.ndarray]) -> None:
    """Edges that are no multiples of 8 lose their rest; depth comes back bicubic, normals from the nearest place."""
    pipe = load(version, "object")
    official = {"x": "b", "resize_mode": "official"}
    assert_right(run(pipe, answers, noise="b", **official), answers, f"{version}_object_steps2_b")
    small = run(pipe, answers, noise="b_res64", processing_resolution=64, **official)
    assert_right(small, answers, f"{version}_object_steps2_b_res64")
    seen = pipe.geometry((70, 101), 64, "official")
    pixels = (seen.apply_pixels(torch.from_numpy(answers["image_b"]))[0] * 255).round().permute(1, 2, 0)
    np.testing.assert_array_equal(pixels.numpy(), answers["resized_b_res64"])


@pytest.mark.parametrize("version", VERSIONS)
def test_the_folders_own_schedule(version: str, base: Path, answers: dict[str, np.ndarray], tmp_path: Path) -> None:
    """Whether epsilon or v is predicted is read, not assumed."""
    root = tmp_path / "geowizard"
    shutil.copytree(ROOT, root)
    holder = root if version == "v1" else tmp_path / "base"
    if version == "v2":
        shutil.copytree(base, holder)
    path = holder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"prediction_type": "epsilon"}))
    where = root if version == "v1" else root / "unet_v2"
    pipe = genpercept.load(where, base=None if version == "v1" else holder, task="normals", device="cpu")
    found = run(pipe, answers, num_inference_steps=4)
    assert_right(found, answers, f"{version}_epsilon_indoor_steps4_a")


# ---- one run, two answers --------------------------------------------------------------------------------------------


def test_one_pass_gives_both(
    load: Callable[..., GenPerceptPipeline], answers: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit what each gives alone, for lists, batches and mirror images, too, at the price of one run."""
    pipe = load("v1")
    images = [answers["image_a"], answers["image_b"], answers["image_a"][:, ::-1].copy()]
    options: dict[str, Any] = {
        "processing_resolution": 64,
        "num_inference_steps": 2,
        "batch_size": 2,
        "flip_test": True,
    }
    options["generator"] = torch.Generator().manual_seed(7)
    alone = {task: pipe.answering(task)(images, **options) for task in pipe.tasks}
    calls: list[int] = []
    forward = sd21_joint.JointUNet.forward_features

    def counted(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        calls.append(len(x))
        return forward(self, x, *args, **kwargs)

    monkeypatch.setattr(sd21_joint.JointUNet, "forward_features", counted)
    both = pipe.joint(images, **options)
    assert sum(calls) == 3 * 2 * 2  # images, steps, mirrored or not
    for i, each in enumerate(both):
        assert list(each) == ["depth", "normals"]
        for task, prediction in each.items():
            assert np.array_equal(prediction.values, alone[task][i].values) and prediction.meta == alone[task][i].meta
    assert pipe.task == "depth" and pipe.answering("normals").task == "normals" and pipe.answering("depth") is pipe
    one = pipe.joint(images[0], ("normals",), **options)
    assert list(one) == ["normals"]
    np.testing.assert_allclose(one["normals"].values, both[0]["normals"].values, atol=1e-3)  # a batch of another size
    with pytest.raises(ValueError, match="answers depth, normals, not matting: choose one of these"):
        pipe.joint(images[0], ("matting",))


def test_a_batch_is_its_images(load: Callable[..., GenPerceptPipeline], answers: dict[str, np.ndarray]) -> None:
    """Each image is told of itself, and starts from its own noise, once for both rows."""
    pipe = load("v1", "outdoor")
    images = [
        answers["image_a"],
        answers["image_a"][::-1].copy(),
        answers["image_a"].transpose(0, 1, 2)[:, ::-1].copy(),
    ]
    options: dict[str, Any] = {"processing_resolution": 0, "num_inference_steps": 2, "ensemble_size": 2}
    together = pipe.joint(images, batch_size=4, **options)
    for image, found in zip(images, together, strict=True):
        alone = pipe.joint(image, **options)
        for task in pipe.tasks:
            np.testing.assert_allclose(found[task].values, alone[task].values, atol=1e-3, rtol=0)


def test_seeds(load: Callable[..., GenPerceptPipeline], answers: dict[str, np.ndarray]) -> None:
    pipe = load("v2")
    options: dict[str, Any] = {"processing_resolution": 0, "num_inference_steps": 1}
    first, again, other = (
        pipe(answers["image_a"], generator=torch.Generator().manual_seed(seed), **options).values for seed in (3, 3, 4)
    )
    assert np.array_equal(first, again) and np.abs(first - other).max() > 0.01
    noise = Rng(3, 0, [0]).normal((4, 6, 8))
    assert np.array_equal(pipe(answers["image_a"], latents=noise, **options).values, first)
    with pytest.raises(ValueError, match=r"latents \[1, 8, 6, 8\]: must be \[1, 4, 6, 8\]"):
        pipe(answers["image_a"], latents=noise.repeat(1, 2, 1, 1), **options)


def test_bfloat16(load: Callable[..., GenPerceptPipeline], answers: dict[str, np.ndarray]) -> None:
    pipe = genpercept.load(ROOT, task="depth", torch_dtype=torch.bfloat16, device="cpu")
    found = run(pipe, answers)["depth"].values
    assert np.abs(found - answers["depth_v1_indoor_steps2_a"]).mean() < 0.05


@pytest.mark.parametrize("version", VERSIONS)
def test_saved_and_loaded_again(
    version: str, load: Callable[..., GenPerceptPipeline], answers: dict[str, np.ndarray], tmp_path: Path
) -> None:
    """The same bits, whole, with either task, and with its domain; a stock loader still takes the U-Net."""
    pipe = load(version, "outdoor", "normals")
    pipe.save_pretrained(tmp_path / "m")
    again = genpercept.load(tmp_path / "m", device="cpu")
    assert (again.task, again.tasks) == ("normals", ("depth", "normals"))
    assert again.meta["decided"]["domain"].startswith("outdoor") and again.info["family_options"] == {
        "domain": "outdoor"
    }
    one, two = run(pipe, answers), run(again, answers)
    assert all(np.array_equal(one[task].values, two[task].values) for task in pipe.tasks)
    depth = genpercept.load(tmp_path / "m", task="depth", device="cpu")
    assert depth.task == "depth"
    called = depth(
        answers["image_a"], latents=tensor(answers, "noise_a"), processing_resolution=0, num_inference_steps=2
    )
    assert np.array_equal(called.values, one["depth"].values)
    with pytest.raises(ValueError, match="is a model for depth and normals, not matting"):
        genpercept.load(tmp_path / "m", task="matting", device="cpu")
    with pytest.raises(ValueError, match="was saved with domain 'outdoor'"):
        genpercept.load(tmp_path / "m", family="geowizard,domain=indoor", device="cpu")


def test_damaged_manifests(load: Callable[..., GenPerceptPipeline], tmp_path: Path) -> None:
    load("v1").save_pretrained(tmp_path / "m")
    path = tmp_path / "m" / "genpercept.json"
    whole = json.loads(path.read_text())
    for change, message in (
        ({"joint": {"normals": {}}}, "task is 'depth': must be one of joint: normals"),
        ({"joint": {"depth": {"colour": 1}}}, "joint.depth.colour is 1"),
        ({"joint": {"depth": {"axes": [1]}}}, "axes is"),
        ({"joint": {"depth": {"task_options": {"stretch": 3}}}}, "joint.depth.task_options"),
        ({"joint": {"depth": {"official_size": {"back": "sideways"}}}}, "official_size"),
        ({"image_encoder": {"size": [0, 42], "mean": [0, 0, 0], "std": [1, 1, 1]}}, "size is"),
        ({"image_encoder": {"size": [42, 42], "mean": [0, 0, 0], "std": [1, 0, 1]}}, "std is"),
    ):
        path.write_text(json.dumps(whole | change))
        with pytest.raises(ValueError, match=message) as caught:
            genpercept.load(tmp_path / "m", device="cpu")
        assert "\n" not in str(caught.value)


# ---- recognition -----------------------------------------------------------------------------------------------------


def test_recognition(base: Path, tmp_path: Path) -> None:
    """v1 by its class labels; v2 has Lotus-G's shapes, so that but for its released name one has to say which."""
    (v1,) = loading.candidates(ROOT)
    assert (v1.family, v1.tasks, v1.sure) == ("geowizard", ("depth", "normals"), True)
    named = {c.family: c.sure for c in loading.candidates(ROOT / "unet_v2")}
    assert named == {"geowizard": True, "lotus": False}
    shutil.copytree(ROOT / "unet_v2", tmp_path / "some" / "unet")
    assert not any(c.sure for c in loading.candidates(tmp_path / "some"))
    with pytest.raises(ValueError, match=r"could be of family geowizard .* or lotus .*: pass family="):
        genpercept.load(tmp_path / "some", base=base, task="depth", device="cpu")
    pipe = genpercept.load(tmp_path / "some", base=base, task="depth", family="geowizard", device="cpu")
    assert pipe.meta["variant"] == "v2"
    (tmp_path / "some" / "model_index.json").write_text('{"_class_name": "LotusGPipeline"}')
    assert {c.family for c in loading.candidates(tmp_path / "some") if c.sure} == {"lotus"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"family 'geowizard' does not say what it predicts: pass task= \(depth, normals\)"),
        ({"task": "disparity"}, "has no disparity of this kind"),
        ({"task": "depth", "family": "geowizard,domain=space"}, "domain='space': .*indoor, outdoor, object"),
        ({"task": "depth", "family": "geowizard,domian=indoor"}, "domian"),
        ({"task": "depth", "specialised": True}, "backbone 'sd21_joint' cannot be specialised"),
    ],
)
def test_what_is_asked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        genpercept.load(ROOT, device="cpu", **options)
    assert "\n" not in str(caught.value)


def _drop(path: Path, *names: str) -> None:
    tensors = load_file(path)
    save_file({k: v for k, v in tensors.items() if not k.startswith(names)}, path)


def _nan(path: Path) -> None:
    tensors = load_file(path)
    tensors["class_embedding.linear_1.weight"][0, 0] = float("nan")
    save_file(tensors, path)


def _stock(root: Path) -> None:
    """Stable Diffusion's own U-Net in GeoWizard's place."""
    shutil.rmtree(root / "unet")
    shutil.copytree(GOLDEN / "sd-tiny" / "unet", root / "unet")


def _marigold(root: Path) -> None:
    shutil.rmtree(root / "unet")
    shutil.copytree(GOLDEN / "marigold-unet8", root / "unet")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_stock, "no checkpoint of family 'geowizard': a U-Net with 4 input channels"),
        (_marigold, "no checkpoint of family 'geowizard': a U-Net with 8 input channels"),
        (lambda r: _drop(r / "unet" / WEIGHTS, "class_embedding"), "no checkpoint of family 'geowizard'"),
        (
            lambda r: _drop(r / "unet" / WEIGHTS, "mid_block.attentions.0.transformer_blocks.0.attn1"),
            "missing mid_block",
        ),
        (lambda r: _nan(r / "unet" / WEIGHTS), "NaN or infinite values in class_embedding"),
        (lambda r: shutil.rmtree(r / "image_encoder"), "has no image_encoder/ beside unet/"),
        (lambda r: shutil.rmtree(r / "feature_extractor"), "has no feature_extractor/ beside unet/"),
        (lambda r: _drop(r / "image_encoder" / "model.safetensors", "visual_projection"), "missing visual_projection"),
        (lambda r: (r / "feature_extractor" / image_prompt.PROCESSOR).write_text("{}"), "size is None"),
        (lambda r: shutil.rmtree(r / "vae"), "without vae, which come from its base|pass base="),
        (lambda r: shutil.rmtree(r / "scheduler"), "has no scheduler/scheduler_config.json"),
    ],
)
def test_damage_is_told_in_one_line(
    damage: Callable[[Path], object], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GENPERCEPT_BASE", raising=False)
    shutil.copytree(ROOT, tmp_path / "geowizard")
    damage(tmp_path / "geowizard")
    with pytest.raises(ValueError, match=message) as caught:
        genpercept.load(tmp_path / "geowizard", family="geowizard", task="depth", device="cpu")
    assert "\n" not in str(caught.value)


def test_a_text_encoder_of_another_width_is_refused(base: Path, tmp_path: Path) -> None:
    """v1's U-Net is not told words, and v2's are of one width."""
    shutil.copytree(ROOT / "unet_v2", tmp_path / "unet_v2")
    other = tmp_path / "base"
    shutil.copytree(base, other, ignore=shutil.ignore_patterns("text_encoder"))
    sizes: dict[str, Any] = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    CLIPTextModel(CLIPTextConfig(**sizes, vocab_size=514)).save_pretrained(other / "text_encoder")
    with pytest.raises(ValueError, match="cross-attention reads text of width 32"):
        genpercept.load(tmp_path / "unet_v2", base=other, task="depth", device="cpu")


def test_what_is_downloaded() -> None:
    """v1's image encoder, which other pipelines' folders of that name are not; v2's U-Net only where it is pointed at."""
    parts_of = ("unet", "unet_v2", "vae", "image_encoder")
    names = [f"{part}/{name}" for part in parts_of for name in ("config.json", WEIGHTS)]
    names = [n.replace(f"image_encoder/{WEIGHTS}", "image_encoder/model.safetensors") for n in names]
    names += ["scheduler/scheduler_config.json", f"feature_extractor/{image_prompt.PROCESSOR}"]
    chosen = hub.select(names)
    assert set(chosen) == {n for n in names if not n.startswith("unet_v2/")}
    assert set(hub.select(names, "unet_v2")) == {n for n in names if n.startswith("unet_v2/")}
    other = hub.select([*names, "text_encoder/config.json", "text_encoder/model.safetensors"])
    assert not any(n.startswith("image_encoder/") for n in other)


# ---- the command line ------------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path, answers: dict[str, np.ndarray]) -> Path:
    for key in ("a", "b"):
        Image.fromarray(answers[f"image_{key}"]).save(tmp_path / f"{key}.png")
    for key in ("a", "ens3_a", "b_res64"):
        np.save(tmp_path / f"{key}.npy", answers[f"noise_{key}"])
    return tmp_path


def stored(folder: Path, name: str) -> dict[str, Prediction]:
    return {task: Prediction.load(folder / f"{name}_{task}.npz") for task in ("depth", "normals")}


def test_both_tasks_on_the_command_line(call: Call, files: Path, answers: dict[str, np.ndarray]) -> None:
    """Each with its files and its sidecar; --resume knows both, and does the image again when one of them is gone."""
    words = ("predict", files / "a.png", "-o", files / "out", "-m", ROOT, "-t", "depth,normals", "--steps", "2")
    words += ("--noise", files / "a.npy", "--processing-resolution", "0", "--format", "png,npz", "--device", "cpu")
    code, _, err = call(*words)
    assert code == 0, err
    assert_right(stored(files / "out", "a"), answers, "v1_indoor_steps2_a")
    assert {p.name for p in (files / "out").iterdir()} == {
        f"a_{task}.{end}" for task in ("depth", "normals") for end in ("png", "npz", "json")
    }
    kinds = [json.loads((files / "out" / f"a_{task}.json").read_text())["kind"] for task in ("depth", "normals")]
    assert kinds == ["depth_affine", "normals"]
    before = {p: p.stat().st_mtime_ns for p in (files / "out").iterdir()}
    assert "1 done before" in "".join(call(*words, "--resume")[1:])
    assert {p: p.stat().st_mtime_ns for p in (files / "out").iterdir()} == before
    (files / "out" / "a_normals.png").unlink()
    assert "1 done before" not in "".join(call(*words, "--resume")[1:])
    assert (files / "out" / "a_normals.png").is_file()


def test_the_command_line_gives_the_public_answers(
    call: Call, files: Path, base: Path, answers: dict[str, np.ndarray]
) -> None:
    """v2, its domain, its base, official sizes, and an ensemble."""
    common = ("-o", files / "out", "-m", ROOT / "unet_v2", "--base", base, "-t", "depth,normals", "--steps", "2")
    common += ("--format", "npz", "--device", "cpu")
    words = (
        "predict",
        files / "b.png",
        "--family",
        "geowizard,domain=object",
        "--noise",
        files / "b_res64.npy",
        *common,
    )
    code, _, err = call(*words, "--processing-resolution", "64", "--resize-mode", "official")
    assert code == 0, err
    assert_right(stored(files / "out", "b"), answers, "v2_object_steps2_b_res64")
    words = ("predict", files / "a.png", "--noise", files / "ens3_a.npy", "--ensemble-size", "3", *common)
    code, _, err = call(*words, "--processing-resolution", "0")
    assert code == 0, err
    assert_right(stored(files / "out", "a"), answers, "v2_indoor_steps2_ens3_a")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("-m", ROOT, "-t", "depth,matting"), "does depth and normals, not matting"),
        (("-t", "depth,normals"), "no embedded model answers several tasks at once"),
        (("-m", "mini/depth", "-t", "depth,normals"), "does depth, not normals"),
        (("-m", ROOT, "-t", "depth,nromals"), "unknown task 'nromals'"),
        (("-m", ROOT, "-t", "depth,normals", "--specialised"), "cannot be specialised"),
        (("-m", ROOT, "-t", "depth,normals", "--format", "ply"), "format ply"),
    ],
)
def test_what_the_command_line_refuses(call: Call, files: Path, words: tuple[Any, ...], message: str) -> None:
    code, _, err = call("predict", files / "a.png", "-o", files / "out", "--device", "cpu", *words)
    assert code == 2 and message in err and "Traceback" not in err, err


def test_one_file_is_one_task(call: Call, files: Path) -> None:
    _, _, err = call("predict", files / "a.png", "-o", files / "x.png", "-m", ROOT, "-t", "depth,normals")
    assert "one file for tasks depth and normals: name a folder" in err


def test_inspect(call: Call) -> None:
    code, told, _ = call("inspect", ROOT, "--task", "depth")
    assert code == 0
    assert "family      geowizard" in told and "GeoWizard v1" in told and "image_encoder" in told
    assert "needs" not in told and "problem" not in told


def test_export_says_why_not(call: Call, files: Path) -> None:
    for to in ("onnx", "diffusers"):
        code, _, err = call("export", ROOT, "--to", to, "--out", files / "x", "--task", "depth")
        assert code == 2 and "sd21_joint" in err and len(err.splitlines()) == 1, err


def test_an_image_encoder_goes_with_its_settings(load: Callable[..., GenPerceptPipeline]) -> None:
    """A pipeline put together again without it would read a prompt of no words."""
    pipe = load("v1")
    with pytest.raises(ValueError, match="go together: pass both"):
        GenPerceptPipeline(pipe.unet, pipe.vae, pipe.prompt_embeds, pipe.info, pipe.head)
    with pytest.raises(ValueError, match="cannot be specialised"):
        genpercept.specialise(pipe)
    same = pipe.with_codec(decoder=pipe.vae)
    assert same.image_encoder is pipe.image_encoder
