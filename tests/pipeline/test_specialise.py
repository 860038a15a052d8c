"""Specialised pipelines: the plain one's answers to 1e-5 in float32, refusals, saving; how calls are compiled and replayed."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import genpercept
from genpercept import GenPerceptPipeline
from genpercept.checkpoints.parts import load_part
from genpercept.core.values import Features
from genpercept.models import adapters
from genpercept.models.heads import HEADS
from genpercept.pipeline.specialise import layers
from genpercept.pipeline.specialise.compiled import Compiled, Graphed, copied
from genpercept.pipeline.specialise.fold import exact_norms
from genpercept.pipeline.specialise.layers import OnesConv, PromptAttention, Upsample
from genpercept.pipeline.specialise.pipeline import SpecialisedPipeline
from tests.support.paths import GOLDEN
from tests.support.pictures import picture

_SLOW = pytest.mark.slow
SIZES = [(64, 96), (37, 53), (1, 1), (8, 24), (100, 44)]


def with_head(depth: GenPerceptPipeline, task: str, head: str, paradigm: str, **config: Any) -> GenPerceptPipeline:
    """The tiny denoiser under a head of random weights, whose normalisation has statistics."""
    plugin = HEADS.find(head)
    torch.manual_seed(0)
    module = plugin.build({"neck_hidden_sizes": [16, 32, 64, 64], **config})
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean = torch.randn(layer.num_features)
            layer.running_var = torch.rand(layer.num_features) + 0.5
    return GenPerceptPipeline.from_parts(
        unet=depth.unet,
        vae=depth.vae,
        prompt_embeds=depth.prompt_embeds,
        task=task,
        paradigm=paradigm,
        head=head,
        head_module=module,
        resolution=0,
    )


def agree(plain: Any, quick: Any, atol: float = 1e-5) -> None:
    """Raw maps to atol of their size; values to atol where nothing discrete or divided by almost nothing was made of them."""
    scale = max(1.0, float(np.abs(plain.raw).max()))
    np.testing.assert_allclose(quick.raw, plain.raw, atol=atol * scale, rtol=0)
    if plain.kind in ("depth_affine", "disparity_affine"):
        np.testing.assert_allclose(quick.values, plain.values, atol=atol, rtol=0)


# ---- the same answers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_answers_of_random_weights(depth: GenPerceptPipeline, size: tuple[int, int]) -> None:
    quick = genpercept.specialise(depth)
    agree(depth(picture(size)), quick(picture(size)))


@pytest.mark.parametrize("name", ["mini/depth", "mini/normals"])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_answers_of_trained_weights(name: str, layout: str) -> None:
    plain = genpercept.load(name, device="cpu")
    quick = genpercept.specialise(plain, layout=layout)
    images = [picture(size, i) for i, size in enumerate([(96, 128), (96, 128), (60, 80), (31, 97)])]
    for a, b in zip(plain(images, batch_size=1), quick(images, batch_size=3), strict=True):
        np.testing.assert_allclose(b.values, a.values, atol=1e-5, rtol=0)
        np.testing.assert_allclose(b.raw, a.raw, atol=1e-5, rtol=0)


@pytest.mark.parametrize("paradigm", ["one_step", "direct"])
@pytest.mark.parametrize(
    ("task", "head", "config"),
    [
        ("disparity", "dpt", {"fusion_hidden_size": 16}),
        ("normals", "dpt", {"fusion_hidden_size": 16, "out_channels": 3}),
        ("segmentation", "upernet", {"out_channels": 3, "hidden_size": 16}),
        ("pose", "keypoints", {"hidden_size": 16}),
        ("pose", "keypoints", {"hidden_size": 16, "decoder": "simple"}),
    ],
)
def test_answers_of_heads(depth: GenPerceptPipeline, paradigm: str, task: str, head: str, config: dict) -> None:
    plain = with_head(depth, task, head, paradigm, **config)
    quick = genpercept.specialise(plain)
    from genpercept.pipeline.call import Run

    for size in ((64, 96), (40, 56)):
        image = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1))
        with torch.inference_mode():
            a, b = (p._forward(image, Run(p.paradigm(), 1), None) for p in (plain, quick))
        torch.testing.assert_close(b, a, atol=1e-5 * max(1.0, float(a.abs().max())), rtol=0)
        assert float(a.std()) > 1e-3  # so that it says something


def test_answers_of_the_published_head_and_of_zeros(depth: GenPerceptPipeline) -> None:
    head = load_part(HEADS.find("dpt"), GOLDEN / "dpt_head_identity")
    plain = GenPerceptPipeline.from_parts(
        unet=depth.unet,
        vae=depth.vae,
        prompt_embeds=depth.prompt_embeds,
        task="disparity",
        head="dpt",
        head_module=head,
        resolution=0,
    )
    agree(plain(picture((64, 48))), genpercept.specialise(plain)(picture((64, 48))))


def test_one_step_from_zeros(depth: GenPerceptPipeline) -> None:
    """E2E-FT's kind of model: eight input channels, one step at the last timestep."""
    plain = GenPerceptPipeline.from_base(
        GOLDEN / "sd-tiny",
        "depth",
        paradigm="stochastic_multi_step",
        paradigm_options={"start": "zeros", "spacing": "trailing"},
        resolution=0,
    )
    agree(plain(picture((64, 48))), genpercept.specialise(plain)(picture((64, 48))))


def test_the_original_stays_as_it_was(depth: GenPerceptPipeline) -> None:
    before = {k: v.clone() for k, v in depth.unet.state_dict().items()}
    want = depth(picture((24, 32))).values
    genpercept.specialise(depth, dtype="bfloat16")(picture((24, 32)))
    assert depth.unet_dtype == torch.float32
    for name, tensor in depth.unet.state_dict().items():
        assert torch.equal(tensor, before[name])
    np.testing.assert_array_equal(depth(picture((24, 32))).values, want)


def test_weights_are_shared_and_what_is_constant_is_gone(depth: GenPerceptPipeline) -> None:
    quick = genpercept.specialise(depth)
    runs: Any = quick._runs["backbone"]
    plain: Any = depth.unet
    down, plain_down = runs.down_blocks[0], plain.down_blocks[0]
    assert down.resnets[0].conv1.weight.data_ptr() == plain_down.resnets[0].conv1.weight.data_ptr()
    names = [name for name, _ in runs.named_parameters()]
    assert not [n for n in names if "time_e" in n or ".to_k." in n or ".to_q." in n]
    assert sum(p.numel() for p in quick._runs["codec"].parameters()) > 0


def test_float32_maps_stay_contiguous(depth: GenPerceptPipeline) -> None:
    """A weight in channels_last makes maps so, and group normalisation rounds 25 times worse there."""
    quick = genpercept.specialise(depth)
    assert all(p.is_contiguous() for p in quick._runs.parameters())
    last = genpercept.specialise(depth, layout="channels_last")
    kernels = [p for p in last._runs.parameters() if p.ndim == 4]
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in kernels)


def test_bfloat16_is_as_near_as_plain_bfloat16() -> None:
    exact = genpercept.load("mini/depth", device="cpu")
    half = genpercept.load("mini/depth", device="cpu", torch_dtype=torch.bfloat16)
    quick = genpercept.specialise(exact, dtype=torch.bfloat16)
    assert quick.unet_dtype == torch.bfloat16
    image = picture((96, 128))
    want = exact(image).values
    plain_error, error = (np.abs(p(image).values - want).mean() for p in (half, quick))
    assert error < 1.5 * plain_error + 1e-3


# ---- layers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(5, 7), (1, 1), (8, 3)])
def test_upsampling_is_one_transposed_convolution(size: tuple[int, int]) -> None:
    conv = nn.Conv2d(6, 10, 3, padding=1).double().requires_grad_(False)
    x = torch.randn(2, 6, *size, dtype=torch.float64)
    two_steps = conv(nn.functional.interpolate(x, scale_factor=2.0))
    torch.testing.assert_close(Upsample(conv)(x), two_steps, atol=1e-12, rtol=0)
    odd = (2 * size[0] - 1, 2 * size[1])
    torch.testing.assert_close(Upsample(conv)(x, odd), conv(nn.functional.interpolate(x, size=odd)), atol=0, rtol=0)


def test_pointwise_convolution_is_merged_exactly_also_at_the_border() -> None:
    first, then = nn.Conv2d(4, 4, 1).double(), nn.Conv2d(4, 7, 3, padding=1).double()
    x = torch.randn(2, 4, 5, 6, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(OnesConv(first, then)(x), then(first(x)), atol=1e-12, rtol=0)


@pytest.mark.parametrize("affine", [False, True])
def test_normalisation_in_channels_last_rounds_as_elsewhere(affine: bool) -> None:
    """Where PyTorch's own is off by 1e-5 of the largest value, on a map whose mean is not zero."""
    torch.manual_seed(0)
    plain = nn.GroupNorm(8, 32, affine=affine)
    if affine:
        nn.init.normal_(plain.weight), nn.init.normal_(plain.bias)
    x = torch.randn(2, 32, 123, 130) + 2
    with torch.no_grad():
        want = copy.deepcopy(plain).double()(x.double())
        module = nn.Sequential(copy.deepcopy(plain))
        exact_norms(module)
        found = module(x.contiguous(memory_format=torch.channels_last))
        other = module(x)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert float((found - want).abs().max() / want.abs().max()) < 3e-7
    assert torch.equal(other, plain(x))


@pytest.mark.parametrize("tokens", [1, 2, 3, 9, 77])
@pytest.mark.parametrize("bias", [False, True])
def test_attention_to_a_fixed_prompt(tokens: int, bias: bool) -> None:
    """One token, the empty prompt's two, a few, and a padded prompt."""
    from diffusers.models.attention_processor import Attention

    torch.manual_seed(0)
    old = Attention(32, cross_attention_dim=12, heads=4, dim_head=8, bias=bias).double()
    context, x = torch.randn(1, tokens, 12, dtype=torch.float64), torch.randn(2, 15, 32, dtype=torch.float64)
    with torch.no_grad():
        want = old(x, encoder_hidden_states=context.expand(2, -1, -1))
        got = PromptAttention(old, context, "x")(x).expand_as(want)
        assert PromptAttention(old, context, "x").wide == (tokens > 8)
    torch.testing.assert_close(got, want, atol=1e-12, rtol=0)


@pytest.mark.parametrize("channels", [8, 12])
def test_strips_leave_no_seams(channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the residual block itself, with and without a shortcut; strips of one row and of several."""
    from diffusers.models.resnet import ResnetBlock2D

    block_of: Any = ResnetBlock2D  # its types want a width of time embeddings
    old = block_of(in_channels=8, out_channels=channels, temb_channels=None, groups=4).double().eval()
    x = torch.randn(2, 8, 11, 6, dtype=torch.float64)
    with torch.inference_mode():
        want = old(x, None)
        for limit in (1, 2 * 8 * 6 * 3, 2 * 8 * 6 * 10):
            monkeypatch.setattr(layers, "STRIP", limit)
            block = layers.Resnet(old, None)
            block.in_strips = True
            torch.testing.assert_close(block(x.clone()), want, atol=1e-6, rtol=0)


def test_upsampling_in_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Upsample(nn.Conv2d(3, 5, 3, padding=1).double().requires_grad_(False))
    x = torch.randn(2, 3, 7, 4, dtype=torch.float64)
    want = whole(x)
    whole.in_strips = True
    for limit in (1, 2 * 3 * 4 * 3, 2 * 3 * 4 * 6):
        monkeypatch.setattr(layers, "STRIP", limit)
        torch.testing.assert_close(whole(x), want, atol=1e-12, rtol=0)


def test_codec_in_strips_answers_the_same(depth: GenPerceptPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "STRIP", 2000)
    quick = genpercept.specialise(depth, strips=True)
    for size in SIZES[:2]:
        agree(depth(picture(size)), quick(picture(size)))
    with pytest.raises(ValueError, match="needs fold=True and goes without compile"):
        genpercept.specialise(depth, strips=True, compile="dynamic")


# ---- what changes, what is refused -----------------------------------------------------------------------------------


def test_another_prompt_is_refused_and_respecialised(depth: GenPerceptPipeline) -> None:
    quick = genpercept.specialise(depth)
    quick.prompt_embeds = depth.prompt_embeds * 3
    with pytest.raises(ValueError, match=r"prompt was changed.*specialise again"):
        quick(picture((16, 16)))
    again = genpercept.specialise(quick)
    plain = copy.copy(depth)
    plain.prompt_embeds = depth.prompt_embeds * 3
    agree(plain(picture((16, 16))), again(picture((16, 16))))
    assert np.abs(plain(picture((16, 16))).raw - depth(picture((16, 16))).raw).max() > 1e-4


def test_another_timestep_or_paradigm_is_refused(depth: GenPerceptPipeline) -> None:
    quick = genpercept.specialise(depth)
    with pytest.raises(ValueError, match=r"specialised for one_step\(timestep=1.*not for one_step\(timestep=500"):
        quick(picture((16, 16)), timestep=500)
    with pytest.raises(ValueError, match="not for deterministic_multi_step"):
        quick(picture((16, 16)), paradigm="deterministic_multi_step")


@pytest.mark.parametrize("paradigm", ["deterministic_multi_step", "stochastic_multi_step"])
def test_several_steps_are_refused(paradigm: str) -> None:
    plain = GenPerceptPipeline.from_base(GOLDEN / "sd-tiny", "depth", paradigm=paradigm, resolution=0)
    with pytest.raises(ValueError, match=f"'{paradigm}', 10 steps.*only one step that needs no noise"):
        genpercept.specialise(plain)


def test_unmerged_adapters_and_tiling_are_refused(depth: GenPerceptPipeline) -> None:
    unet = copy.deepcopy(depth.unet)
    adapters.add_lora(unet, rank=2)
    parts = {"vae": depth.vae, "prompt_embeds": depth.prompt_embeds, "task": "depth", "resolution": 0}
    plain = GenPerceptPipeline.from_parts(unet=unet, **parts)
    with pytest.raises(ValueError, match="LoRA adapter: merge it first"):
        genpercept.specialise(plain)
    merged = GenPerceptPipeline.from_parts(unet=adapters.merged_copy(unet), **parts)
    agree(merged(picture((16, 24))), genpercept.specialise(merged)(picture((16, 24))))
    quick = genpercept.specialise(depth)
    vae: Any = quick.vae
    vae.enable_tiling()
    try:
        with pytest.raises(ValueError, match="tiling"):
            quick(picture((16, 16)))
    finally:
        vae.disable_tiling()


def test_other_backbones_dtypes_and_offload_are_refused(depth: GenPerceptPipeline) -> None:
    parts = (depth.unet, depth.vae, depth.prompt_embeds)
    marked = genpercept.specialise(depth).info
    with pytest.raises(ValueError, match="backbone 'sd21_controlnet' cannot be specialised"):
        SpecialisedPipeline(*parts, marked | {"backbone": "sd21_controlnet"})
    with pytest.raises(ValueError, match="dtype='float64': choose"):
        genpercept.specialise(depth, dtype="float64")
    with pytest.raises(ValueError, match="compile='yes': choose"):
        genpercept.specialise(depth, compile="yes")
    quick = genpercept.specialise(depth)
    with pytest.raises(ValueError, match="specialise with dtype="):
        quick.to(torch.bfloat16)
    with pytest.raises(ValueError, match="cannot be offloaded"):
        quick.enable_model_cpu_offload()
    assert quick.to("cpu") is quick


# ---- saving and loading ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_saved_and_loaded_again_it_gives_the_same_bits(depth: GenPerceptPipeline, dtype: str, tmp_path: Path) -> None:
    quick = genpercept.specialise(depth, dtype=dtype)
    quick.save_pretrained(tmp_path / "m")
    again = genpercept.load(tmp_path / "m", device="cpu")
    assert isinstance(again, SpecialisedPipeline)
    for size in SIZES[:2]:
        np.testing.assert_array_equal(again(picture(size)).values, quick(picture(size)).values)
    index = json.loads((tmp_path / "m" / "model_index.json").read_text())
    assert index["_class_name"] == "GenPerceptPipeline"
    plain = genpercept.load(tmp_path / "m", device="cpu", specialised=False)
    assert not isinstance(plain, SpecialisedPipeline)
    if dtype == "float32":
        agree(depth(picture((24, 24))), plain(picture((24, 24))), 0)


def test_load_specialises_where_asked() -> None:
    assert isinstance(genpercept.load("mini/depth", device="cpu", specialised=True), SpecialisedPipeline)
    assert not isinstance(genpercept.load("mini/depth", device="cpu"), SpecialisedPipeline)


# ---- how calls are run -----------------------------------------------------------------------------------------------


def test_graphs_fall_back_on_the_cpu(depth: GenPerceptPipeline) -> None:
    quick = genpercept.specialise(depth, cuda_graphs=True)
    for _ in range(3):
        agree(depth(picture((24, 32))), quick(picture((24, 32))))


def test_a_size_is_recorded_when_it_comes_again() -> None:
    calls: list[str] = []

    def record(function: Any, args: Any, kwargs: Any) -> Any:
        calls.append("record")
        held = function(*args, **kwargs)

        def replay(args: Any, kwargs: Any) -> Any:
            calls.append("replay")
            held.copy_(function(*args, **kwargs))
            return held

        return replay

    graphed = Graphed(lambda x, scale: x * scale, record)
    x = torch.arange(3.0)
    first = graphed(x, scale=2)
    assert calls == []
    second = graphed(x + 1, scale=2)
    third = graphed(x + 5, scale=2)
    assert calls == ["record", "replay", "replay"]
    torch.testing.assert_close(first, x * 2)
    torch.testing.assert_close(second, (x + 1) * 2)  # a copy: the next replay left it alone
    torch.testing.assert_close(third, (x + 5) * 2)
    for n in range(4, 12):  # the oldest of many sizes are dropped
        graphed(torch.zeros(n), scale=2)
        graphed(torch.zeros(n), scale=2)
    assert len(graphed.graphs) == 4
    graphed.clear()
    assert not graphed.graphs and not graphed.seen


def test_what_cannot_be_recorded_runs_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    def record(function: Any, args: Any, kwargs: Any) -> Any:
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore")

    graphed = Graphed(lambda x: x + 1, record)
    for _ in range(4):
        torch.testing.assert_close(graphed(torch.zeros(2)), torch.ones(2))
    assert caplog.text.count("CUDA graphs are off: CUDA error: operation not permitted") == 1


def test_copies_have_the_structure() -> None:
    features = Features(None, (torch.ones(1), torch.zeros(2)))
    again = copied(features)
    assert again.latent is None and torch.equal(again.pyramid[0], features.pyramid[0])
    assert again.pyramid[0].data_ptr() != features.pyramid[0].data_ptr()


@pytest.mark.parametrize(
    ("fold", "shapes"),
    [(True, "static"), pytest.param(True, "dynamic", marks=_SLOW), pytest.param(False, "dynamic", marks=_SLOW)],
)
def test_what_is_compiled_answers_the_same(
    depth: GenPerceptPipeline, fold: bool, shapes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Traced as for the compiler, but run by PyTorch: generating code for a whole network takes minutes."""
    monkeypatch.setattr(Compiled, "backend", "eager")
    quick = genpercept.specialise(depth, compile=shapes, fold=fold)
    for size in ((32, 48), (40, 56), (32, 48)):
        agree(depth(picture(size)), quick(picture(size)))
    assert all(list(part.by_device) == ["cpu"] for part in quick._quick if isinstance(part, Compiled))
    assert len(quick._quick) == 3  # denoiser, encoder, decoder


def test_a_head_is_compiled_too(depth: GenPerceptPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is given a list of maps, and no tensor by itself."""
    monkeypatch.setattr(Compiled, "backend", "eager")
    plain = with_head(depth, "disparity", "dpt", "one_step", fusion_hidden_size=16)
    quick = genpercept.specialise(plain, compile="static")
    agree(plain(picture((32, 48))), quick(picture((32, 48))))
    used = [part for part in quick._quick if isinstance(part, Compiled) and part.by_device]
    assert len(used) == 3 and all(list(part.by_device) == ["cpu"] for part in used)  # denoiser, encoder, head


def test_what_is_recorded_may_be_given_features_or_lists() -> None:
    def record(function: Any, args: Any, kwargs: Any) -> Any:
        return lambda args, kwargs: function(*args, **kwargs)

    graphed = Graphed(lambda features: features.pyramid[0] + 1, record)
    for side in (2, 2, 3, 2):
        found = graphed(Features(None, (torch.ones(side, side), torch.zeros(1)), (side, side)))
        torch.testing.assert_close(found, torch.full((side, side), 2.0))
    assert len(graphed.graphs) == 1 and len(graphed.seen) == 2
    again = copied([torch.ones(1), {"x": torch.zeros(2)}])
    assert isinstance(again, list) and torch.equal(again[1]["x"], torch.zeros(2))


def test_compiled_code_of_a_layer() -> None:
    layer = Upsample(nn.Conv2d(3, 5, 3, padding=1))
    quick = Compiled(layer.forward, "static")
    x = torch.randn(1, 3, 4, 6)
    with torch.inference_mode():
        torch.testing.assert_close(quick(x), layer(x), atol=1e-5, rtol=0)
