"""Two codecs of one latent space: one encodes, the other decodes. Each half keeps only the weights it needs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from genpercept.core.modules import config_of
from genpercept.core.texts import class_shown
from genpercept.models.codecs import CODECS, HALVES, Codec, CodecPlugin, GuidedCodec, is_guided

# What each half does without, in diffusers' autoencoders.
_UNUSED = {"encode": ("decoder", "post_quant_conv"), "decode": ("encoder", "quant_conv")}


class Tiling(Protocol):
    """What diffusers' autoencoders can do for large images."""

    use_tiling: bool

    def enable_tiling(self) -> None: ...
    def disable_tiling(self) -> None: ...


class CodecPair(ModelMixin, ConfigMixin):
    """`encoding` and `decoding`: modules of other codecs, the first without its decoder, the second without its encoder."""

    _supports_gradient_checkpointing = True

    @register_to_config
    def __init__(self, encoder: dict[str, Any], decoder: dict[str, Any]) -> None:
        """encoder, decoder: configurations of diffusers' autoencoders, each with its _class_name.

        ValueError for two that differ in channels, strides that do not go together, or a class that is no codec's.
        """
        super().__init__()
        self.encoding, self.decoding = _half(encoder, "encode"), _half(decoder, "decode")
        self.register_to_config(latent_channels=CodecOfTwo(self).channels)

    @classmethod
    def of(cls, encoder: nn.Module, decoder: nn.Module) -> CodecPair:
        """Over the weights of two codecs' modules, which stay whole themselves. In evaluation mode."""
        with torch.device("meta"):
            pair = cls(*(_config(module) for module in (encoder, decoder)))
        tensors = {f"encoding.{k}": v for k, v in encoder.state_dict().items()}
        tensors |= {f"decoding.{k}": v for k, v in decoder.state_dict().items()}
        pair.load_state_dict({k: tensors[k] for k in pair.state_dict()}, strict=True, assign=True)
        return pair.eval()

    def enable_tiling(self) -> None:
        """As diffusers' autoencoders have it, for both halves."""
        for half in (self.encoding, self.decoding):
            cast(Tiling, half).enable_tiling()

    def disable_tiling(self) -> None:
        for half in (self.encoding, self.decoding):
            cast(Tiling, half).disable_tiling()

    @property
    def use_tiling(self) -> bool:
        return cast(Tiling, self.decoding).use_tiling


class CodecOfTwo:
    """A CodecPair as a Codec.

    Where a decoder that is guided by the photograph has a stride of twice the encoder's, or more, the encoder is shown the
    picture averaged to what it has cells for: the decoder reads the rest of it from the photograph.
    """

    def __init__(self, module: CodecPair) -> None:
        self.module = module
        plugins = [_plugin(config_of(half)) for half in (module.encoding, module.decoding)]
        if not plugins[0].encodes:
            raise ValueError(f"a {plugins[0].class_name} only decodes: pass it as decoder, and another codec's encoder")
        self.first, self.second = plugins[0].wrap(module.encoding), plugins[1].wrap(module.decoding)
        self._smaller, rest = divmod(self.second.stride, self.first.stride)
        fits = {"channels": self.first.channels == self.second.channels}
        fits["stride"] = not rest and (self._smaller == 1 or is_guided(self.second))
        for what in fits:
            if not fits[what]:
                raise ValueError(
                    f"the encoder's latent has {what} {getattr(self.first, what)}, the decoder's "
                    f"{getattr(self.second, what)}: only codecs of one latent space go together"
                )
        self.channels, self.stride = self.first.channels, self.second.stride

    def encode(self, image: Tensor) -> Tensor:
        return self.first.encode(F.avg_pool2d(image, self._smaller) if self._smaller > 1 else image)

    def decode(self, latent: Tensor) -> Tensor:
        return self.second.decode(latent)


class GuidedCodecOfTwo(CodecOfTwo):
    """One whose decoder sees the photograph."""

    def decode_guided(self, latent: Tensor, image: Tensor) -> Tensor:
        return cast(GuidedCodec, self.second).decode_guided(latent, image)


def _plugin(config: Mapping[str, Any]) -> CodecPlugin:
    """The codec of a configuration's class. ValueError for a class that is no codec's, or a pair itself."""
    known = {p.class_name: p for p in map(_find, CODECS.names()) if p.class_name}
    name = config.get("_class_name")
    if name not in known or name == CodecPair.__name__:
        raise ValueError(
            f"a {class_shown(name)} is no codec: choose {', '.join(sorted(known.keys() - {CodecPair.__name__}))}"
        )
    return known[name]


def _find(name: str) -> CodecPlugin:
    return CODECS.find(name)


def _half(config: dict[str, Any], role: str) -> nn.Module:
    module = _plugin(config).build(config)
    for unused in _UNUSED[role]:
        if getattr(module, unused, None) is not None:
            setattr(module, unused, None)
    return module


def _config(module: nn.Module) -> dict[str, Any]:
    """A module's configuration as a dictionary that JSON holds, under its class's name."""
    kept = {k: v for k, v in config_of(module).items() if not k.startswith("_")}
    return {"_class_name": type(module).__name__} | kept


class Pair(CodecPlugin):
    name = "pair"
    class_name = CodecPair.__name__
    output = "latent"

    def check(self, config: dict, path: Path) -> None:
        for end in HALVES:
            part = config.get(end)
            if not isinstance(part, dict):
                raise ValueError(f"{path}: {end} is no object: must be the configuration of a codec; copy it again")
            try:
                plugin = _plugin(part)
            except ValueError as error:
                raise ValueError(f"{path}: {end}: {error}") from None
            plugin.check(part, path)

    def build(self, config: dict) -> nn.Module:
        return CodecPair(config["encoder"], config["decoder"])

    def pair(self, encoder: nn.Module, decoder: nn.Module) -> nn.Module:
        """A module that encodes with one codec's module and decodes with another's; shares their weights."""
        return CodecPair.of(encoder, decoder)

    def wrap(self, module: nn.Module | None) -> Codec:
        if not isinstance(module, CodecPair):
            raise ValueError(f"codec 'pair' needs a CodecPair, not a {type(module).__name__}: make one with its `pair`")
        codec = CodecOfTwo(module)
        return GuidedCodecOfTwo(module) if is_guided(codec.second) else codec


PLUGIN = Pair()
