"""What families of one U-Net have in common: recognised by it, loaded with it, told in `decided`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from genpercept.checkpoints import parts, weights
from genpercept.core.options import Options
from genpercept.models.backbones import BACKBONES
from genpercept.pipeline.families._candidate import Candidate, FullFolder
from genpercept.pipeline.families._from_base import Base, check, find_base, lacking, load_vae, prompt, refuse_untouched
from genpercept.pipeline.families._headers import Layout, read_layout
from genpercept.pipeline.pipeline import GenPerceptPipeline

LOOK_ALIKE = ("depth", "disparity", "normals")  # their U-Nets differ in nothing that a header shows
LEFT_UP_VIEWER = [[-1, 0, 0], [0, 1, 0], [0, 0, 1]]  # takes x left, y up, z towards the viewer to our axes
OWN = [[1, 0, 0], [0, 1, 0], [0, 0, 1]]


@dataclass(frozen=True)
class UNetFamily(Options, ABC):
    """Subclasses say how their checkpoints look, and how they are run. Fields, where one has any, are choices left open."""

    name: ClassVar[str]
    published: ClassVar[Mapping[str, str]]
    noun = "family"
    base: ClassVar[str] = "Stable Diffusion 2.1"
    tasks: ClassVar[tuple[str, ...]] = LOOK_ALIKE
    resolution: ClassVar[int] = 768
    backbone: ClassVar[str] = "sd21"

    @abstractmethod
    def candidate(self, layout: Layout) -> Candidate | None:
        """What the folder is, if it can be of this family."""

    @abstractmethod
    def settings(self, layout: Layout, base: Base | None, task: str) -> dict[str, Any]:
        """Of from_parts: paradigm and its options, task_options, ..., and `decided`: what was concluded from what."""

    def recognise(self, folder: Path, *, allow_pickle: bool = False) -> Candidate | None:
        return None if weights.lone_file(folder) else self.candidate(self.layout(folder, allow_pickle=allow_pickle))

    def beside(self, folder: Path) -> tuple[str, ...]:
        return ()

    def lacking(self, folder: Path, *, allow_pickle: bool = False) -> list[str]:
        return lacking(self.layout(folder, allow_pickle=allow_pickle))

    def problems(
        self, folder: Path, base: str | None = None, there: Path | None = None, *, allow_pickle: bool = False
    ) -> list[str]:
        try:
            layout = self.layout(folder, allow_pickle=allow_pickle)
            if base is not None and there is not None:
                self.check(layout, Base(base, there), allow_pickle=allow_pickle)
        except ValueError as error:
            return [str(error)]
        return []

    def load(
        self, folder: Path, base: str | Path | None, task: str, torch_dtype: torch.dtype | None, where: dict[str, Any]
    ) -> GenPerceptPipeline:
        """ValueError when the folder holds no U-Net of this family, lacks a part, or holds the base's own weights (noise)."""
        pickle = bool(where.get("allow_pickle"))
        layout = self.layout(folder, allow_pickle=pickle)
        self.refuse_strange(layout, task)
        trained = self.trained(layout)
        origin = find_base(base, where)
        self.check(layout, origin, allow_pickle=pickle)
        if origin is not None and trained == [layout.unet]:
            self.refuse_untouched(layout, origin, allow_pickle=pickle)
        settings = self.settings(layout, origin, task)
        unet = self.load_unet(layout, origin, torch_dtype, allow_pickle=pickle)
        head = self.load_head(layout, unet, torch_dtype, allow_pickle=pickle)
        vae = self.load_vae(layout, origin, torch_dtype, allow_pickle=pickle)
        embedding = self.prompt(layout, origin, allow_pickle=pickle)
        encoder = self.load_image_encoder(layout, torch_dtype, allow_pickle=pickle)
        info: dict[str, Any] = {
            "task": task,
            "family": self.name,
            "prompt": "",
            "prompt_tokens": int(embedding.shape[1]),
            "model": str(self.called(layout)),
            "model_sha256": hash_of(trained, allow_pickle=pickle),
            "resolution": self.resolution,
            "backbone": self.backbone,
        }
        info |= ({"base": origin.name} if origin else {}) | ({"family_options": self.options} if self.options else {})
        info |= settings
        name, module = head or (None, None)
        return GenPerceptPipeline.from_parts(
            unet=unet,
            vae=vae,
            prompt_embeds=embedding,
            head=name,
            head_module=module,
            image_encoder_module=encoder,
            **info,
        )

    # ---- what a family may do in its own way -----------------------------------------------------------------------

    def layout(self, folder: Path, *, allow_pickle: bool = False) -> Layout:
        """What lies in the folder, or file. ValueError where that is no such checkpoint, or a damaged one."""
        return read_layout(folder, allow_pickle=allow_pickle)

    def check(self, layout: Layout, base: Base | None, *, allow_pickle: bool = False) -> None:
        """ValueError, naming both sides, where the checkpoint and the base do not belong together."""
        check(layout, base, allow_pickle=allow_pickle)

    def refuse_untouched(self, layout: Layout, base: Base, *, allow_pickle: bool = False) -> None:
        """ValueError when the U-Net is that of its base, which was never trained to predict anything."""
        refuse_untouched(layout, base, allow_pickle=allow_pickle)

    def prompt(self, layout: Layout, base: Base | None, *, allow_pickle: bool = False) -> Tensor:
        """The empty prompt's embedding, (1, tokens, width)."""
        return prompt(layout, base, pad=self.pads(layout), allow_pickle=allow_pickle)

    def trained(self, layout: Layout) -> list[Path]:
        """Folders of the weights that were trained, the U-Net's first. ValueError where one is not there."""
        return [layout.unet]

    def called(self, layout: Layout) -> Path:
        """The folder by which predictions call the model."""
        return layout.root

    def load_image_encoder(self, layout: Layout, dtype: torch.dtype | None, *, allow_pickle: bool) -> nn.Module | None:
        """What embeds the image in the prompt's place; None for a prompt."""
        return None

    def pads(self, layout: Layout) -> bool:
        """Whether the empty prompt is padded to the tokenizer's full length."""
        return False

    def load_unet(
        self, layout: Layout, base: Base | None, dtype: torch.dtype | None, *, allow_pickle: bool
    ) -> nn.Module:
        return parts.load_part(BACKBONES.find(self.backbone), layout.unet, dtype, allow_pickle=allow_pickle)

    def load_head(
        self, layout: Layout, unet: nn.Module, dtype: torch.dtype | None, *, allow_pickle: bool
    ) -> tuple[str, nn.Module] | None:
        """Name and module of a head with weights of its own; None for the task's."""
        return None

    def load_vae(
        self, layout: Layout, base: Base | None, dtype: torch.dtype | None, *, allow_pickle: bool
    ) -> nn.Module:
        return load_vae(layout, base, dtype, allow_pickle=allow_pickle)

    def full_folder(self, pipe: GenPerceptPipeline) -> FullFolder | None:
        """How `export --to diffusers` writes a model over this family's own backbone; None: its layout is not written.

        ValueError, with the reason alone, for a model that the family's code would run in another way.
        """
        return None

    def refuse_strange(self, layout: Layout, task: str) -> None:
        """ValueError where the folder cannot be of this family, or the task is none of its tasks."""
        found = self.candidate(replace(layout, index={}))  # whatever the index calls it, the caller has said what it is
        if found is None:
            raise ValueError(
                f"{layout.unet}: no checkpoint of family {self.name!r}: {looks(layout)}; check the path, or leave family out"
            )
        if task not in found.tasks:
            raise ValueError(
                f"{layout.root}: family {self.name!r} has no {task} of this kind ({found.why}): choose "
                f"{', '.join(found.tasks)}"
            )


def looks(layout: Layout) -> str:
    """The U-Net in a few words."""
    extra = f", class embedding of width {layout.class_width}" if layout.has_class_embedding else ""
    index = f", model_index.json says {layout.pipeline}" if layout.pipeline else ""
    outputs = "no output layers" if layout.lacks_output else f"{layout.out_channels} output channels"
    return f"a U-Net with {layout.in_channels} input channels, {outputs}{extra}{index}"


def hash_of(folders: list[Path], *, allow_pickle: bool = False) -> str:
    """Of one folder its file's own SHA-256, as the hub shows it."""
    hashes = [parts.sha256(folder, allow_pickle=allow_pickle) for folder in folders]
    return hashes[0] if len(hashes) == 1 else parts.joint_sha256(hashes)
