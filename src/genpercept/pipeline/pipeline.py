"""GenPerceptPipeline: image -> Prediction. `__call__` and `_forward` read as the specification of inference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from genpercept.checkpoints import hub
from genpercept.checkpoints.parts import FORMAT
from genpercept.core.rng import Rng
from genpercept.core.values import Features, Geometry, Region, to_tensor
from genpercept.imaging.prediction import Prediction
from genpercept.imaging.read import read_many
from genpercept.models.backbones import as_backbone
from genpercept.models.codecs import CODECS
from genpercept.models.heads import HEADS
from genpercept.models.paradigms import PARADIGMS, Paradigm
from genpercept.pipeline import call, codec_swap, pairing
from genpercept.pipeline.call import Run
from genpercept.pipeline.folder import Parts, read_base, read_model, write
from genpercept.tasks import TASKS, JudgingTask, RegionTask, Task


class GenPerceptPipeline(DiffusionPipeline):
    """A dense predictor made of a denoiser, a codec, a fixed prompt's embedding, and a head where it has weights of its own.

    Device moves, offload, VAE slicing and tiling, and `push_to_hub` are DiffusionPipeline's. Loading and saving are ours,
    because its loader refuses parts of other libraries.
    """

    model_cpu_offload_seq = "unet->head->vae"
    _optional_components = ["head", "vae"]  # noqa: RUF012  # the parent's attribute
    unet: nn.Module  # the backbone, whatever it is
    vae: nn.Module | None  # none for a backbone that takes pixels
    head: nn.Module | None

    def __init__(
        self,
        unet: nn.Module,
        vae: nn.Module | None,
        prompt_embeds: Tensor | None = None,
        info: dict[str, Any] | None = None,
        head: nn.Module | None = None,
    ) -> None:
        """Parts and `info`, the contents of genpercept.json but for `parts`. Use `from_parts` or `from_pretrained`.

        The parent takes arguments without a default for modules, hence the defaults.
        """
        super().__init__()
        if prompt_embeds is None or info is None:
            raise ValueError(
                "GenPerceptPipeline needs the prompt's embedding and its settings: build it with from_parts"
            )
        self.register_modules(unet=unet, vae=vae, head=head)
        self.prompt_embeds = prompt_embeds
        self.info = info
        self.task = str(info["task"])
        self.resolution = int(info["resolution"])
        self._task = TASKS.find(self.task).with_options(**(info.get("task_options") or {}))
        self._head = HEADS.find(info["head"]).wrap(head)
        self._codec = CODECS.find(info["codec"]).wrap(vae)
        self.paradigm(None)

    # ---- inference -------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def __call__(
        self,
        image: Any,
        *,
        processing_resolution: int | None = None,
        num_inference_steps: int | None = None,
        ensemble_size: int = 1,
        ensembling_kwargs: dict[str, Any] | None = None,
        paradigm: str | None = None,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        latents: Tensor | None = None,
        batch_size: int = 1,
        resize_mode: str = "fit",
        boxes: Any = None,
        flip_test: bool = False,
        **paradigm_options: Any,
    ) -> Any:
        """Predict for one image (-> Prediction) or a list of them (-> list, same order).

        image: path, PIL image, array (H, W[, C]) uint8 or float in [0, 1], tensor (3, H, W) in [0, 1].
        processing_resolution: longest edge in pixels the network sees; None is the model's own, 0 the image's.
        resize_mode "official" follows the public code. num_inference_steps: None is the model's own. ensemble_size:
        runs from different noise that are merged, which fills `uncertainty`; ensembling_kwargs as diffusers has them
        (reduction, ...), not for one run. generator: its seed keys the noise, by run, so that an image gets the same
        answer wherever it stands; a list of them, one for each image, gives each its own noise. latents (images x
        ensemble_size, 4, h, w; 4 channels for each label image), run by run within image by image: the noise to start
        from instead. Images of one padded size, and runs, share batches of up to batch_size. boxes, for tasks on
        regions (pose): (N, 4) x, y, width, height in pixels, or (N, 5) with a score; a list of such arrays for a list
        of images; None: the whole image. flip_test: the mean of the raw maps of the image and of its mirror image, at
        twice the time. paradigm and further keywords (betas=, spacing=, ...): another paradigm than the model's, and
        its options. ValueError says which argument is wrong.
        """
        chosen = self.paradigm(paradigm, **paradigm_options)
        steps = self.default_steps(chosen) if num_inference_steps is None else num_inference_steps
        call.check_runs(chosen, ensemble_size, latents, ensembling_kwargs)
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: must be at least 1")
        resolution = self.resolution if processing_resolution is None else processing_resolution

        images, single = read_many(image)
        regions = self._regions(images, call.boxes_by_image(boxes, len(images), single))
        seeds = call.seeds_of(generator, len(images))
        run = Run(chosen, steps, seeds, ensemble_size, batch_size, flip_test)
        if regions is None:
            predictions = self._predict(images, resolution, resize_mode, run, latents, ensembling_kwargs or {})
        else:
            parts = [region.image for each in regions for region in each]
            run = replace(run, seeds=[seed for seed, each in zip(seeds, regions, strict=True) for _ in each])
            found = iter(self._predict(parts, 0, "fit", run, latents, ensembling_kwargs or {}))
            predictions = [cast(RegionTask, self._task).merge([next(found) for _ in each], each) for each in regions]
        for prediction, seed in zip(predictions, seeds, strict=True):
            prediction.meta = self._meta_of(run, seed) | prediction.meta
            if isinstance(self._task, JudgingTask):
                prediction.meta |= self._task.judge(prediction)
        self.maybe_free_model_hooks()
        return predictions[0] if single else predictions

    def _regions(self, images: Sequence[np.ndarray], boxes: Sequence[np.ndarray | None]) -> list[list[Region]] | None:
        """The parts that a task on regions looks at, by image; None for other tasks, which have no use for boxes."""
        if isinstance(self._task, RegionTask):
            return [self._task.regions(to_tensor(x), rows) for x, rows in zip(images, boxes, strict=True)]
        if any(rows is not None for rows in boxes):
            raise ValueError(f"boxes: task {self.task!r} looks at whole images; leave them out")
        return None

    def _predict(
        self,
        images: Sequence[np.ndarray] | Sequence[Tensor],
        resolution: int,
        resize_mode: str,
        run: Run,
        latents: Tensor | None,
        options: dict[str, Any],
    ) -> list[Prediction]:
        """Images of any sizes, (H, W, 3) as `read` gives them or (1, 3, H, W) in [0, 1], -> their predictions; those of one
        padded size share batches.
        """
        geometries = [Geometry.plan(call.size_of(x), resolution, self.stride, resize_mode) for x in images]
        start = None if latents is None else run.by_image(latents, geometries, self._codec)
        predictions: dict[int, Prediction] = {}
        for batch in call.batches([g.padded for g in geometries], run.batch_size):
            x = torch.cat([call.network_input(geometries[i], images[i], self._execution_device) for i in batch])
            noise = None if start is None else start[batch].flatten(0, 1)
            its = replace(run, seeds=[run.seeds[i] for i in batch])
            raw = self._forward(x, its, noise)
            if run.flip_test:
                mirrored = self._forward(x.flip(-1), its, None if noise is None else noise.flip(-1))
                raw = (raw + self._task.flip(mirrored)) / 2
            for i, raw_MCHW in zip(batch, raw.split(run.members), strict=True):
                predictions[i] = call.decode(self._task, raw_MCHW, geometries[i], options)
                predictions[i].meta["resolution"] = list(geometries[i].padded)
        return [predictions[i] for i in range(len(images))]

    def _forward(self, image_BCHW: Tensor, run: Run, latents: Tensor | None) -> Tensor:
        """Padded images (B, 3, H, W) in [0, 1] -> raw maps (B runs, C, H, W) float32: encode, paradigm(denoiser), head.

        Image by image, and run by run within each; an image is encoded once for all of its runs.
        """
        raw = [
            call.turned(self._head(features, self._codec).float(), self.info.get("axes"), self._task.kind)
            for features in self._answers(image_BCHW, run, latents)
        ]
        return torch.cat(raw)

    def _answers(self, image_BCHW: Tensor, run: Run, latents: Tensor | None) -> Iterator[Features]:
        """What the head reads, in the order of `_forward`, up to `run.batch_size` runs at once."""
        device = self._execution_device
        wants_latent = self._head.consumes == "latent"
        stored = self.info.get("conditions") or {}
        conditions = {k: torch.tensor([v], dtype=self.unet_dtype, device=device) for k, v in stored.items()}
        prompt = self.prompt_embeds.to(device, self.unet_dtype)

        def denoise(x: Tensor, t: Tensor) -> Features:
            context = prompt.expand(x.shape[0], -1, -1)
            further = {k: row.expand(x.shape[0], -1) for k, row in conditions.items()}
            return as_backbone(self._denoiser).forward_features(
                x.to(self.unet_dtype), t, context, latent=wants_latent, **further
            )

        image = image_BCHW.to(device) * 2 - 1
        z_x = self._codec.encode(image)
        for first in range(0, len(z_x) * run.members, run.batch_size):
            rows = range(first, min(first + run.batch_size, len(z_x) * run.members))
            seeds = [run.seeds[row // run.members] for row in rows] if run.seeds else 0
            rng = Rng(seeds, 0, [row % run.members for row in rows])
            start = None if latents is None else latents[rows.start : rows.stop].to(device)
            images = torch.arange(rows.start, rows.stop, device=device) // run.members
            features = run.paradigm.predict(denoise, z_x[images], run.steps, rng, start)
            yield replace(features, image=image[images]) if wants_latent else features

    # ---- what goes with what ---------------------------------------------------------------------------------------

    def paradigm(self, name: str | None = None, **options: Any) -> Paradigm:
        """The paradigm of this name (None: the model's own, with its stored options), with these options.

        ValueError for unknown names and options, and for a paradigm that the parts cannot run.
        """
        chosen = pairing.choose(self.info, name, options)
        pairing.check(chosen, self._task, self._head, self._codec, self.unet, self.info)
        return chosen

    def default_steps(self, chosen: Paradigm) -> int:
        """Steps of inference where none are asked for: the model's own number, which it states for its own paradigm alone."""
        own = self.info.get("num_inference_steps") if chosen.name == self.info["paradigm"] else None
        return int(own) if own else chosen.default_steps

    def check_request(self, num_inference_steps: int | None = None, ensemble_size: int = 1) -> None:
        """ValueError for what no image could change: steps or an ensemble that the model's paradigm cannot do."""
        chosen = self.paradigm()
        call.check_runs(chosen, ensemble_size)
        if num_inference_steps is not None:
            chosen.check_steps(num_inference_steps)

    @property
    def task_plugin(self) -> Task:
        """The task with this model's options: its class table, its crop size, ..."""
        return self._task

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

    @property
    def meta(self) -> dict[str, Any]:
        """What a Prediction says of its model: name, hash, family, task, paradigm, axes, software version."""
        return pairing.facts(self.info)

    def _meta_of(self, run: Run, seed: int) -> dict[str, Any]:
        return self.meta | {
            "paradigm": run.paradigm.name,
            "paradigm_options": run.paradigm.options,
            "steps": run.steps,
            "ensemble_size": run.members,
            "flip_test": run.flip_test,
            "seed": seed if run.paradigm.stochastic else None,
        }

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
        codec: str = "kl",
        backbone: str = "sd21",
        resolution: int = 768,
        recipe: dict[str, Any] | None = None,
        **info: Any,
    ) -> GenPerceptPipeline:
        """A pipeline over modules at hand. prompt_embeds (1, tokens, width). Further keywords go to genpercept.json.

        unet: the backbone, of the plugin that `backbone` names. vae: None for codec "pixels". head_module: of a head with
        weights of its own. paradigm_options: those that are not the paradigm's defaults.
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
        return cls(unet.eval(), codec_module, prompt_embeds.float().cpu(), settings | info, module)

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
        return cls(parts.unet, parts.vae, parts.prompt_embeds, parts.info, parts.head)

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
        plain = GenPerceptPipeline(self.unet, module, self.prompt_embeds, info, self.head)
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
        parts = Parts(self.unet, self.vae, self.head, self.prompt_embeds, self.info)
        write(target, parts, GenPerceptPipeline.__name__)
        if push_to_hub:
            self.push_to_hub(kwargs.pop("repo_id", target.name), **kwargs)
