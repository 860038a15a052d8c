"""GenPerceptPipeline: a denoiser, a codec and a head as a Predictor. `_forward` reads as the specification of the network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from genpercept.checkpoints import hub
from genpercept.checkpoints.parts import FORMAT
from genpercept.core.rng import Rng
from genpercept.core.values import Features, Geometry, to_tensor
from genpercept.models import image_prompt
from genpercept.models.backbones import as_backbone
from genpercept.models.codecs import CODECS
from genpercept.models.heads import HEADS
from genpercept.models.paradigms import PARADIGMS, Paradigm
from genpercept.pipeline import call, codec_swap, joint, pairing
from genpercept.pipeline.call import Run
from genpercept.pipeline.folder import Parts, read_base, read_model, write
from genpercept.pipeline.predictor import Predictor
from genpercept.tasks import TASKS


class GenPerceptPipeline(Predictor, DiffusionPipeline):
    """A dense predictor made of a denoiser, a codec, a fixed prompt's embedding, and a head where it has weights of its own.

    In the prompt's place a model may read the image itself, by an image_encoder (see `image_prompt`).

    Device moves, offload, VAE slicing and tiling, and `push_to_hub` are DiffusionPipeline's. Loading and saving are ours,
    because its loader refuses parts of other libraries.
    """

    model_cpu_offload_seq = "image_encoder->unet->head->vae"
    _optional_components = ["head", "image_encoder", "vae"]  # noqa: RUF012  # the parent's attribute
    unet: nn.Module  # the backbone, whatever it is
    vae: nn.Module | None  # none for a backbone that takes pixels
    head: nn.Module | None
    image_encoder: nn.Module | None

    def __init__(
        self,
        unet: nn.Module,
        vae: nn.Module | None,
        prompt_embeds: Tensor | None = None,
        info: dict[str, Any] | None = None,
        head: nn.Module | None = None,
        image_encoder: nn.Module | None = None,
    ) -> None:
        """Parts and `info`, the contents of genpercept.json but for `parts`. Use `from_parts` or `from_pretrained`.

        The parent takes arguments without a default for modules, hence the defaults.
        """
        super().__init__()
        if prompt_embeds is None or info is None:
            raise ValueError(
                "GenPerceptPipeline needs the prompt's embedding and its settings: build it with from_parts"
            )
        if (image_encoder is None) != (info.get(image_prompt.FOLDER) is None):
            raise ValueError("an image encoder and the settings of its images, image_encoder=, go together: pass both")
        self.register_modules(unet=unet, vae=vae, head=head, image_encoder=image_encoder)
        self.prompt_embeds = prompt_embeds
        self._describe(info)
        self._head = HEADS.find(info["head"]).wrap(head)
        self._codec = CODECS.find(info["codec"]).wrap(vae)
        self.paradigm(None)

    # ---- inference -------------------------------------------------------------------------------------------------

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """Without gradients; offloaded parts go back in the end."""
        with torch.inference_mode():
            yield
            self.maybe_free_model_hooks()

    def _planes(self, image_HWC: np.ndarray) -> Tensor:
        return to_tensor(image_HWC)

    def _input(self, geometry: Geometry, image: np.ndarray | Tensor) -> Tensor:
        """On the device for a GPU."""
        return call.network_input(geometry, image, self._execution_device)

    def _start(self, latents: Tensor, geometries: Sequence[Geometry], run: Run) -> Tensor:
        return run.by_image(latents, geometries, self._codec)

    def _forward(self, image_BCHW: Tensor, run: Run, latents: Tensor | None) -> Tensor:
        """Padded images (B, 3, H, W) in [0, 1] -> raw maps (B runs, C, H, W) float32: encode, paradigm(denoiser), head.

        Image by image, and run by run within each; an image is encoded once for all of its runs.
        """
        if self._tape is None:
            return self._maps(image_BCHW, run, latents, (self.task,))[self.task]
        return self._tape.of(self.task, lambda: self._maps(image_BCHW, run, latents, self.tasks))

    def _maps(self, image_BCHW: Tensor, run: Run, latents: Tensor | None, tasks: Sequence[str]) -> dict[str, Tensor]:
        """The raw maps of each task, of those that the network answers at once."""
        infos = {task: joint.info_for(self.info, task) for task in tasks}
        raw: dict[str, list[Tensor]] = {task: [] for task in tasks}
        for features in self._answers(image_BCHW, run, latents):
            for task, info in infos.items():
                map_BCHW = self._head(joint.part(features, info, task), self._codec).float()
                raw[task].append(call.turned(map_BCHW, info.get("axes"), TASKS.find(task).kind))
        return {task: torch.cat(maps) for task, maps in raw.items()}

    def _answers(self, image_BCHW: Tensor, run: Run, latents: Tensor | None) -> Iterator[Features]:
        """What the head reads, in the order of `_forward`, up to `run.batch_size` runs at once."""
        device = self._execution_device
        wants_latent = self._head.consumes == "latent"
        stored = self.info.get("conditions") or {}
        conditions = {k: torch.tensor([v], dtype=self.unet_dtype, device=device) for k, v in stored.items()}
        prompt = self._prompt_of(image_BCHW, run).to(device, self.unet_dtype)
        context = prompt

        def denoise(x: Tensor, t: Tensor) -> Features:
            further = {k: row.expand(x.shape[0], -1) for k, row in conditions.items()}
            return as_backbone(self._denoiser).forward_features(
                x.to(self.unet_dtype), t, context.expand(x.shape[0], -1, -1), latent=wants_latent, **further
            )

        image = image_BCHW.to(device) * 2 - 1
        z_x = self._codec.encode(image)
        for first in range(0, len(z_x) * run.members, run.batch_size):
            rows = range(first, min(first + run.batch_size, len(z_x) * run.members))
            seeds = [run.seeds[row // run.members] for row in rows] if run.seeds else 0
            windows = [run.windows[row // run.members].shrunk(self._codec.stride) for row in rows if run.windows]
            rng = Rng(seeds, 0, [row % run.members for row in rows], windows)
            start = None if latents is None else latents[rows.start : rows.stop].to(device)
            images = torch.arange(rows.start, rows.stop, device=device) // run.members
            context = prompt if len(prompt) == 1 else prompt[images]
            features = run.paradigm.predict(denoise, z_x[images], run.steps, rng, start)
            yield replace(features, image=image[images]) if wants_latent else features

    def _prompt_of(self, image_BCHW: Tensor, run: Run) -> Tensor:
        """What cross-attention reads: the prompt (1, tokens, width), or of each image its own token (B, 1, width)."""
        if self.image_encoder is None:
            return self.prompt_embeds
        return image_prompt.embed(self.image_encoder, image_BCHW, run.sizes, **self.info["image_encoder"])

    # ---- what goes with what ---------------------------------------------------------------------------------------

    def paradigm(self, name: str | None = None, **options: Any) -> Paradigm:
        """The paradigm of this name (None: the model's own, with its stored options), with these options.

        ValueError for unknown names and options, and for a paradigm that the parts cannot run.
        """
        chosen = pairing.choose(self.info, name, options)
        pairing.check(chosen, self._task, self._head, self._codec, self.unet, self.info)
        return chosen

    @property
    def stride(self) -> int:
        """Pixels of which padded sizes are multiples: those of a codec's cell times the cells of a backbone's patch."""
        return self._codec.stride * as_backbone(self.unet).patch

    @property
    def _denoiser(self) -> nn.Module:
        """The backbone that runs; a specialised pipeline runs another one than it saves."""
        return self.unet

    @property
    def unet_dtype(self) -> torch.dtype:
        return next(self.unet.parameters()).dtype

    # ---- building, loading, saving ---------------------------------------------------------------------------------

    @classmethod
    def from_parts(
        cls,
        *,
        unet: nn.Module,
        vae: nn.Module | None,
        prompt_embeds: Tensor,
        task: str,
        task_options: dict[str, Any] | None = None,
        paradigm: str = "one_step",
        paradigm_options: dict[str, Any] | None = None,
        head: str | None = None,
        head_module: nn.Module | None = None,
        image_encoder_module: nn.Module | None = None,
        codec: str = "kl",
        backbone: str = "sd21",
        resolution: int = 768,
        recipe: dict[str, Any] | None = None,
        **info: Any,
    ) -> GenPerceptPipeline:
        """A pipeline over modules at hand. prompt_embeds (1, tokens, width). Further keywords go to genpercept.json.

        unet: the backbone, of the plugin that `backbone` names. vae: None for codec "pixels". head_module: of a head with
        weights of its own. paradigm_options: those that are not the paradigm's defaults. image_encoder_module: in the prompt's
        place, prepared as `image_encoder=`, settings of `image_prompt`, says.
        """
        pairing.check_prompt(unet, prompt_embeds)
        settings = {
            "format": FORMAT,
            "family": "genpercept",
            "task": task,
            "task_options": TASKS.find(task).with_options(**(task_options or {})).options,
            "paradigm": paradigm,
            "paradigm_options": PARADIGMS.find(paradigm).with_options(**(paradigm_options or {})).options,
            "head": head or TASKS.find(task).head,
            "codec": codec,
            "backbone": backbone,
            "resolution": resolution,
            "axes": call.IDENTITY_AXES,
            "recipe": recipe or {},
        }
        module = None if head_module is None else head_module.eval()
        codec_module = None if vae is None else vae.eval()
        encoder = None if image_encoder_module is None else image_encoder_module.eval()
        return cls(unet.eval(), codec_module, prompt_embeds.float().cpu(), settings | info, module, encoder)

    @classmethod
    def from_base(
        cls,
        base: str | Path,
        task: str,
        *,
        paradigm: str = "one_step",
        paradigm_options: dict[str, Any] | None = None,
        head: str | None = None,
        head_module: nn.Module | None = None,
        resolution: int = 768,
        prompt: str = "",
        torch_dtype: torch.dtype | None = None,
        **where: Any,
    ) -> GenPerceptPipeline:
        """The starting point of training, before fine-tuning: a text-to-image model in diffusers' layout (Stable Diffusion,
        PixArt), or a backbone that takes pixels in transformers' (DINOv2, CLIP; paradigm "direct", head=).

        Its predictions mean nothing yet. Its first convolution is widened where the paradigm needs more input channels. A
        paradigm that takes several prediction types takes the base's, unless its options say otherwise. `where`: subfolder,
        revision, cache_dir, local_files_only, token, allow_pickle.
        """
        folder = hub.resolve(base, **where)
        pickle = bool(where.get("allow_pickle"))
        parts = read_base(folder, paradigm, paradigm_options or {}, prompt, torch_dtype, allow_pickle=pickle)
        return cls.from_parts(
            unet=parts.unet,
            vae=parts.vae,
            prompt_embeds=parts.prompt_embeds,
            task=task,
            paradigm=paradigm,
            head=head,
            head_module=head_module,
            resolution=resolution,
            base=str(base),
            model=f"{base} (not fine-tuned)",
            **parts.info,
        )

    @classmethod
    def from_pretrained(  # type: ignore[override]  # the parent's signature is **kwargs; this names what we honour
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        torch_dtype: torch.dtype | None = None,
        subfolder: str | None = None,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
        allow_pickle: bool = False,
    ) -> GenPerceptPipeline:
        """Load a model that `save_pretrained` wrote: an embedded name, a folder or a hub id. float32 unless torch_dtype.

        allow_pickle: .bin and .ckpt weights too, read as tensors only. ValueError lists missing, unexpected, misshaped and
        non-finite tensors, and parts whose SHA-256 is not the manifest's.
        """
        name = str(pretrained_model_name_or_path)
        where = {"subfolder": subfolder, "revision": revision, "cache_dir": cache_dir, "token": token}
        folder = hub.resolve(name, local_files_only=local_files_only, allow_pickle=allow_pickle, **where)
        parts = read_model(folder, torch_dtype, allow_pickle=allow_pickle)
        parts.info["model"] = name if subfolder is None else f"{name}/{subfolder}"
        return cls(parts.unet, parts.vae, parts.prompt_embeds, parts.info, parts.head, parts.image_encoder)

    def with_codec(
        self, encoder: str | Path | nn.Module | None = None, decoder: str | Path | nn.Module | None = None, **where: Any
    ) -> GenPerceptPipeline:
        """The same model with another codec's encoder, decoder or both, such as TAESD's; the other weights are shared.

        Each is the folder or hub id of a codec, or of a model whose codec is taken, or a codec's module; None: the present
        one. Nothing is trained: the codec must be of the same latent space, of which only the shape, and the scaling factor
        within one class, can be checked (ValueError). `where` as in from_base. A saved model keeps it.
        """
        if self.vae is None:
            raise ValueError(f"codec {self.info['codec']!r} has no weights: there is nothing to replace")
        name, module = codec_swap.replaced(self.vae, encoder, decoder, self.unet_dtype, self.device, where)
        info = pairing.info_with_codec(self.info, name, encoder=encoder, decoder=decoder)
        plain = GenPerceptPipeline(self.unet, module, self.prompt_embeds, info, self.head, self.image_encoder)
        if plain.stride != self.stride or plain._codec.channels != self._codec.channels:
            raise ValueError(
                f"codec of stride {plain.stride} and {plain._codec.channels} channels: the model was trained with "
                f"{self.stride} and {self._codec.channels}; pass a codec of its latent space"
            )
        return plain

    def save_pretrained(self, save_directory: str | Path, push_to_hub: bool = False, **kwargs: Any) -> None:  # type: ignore[override]
        """Write a self-contained folder, atomically: diffusers' layout, genpercept.json, the prompt's embedding.

        Tensors keep their present dtype. `push_to_hub` and `repo_id` as DiffusionPipeline has them.
        """
        target = Path(save_directory)
        parts = Parts(self.unet, self.vae, self.head, self.prompt_embeds, self.info, self.image_encoder)
        write(target, parts, GenPerceptPipeline.__name__)
        if push_to_hub:
            self.push_to_hub(kwargs.pop("repo_id", target.name), **kwargs)
