"""Backbones: one contract for all, equal to the models they wrap, published sizes, public layouts as bases, every pairing."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from diffusers import PixArtTransformer2DModel, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPVisionModel, Dinov2Model

from genpercept import GenPerceptPipeline
from genpercept.checkpoints import parts
from genpercept.commands.inspect.facts import Given, look
from genpercept.models.backbones import BACKBONES, clip, dinov2, pixart_alpha, sd21
from genpercept.models.backbones._blocks import choose
from genpercept.models.backbones.sd21_fourier import FourierBlock, image_of, spectrum
from genpercept.models.codecs import CODECS
from genpercept.models.heads import HEADS, REASSEMBLE, neck_config
from genpercept.pipeline import base_model
from genpercept.tasks import TASKS
from tests.support.bases import CLIP_VIT, PIXART, VIT, clip_base, dinov2_base, pixart_base
from tests.support.paths import SD_TINY

UNET: dict[str, Any] = {
    "block_out_channels": [8, 16],
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "attention_head_dim": [2, 2],
    "cross_attention_dim": 10,
    "norm_num_groups": 4,
    "layers_per_block": 1,
}
SDXL: dict[str, Any] = UNET | {
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 4,
    "projection_class_embeddings_input_dim": 6 * 4 + 5,
}
TINY: list[tuple[str, dict[str, Any]]] = [
    ("sd21", UNET),
    ("sd21", SDXL),
    ("sd21_controlnet", UNET),
    ("sd21_fourier", UNET),
    ("pixart_alpha", PIXART),
    ("pixart_alpha", PIXART | {"use_additional_conditions": True, "out_channels": 4}),
    ("pixart_alpha", PIXART | {"pyramid_blocks": [0, 1, 2, 3]}),
    ("dinov2", VIT),
    ("dinov2", VIT | {"use_swiglu_ffn": True, "pyramid_blocks": [1, 4]}),
    ("clip", CLIP_VIT),
]


def tiny(name: str, config: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    return BACKBONES.find(name).build(config).eval()


def ask(net: Any, x: Tensor, latent: bool = True) -> Any:
    t = torch.arange(1, len(x) + 1) * 100
    context = torch.linspace(-1, 1, len(x) * 3 * (net.context_width or 0)).reshape(len(x), 3, net.context_width or 0)
    return net.forward_features(x, t, context, latent=latent)


@pytest.mark.parametrize(("name", "config"), TINY)
class TestContract:
    @torch.no_grad()
    def test_declared_channels_and_strides_at_odd_sizes(self, name: str, config: dict[str, Any]) -> None:
        net, plugin = tiny(name, config), BACKBONES.find(name)
        pixels = 8 if plugin.input == "latent" else 1
        h, w = 3 * net.patch * (1 if net.patch > 1 else 4), 5 * net.patch * (1 if net.patch > 1 else 4)
        features = ask(net, torch.randn(2, net.in_channels, h, w))
        assert features.size == (h, w)
        assert tuple(level.shape[1] for level in features.pyramid) == net.pyramid_channels
        found = [tuple(level.shape[-2:]) for level in features.pyramid]
        assert found == [(h * pixels // s, w * pixels // s) for s in net.pyramid_strides]
        if plugin.input == "latent":
            assert features.latent.shape == (2, 4, h, w)
        else:
            assert features.latent is None

    @torch.no_grad()
    def test_a_batch_of_two_is_two_batches_of_one(self, name: str, config: dict[str, Any]) -> None:
        net = tiny(name, config)
        x, t = torch.randn(2, net.in_channels, 3 * net.patch, 5 * net.patch), torch.tensor([7, 900])
        context = torch.randn(2, 3, net.context_width or 0)
        both = net.forward_features(x, t, context)
        for i in range(2):
            one = net.forward_features(x[i : i + 1], t[i : i + 1], context[i : i + 1])
            pairs = list(zip(both.pyramid, one.pyramid, strict=True))
            pairs += [] if both.latent is None else [(both.latent, one.latent)]
            assert all(torch.allclose(many[i : i + 1], alone, atol=1e-5) for many, alone in pairs)

    @torch.no_grad()
    def test_without_a_latent_the_pyramid_is_the_same(self, name: str, config: dict[str, Any]) -> None:
        net = tiny(name, config)
        x = torch.randn(1, net.in_channels, 2 * net.patch, 2 * net.patch)
        whole, part = ask(net, x), ask(net, x, latent=False)
        assert part.latent is None
        assert all(torch.equal(a, b) for a, b in zip(whole.pyramid, part.pyramid, strict=True))

    def test_output_parameters_are_those_that_a_pyramid_head_gives_no_gradient(
        self, name: str, config: dict[str, Any]
    ) -> None:
        net = tiny(name, config).requires_grad_(True)
        features = ask(net, torch.randn(1, net.in_channels, 2 * net.patch, 2 * net.patch), latent=False)
        torch.stack([level.square().sum() for level in features.pyramid]).sum().backward()
        without = {id(p) for p in net.parameters() if p.grad is None}
        assert without == {id(p) for p in net.output_parameters()}

    @torch.no_grad()
    def test_saved_and_loaded_it_answers_the_same(self, name: str, config: dict[str, Any], tmp_path: Path) -> None:
        net = tiny(name, config)
        net.save_pretrained(tmp_path, safe_serialization=True)
        again: Any = parts.load_part(BACKBONES.find(name), tmp_path)
        assert not any(t.is_meta for t in [*again.parameters(), *again.buffers()])
        x = torch.randn(1, net.in_channels, 4 * net.patch, 4 * net.patch)
        a, b = ask(net, x), ask(again, x)
        assert all(torch.equal(p, q) for p, q in zip(a.pyramid, b.pyramid, strict=True))
        assert a.latent is None or torch.equal(a.latent, b.latent)
        assert again.pyramid_strides == net.pyramid_strides


@pytest.mark.parametrize("conditions", [False, True])
@pytest.mark.parametrize("size", [(8, 8), (6, 10)])
@torch.no_grad()
def test_pixart_is_its_parent_without_the_learned_sigma(conditions: bool, size: tuple[int, int]) -> None:
    net = tiny("pixart_alpha", PIXART | {"use_additional_conditions": conditions})
    x, t, context = torch.randn(2, 4, *size), torch.tensor([1, 700]), torch.randn(2, 3, 10)
    told: dict[str, Any] = {"resolution": None, "aspect_ratio": None}
    if conditions:
        pixels = torch.tensor([[8.0 * size[0], 8.0 * size[1]]] * 2)
        told = {"resolution": pixels, "aspect_ratio": torch.tensor([[size[0] / size[1]]] * 2)}
    want = cast(Any, PixArtTransformer2DModel).forward(net, x, context, t, told).sample
    assert want.shape[1] == 8
    assert torch.equal(net.forward_features(x, t, context).latent, want[:, :4])


@torch.no_grad()
def test_adapted_pixart_has_no_sigma_and_gives_a_repeated_input_the_old_answer() -> None:
    net = tiny("pixart_alpha", PIXART)
    x = torch.randn(2, 4, 6, 6)
    before = ask(net, x).latent
    BACKBONES.find("pixart_alpha").adapt(net, 8)
    assert (net.config.in_channels, net.config.out_channels, net.proj_out.bias.numel()) == (8, 4, 16)
    assert torch.allclose(ask(net, torch.cat([x, x], 1)).latent, before, atol=1e-5)


@torch.no_grad()
def test_sdxl_shaped_unet_is_its_parent_told_an_empty_prompt_and_the_size() -> None:
    net = tiny("sd21", SDXL)
    x, t, context = torch.randn(2, 4, 6, 8), torch.tensor([1, 700]), torch.randn(2, 3, 10)
    told = {"text_embeds": torch.zeros(2, 5), "time_ids": torch.tensor([[48.0, 64.0, 0, 0, 48.0, 64.0]] * 2)}
    want = cast(Any, UNet2DConditionModel).forward(net, x, t, context, added_cond_kwargs=told).sample
    assert torch.allclose(net.forward_features(x, t, context).latent, want, atol=1e-6)
    assert torch.equal(net.empty_prompt, torch.zeros(1, 1, 10))
    assert tiny("sd21", UNET).empty_prompt is None


@pytest.mark.parametrize("size", [(28, 28), (42, 70)])
@pytest.mark.parametrize("swiglu", [False, True])
@torch.no_grad()
def test_dinov2_is_transformers_own_after_each_block(swiglu: bool, size: tuple[int, int]) -> None:
    net = tiny("dinov2", VIT | {"use_swiglu_ffn": swiglu})
    image = torch.rand(2, 3, *size)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    found = Dinov2Model.forward(net, (image - mean) / std, output_hidden_states=True).hidden_states
    features = ask(net, image * 2 - 1)
    for level, block in zip(reversed(features.pyramid), net.pyramid_blocks, strict=True):
        want = net.layernorm(cast(Any, found)[block + 1])[:, 1:].transpose(1, 2).reshape(level.shape)
        assert torch.allclose(level, want, atol=1e-5)


@pytest.mark.parametrize("size", [(28, 28), (42, 70)])
@torch.no_grad()
def test_clip_is_transformers_own_after_each_block(size: tuple[int, int]) -> None:
    net = tiny("clip", CLIP_VIT)
    image = torch.rand(2, 3, *size)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (net.mean, net.std))
    asked: dict[str, Any] = {"output_hidden_states": True, "interpolate_pos_encoding": True}
    found = CLIPVisionModel.forward(net, (image - mean) / std, **asked).hidden_states
    features = ask(net, image * 2 - 1)
    for level, block in zip(reversed(features.pyramid), net.pyramid_blocks, strict=True):
        want = cast(Any, found)[block + 1][:, 1:].transpose(1, 2).reshape(level.shape)
        assert torch.allclose(level, want, atol=1e-5)


def test_clip_tower_and_its_projection_are_what_open_clip_counts() -> None:
    """ViT-bigG-14's image tower in open_clip's model_profile.csv: 1844.91 million parameters."""
    with torch.device("meta"):
        net = BACKBONES.find("clip").build({})
    assert round((sum(p.numel() for p in net.parameters()) + 1664 * 1280) / 1e6, 2) == 1844.91


@pytest.mark.parametrize(
    ("name", "config", "count"),
    [
        ("sd21", sd21.SD15_CONFIG, 859_520_964),
        ("sd21", sd21.SD21_CONFIG, 865_910_724),
        ("sd21_fourier", sd21.SD21_CONFIG, 865_910_724 + 78_654_720),  # the block: counted from DepthMaster's own class
        ("sd21", sd21.SDXL_CONFIG, 2_567_463_684),
        ("pixart_alpha", pixart_alpha.PIXART_512_CONFIG, 610_856_096),
        ("pixart_alpha", pixart_alpha.PIXART_1024_CONFIG, 611_349_152),
        ("dinov2", dinov2.GIANT_CONFIG, 1_136_480_768),
        ("dinov2", {}, 1_136_480_768),
        ("dinov2", dinov2.LARGE_CONFIG, 304_368_640),
        ("clip", clip.BIGG_CONFIG, 1_842_777_344),
    ],
)
def test_full_size_has_the_published_number_of_parameters(name: str, config: dict[str, Any], count: int) -> None:
    with torch.device("meta"):
        net = BACKBONES.find(name).build(config)
    assert sum(p.numel() for p in net.parameters()) == count


# ---- the Fourier block -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (3, 1), (2, 2), (4, 6), (7, 5), (9, 12), (16, 11), (20, 18)])
def test_the_transforms_are_torchs(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, *size)
    want = torch.fft.rfft2(x, norm="ortho")
    re, im = spectrum(x)
    torch.testing.assert_close(re, want.real, atol=2e-6, rtol=0)
    torch.testing.assert_close(im, want.imag, atol=2e-6, rtol=0)
    torch.testing.assert_close(image_of(re, im, size[1]), x, atol=2e-6, rtol=0)
    a, b = torch.randn_like(re), torch.randn_like(re)  # of no map: what mirrors itself loses its imaginary part
    back = torch.fft.irfft2(torch.complex(a, b), s=size, norm="ortho")
    torch.testing.assert_close(image_of(a, b, size[1]), back, atol=4e-6, rtol=0)


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (4, 6), (20, 18)])
def test_angles_of_real_frequencies_do_not_hang_on_rounding(size: tuple[int, int]) -> None:
    """+pi where they are negative: torch's FFT gives now +pi, now -pi, from 18 rows on."""
    torch.manual_seed(0)
    re, im = spectrum(torch.randn(1, 64, *size))
    h, w = size
    for row in {0, h // 2} if h % 2 == 0 else {0}:
        for column in {0, w // 2} if w % 2 == 0 else {0}:
            angle = torch.atan2(im[..., row, column], re[..., row, column])
            assert {round(float(value), 3) for value in angle.unique()} == {0.0, 3.142}


def test_gradients_of_the_fourier_block_are_finite_and_right() -> None:
    torch.manual_seed(0)
    block = FourierBlock(8)
    flat = torch.zeros(1, 8, 4, 4, requires_grad=True)  # all frequencies but one are 0
    block(flat).sum().backward()
    grads = [flat.grad, *(p.grad for p in block.parameters())]
    assert all(g is not None and bool(torch.isfinite(g).all()) for g in grads)
    x = torch.randn(1, 2, 5, 7, requires_grad=True)
    a, b = torch.randn(2, 1, 2, 5, 4)
    theirs, (re, im) = torch.fft.rfft2(x, norm="ortho"), spectrum(x)
    b[..., 0, 0] = 0  # of a frequency that is real
    want, found = (torch.autograd.grad((u * a + v * b).sum(), x)[0] for u, v in ((theirs.real, theirs.imag), (re, im)))
    torch.testing.assert_close(found, want, atol=1e-5, rtol=0)
    with torch.autocast("cpu", torch.bfloat16):
        half = block(torch.ones(1, 8, 4, 4))
    assert half.dtype == torch.bfloat16 and bool(torch.isfinite(half).all())


@pytest.mark.parametrize(
    ("blocks", "want"), [(40, (9, 19, 29, 39)), (24, (5, 11, 17, 23)), (6, (0, 2, 3, 5)), (2, (0, 1))]
)
def test_blocks_are_evenly_spaced_and_end_with_the_last(blocks: int, want: tuple[int, ...]) -> None:
    assert choose(None, blocks) == want


@pytest.mark.parametrize("blocks", [[3, 2], [-1, 2], [0, 5], [1, 1]])
def test_blocks_that_are_not_there_are_refused(blocks: list[int]) -> None:
    with pytest.raises(ValueError, match=r"pyramid_blocks .*: must rise and lie between 0 and 4"):
        choose(blocks, 5)


@pytest.mark.parametrize("name", ["pixart_alpha", "dinov2", "clip"])
def test_sizes_that_patches_do_not_fill_are_refused(name: str) -> None:
    net = tiny(name, dict(reversed(TINY))[name])
    with pytest.raises(ValueError, match=rf"{name}.*patches of {net.patch} x {net.patch}, but got"):
        ask(net, torch.zeros(1, net.in_channels, net.patch, net.patch + 1))


def test_unets_are_told_apart_by_their_config() -> None:
    names = {
        "Stable Diffusion 1.x": sd21.SD15_CONFIG,
        "Stable Diffusion 2.x (768)": sd21.SD21_CONFIG,
        "Stable Diffusion 2.1 (768)": sd21.SD21_CONFIG | {"upcast_attention": True},
        "Stable Diffusion 2.x base (512)": sd21.SD21_CONFIG | {"sample_size": 64},
        "Stable Diffusion XL": sd21.SDXL_CONFIG,
        "SDXL-shaped": SDXL,
        "a U-Net of channels 8, 16 that reads 10-wide text": UNET,
    }
    assert {base_model.which(config): config for config in names.values()} == names


# ---- heads on token maps ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "task"), [("dpt", "depth"), ("dpt", "normals"), ("upernet", "segmentation"), ("keypoints", "pose")]
)
@pytest.mark.parametrize("name", ["pixart_alpha", "dinov2", "clip"])
@torch.no_grad()
def test_every_pyramid_head_reads_every_transformer(name: str, head: str, task: str) -> None:
    net, plugin = tiny(name, dict(reversed(TINY))[name]), HEADS.find(head)
    pipe = pair(net, name, head, task, plugin)
    pred = pipe(np.random.default_rng(0).integers(0, 256, (33, 47, 3), np.uint8), processing_resolution=0)
    assert pred.values.shape[:2] == (1, 17) if task == "pose" else (33, 47)
    assert np.isfinite(pred.values).all()


def pair(net: Any, name: str, head: str, task: str, plugin: Any) -> GenPerceptPipeline:
    options = (
        {"classes": "synthetic"} if task == "segmentation" else {"height": 32, "width": 24} if task == "pose" else {}
    )
    found = TASKS.find(task).with_options(**options)
    space = next(s for s in plugin.spaces if s in found.spaces)
    widths = {"dpt": {"fusion_hidden_size": 8}, "upernet": {"hidden_size": 8}, "keypoints": {"hidden_size": 8}}[head]
    neck = neck_config(net.pyramid_channels, net.pyramid_strides)
    assert neck["token_map_scales"] == list(REASSEMBLE)
    module = plugin.build(neck | {"out_channels": found.outputs(space)} | widths)
    pixels = BACKBONES.find(name).input == "pixels"
    return GenPerceptPipeline.from_parts(
        unet=net,
        vae=None if pixels else parts.load_part(CODECS.find("kl"), SD_TINY / "vae"),
        prompt_embeds=torch.zeros(1, 0, 0) if pixels else torch.zeros(1, 1, 10),
        task=task,
        task_options=options,
        paradigm="direct",
        head=head,
        head_module=module,
        codec="pixels" if pixels else "kl",
        backbone=name,
        resolution=56,
    )


def test_reassembled_maps_have_the_scales_of_dpt() -> None:
    head: Any = HEADS.find("dpt").build({"neck_hidden_sizes": [6] * 4, "token_map_scales": list(REASSEMBLE)})
    sizes = [tuple(layer(torch.zeros(1, 6, 4, 8)).shape[-2:]) for layer in head.reassemble]
    assert sizes == [(16, 32), (8, 16), (4, 8), (2, 4)] and not hasattr(head, "feature_upsample_0")
    with pytest.raises(ValueError, match="need one for each of 3 maps"):
        HEADS.find("dpt").build({"neck_hidden_sizes": [6] * 3, "token_map_scales": [2.0, 1.0]})


# ---- pairing ---------------------------------------------------------------------------------------------------------


def test_a_pixel_backbone_goes_with_direct_and_no_codec_alone() -> None:
    net = tiny("dinov2", VIT)
    common: dict[str, Any] = {"unet": net, "task": "depth", "prompt_embeds": torch.zeros(1, 0, 0), "backbone": "dinov2"}
    with pytest.raises(ValueError, match="'one_step' works on latents, but backbone 'dinov2' takes pixels"):
        dpt: Any = HEADS.find("dpt").build({"neck_hidden_sizes": [24] * 4})
        GenPerceptPipeline.from_parts(**common, vae=None, codec="pixels", head="dpt", head_module=dpt)
    with pytest.raises(ValueError, match="'direct' gives no latent, but head 'vae' reads one"):
        GenPerceptPipeline.from_parts(**common, vae=None, codec="pixels", paradigm="direct")
    with pytest.raises(ValueError, match="backbone 'dinov2' takes pixels, but codec 'kl' gives latent"):
        vae = parts.load_part(CODECS.find("kl"), SD_TINY / "vae")
        dpt = HEADS.find("dpt").build({"neck_hidden_sizes": [24] * 4})
        GenPerceptPipeline.from_parts(**common, vae=vae, paradigm="direct", head="dpt", head_module=dpt)


def test_codec_pixels_has_no_weights_and_decodes_nothing() -> None:
    plugin = CODECS.find("pixels")
    image = torch.rand(1, 3, 4, 4)
    assert plugin.wrap(None).encode(image) is image
    for wrong in (
        lambda: plugin.build({}),
        lambda: plugin.wrap(nn.Linear(1, 1)),
        lambda: plugin.wrap(None).decode(image),
    ):
        with pytest.raises(ValueError, match="codec 'pixels'"):
            wrong()


# ---- bases -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["dinov2", "clip"])
def test_published_layout_of_a_pixel_backbone_is_a_base(kind: str, tmp_path: Path) -> None:
    folder = dinov2_base(tmp_path / "b") if kind == "dinov2" else clip_base(tmp_path / "b")
    head = HEADS.find("dpt").build({"neck_hidden_sizes": [24] * 4, "fusion_hidden_size": 8} | FACTORS)
    pipe = GenPerceptPipeline.from_base(folder, "depth", paradigm="direct", head="dpt", head_module=head, resolution=42)
    assert (pipe.info["backbone"], pipe.info["codec"], pipe.stride) == (kind, "pixels", 14)
    assert pipe.info.get("skipped") == (
        {"text_model": 20, "logit_scale": 1, "text_projection": 1, "visual_projection": 1} if kind == "clip" else None
    )
    image = np.random.default_rng(0).integers(0, 256, (30, 41, 3), np.uint8)
    want = pipe(image).values
    pipe.save_pretrained(tmp_path / "m")
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == [
        "backbone",
        "genpercept.json",
        "head",
        "model_index.json",
    ]
    again = GenPerceptPipeline.from_pretrained(tmp_path / "m")
    assert again.vae is None and np.array_equal(again(image).values, want)
    assert look("m", tmp_path / "m", Given()).problems == []


FACTORS = {"token_map_scales": list(REASSEMBLE)}


def test_older_names_of_dinov2_are_read(tmp_path: Path) -> None:
    folder = dinov2_base(tmp_path)
    names = parts.tensor_shapes(folder / "model.safetensors")
    assert any("mlp.weights_in" in name for name in names) and any(
        "attention.attention.query" in name for name in names
    )
    net: Any = parts.load_part(BACKBONES.find("dinov2"), folder)
    parent = Dinov2Model.from_pretrained(folder).eval()
    x = torch.rand(1, 3, 28, 28)
    want = cast(Any, parent(x)).last_hidden_state
    assert torch.equal(cast(Any, Dinov2Model.forward(net, x)).last_hidden_state, want)


def test_pixart_base_brings_its_null_caption_and_needs_no_text_encoder(tmp_path: Path) -> None:
    folder = pixart_base(tmp_path / "b")
    null = load_file(folder / "transformer" / "diffusion_pytorch_model.safetensors")["caption_projection.y_embedding"]
    pipe = GenPerceptPipeline.from_base(folder, "depth", paradigm_options={"prediction_type": "sample"}, resolution=40)
    assert torch.equal(pipe.prompt_embeds, null[None])
    assert cast(Any, pipe.unet).config.out_channels == 4 and pipe.stride == 16
    image = np.random.default_rng(0).integers(0, 256, (30, 41, 3), np.uint8)
    want = pipe(image).values
    pipe.save_pretrained(tmp_path / "m")
    assert (tmp_path / "m" / "transformer" / "config.json").is_file() and not (tmp_path / "m" / "unet").exists()
    assert np.array_equal(GenPerceptPipeline.from_pretrained(tmp_path / "m")(image).values, want)
    plain: Any = PixArtTransformer2DModel.from_pretrained(tmp_path / "m" / "transformer")
    assert plain.config.out_channels == 4
    save_file({"prompt_embeds": torch.ones(1, 2, 10)}, folder / "prompt_embeds.safetensors")
    stored = GenPerceptPipeline.from_base(folder, "depth", paradigm_options={"prediction_type": "sample"})
    assert torch.equal(stored.prompt_embeds, torch.ones(1, 2, 10))


def test_an_epsilon_base_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"predicts 'epsilon'; one_step needs .* prediction_type = \"sample\""):
        GenPerceptPipeline.from_base(pixart_base(tmp_path), "depth")


@torch.no_grad()
def test_the_empty_prompt_of_t5_is_one_token_whose_masked_padding_changes_nothing(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, processors
    from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

    folder = pixart_base(tmp_path)
    path = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    del tensors["caption_projection.y_embedding"]
    save_file(tensors, path)
    with pytest.raises(ValueError, match="has no tokenizer/"):
        GenPerceptPipeline.from_base(folder, "depth", paradigm_options={"prediction_type": "sample"})
    words = Tokenizer(models.Unigram([("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("a", -1.0), ("b", -1.0)], 2))
    words.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    fast = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="</s>", pad_token="<pad>", unk_token="<unk>")
    fast.save_pretrained(folder / "tokenizer")
    torch.manual_seed(0)
    t5 = T5EncoderModel(T5Config(vocab_size=5, d_model=10, d_kv=5, d_ff=16, num_layers=2, num_heads=2)).eval()
    t5.save_pretrained(folder / "text_encoder")
    pipe = GenPerceptPipeline.from_base(folder, "depth", paradigm_options={"prediction_type": "sample"})
    assert pipe.prompt_embeds.shape == (1, 1, 10)
    padded = fast("", padding="max_length", max_length=120, return_tensors="pt")
    embeds = t5(padded.input_ids, attention_mask=padded.attention_mask)[0]
    x, t = torch.randn(1, 4, 6, 6), torch.tensor([1])
    net: Any = pipe.unet
    want = cast(Any, PixArtTransformer2DModel).forward(
        net, x, embeds, t, {"resolution": None, "aspect_ratio": None}, encoder_attention_mask=padded.attention_mask
    )
    found = net.forward_features(x, t, pipe.prompt_embeds).latent
    assert torch.allclose(found, want.sample, atol=1e-5)


def test_sdxl_base_knows_its_empty_prompt_and_no_other(tmp_path: Path) -> None:
    UNet2DConditionModel(**cast(Any, SDXL)).save_pretrained(tmp_path / "unet")
    parts.load_part(CODECS.find("kl"), SD_TINY / "vae").save_pretrained(tmp_path / "vae")  # type: ignore[operator]
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "scheduler" / "scheduler_config.json").write_text('{"prediction_type": "epsilon"}')
    options = {"prediction_type": "sample"}
    pipe = GenPerceptPipeline.from_base(tmp_path, "depth", paradigm_options=options, resolution=32)
    assert pipe(np.zeros((20, 30, 3), np.uint8)).values.shape == (20, 30)
    with pytest.raises(ValueError, match="pooled text embedding"):
        GenPerceptPipeline.from_base(tmp_path, "depth", paradigm_options=options, prompt="a room")
