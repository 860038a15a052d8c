"""Checkpoints of the GenPercept release (v2): what was fine-tuned, everything else from Stable Diffusion 2.1.

Two layouts. The release: folders beside each other with one U-Net each, and `dpt_head_identity` for the one U-Net that has no
output layers. A training run: `unet`, and inside the same folder what else it trained, a DPT head or the codec's decoder.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genpercept import checkpoint
from genpercept.codecs.kl import PLUGIN as KL
from genpercept.pipeline import GenPerceptPipeline

HEAD = "dpt_head_identity"
_DECODER = {"vae_decoder": "decoder.", "vae_post_quant_conv": "post_quant_conv."}
_OUTPUT = ("conv_norm_out.weight", "conv_norm_out.bias", "conv_out.weight", "conv_out.bias")
_FORK = "CustomUNet2DConditionModel"  # the public code's U-Net with a pyramid: the same tensors


class GenPercept:
    """unet_depth_v2 and its like, with unet_disparity_dpt_head_v2; or the folder of a training run."""

    name = "genpercept"

    def beside(self, folder: Path) -> tuple[str, ...]:
        root, unet = _layout(folder)
        return (HEAD,) if not (root / HEAD).is_dir() and _lacks_output(unet) else ()

    def load(
        self, folder: Path, base: str | Path, task: str, torch_dtype: torch.dtype | None, where: dict[str, Any]
    ) -> GenPerceptPipeline:
        """ValueError when the folder holds no U-Net, one without its head, or weights that are the base's own (noise)."""
        root, unet_folder = _layout(folder)
        head_folder = _head_folder(root, unet_folder)
        decoder_folders = [root / name for name in _DECODER if (root / name).is_dir()]
        start = GenPerceptPipeline.from_base(base, task, torch_dtype=torch_dtype, **where)
        unet = _load_unet(unet_folder, start.unet, torch_dtype)
        if not decoder_folders and head_folder is None and _same_weights(unet, start.unet):
            raise ValueError(
                f"{unet_folder}: its weights are bit by bit those of the base {base}: not fine-tuned, it would give noise"
            )
        head = None if head_folder is None else _load_head(head_folder, unet, torch_dtype)
        if decoder_folders:
            _load_decoder(root, start.vae)
        trained = [unet_folder, *([head_folder] if head_folder else []), *decoder_folders]
        info: dict[str, Any] = {
            "base": str(base),
            "prompt": "",
            "model": str(unet_folder),
            "model_sha256": _hash(trained),
        }
        if task == "normals":
            info["axes"] = None  # the release does not document them
        return GenPerceptPipeline.from_parts(
            unet=unet,
            vae=start.vae,
            prompt_embeds=start.prompt_embeds,
            task=task,
            head=None if head is None else "dpt",
            head_module=head,
            resolution=768,
            **info,
        )


def _layout(folder: Path) -> tuple[Path, Path]:
    """The folder that holds all of the checkpoint, and its U-Net's, which are one in the release."""
    folder = folder.resolve()
    if folder.name == "unet":
        return folder.parent, folder
    return folder, folder / "unet" if (folder / "unet").is_dir() else folder


def _lacks_output(unet_folder: Path) -> bool:
    names = {name for path in checkpoint.weight_files(unet_folder) for name in checkpoint.tensor_shapes(path)}
    return names.isdisjoint(_OUTPUT)


def _head_folder(root: Path, unet_folder: Path) -> Path | None:
    """A head inside belongs to the checkpoint; one beside it only to a U-Net that cannot do without."""
    if (root / HEAD).is_dir():
        return root / HEAD
    if not _lacks_output(unet_folder):
        return None
    if not (root.parent / HEAD).is_dir():
        raise ValueError(
            f"{unet_folder}: has no output layers (conv_norm_out, conv_out), so it was trained with a DPT head: "
            f"put the release's {HEAD} folder beside or into {root}"
        )
    return root.parent / HEAD


def _load_unet(folder: Path, base: nn.Module, torch_dtype: torch.dtype | None) -> nn.Module:
    """Output layers that it lacks are the base's: a DPT head never runs them, and plain diffusers can read the saved folder."""
    config = checkpoint.read_json(folder / "config.json")
    if config.get("_class_name") == _FORK:
        del config["_class_name"]
    untouched = base.state_dict()
    extra: dict[str, Tensor] = {name: untouched[name] for name in _OUTPUT} if _lacks_output(folder) else {}
    return checkpoint.load_part("backbones", "sd21", folder, torch_dtype, config=config, extra=extra)


def _same_weights(unet: nn.Module, base: nn.Module) -> bool:
    untouched = base.state_dict()
    return all(torch.equal(t, untouched[k]) for k, t in unet.state_dict().items() if k in untouched)


def _load_head(folder: Path, unet: Any, torch_dtype: torch.dtype | None) -> nn.Module:
    """The release has its tensors alone: without a config.json it is the default head over this U-Net's pyramid."""
    config = {"neck_hidden_sizes": list(reversed(unet.pyramid_channels))}
    if (folder / "config.json").is_file():
        config = checkpoint.read_json(folder / "config.json")
    return checkpoint.load_part("heads", "dpt", folder, torch_dtype, config=config)


def _load_decoder(root: Path, vae: nn.Module) -> None:
    """The decoder and the convolution before it, which a run trains together, into the base's codec."""
    tensors: dict[str, Tensor] = {}
    for name, prefix in _DECODER.items():
        for path in checkpoint.weight_files(root / name):
            tensors |= {KL.rename(prefix + k): t for k, t in checkpoint.read_tensors(path).items()}
    expected = {k: t for k, t in vae.state_dict().items() if k.startswith(tuple(_DECODER.values()))}
    checkpoint.check_shapes(
        root, {k: tuple(t.shape) for k, t in expected.items()}, {k: tuple(t.shape) for k, t in tensors.items()}
    )
    checkpoint.check_finite(root, tensors)
    vae.load_state_dict({k: t.reshape(expected[k].shape) for k, t in tensors.items()}, strict=False)


def _hash(folders: list[Path]) -> str:
    """Of one folder its file's own SHA-256, as the hub shows it."""
    hashes = [checkpoint.sha256(folder) for folder in folders]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


PLUGIN = GenPercept()
