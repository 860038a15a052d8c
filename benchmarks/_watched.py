"""What networks were given and gave while a command ran, for comparison with what other code computes on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import transformers
from torch import Tensor

from genpercept.models.backbones._unet import SD21UNet
from genpercept.models.backbones.sd21_fourier import FourierBlock
from genpercept.models.codecs.kl import KlCodec


@dataclass
class Watched:
    """In order of the calls. network: x, t, context, class labels (None without), and the output of each."""

    images: list[np.ndarray] = field(default_factory=list)  # (B, 3, H, W) in [-1, 1], as the autoencoder sees them
    encoded: list[np.ndarray] = field(default_factory=list)
    network: list[tuple[np.ndarray | None, ...]] = field(default_factory=list)
    blocks: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)  # of DepthMaster: before and behind
    latents: list[np.ndarray] = field(default_factory=list)  # as the decoder is given them, scaled
    decoded: list[np.ndarray] = field(default_factory=list)
    words: list[np.ndarray] = field(default_factory=list)  # ids that the text encoder read

    def column(self, number: int) -> np.ndarray:
        """One of the network's five, of all calls: (calls, ...)."""
        return np.stack([np.asarray(call[number]) for call in self.network])


def _plain(value: Tensor | None) -> np.ndarray | None:
    return None if value is None else value.detach().cpu().numpy().copy()


@contextmanager
def watched() -> Iterator[Watched]:
    """Stable Diffusion's networks of this process, whatever loads them."""
    seen = Watched()

    def network(own: Callable[..., Any]) -> Any:
        def run(self: Any, x: Tensor, t: Tensor, context: Tensor, **more: Any) -> Any:
            found = own(self, x, t, context, **more)
            given = (x, t, context, more.get("class_labels"), found.latent)
            seen.network.append(tuple(map(_plain, given)))
            return found

        return run

    def between(before: list[Any] | None, after: list[Any]) -> Callable[[Callable[..., Any]], Any]:
        def around(own: Callable[..., Any]) -> Any:
            def run(self: Any, x: Tensor) -> Tensor:
                found: Tensor = own(self, x)
                if before is None:
                    after.append((_plain(x), _plain(found)))
                else:
                    before.append(_plain(x))
                    after.append(_plain(found))
                return found

            return run

        return around

    def text(own: Callable[..., Any]) -> Any:
        def run(self: Any, input_ids: Tensor, *rest: Any, **more: Any) -> Any:
            seen.words.append(input_ids.numpy().copy())
            return own(self, input_ids, *rest, **more)

        return run

    kinds: tuple[tuple[Any, str, Callable[[Callable[..., Any]], Any]], ...] = (
        (SD21UNet, "forward_features", network),
        (FourierBlock, "forward", between(None, seen.blocks)),
        (KlCodec, "encode", between(seen.images, seen.encoded)),
        (KlCodec, "decode", between(seen.latents, seen.decoded)),
        (transformers.CLIPTextModel, "forward", text),
    )
    own = [getattr(kind, name) for kind, name, _ in kinds]
    for (kind, name, wrap), method in zip(kinds, own, strict=True):
        setattr(kind, name, wrap(method))
    try:
        yield seen
    finally:
        for (kind, name, _), method in zip(kinds, own, strict=True):
            setattr(kind, name, method)
