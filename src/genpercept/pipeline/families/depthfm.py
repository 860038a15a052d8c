"""DepthFM (Gui et al. 2024): flow matching from the image's noised latent to the depth's, which is of log-depth.

Its checkpoint is one pickled file: the U-Net under latent diffusion's names with the arguments of its class, the empty
prompt's embedding, and how far the start is noised. The U-Net was trained from Stable Diffusion 2.1 and has its shapes, but
eight heads on every level; the autoencoder is Stable Diffusion 1.5's. Facts of github.com/CompVis/depth-fm at da632c8.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from genpercept.checkpoints import parts, pickles, weights
from genpercept.core.options import check_choice, check_integer
from genpercept.core.texts import listed
from genpercept.models.backbones import BACKBONES
from genpercept.pipeline.families import Candidate
from genpercept.pipeline.families._family import UNetFamily
from genpercept.pipeline.families._from_base import Base, check_vae
from genpercept.pipeline.families._headers import Layout
from genpercept.pipeline.families._latent_diffusion import config_of, names_of

WEIGHTS, ARGUMENTS, PROMPT, NOISING = "state_dict", "ldm_hparams", "empty_text_embedding", "noising_step"
_KINDS = {WEIGHTS: dict, ARGUMENTS: dict, PROMPT: Tensor, NOISING: int}  # all that the file holds
_WAYS = ("plain", "rescaled")
_MOST_NOISING = 1000
_LONGEST = 300  # letters of a tensor's name


@dataclass(frozen=True)
class DepthFM(UNetFamily):
    """attention: plain, as its code computes it with xformers, which its environment has; or rescaled, as it does without.
    noising_step: another one than the file's, 0 to 1000.
    """

    attention: str = _WAYS[0]
    noising_step: int | None = None

    name = "depthfm"
    published: ClassVar[Mapping[str, str]] = {}  # on no hub: docs/checkpoints.md says where
    base = "Stable Diffusion 1.5"
    tasks = ("depth",)
    resolution = 0  # an image's own, as its command line has it

    def __post_init__(self) -> None:
        check_choice("attention", self.attention, _WAYS)
        if self.noising_step is not None:
            check_integer("noising_step", self.noising_step, 0, _MOST_NOISING)

    def recognise(self, folder: Path, *, allow_pickle: bool = False) -> Candidate | None:
        """By what the file names, damaged or not; safetensors hold none of it but the tensors."""
        file = weights.lone_file(folder)
        if file is None or not weights.is_pickle(file):
            return None
        if not allow_pickle:
            raise weights.pickle_refused(file.parent, file.name)
        named = _content(file).keys() & _KINDS.keys()
        return _candidate() if len(named) > 1 and named != {WEIGHTS} else None

    def candidate(self, layout: Layout) -> Candidate | None:
        return _candidate()

    def lacking(self, folder: Path, *, allow_pickle: bool = False) -> list[str]:
        return [] if (folder / "vae").is_dir() else ["vae"]

    def layout(self, folder: Path, *, allow_pickle: bool = False) -> Layout:
        """ValueError for another file, one that lacks a part, and for values that such a network cannot have."""
        file = weights.lone_file(folder)
        if file is None:
            raise ValueError(
                f"{folder}: no checkpoint of family {self.name!r}, which is one file, such as depthfm-v1.ckpt, or a "
                "folder with it; check the path, or leave family out"
            )
        weights.weight_files(file, allow_pickle=allow_pickle)  # which says what a pickle is
        content = _checked(file, _content(file))
        config = config_of(file, content[ARGUMENTS])
        if self.attention != _WAYS[0]:
            config["self_attention"] = self.attention
        stored = {name: tuple(tensor.shape) for name, tensor in content[WEIGHTS].items()}
        names = names_of(file, stored, config)
        shapes = {names[name]: shape for name, shape in stored.items()}
        unet = parts.skeleton(BACKBONES.find("sd21"), file, config, shapes)
        parts.check_shapes(file, {k: tuple(t.shape) for k, t in unet.state_dict().items()}, shapes, f"its {ARGUMENTS}")
        places = (folder,) if folder != file else ()
        return Layout(file.parent, file, config, shapes, places, {NOISING: content[NOISING]})

    def check(self, layout: Layout, base: Base | None, *, allow_pickle: bool = False) -> None:
        """Text and U-Net are its own, so that a base of any width gives its autoencoder, but not Stable Diffusion 2's."""
        if base is not None and layout.part("vae") is None:
            width = _of(base, "unet", "config.json").get("cross_attention_dim")
            kind = _of(base, "scheduler", "scheduler_config.json").get("prediction_type")
            if width == layout.text_width or kind == "v_prediction":
                raise ValueError(
                    f"{base.name}: by its text or its scheduler this is what the U-Net of {layout.unet} was trained from, but "
                    "its latents are those of Stable Diffusion 1.5's autoencoder: take that as the base"
                )
        check_vae(layout, base)

    def refuse_untouched(self, layout: Layout, base: Base, *, allow_pickle: bool = False) -> None:
        """Nothing: no base of it has such a U-Net."""

    def called(self, layout: Layout) -> Path:
        return layout.unet

    def load_unet(
        self, layout: Layout, base: Base | None, dtype: torch.dtype | None, *, allow_pickle: bool
    ) -> nn.Module:
        stored = parts.tensor_shapes(layout.unet, allow_pickle=allow_pickle)
        names = names_of(layout.unet, stored, layout.config)
        load = partial(parts.load_part, rename=names.__getitem__, config=layout.config, allow_pickle=allow_pickle)
        return load(BACKBONES.find("sd21"), layout.unet, dtype)

    def prompt(self, layout: Layout, base: Base | None, *, allow_pickle: bool = False) -> Tensor:
        return _content(layout.unet)[PROMPT].float().reshape(1, -1, layout.text_width).clone()

    def settings(self, layout: Layout, base: Base | None, task: str) -> dict[str, Any]:
        own = int(layout.index[NOISING])
        step = own if self.noising_step is None else self.noising_step
        heads = layout.config["attention_head_dim"]
        decided = {
            "noising": f"{step} of {_MOST_NOISING} steps: {'of the file' if step == own else 'as asked for'}",
            "attention": f"{self.attention}: "
            + ("as with xformers" if self.attention == _WAYS[0] else "as without xformers"),
            "heads": f"{heads} on every level: {ARGUMENTS} of the file",
            "prompt": "empty, stored in the file",
            "steps": "2, as its command line, which merges 4 runs: --ensemble-size 4",
        }
        return {
            "paradigm": "flow_matching",
            "paradigm_options": {"noising_step": step},
            "num_inference_steps": 2,
            "task_options": {"log": True},
            "official_size": {"multiple": 64, "pillow": "bilinear"},
            "decided": decided,
        }


def _candidate() -> Candidate:
    return Candidate(DepthFM.name, DepthFM.tasks, f"one file with {ARGUMENTS} and {PROMPT}, as DepthFM's", sure=True)


def _content(file: Path) -> dict[str, Any]:
    """All that the file holds, its tensors mapped."""
    return pickles.read_content(file)


def _checked(file: Path, content: dict[str, Any]) -> dict[str, Any]:
    """ValueError where something is missing, or is what it cannot be."""
    if absent := [name for name in _KINDS if name not in content]:
        raise ValueError(f"{file}: lacks {listed(absent)}, which DepthFM's checkpoint has; copy or download it again")
    for name, kind in _KINDS.items():
        value = content[name]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f"{file}: its {name} is a {type(value).__name__}, not what it must be; download it again")
    check_integer(f"{file}: {NOISING}", content[NOISING], 0, _MOST_NOISING)
    tensors = content[WEIGHTS]
    if strange := [name for name, t in tensors.items() if not _is_name(name) or not isinstance(t, Tensor)]:
        raise ValueError(
            f"{file}: {WEIGHTS} holds what is no tensor by name: {strange[0]!r:.60}; copy or download it again"
        )
    _check_prompt(file, content[PROMPT], content[ARGUMENTS].get("context_dim"))
    return content


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and name.isprintable() and len(name) < _LONGEST


def _check_prompt(file: Path, embedding: Tensor, width: Any) -> None:
    shape = list(embedding.shape)
    if len(shape) not in (2, 3) or shape[-1] != width or not embedding.numel() or (len(shape) == 3 and shape[0] != 1):
        raise ValueError(f"{file}: its {PROMPT} is {shape}, but the U-Net reads text of (1, tokens, {width})")
    if not (torch.isfinite(embedding).all() and embedding.any()):
        raise ValueError(
            f"{file}: its {PROMPT} is all zeros, or not finite: no text gives that; copy or download it again"
        )


def _of(base: Base, *path: str) -> dict[str, Any]:
    """A JSON file of a base; {} where it has none: it may be its autoencoder alone."""
    return base.json(*path) if base.folder.joinpath(*path).is_file() else {}


PLUGIN = DepthFM()
