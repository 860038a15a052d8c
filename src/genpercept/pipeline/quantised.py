"""Linear layers in int8, by torchao: for less memory, and for speed where the machine's int8 products are quicker.

Convolutions, which are most of a denoiser's and a codec's arithmetic, stay as they are; OpenVINO's int8 (`genpercept
export`) has them too. What this costs in accuracy and brings in time: benchmarks/speed/quantised.py.
"""

from __future__ import annotations

import importlib
from typing import Any

from genpercept.core.options import check_choice
from genpercept.pipeline.pipeline import GenPerceptPipeline

# name -> torchao's configuration of it
_CONFIGURATIONS = {
    "int8wo": "Int8WeightOnlyConfig",  # weights of each output channel; they are products in the activations' dtype
    "int8dq": "Int8DynamicActivationInt8WeightConfig",  # and activations of each token, by their range at that moment
}
KINDS = tuple(_CONFIGURATIONS)
MARK = "quantised"  # in pipe.info


class QuantisedPipeline(GenPerceptPipeline):
    """What `quantise` returns: to be run, not to be saved."""

    def save_pretrained(self, *unused: Any, **more: Any) -> None:
        """ValueError: files hold the weights that it was made from."""
        raise ValueError(
            "a quantised pipeline cannot be saved: save the model that it was made from, and pass quantised= to genpercept.load"
        )


def check(kind: str | None, specialised: bool | None) -> None:
    """ValueError with the choices for an unknown kind, and for one of a specialised pipeline. None: nothing is asked."""
    if kind is None:
        return
    check_choice("quantised", kind, KINDS)
    if specialised:
        raise ValueError("quantised and specialised=True do not go together: leave one of them out")


def quantise(pipe: GenPerceptPipeline, kind: str) -> QuantisedPipeline:
    """The pipeline with all linear layers of its networks in int8; takes `pipe`'s modules over and changes them.

    kind: of KINDS. ValueError for another kind, and for pipelines whose networks are not plain modules. ModuleNotFoundError
    without torchao.
    """
    check(kind, None)
    if type(pipe) is not GenPerceptPipeline:
        raise ValueError(
            f"quantised={kind!r}: only a plain pipeline can be quantised, not a {type(pipe).__name__}: "
            "load it with specialised=False"
        )
    torchao = importlib.import_module("torchao.quantization")
    configuration = getattr(torchao, _CONFIGURATIONS[kind])
    for part in (pipe.unet, pipe.vae, pipe.head):
        if part is not None:
            part.requires_grad_(False)
            torchao.quantize_(part, configuration())
    info = pipe.info | {MARK: kind}
    return QuantisedPipeline(pipe.unet, pipe.vae, pipe.prompt_embeds, info, pipe.head, pipe.image_encoder)
