"""The pipeline of a run: a copy on each device, loaded when it is first needed, and how many batches may run at once."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genpercept.commands.predict import weights
from genpercept.commands.predict.request import Machine, Pipeline, Request
from genpercept.core import dtypes, said
from genpercept.core.devices import allow_tf32, pick_device
from genpercept.core.said import say
from genpercept.core.texts import one_line
from genpercept.imaging.boxes import read_boxes
from genpercept.models.detectors import DETECTORS, Detector
from genpercept.pipeline import graphs
from genpercept.pipeline.tiles.plan import Plan, Tiling
from genpercept.tasks import TASKS

# A small network is many short operations: on a CPU two streams of one thread each beat one of two. More than a few would
# wait for Python's lock.
_MOST_STREAMS = 4


def _specialised() -> type:
    from genpercept.pipeline.specialise.pipeline import SpecialisedPipeline

    return SpecialisedPipeline


def genpercept_load(model: str, **options: Any) -> Pipeline:
    from genpercept.pipeline.loading import load

    return load(model, **options)


def read_noise(path: Path) -> torch.Tensor:
    """A .npy file of floats, (runs, C, h, w). ValueError for what is none."""
    try:
        values = np.load(path.expanduser(), allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(
            f"--noise {path}: not a readable .npy file ({one_line(error)}); save it with numpy.save"
        ) from None
    if not isinstance(values, np.ndarray) or values.ndim != 4 or not np.issubdtype(values.dtype, np.floating):
        found = f"{values.dtype} {list(values.shape)}" if isinstance(values, np.ndarray) else "several arrays"
        raise ValueError(
            f"--noise {path}: holds {found}: it must be floats (runs, channels, height, width) of the latents"
        )
    if not np.isfinite(values).all():
        raise ValueError(f"--noise {path}: holds NaN or infinite values")
    return torch.from_numpy(values.astype(np.float32))


class Model:
    """`load` stands in for genpercept.load."""

    def __init__(self, request: Request, machine: Machine, load: Callable[..., Pipeline] | None = None) -> None:
        self.request, self.machine, self._load = request, machine, load or genpercept_load
        self._pipes: list[Pipeline] = []
        self._people = None if request.boxes is None else read_boxes(Path(request.boxes), request.box_score)
        self._noise = None if request.noise is None else read_noise(Path(request.noise))
        self._detector: Detector | None = None
        self._detecting = threading.Lock()
        self._weights: dict[str, str] | None = None

    def weights(self, check: bool = False) -> dict[str, str]:
        """Hashes of what `request` names, for the sidecars. check: of the files themselves, since nothing will be loaded."""
        if self._weights is None:
            self._weights = weights.identity(self.request, check=check)
        return self._weights

    def load(self) -> Pipeline:
        """The first copy; the first call loads them all."""
        if not self._pipes:
            self.weights()
            self._pipes = [self._loaded(device) for device in self.machine.devices]
            self._check_people()
        return self._pipes[0]

    def asking(self, **changes: Any) -> Model:
        """The same loaded copies for another request of the same model: resolution, steps, ensemble, seed, flip test."""
        self.load()
        other = copy.copy(self)
        other.request = replace(self.request, **changes)
        return other

    @property
    def copies(self) -> int:
        return len(self.machine.devices)

    @property
    def task(self) -> str:
        """Known without loading for a named task and for embedded models."""
        return self.task_named or self.load().task

    @property
    def task_named(self) -> str | None:
        """The task, where the request says it, or the name of an embedded model; None where the model has to be loaded."""
        if self._pipes:
            return self._pipes[0].task
        folder, _, name = self.request.model_name.partition("/")
        named = next(iter(self.request.tasks), None)
        return named or (name if folder == "mini" and name in TASKS else None)

    @property
    def tasks(self) -> tuple[str, ...]:
        """All that are asked for; `task` is the first."""
        return self.request.tasks or (self.task,)

    @property
    def tasks_named(self) -> tuple[str, ...]:
        """As `task_named`: none where the model has to be loaded."""
        return self.request.tasks or ((self.task_named,) if self.task_named else ())

    @property
    def kind(self) -> str:
        return TASKS.find(self.task).kind

    @property
    def on_cpu(self) -> bool:
        return self._device(self.machine.devices[0]) == "cpu"

    def _device(self, wanted: str) -> str:
        return pick_device(wanted) if self._graph is None else graphs.pick_device(self._graph, wanted)

    @cached_property
    def _graph(self) -> Path | None:
        """The file of an exported graph, if the model is one: that needs no torch."""
        return graphs.find(Path(self.request.model_name) / (self.request.subfolder or ""))

    def padded(self, size: tuple[int, int]) -> tuple[int, int] | None:
        """The size at which the network sees an image of `size`; None where the pipeline does not say, or cuts out parts."""
        from genpercept.core.values import Geometry, PublicSize

        pipe: Any = self.load()
        if not hasattr(pipe, "stride") or self.in_parts:
            return None
        if (plan := self._plan(size)) is not None:
            return plan.rows.tile, plan.columns.tile
        mode = self.request.resize_mode or getattr(pipe, "resize_mode", "fit")
        public = getattr(pipe, "official_size", PublicSize())
        return Geometry.plan(size, self._longest(pipe), pipe.stride, mode, public).padded

    def tiles_of(self, size: tuple[int, int]) -> int:
        """How many tiles an image of `size` is divided into; 1: it is seen whole."""
        plan = self._plan(size)
        return 1 if plan is None else len(plan.rows.starts) * len(plan.columns.starts)

    def _longest(self, pipe: Any) -> int:
        """Pixels along the longest edge that the network sees; 0: the image's own."""
        asked = self.request.processing_resolution
        return pipe.resolution if asked is None else asked

    def _plan(self, size: tuple[int, int]) -> Plan | None:
        pipe: Any = self.load()
        return None if self.tiling is None else self.tiling.plan(size, self._longest(pipe), pipe.stride)

    @property
    def tiling(self) -> Tiling | None:
        """How images are divided into tiles; None: they are seen whole."""
        return None if self.request.tiles is None else Tiling(self.request.tiles, self.request.overlap)

    @property
    def in_parts(self) -> bool:
        """Whether the task looks at parts of an image (people in their boxes)."""
        from genpercept.tasks import RegionTask

        return isinstance(getattr(self.load(), "task_plugin", None), RegionTask)

    @property
    def several(self) -> bool:
        """Whether an image may be several for the network: its parts, or its tiles."""
        return self.tiling is not None or self.in_parts

    def streams(self, threads: int) -> int:
        """How many batches may run at once on one copy. One, unless it is a plain pipeline on a CPU.

        Specialised and exported ones take one at a time, offloaded ones move their parts about, accelerators work through one
        batch after the other anyway.
        """
        pipe: Any = self.load()
        plain = hasattr(pipe, "stride") and not getattr(pipe, "one_at_a_time", False)
        return min(threads, _MOST_STREAMS) if plain and self.on_cpu else 1

    def predict(self, copy: int, images: list[np.ndarray], paths: list[Path], batch_size: int) -> list[Any]:
        """One Prediction per image (H, W, 3), or {task: Prediction} where several are asked for. Each call has the same seed,
        so that a resumed run gives the same.
        """
        request = self.request
        options: dict[str, Any] = {"processing_resolution": request.processing_resolution}
        options |= {"num_inference_steps": request.steps, "ensemble_size": request.ensemble_size}
        options["batch_size"] = batch_size
        if self._graph is None:  # a graph draws no noise
            options["generator"] = torch.Generator().manual_seed(request.seed)
        if request.flip_test:
            options["flip_test"] = True
        if request.tiles is not None:
            options |= {"tiles": request.tiles, "overlap": request.overlap}
        if request.refine:
            options["refine"] = True
        if request.resize_mode is not None:
            options["resize_mode"] = request.resize_mode
        if self._noise is not None:
            options["latents"] = self._noise.repeat(len(images), 1, 1, 1)
        if self._people is not None:
            options["boxes"] = [self._people.of(path) for path in paths]
        self.load()
        if self._people is None and request.detector is not None:
            options["boxes"] = [self._detect(image) for image in images]
        pipe: Any = self._pipes[copy]
        return pipe(images, **options) if len(self.tasks) == 1 else pipe.joint(images, self.tasks, **options)

    def _check_people(self) -> None:
        """ValueError for boxes where the model has no use for them, or a detector that does not load: before any image."""
        flag = "--boxes" if self.request.boxes else "--detector" if self.request.detector else ""
        task = getattr(self._pipes[0], "task_plugin", None)
        if flag and task is not None and not self.in_parts:
            raise ValueError(f"{flag}: {self.request.model_name} looks at whole images ({self.task}); leave it out")
        if self.request.detector:
            name, _, model = self.request.detector.partition("=")
            device = self._device(self.machine.devices[0])
            self._detector = DETECTORS.find(name).load(model or None, device, self.request.box_score)

    def _detect(self, image: np.ndarray) -> np.ndarray:
        assert self._detector is not None  # `load` has loaded it
        with self._detecting:
            return self._detector(image)

    def _loaded(self, wanted: str) -> Pipeline:
        request, machine = self.request, self.machine
        device = self._device(wanted)
        if device.startswith("cuda"):
            allow_tf32(request.tf32)
        if machine.offload and device == "cpu":
            raise ValueError("--offload moves parts off an accelerator, and here is only the CPU: leave it out")
        task = (
            None if request.model is None else next(iter(request.tasks), None)
        )  # an embedded model's name has said it
        names = {"base": request.base, "family": request.family, "subfolder": request.subfolder, "task": task}
        names |= {"specialised": None if request.strips else request.specialised}  # not twice: see _in_strips
        names |= {"encoder": request.encoder, "decoder": request.decoder}
        names |= {"revision": request.revision, "variant": request.variant}
        given: dict[str, Any] = {k: v for k, v in names.items() if v is not None}
        if request.allow_pickle:
            given["allow_pickle"] = True
        dtype = request.dtype if self._graph else dtypes.to_torch(request.dtype)
        if request.model is None and not self._pipes:
            say(
                f"genpercept: no --model given: using {request.model_name}, small and embedded; name a full-size one by"
                " its folder or hub id: --model M [--base B --family F --task T]"
            )
        pipe: Any = self._load(
            request.model_name, torch_dtype=dtype, device="cpu" if machine.offload else device, **given
        )
        does = getattr(pipe, "tasks", (pipe.task,)) if len(request.tasks) > 1 else (pipe.task,)
        if other := [name for name in request.tasks if name not in does]:
            raise ValueError(
                f"{request.model_name} does {' and '.join(does)}, not {other[0]}: leave --task out, or name another model"
            )
        if request.strips:
            pipe = self._in_strips(pipe)
        if (flag := machine.memory_saver) and isinstance(pipe, _specialised()):
            raise ValueError(f"{flag}: {request.model_name} is specialised, which cannot do that: add --no-specialised")
        pipe.check_request(request.steps, request.ensemble_size)  # once, not for each image
        if request.tiles is not None or request.refine:
            pipe.check_sharpness(request.tiles, request.overlap, request.refine)
        if machine.offload:
            pipe.enable_model_cpu_offload(device=device)
        for flag, method in ((machine.vae_slicing, "enable_slicing"), (machine.vae_tiling, "enable_tiling")):
            if flag:
                enable = getattr(getattr(pipe, "vae", None), method, None)
                if enable is None:
                    name = method.removeprefix("enable_")
                    raise ValueError(f"--vae-{name}: this model's codec has no such mode; leave it out")
                enable()
        said.detail(f"genpercept: {_about(request.model_name, pipe, device, request.dtype)}")
        return pipe

    def _in_strips(self, pipe: Any) -> Pipeline:
        from genpercept.pipeline.exported import ExportedPipeline
        from genpercept.pipeline.specialise.pipeline import specialise

        if isinstance(pipe, ExportedPipeline):
            raise ValueError(f"--strips: {self.request.model_name} is a graph, which works on whole maps: leave it out")
        return specialise(pipe, strips=True).to(pipe.device)


def _about(name: str, pipe: Any, device: str, dtype: str) -> str:
    """What --verbose says of a model that was loaded."""
    meta = getattr(pipe, "meta", {})
    facts = [f"task {pipe.task}", f"family {meta['family']}" if meta.get("family") else "", f"{dtype} on {device}"]
    facts += [f"longest edge {pipe.resolution}" if getattr(pipe, "resolution", 0) else ""]
    facts += [f"weights {str(meta['model_sha256'])[:12]}" if meta.get("model_sha256") else ""]
    return f"{name}: {', '.join(filter(None, facts))}"
