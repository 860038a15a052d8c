"""The tiny autoencoder (TAESD's layout) as a codec, and pairs of codecs: one encodes, another decodes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny

import genpercept
from genpercept import GenPerceptPipeline
from genpercept.models.codecs import CODECS
from genpercept.pipeline import codec_swap
from genpercept.pipeline.specialise.fold import fold_codec
from tests.support.paths import GOLDEN
from tests.support.pictures import picture
from tests.support.tiny_codec import SMALL, tiny

# ---- the tiny codec --------------------------------------------------------------------------------------------------


def test_default_configuration_is_the_published_layout() -> None:
    """Names and shapes of the 134 tensors of madebyollin/taesd, diffusion_pytorch_model.safetensors; 2,445,063 numbers."""
    with torch.device("meta"):
        module = CODECS.find("tiny").build({"_class_name": "AutoencoderTiny"})
    listing = "\n".join(f"{k} {list(v.shape)}" for k, v in sorted(module.state_dict().items()))
    assert hashlib.sha256(listing.encode()).hexdigest() == PUBLISHED
    codec = CODECS.find("tiny").wrap(module)
    assert (codec.stride, codec.channels) == (8, 4)


PUBLISHED = "64fdb3c0c1d53ae7e1be8344673a949acc618f01d5f08220b5f452c411876837"


@pytest.mark.parametrize("blocks", [[8] * 4, [8] * 3])
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (2, 9)])
def test_shapes(blocks: list[int], size: tuple[int, int]) -> None:
    """Stride and channels are the configuration's; sizes are multiples of the stride."""
    few = {"encoder_block_out_channels": blocks, "decoder_block_out_channels": blocks, "latent_channels": 5}
    few |= {"num_encoder_blocks": [1] * len(blocks), "num_decoder_blocks": [1] * len(blocks)}
    codec = CODECS.find("tiny").wrap(tiny(**few))
    assert (codec.stride, codec.channels) == (2 ** (len(blocks) - 1), 5)
    image = torch.rand(2, 3, size[0] * codec.stride, size[1] * codec.stride) * 2 - 1
    with torch.inference_mode():
        z = codec.encode(image)
        assert z.shape == (2, 5, *size)
        assert codec.decode(z).shape == image.shape


def test_scaling_factor_is_of_the_latent() -> None:
    """1 as published: its latents are in the space that Stable Diffusion's are in after x 0.18215."""
    image = torch.rand(1, 3, 16, 16) * 2 - 1
    module = tiny()
    plain, scaled = (CODECS.find("tiny").wrap(m) for m in (module, tiny(scaling_factor=0.5)))
    with torch.inference_mode():
        torch.testing.assert_close(plain.encode(image), cast(Any, module).encoder(image))
        torch.testing.assert_close(scaled.encode(image), plain.encode(image) * 0.5)
        torch.testing.assert_close(scaled.decode(plain.encode(image) * 0.5), plain.decode(plain.encode(image)))


def test_dtype_is_the_modules() -> None:
    codec = CODECS.find("tiny").wrap(tiny().to(torch.bfloat16))
    with torch.inference_mode():
        z = codec.encode(torch.zeros(1, 3, 16, 16))
        assert z.dtype == torch.bfloat16
        assert codec.decode(z.float()).dtype == torch.bfloat16


def test_save_and_load(taesd: Path) -> None:
    name, module = codec_swap.read_codec(taesd)
    assert name == "tiny" and isinstance(module, AutoencoderTiny)
    for key, tensor in tiny().state_dict().items():
        assert torch.equal(tensor, module.state_dict()[key])
    assert next(codec_swap.read_codec(taesd, torch.bfloat16)[1].parameters()).dtype == torch.bfloat16


def test_wrong_modules_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs an AutoencoderTiny, not a AutoencoderKL"):
        CODECS.find("tiny").wrap(AutoencoderKL(block_out_channels=(8,), norm_num_groups=4))
    with pytest.raises(ValueError, match="needs an AutoencoderKL, not a AutoencoderTiny"):
        CODECS.find("kl").wrap(tiny())
    with pytest.raises(ValueError, match="needs a CodecPair, not a AutoencoderTiny"):
        CODECS.find("pair").wrap(tiny())
    with pytest.raises(ValueError, match="holds a UNet2DConditionModel, which is no codec; pass a folder with one of"):
        codec_swap.read_codec(GOLDEN / "sd-tiny" / "unet")
    (tmp_path / "config.json").write_text(json.dumps(SMALL | {"latent_channels": 5}), encoding="utf-8")
    cast(Any, tiny()).save_pretrained(tmp_path / "x")
    (tmp_path / "x" / "diffusion_pytorch_model.safetensors").rename(tmp_path / "diffusion_pytorch_model.safetensors")
    with pytest.raises(ValueError, match=r"misshaped decoder.layers.0.weight"):
        codec_swap.read_codec(tmp_path)


def test_folded_it_answers_the_same() -> None:
    module = tiny()
    a, b = (CODECS.find("tiny").wrap(m) for m in (module, fold_codec(module)))
    image = torch.rand(2, 3, 24, 40) * 2 - 1
    with torch.inference_mode():
        torch.testing.assert_close(b.encode(image), a.encode(image), atol=1e-6, rtol=0)
        z = torch.randn(2, 4, 3, 5)
        torch.testing.assert_close(b.decode(z), a.decode(z), atol=1e-5, rtol=0)


# ---- pairs -----------------------------------------------------------------------------------------------------------


def test_a_pair_encodes_with_one_and_decodes_with_the_other(depth: GenPerceptPipeline) -> None:
    kl, other = depth.vae, tiny()
    assert kl is not None
    whole = {name: CODECS.find(name).wrap(m) for name, m in (("kl", kl), ("tiny", other))}
    for encoder, decoder in (("tiny", "kl"), ("kl", "tiny")):
        modules = {"kl": kl, "tiny": other}
        name, module = codec_swap.join(modules[encoder], modules[decoder])
        pair = CODECS.find(name).wrap(module)
        image = torch.rand(1, 3, 24, 16) * 2 - 1
        with torch.inference_mode():
            z = pair.encode(image)
            torch.testing.assert_close(z, whole[encoder].encode(image), atol=0, rtol=0)
            torch.testing.assert_close(pair.decode(z), whole[decoder].decode(z), atol=0, rtol=0)
        names = list(module.state_dict())
        assert not [n for n in names if n.startswith(("encoding.decoder", "encoding.post_quant", "decoding.encoder"))]
        assert kl.state_dict().keys() >= {"encoder.conv_in.weight", "decoder.conv_in.weight"}  # untouched


@pytest.mark.parametrize("half", ["encoder", "decoder"])
def test_a_saved_model_keeps_its_pair(depth: GenPerceptPipeline, taesd: Path, half: str, tmp_path: Path) -> None:
    pipe = depth.with_codec(**{half: taesd})
    assert pipe.info["codec"] == "pair" and depth.info["codec"] == "kl"
    image = picture((33, 47))
    want = pipe(image)
    assert np.abs(want.raw - depth(image).raw).max() > 1e-3
    pipe.save_pretrained(tmp_path / "m")
    again = genpercept.load(tmp_path / "m", device="cpu")
    np.testing.assert_array_equal(again(image).values, want.values)
    config = json.loads((tmp_path / "m" / "vae" / "config.json").read_text())
    assert config["_class_name"] == "CodecPair" and config[half]["_class_name"] == "AutoencoderTiny"
    quick = genpercept.specialise(again)
    np.testing.assert_allclose(quick(image).raw, want.raw, atol=2e-5, rtol=0)


def test_both_halves_from_one_folder_are_one_codec(depth: GenPerceptPipeline, taesd: Path, tmp_path: Path) -> None:
    pipe = depth.with_codec(encoder=taesd, decoder=taesd)
    assert pipe.info["codec"] == "tiny" and isinstance(pipe.vae, AutoencoderTiny)
    back = depth.with_codec(encoder=taesd).with_codec(decoder=taesd)  # one after the other
    image = picture((24, 24))
    np.testing.assert_array_equal(back(image).values, pipe(image).values)
    pipe.save_pretrained(tmp_path / "m")
    np.testing.assert_array_equal(genpercept.load(tmp_path / "m", device="cpu")(image).values, pipe(image).values)


def test_codecs_of_other_shapes_are_refused(depth: GenPerceptPipeline) -> None:
    with pytest.raises(ValueError, match="latent has channels 5, the decoder's 4"):
        depth.with_codec(encoder=tiny(latent_channels=5))
    coarse: dict[str, Any] = {"encoder_block_out_channels": [8] * 3, "decoder_block_out_channels": [8] * 3}
    coarse |= {"num_encoder_blocks": [1] * 3, "num_decoder_blocks": [1] * 3}
    with pytest.raises(ValueError, match="latent has stride 8, the decoder's 4"):
        depth.with_codec(decoder=tiny(**coarse))
    both = tiny(**coarse)
    with pytest.raises(ValueError, match="codec of stride 4 and 4 channels: the model was trained with 8 and 4"):
        depth.with_codec(encoder=both, decoder=both)
    with pytest.raises(ValueError, match="pass encoder=, decoder= or both"):
        depth.with_codec()
    with pytest.raises(ValueError, match="a VQModel is no codec"):
        CODECS.find("pair").build({"encoder": {"_class_name": "VQModel"}, "decoder": SMALL})
