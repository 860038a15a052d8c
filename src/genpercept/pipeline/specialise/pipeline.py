"""`genpercept.specialise`: a pipeline for one step that answers the same, quicker.

With the timestep and the prompt fixed, part of the denoiser is constant: the time embedding becomes biases, attention to the
prompt two narrow linear layers. Beside that, queries, keys and values share a product, upsampling and the convolution after it
are one, the codec's 1 x 1 convolutions are merged into their neighbours. All of it is exact algebra, so that in float32 only
rounding differs (1e-5). A saved model stays plain: its weights as they were, and in genpercept.json a mark by which loading
specialises it again. Memory formats, compiled code and graphs are of the machine it runs on, not of the model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from genpercept.core import dtypes
from genpercept.core.options import check_choice, check_flag
from genpercept.models.backbones import BACKBONES
from genpercept.models.codecs import CODECS
from genpercept.models.heads import HEADS
from genpercept.models.paradigms import Paradigm
from genpercept.pipeline.call import Run
from genpercept.pipeline.pipeline import GenPerceptPipeline
from genpercept.pipeline.specialise import fold as folding
from genpercept.pipeline.specialise import memory_format
from genpercept.pipeline.specialise.compiled import Compiled, Graphed, Pools

COMPILE = ("", "dynamic", "static")
_PROBE_CELLS = 8  # latent cells along each edge of the image on which the constants are computed


@dataclass(frozen=True)
class Settings:
    """What is done; stored in genpercept.json. dtype: of weights and activations.

    fold: the algebra. layout: "channels_last", "contiguous", or "auto": on CUDA devices what is measured to be quicker there
    (`memory_format`), elsewhere channels_last but for float32, where it is no quicker on CPUs and their group normalisation
    rounds a hundred times worse in it. compile: "" (not), "dynamic": one graph for all sizes, or "static": one for each.
    cuda_graphs: replay repeated sizes, on CUDA devices. strips: the codec works through large maps strip by strip, which takes
    less memory and leaves no seams, unlike diffusers' tiles; needs fold, goes without compile.
    """

    dtype: str = "float32"
    fold: bool = True
    layout: str = "auto"
    compile: str = ""
    cuda_graphs: bool = False
    strips: bool = False

    def __post_init__(self) -> None:
        dtypes.check(self.dtype, dtypes.TORCH_NAMES)
        check_choice("layout", self.layout, ("auto", "channels_last", "contiguous"))
        check_choice("compile", self.compile, COMPILE)
        check_flag("fold", self.fold)
        check_flag("cuda_graphs", self.cuda_graphs)
        check_flag("strips", self.strips)
        if self.strips and (self.compile or not self.fold):
            raise ValueError("strips=True needs fold=True and goes without compile: leave one of them out")

    @property
    def channels_last(self) -> bool:
        """By the rule, before anything is measured."""
        return self.layout == "channels_last" or (self.layout == "auto" and self.dtype != "float32")

    @property
    def way(self) -> str:
        """What beside the networks decides how quick they are, in words; "" where it is nothing."""
        ways = {"not folded": not self.fold, f"compiled ({self.compile})": bool(self.compile)}
        ways |= {"CUDA graphs": self.cuda_graphs, "in strips": self.strips}
        return ", ".join(way for way, on in ways.items() if on)


def specialise(
    pipe: GenPerceptPipeline,
    *,
    dtype: torch.dtype | str | None = None,
    fold: bool = True,
    layout: str = "auto",
    compile: str = "",
    cuda_graphs: bool = False,
    strips: bool = False,
) -> SpecialisedPipeline:
    """A pipeline that answers as `pipe` does (1e-5 in float32), quicker, over the same weights; `pipe` stays as it is.

    Arguments as `Settings` has them; dtype None: the pipeline's own. A specialised pipeline is specialised anew, for its
    present prompt. ValueError for what cannot be: paradigms of several steps or from noise, backbones that are not `foldable`,
    adapters that are not merged, offloaded models, tiled codecs.
    """
    name = dtypes.torch_name(dtype or pipe.unet_dtype)
    settings = Settings(name, fold, layout, compile, cuda_graphs, strips)
    info = {k: v for k, v in pipe.info.items() if k != MARK} | {MARK: asdict(settings)}
    return SpecialisedPipeline(pipe.unet, pipe.vae, pipe.prompt_embeds, info, pipe.head)


MARK = "specialised"  # in genpercept.json


def again(pipe: GenPerceptPipeline, dtype: torch.dtype | None = None) -> SpecialisedPipeline:
    """A pipeline specialised as genpercept.json says, or by the defaults where it says nothing. dtype: in place of its own."""
    stored = dict(pipe.info.get(MARK) or {})
    own = stored.pop("dtype", None)
    try:
        return specialise(pipe, dtype=dtype or own, **stored)
    except TypeError:
        raise ValueError(
            f"settings of specialisation {stored}: of a newer version; load with specialised=False"
        ) from None


class SpecialisedPipeline(GenPerceptPipeline):
    """What `specialise` returns. `unet`, `vae` and `head` are plain modules, to be saved; what runs are folded copies.

    A copy holds new tensors where layers were merged and shares the others. Changes to the parts afterwards are not seen;
    another prompt, timestep or paradigm is refused.
    """

    one_at_a_time = True  # graphs are replayed over fixed buffers

    def __init__(
        self,
        unet: nn.Module,
        vae: nn.Module | None,
        prompt_embeds: Tensor | None = None,
        info: dict[str, Any] | None = None,
        head: nn.Module | None = None,
        image_encoder: nn.Module | None = None,
    ) -> None:
        """As the parent; `info` has the settings under "specialised". Models that read the image in a prompt's place have no
        constant prompt to fold: ValueError.
        """
        if image_encoder is not None:
            raise ValueError(
                "a model with an image encoder: its prompt differs by image, so that it is not specialised"
            )
        if info is None or (stored := info.get(MARK)) is None:
            raise ValueError("a pipeline without settings of specialisation: build it with genpercept.specialise")
        self._settings = Settings(**stored)
        check_parts(unet, vae, head, info)
        target = dtypes.to_torch(self._settings.dtype), self._settings.channels_last
        parts = [None if part is None else folding.twin(part, *target) for part in (unet, vae, head)]
        super().__init__(cast(nn.Module, parts[0]), parts[1], prompt_embeds, info, parts[2])
        self._chosen, self._prompt = self.paradigm(), self.prompt_embeds.clone()
        self._conditions = self.info.get("conditions")
        self._quick: list[Compiled | Graphed] = []
        self._pools = Pools()
        with torch.inference_mode(False):
            folded = self._folded() if self._settings.fold else self._copied()
        self._runs = nn.ModuleDict(folded)
        if "codec" in folded:
            self._codec = CODECS.find(self.info["codec"]).wrap(folded["codec"])
        if "head" in folded:
            self._head = HEADS.find(self.info["head"]).wrap(folded["head"])
        self._speed_up()
        usual = "channels_last" if self._settings.channels_last else "contiguous"
        how = self._settings.dtype, self._settings.way
        self._format = memory_format.MemoryFormat(self._runs, usual, *how, self._forget)

    def _folded(self) -> dict[str, nn.Module]:
        """Copies of the parts with what is constant in them. The constants come from a run on a small image."""
        steps = self.default_steps(self._chosen)
        if self._chosen.stochastic or steps != 1:
            start = "noise" if self._chosen.stochastic else "the image"
            raise ValueError(
                f"paradigm {self._chosen.name!r}, {steps} steps from {start}: only one step that needs no noise can be "
                "specialised, because others change the timestep; use the plain pipeline"
            )
        edge = self._codec.stride * _PROBE_CELLS
        image = torch.full((1, 3, edge, edge), 0.5)
        with torch.no_grad(), folding.recorded(self.unet) as constants:
            GenPerceptPipeline._forward(self, image, Run(self._chosen, 1), None)
        parts = {"backbone": folding.fold_unet(self.unet, constants)}
        if self.vae is not None:
            parts["codec"] = folding.fold_codec(self.vae, self._settings.strips)
        return parts if self.head is None else parts | {"head": folding.fold_head(self.head)}

    def _copied(self) -> dict[str, nn.Module]:
        """Copies of the parts as they are, over the same weights: their methods may be replaced."""
        parts = {"backbone": self.unet, "codec": self.vae, "head": self.head}
        return {name: folding.twin(part) for name, part in parts.items() if part is not None}

    def _speed_up(self) -> None:
        """Compiled code and graphs, part by part: denoiser, encoder, decoder, head."""
        backbone: Any = self._runs["backbone"]
        backbone.forward_features = self._quicker(backbone.forward_features)
        modules = [part for name, part in self._runs.items() if name == "head"]
        for part in self._runs["codec"].modules():
            modules += [child for name, child in part.named_children() if name in ("encoder", "decoder")]
        for module in modules:
            module.forward = self._quicker(module.forward)

    def _quicker(self, function: Callable[..., Any]) -> Callable[..., Any]:
        if self._settings.compile:
            function = Compiled(function, self._settings.compile)
            self._quick.append(function)
        if self._settings.cuda_graphs:
            function = Graphed(function, self._pools)
            self._quick.append(function)
        return function

    @property
    def graphs_off(self) -> str:
        """Why CUDA graphs, though asked for, could not be recorded; "" where they could, or had no occasion to be."""
        return next((quick.off for quick in self._quick if isinstance(quick, Graphed) and quick.off), "")

    @property
    def memory_format(self) -> str:
        """ "contiguous" or "channels_last": of the last image's networks, or, before the first, by the rule."""
        return self._format.present

    # ---- inference -------------------------------------------------------------------------------------------------

    @property
    def _denoiser(self) -> nn.Module:
        return self._runs["backbone"] if hasattr(self, "_runs") else self.unet

    def _forward(self, image_BCHW: Tensor, run: Run, latents: Tensor | None) -> Tensor:
        """As the parent's. ValueError where something that was constant has changed."""
        self._check_unchanged(run)
        forward, device = super()._forward, self._execution_device
        if self._settings.layout == "auto" and device.type in memory_format.MEASURED:
            self._format.settle(max(image_BCHW.shape[-2:]), device, lambda: forward(image_BCHW, run, latents))
        return forward(image_BCHW, run, latents)

    def _check_unchanged(self, run: Run) -> None:
        again = "call genpercept.specialise again, or use the plain pipeline"
        if run.paradigm != self._chosen or run.steps != 1:
            raise ValueError(
                f"this pipeline is specialised for {_described(self._chosen)} in 1 step, not for "
                f"{_described(run.paradigm)} in {run.steps}; {again}"
            )
        if not torch.equal(self.prompt_embeds, self._prompt) or self.info.get("conditions") != self._conditions:
            raise ValueError(f"the prompt was changed after the pipeline was specialised for it; {again}")
        check_parts(self.unet, self.vae, self.head, self.info)

    # ---- moving ----------------------------------------------------------------------------------------------------

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """To another device. ValueError for a dtype: specialise anew, so that what is folded is rounded once."""
        if any(isinstance(x, torch.dtype) for x in (*args, *kwargs.values())):
            raise ValueError("a specialised pipeline cannot change its dtype: call genpercept.specialise with dtype=")
        self._format.reset()
        super().to(*args, **kwargs)
        self._runs.to(self.device)
        self._forget()
        return self

    def _forget(self) -> None:
        """Graphs and compiled code: weights have moved."""
        for quick in self._quick:
            quick.clear()

    def enable_model_cpu_offload(self, *args: Any, **kwargs: Any) -> None:
        """ValueError: what runs are not the parts that would be moved."""
        raise ValueError("a specialised pipeline cannot be offloaded: use the plain one, or a device that holds it")

    enable_sequential_cpu_offload = enable_model_cpu_offload


def check_parts(unet: nn.Module, vae: nn.Module | None, head: nn.Module | None, info: dict[str, Any]) -> None:
    """ValueError for parts that cannot be specialised, or were changed in a way that the folded copies would not see."""
    if not BACKBONES.find(info["backbone"]).foldable:
        known = ", ".join(name for name in BACKBONES.names() if BACKBONES.find(name).foldable)
        raise ValueError(f"backbone {info['backbone']!r} cannot be specialised, only {known}; use the plain pipeline")
    if getattr(unet, "peft_config", None):
        raise ValueError(
            "the denoiser has a LoRA adapter: merge it first (genpercept.models.adapters.merged_copy), then specialise"
        )
    if getattr(vae, "use_tiling", False) or getattr(vae, "use_slicing", False):
        raise ValueError("the codec's tiling or slicing is on, which a specialised one does not do: switch it off")
    if any(getattr(part, "_hf_hook", None) is not None for part in (unet, vae, head)):
        raise ValueError("the model is offloaded: load it without offload, then specialise")


def _described(paradigm: Paradigm) -> str:
    options = ", ".join(f"{k}={v!r}" for k, v in paradigm.options.items())
    return f"{paradigm.name}({options})"
