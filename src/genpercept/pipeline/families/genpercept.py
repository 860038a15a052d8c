"""Checkpoints of the GenPercept release: what was fine-tuned, everything else from Stable Diffusion 2.1.

Layouts. The release (v2): folders beside each other with one U-Net each, and `dpt_head_identity` for the one U-Net that has
no output layers. A training run: `unet`, and inside the same folder what else it trained, a DPT head or the codec's
decoder. Repositories of a whole pipeline. The first release (v1): the U-Nets beside `vae`, and the empty prompt padded to 77
tokens, whose embedding it stores as empty_text_embed.npy; its depth is stretched to [0, 1].
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genpercept.checkpoints import parts
from genpercept.checkpoints.weights import weight_files
from genpercept.models.backbones import BACKBONES
from genpercept.models.codecs.kl import PLUGIN as KL
from genpercept.models.heads import HEADS
from genpercept.pipeline.families import Candidate
from genpercept.pipeline.families._family import UNetFamily
from genpercept.pipeline.families._from_base import EMPTY_TEXT, Base, base_tensors
from genpercept.pipeline.families._headers import OUTPUT, RELEASE_V1, Layout, read_layout

HEAD = "dpt_head_identity"
DECODER = {"vae_decoder": "decoder.", "vae_post_quant_conv": "post_quant_conv."}
_FORK = "CustomUNet2DConditionModel"  # the public code's U-Net with a pyramid: the same tensors
_TASKS = ("depth", "disparity", "normals", "segmentation", "dis", "matting")
_RELEASED = {
    "unet_depth": "depth",
    "unet_normal": "normals",
    "unet_dis": "dis",
    "unet_matting": "matting",
    "unet_seg": "segmentation",
    "unet_disparity": "disparity",
    "unet_disparity_dpt_head": "disparity",
}
_NAME = re.compile(rf"({'|'.join(_RELEASED)})_v[12]")
_HUB = "guangkaixu/genpercept-"


class GenPercept(UNetFamily):
    """unet_depth_v2 and its like, with unet_disparity_dpt_head_v2; the folder of a training run; a whole pipeline; v1."""

    name = "genpercept"
    tasks = _TASKS
    published = (
        {f"{_HUB}models/{name}_v2": task for name, task in _RELEASED.items()}
        | {f"guangkaixu/GenPercept/{name}_v1": task for name, task in _RELEASED.items()}
        | {f"{_HUB}{name}": task for name, task in (("depth", "depth"), ("normal", "normals"), ("dis", "dis"))}
        | {f"{_HUB}{name}": task for name, task in (("matting", "matting"), ("seg", "segmentation"))}
        | {f"{_HUB}{name}": "disparity" for name in ("disparity", "disparity-dpt-head")}
    )

    def candidate(self, layout: Layout) -> Candidate | None:
        if layout.in_channels != 4 or layout.out_channels != 4 or layout.has_class_embedding:
            return None
        if layout.pipeline.startswith("StableDiffusion"):
            return None
        tasks, named = _TASKS, _NAME.fullmatch(layout.root.name)
        if named:
            tasks = (_RELEASED[named[1]],)
            why = f"the folder has the release's own name, {named[0]}"
        elif layout.pipeline == "GenPerceptPipeline" or layout.config.get("_class_name") == _FORK:
            why = "its configuration names GenPercept's own class"
        elif layout.lacks_output:
            why = "4 input channels and no output layers: trained with a DPT head"
        elif found := [name for name in (HEAD, *DECODER) if (layout.root / name).is_dir()]:
            why = f"{found[0]} beside the U-Net, as GenPercept's training writes it"
        else:
            why = "4 input and output channels, as any Stable Diffusion's U-Net"
            return Candidate(self.name, tasks, why, sure=False)
        return Candidate(self.name, tasks, why, sure=True)

    def beside(self, folder: Path) -> tuple[str, ...]:
        layout = read_layout(folder)
        return (HEAD,) if not (layout.root / HEAD).is_dir() and layout.lacks_output else ()

    def settings(self, layout: Layout, base: Base | None, task: str) -> dict[str, Any]:
        v1 = _is_v1(layout)
        decided = {"version": "v1: by the folder's name, or its stored prompt" if v1 else "v2: nothing says v1"}
        decided["prompt"] = "empty, padded to the full length as in v1" if v1 else "empty, not padded"
        settings: dict[str, Any] = {"variant": "v1" if v1 else "v2", "decided": decided}
        if stated := layout.index.get("default_processing_resolution"):
            settings["resolution"] = int(stated)
        if v1 and task in ("depth", "disparity"):
            settings["task_options"] = {"stretch": True}
        if task == "normals":
            settings["axes"] = None
            decided["axes"] = "undocumented: kept as they are"
        return settings

    def trained(self, layout: Layout) -> list[Path]:
        head = _head_folder(layout)
        return [layout.unet, *([head] if head else []), *_decoder_folders(layout)]

    def called(self, layout: Layout) -> Path:
        return layout.unet

    def pads(self, layout: Layout) -> bool:
        return _is_v1(layout)

    def load_unet(
        self, layout: Layout, base: Base | None, dtype: torch.dtype | None, *, allow_pickle: bool
    ) -> nn.Module:
        """Output layers that it lacks are the base's, or zero: a DPT head never runs them, but diffusers wants some."""
        config = {k: v for k, v in layout.config.items() if k != "_class_name" or v != _FORK}
        extra: dict[str, Tensor] = {}
        if layout.lacks_output and base is not None:
            extra = {k: t.clone() for k, t in base_tensors(base, "unet", OUTPUT, allow_pickle=allow_pickle).items()}
        elif layout.lacks_output:
            width = int((layout.config.get("block_out_channels") or (320,))[0])
            shapes = ((width,), (width,), (layout.out_channels, width, 3, 3), (layout.out_channels,))
            extra = {name: torch.zeros(shape) for name, shape in zip(OUTPUT, shapes, strict=True)}
        return parts.load_part(
            BACKBONES.find("sd21"), layout.unet, dtype, config=config, extra=extra, allow_pickle=allow_pickle
        )

    def load_head(
        self, layout: Layout, unet: Any, dtype: torch.dtype | None, *, allow_pickle: bool
    ) -> tuple[str, nn.Module] | None:
        """The release has its tensors alone: without a config.json it is the default head over this U-Net's pyramid."""
        folder = _head_folder(layout)
        if folder is None:
            return None
        config = {"neck_hidden_sizes": list(reversed(unet.pyramid_channels))}
        if (folder / "config.json").is_file():
            config = parts.read_json(folder / "config.json")
        return "dpt", parts.load_part(HEADS.find("dpt"), folder, dtype, config=config, allow_pickle=allow_pickle)

    def load_vae(
        self, layout: Layout, base: Base | None, dtype: torch.dtype | None, *, allow_pickle: bool
    ) -> nn.Module:
        """With the decoder that a run trains together with the convolution before it, where there is one."""
        vae = super().load_vae(layout, base, dtype, allow_pickle=allow_pickle)
        if _decoder_folders(layout):
            _load_decoder(layout.root, vae, allow_pickle)
        return vae


def _is_v1(layout: Layout) -> bool:
    return bool(RELEASE_V1.fullmatch(layout.root.name)) or layout.part(EMPTY_TEXT) is not None


def _decoder_folders(layout: Layout) -> list[Path]:
    return [layout.root / name for name in DECODER if (layout.root / name).is_dir()]


def _head_folder(layout: Layout) -> Path | None:
    """A head inside belongs to the checkpoint; one beside it only to a U-Net that cannot do without."""
    if (layout.root / HEAD).is_dir():
        return layout.root / HEAD
    if not layout.lacks_output:
        return None
    if not (layout.root.parent / HEAD).is_dir():
        raise ValueError(
            f"{layout.unet}: has no output layers (conv_norm_out, conv_out), so it was trained with a DPT head: "
            f"put the release's {HEAD} folder beside or into {layout.root}"
        )
    return layout.root.parent / HEAD


def _load_decoder(root: Path, vae: nn.Module, pickle: bool) -> None:
    """The checkpoint's decoder and the convolution before it into the base's codec."""
    files = [(prefix, p) for name, prefix in DECODER.items() for p in weight_files(root / name, allow_pickle=pickle)]
    expected = {k: t for k, t in vae.state_dict().items() if k.startswith(tuple(DECODER.values()))}
    stored: dict[str, tuple[int, ...]] = {}
    tensors: dict[str, Tensor] = {}
    for prefix, path in files:
        found = parts.tensor_shapes(path, allow_pickle=pickle)
        stored |= {KL.rename(prefix + k): shape for k, shape in found.items()}
    parts.check_shapes(root, {k: tuple(t.shape) for k, t in expected.items()}, stored)
    for prefix, path in files:
        found = parts.read_tensors(path, allow_pickle=pickle)
        tensors |= {KL.rename(prefix + k): t for k, t in found.items()}
    parts.check_finite(root, tensors)
    vae.load_state_dict({k: t.reshape(expected[k].shape) for k, t in tensors.items()}, strict=False)


PLUGIN = GenPercept()
