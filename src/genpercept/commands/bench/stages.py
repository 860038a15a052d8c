"""Which part of a pipeline's network is at work: encode, denoise, head."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, cast

from genpercept import GenPerceptPipeline

NETWORK: tuple[str, ...] = ("encode", "denoise", "head")  # in their order
Around = Callable[[str], AbstractContextManager[Any]]


@contextmanager
def watched(pipe: GenPerceptPipeline, around: Around) -> Iterator[None]:
    """Within it each stage of `pipe` runs inside `around(stage)`: the pipeline's own code, whatever it was specialised to.

    Denoisers of several steps enter "denoise" at each of them.
    """
    own = cast(Any, pipe)
    codec, head, denoiser = own._codec, own._head, own._denoiser
    forward = denoiser.forward_features
    replaced = "forward_features" in vars(denoiser)  # compiled or recorded code

    def denoise(*args: Any, **kwargs: Any) -> Any:
        with around("denoise"):
            return forward(*args, **kwargs)

    own._codec, own._head, denoiser.forward_features = _Codec(codec, around), _Head(head, around), denoise
    try:
        yield
    finally:
        own._codec, own._head = codec, head
        if replaced:
            denoiser.forward_features = forward
        else:
            del denoiser.forward_features


class _Watched:
    def __init__(self, inner: Any, around: Around) -> None:
        self._inner, self._around = inner, around

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class _Codec(_Watched):
    def encode(self, image: Any) -> Any:
        with self._around("encode"):
            return self._inner.encode(image)


class _Head(_Watched):
    """Calls the codec's decoder where it is that; so a decoder's time is the head's."""

    def __call__(self, features: Any, codec: Any) -> Any:
        with self._around("head"):
            return self._inner(features, codec)
