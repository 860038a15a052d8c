"""Heads: the contract of every plugin, and the DPT head equal to the released one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from genpercept import GenPerceptPipeline
from genpercept.checkpoints.parts import read_json
from genpercept.core.values import Features, Geometry
from genpercept.models.codecs import CODECS, Codec
from genpercept.models.heads import HEADS
from genpercept.models.heads.dpt import DPTHead, WrappedDPT
from genpercept.tasks import TASKS
from tests.support.paths import GOLDEN

DPT = HEADS.find("dpt")
TINY = {"neck_hidden_sizes": [4, 4, 8, 8], "fusion_hidden_size": 8}


@pytest.fixture(scope="module")
def codec(depth: GenPerceptPipeline) -> Codec:
    return CODECS.find("kl").wrap(depth.vae)


def released() -> WrappedDPT:
    folder = GOLDEN / "dpt_head_identity"
    module = DPT.build(read_json(folder / "config.json"))
    module.load_state_dict(load_file(folder / "model.safetensors"), strict=True)
    head = DPT.wrap(module.eval())
    assert isinstance(head, WrappedDPT)
    return head


def pyramid(h: int, w: int, channels: tuple[int, ...] = (8, 8, 4, 4)) -> Features:
    """As the U-Net gives it for a latent of h x w: halves rounded up, coarsest first."""
    g = torch.Generator().manual_seed(0)
    sizes = [(h, w), (h, w)]
    for _ in range(2):
        sizes.append((-(-sizes[-1][0] // 2), -(-sizes[-1][1] // 2)))
    return Features(
        None, tuple(torch.randn(2, c, *s, generator=g) for c, s in zip(channels, reversed(sizes), strict=True))
    )


def test_codecs_decoder_takes_several_images(codec: Codec) -> None:
    """Their latents beside each other: image after image, each as if it were alone."""
    head = HEADS.find("vae").wrap(None)
    z = torch.randn(2, 12, 4, 5, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        together = head(Features(z), codec)
        alone = [head(Features(z[:, i : i + 4]), codec) for i in (0, 4, 8)]
    assert together.shape == (2, 9, 32, 40) and torch.equal(together, torch.cat(alone, 1))
    with pytest.raises(ValueError, match="a latent of 6 channels, but the codec decodes 4"):
        head(Features(z[:, :6]), codec)


@pytest.mark.parametrize("name", HEADS.names())
def test_contract(name: str) -> None:
    plugin = HEADS.find(name)
    assert plugin.name == name and plugin.consumes in ("latent", "pyramid") and plugin.space in plugin.spaces
    if plugin.class_name is None:
        head = plugin.wrap(None)
        with pytest.raises(ValueError, match="no weights of its own"):
            plugin.build({})
    else:
        with torch.device("meta"):
            module = plugin.build({})
        assert type(module).__name__ == plugin.class_name
        head = plugin.wrap(module)
        with pytest.raises(ValueError, match=f"needs a {plugin.class_name}, not Linear"):
            plugin.wrap(nn.Linear(1, 1))
    assert (head.consumes, head.channels, head.space) == (plugin.consumes, plugin.channels, plugin.space)
    takers = [t for t in map(TASKS.find, TASKS.names()) if set(plugin.spaces) & set(t.spaces)]
    assert takers, "no task takes what it gives"


@pytest.mark.parametrize("name", ["upernet", "keypoints"])
def test_pyramid_heads_learn_in_their_space(codec: Codec, name: str) -> None:
    """Odd latents too: logits have the image's size, heatmaps a quarter of it; and both fit a target."""
    torch.manual_seed(0)
    plugin = HEADS.find(name)
    module = plugin.build({"neck_hidden_sizes": [4, 4, 8, 8], "out_channels": 3, "hidden_size": 16})
    head = plugin.wrap(module)
    size = {
        "upernet": (7 * codec.stride, 5 * codec.stride),
        "keypoints": (7 * codec.stride // 4, 5 * codec.stride // 4),
    }
    assert tuple(head(pyramid(7, 5), codec).shape) == (2, 3, *size[name])
    with pytest.raises(ValueError, match="neck_hidden_sizes"):
        head(pyramid(4, 4, channels=(8, 8, 4, 5)), codec)
    features, optimiser = pyramid(4, 4), torch.optim.Adam(module.parameters(), 1e-2)
    want = torch.randn(head(features, codec).shape[1:], generator=torch.Generator().manual_seed(1))
    want = torch.nn.functional.interpolate(want[None, :, ::8, ::8], want.shape[-2:], mode="bilinear").expand(
        2, -1, -1, -1
    )
    losses = []
    for _ in range(40):
        loss = (head(features, codec) - want).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.3 * losses[0]


def test_released_dpt_head_gives_the_official_disparity(depth: GenPerceptPipeline, codec: Codec) -> None:
    with np.load(GOLDEN / "one_step.npz") as file:
        image = torch.from_numpy(file["image_a"]).permute(2, 0, 1)[None].float() / 255
    with np.load(GOLDEN / "dpt.npz") as file:
        want = file["one_step_dpt_disparity_a"]
    with torch.inference_mode():
        z = codec.encode(image * 2 - 1)
        features = depth.unet.forward_features(z, torch.tensor([1]), depth.prompt_embeds, latent=False)  # type: ignore[operator]
        raw = released()(features, codec)
    pred = TASKS.find("disparity").decode(raw, Geometry.plan(want.shape, None, codec.stride))
    np.testing.assert_allclose(pred.values, want, atol=1e-5, rtol=0)


def test_released_head_has_all_the_tensors_and_no_others() -> None:
    names = load_file(GOLDEN / "dpt_head_identity" / "model.safetensors")
    assert {k: v.shape for k, v in released().module.state_dict().items()} == {k: v.shape for k, v in names.items()}


def test_full_size_parameter_count() -> None:
    """Convolutions of FACTS 2, added up by hand, biases where it says so."""
    with torch.device("meta"):
        module = DPT.build({})
    upsample = 320 * 320 * 9 + 320
    neck = (320 + 640 + 1280 + 1280) * 256 * 9
    residual, projection = 2 * 256 * 256 * 9, 256 * 256 + 256
    fusion = 7 * residual + 4 * projection
    head = (256 * 256 * 9 + 256) + (256 * 128 * 9 + 128) + (128 * 32 * 9 + 32) + (32 + 1)
    assert sum(p.numel() for p in module.parameters()) == upsample + neck + fusion + head == 18_474_753


@pytest.mark.parametrize("size", [(4, 8), (15, 20), (1, 1), (7, 5), (2, 9)])
@pytest.mark.parametrize(("channels", "activation"), [(1, "identity"), (1, "elu"), (3, "identity")])
def test_any_latent_size(codec: Codec, size: tuple[int, int], channels: int, activation: str) -> None:
    torch.manual_seed(0)
    head = DPT.wrap(DPT.build(TINY | {"out_channels": channels, "activation": activation}))
    with torch.inference_mode():
        raw = head(pyramid(*size), codec)
    assert raw.shape == (2, channels, 8 * size[0], 8 * size[1]) and torch.isfinite(raw).all()
    if activation == "elu":
        assert (raw > -1).all()


def test_batches_do_not_change_the_answer(codec: Codec) -> None:
    torch.manual_seed(0)
    head, both = DPT.wrap(DPT.build(TINY)), pyramid(7, 5)
    with torch.inference_mode():
        alone = [head(Features(None, tuple(p[i : i + 1] for p in both.pyramid)), codec) for i in range(2)]
        torch.testing.assert_close(head(both, codec), torch.cat(alone), atol=1e-5, rtol=1e-5)


def test_elu_variant(codec: Codec) -> None:
    """ELU + 1 of the identity variant, from [0, 1] to the [-1, 1] of painted labels."""
    torch.manual_seed(0)
    plain, positive = DPT.build(TINY), DPT.build(TINY | {"activation": "elu"})
    positive.load_state_dict(plain.state_dict())
    with torch.inference_mode():
        a, b = DPT.wrap(plain)(pyramid(4, 4), codec), DPT.wrap(positive)(pyramid(4, 4), codec)
        torch.testing.assert_close(positive(pyramid(4, 4).pyramid), torch.nn.functional.elu(a) + 1)
    torch.testing.assert_close((b + 1) / 2, torch.nn.functional.elu(a) + 1)


@pytest.mark.parametrize("activation", ["identity", "elu"])
def test_learns_its_targets(codec: Codec, activation: str) -> None:
    """Whatever the activation, labels in [-1, 1] are within reach."""
    torch.manual_seed(0)
    module = DPT.build(TINY | {"activation": activation})
    head, features = DPT.wrap(module), pyramid(4, 4)
    ramp = torch.linspace(-1, 1, 32).expand(2, 3, 32, 32)
    optimiser = torch.optim.Adam(module.parameters(), 1e-2)
    losses = []
    for _ in range(60):
        loss = (head(features, codec) - ramp[:, :1]).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.1 * losses[0]


def test_saved_head_loads(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = DPT.build(TINY | {"activation": "elu"})
    assert isinstance(module, DPTHead)
    module.save_pretrained(tmp_path)
    config = read_json(tmp_path / "config.json")
    assert config["_class_name"] == DPT.class_name and config["activation"] == "elu"
    again = DPT.build(config)
    again.load_state_dict(load_file(tmp_path / "diffusion_pytorch_model.safetensors"), strict=True)
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), again.parameters(), strict=True))


def test_wrong_settings_say_what_to_do(codec: Codec) -> None:
    with pytest.raises(ValueError, match="activation 'relu': choose one of identity, elu"):
        DPT.build(TINY | {"activation": "relu"})
    with pytest.raises(ValueError, match="out_channels 2: choose 1"):
        DPT.build(TINY | {"out_channels": 2})
    with pytest.raises(ValueError, match="use 'identity' with 3"):
        DPT.build(TINY | {"out_channels": 3, "activation": "elu"})
    with pytest.raises(ValueError, match=r"\[8, 8, 4, 4\] channels, coarsest first, got \[4, 4, 4, 4\]"):
        DPT.wrap(DPT.build(TINY))(pyramid(4, 4, (4, 4, 4, 4)), codec)
    with pytest.raises(ValueError, match=r"got \[\]"):
        DPT.wrap(DPT.build(TINY))(Features(torch.zeros(1, 4, 4, 4)), codec)
