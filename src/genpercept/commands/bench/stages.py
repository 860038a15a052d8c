"""Which part of a pipeline's network is at work: encode, denoise, head."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, cast

from genpercept.models.backbones import as_backbone
from genpercept.models.codecs import Codec
from genpercept.models.heads import Head
from genpercept.pipeline.pipeline import GenPerceptPipeline

NETWORK: tuple[str, ...] = ("encode", "denoise", "head")  # in their order
Around = Callable[[str], AbstractContextManager[Any]]


@contextmanager
def watched(pipe: GenPerceptPipeline, around: Around) -> Iterator[None]:
    """Within it each stage of `pipe` runs inside `around(stage)`: the pipeline's own code, whatever it was specialised to.

    Denoisers of several steps enter "denoise" at each of them.
    """
    codec, head, own = pipe._codec, pipe._head, vars(pipe._denoiser)
    forward = as_backbone(pipe._denoiser).forward_features
    replaced = "forward_features" in own  # compiled or recorded code

    def denoise(*args: Any, **kwargs: Any) -> Any:
        with around("denoise"):
            return forward(*args, **kwargs)

    pipe._codec, pipe._head = cast(Codec, _Codec(codec, around)), cast(Head, _Head(head, around))
    own["forward_features"] = denoise
    try:
        yield
    finally:
        pipe._codec, pipe._head = codec, head
        if replaced:
            own["forward_features"] = forward
        else:
            del own["forward_features"]


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
