"""Image -> Prediction, whatever the network runs on: the call of every pipeline. `__call__` reads as its specification.

Nothing here needs torch but what a paradigm or another package's task asks for.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from copy import copy
from dataclasses import replace
from typing import Any, ClassVar, Literal, Self, cast

import numpy as np
import torch
from torch import Tensor

from genpercept.core import arrays
from genpercept.core.values import Geometry, PublicSize, Region
from genpercept.imaging.prediction import Prediction
from genpercept.imaging.read import read_many
from genpercept.models.paradigms import Paradigm
from genpercept.pipeline import call, pairing
from genpercept.pipeline import refine as refining
from genpercept.pipeline.call import Run
from genpercept.pipeline.joint import Tape, asked, by_task, info_for, tasks_of
from genpercept.pipeline.tiles.plan import OVERLAP, Tiling
from genpercept.tasks import TASKS, JudgingTask, RegionTask, Task


class Predictor(ABC):
    """What pipelines over parts and over exported graphs share. Subclasses say how a padded image becomes a raw map.

    info: the contents of genpercept.json but for `parts`. one_at_a_time: whether a second call has to wait for the first.
    """

    one_at_a_time: ClassVar[bool] = False
    _tape: Tape | None = None  # of one call of `joint`

    def _describe(self, info: dict[str, Any]) -> None:
        """What is predicted, and at which size: for __init__."""
        self.info = info
        self.task = str(info["task"])
        self.resolution = int(info["resolution"])
        self.resize_mode = str(info.get("resize_mode") or "fit")
        self.official_size = PublicSize(**(info.get("official_size") or {}))
        self._task = TASKS.find(self.task).with_options(**(info.get("task_options") or {}))

    # ---- inference -------------------------------------------------------------------------------------------------

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
        resize_mode: str | None = None,
        boxes: Any = None,
        flip_test: bool = False,
        tiles: int | Literal["auto"] | None = None,
        overlap: float = OVERLAP,
        refine: bool = False,
        **paradigm_options: Any,
    ) -> Any:
        """Predict for one image (-> Prediction) or a list of them (-> list, same order).

        image: path, PIL image, array (H, W[, C]) uint8 or float in [0, 1], tensor (3, H, W) in [0, 1].
        processing_resolution: longest edge in pixels the network sees; None is the model's own, 0 the image's. resize_mode
        "area": as many pixels as 4:3 has of that edge; "official": sizes as the public code's; None: the model's own ("fit",
        where it says nothing). num_inference_steps: None is the model's own. ensemble_size: runs from different noise that
        are merged, which fills `uncertainty`; ensembling_kwargs as diffusers has them (reduction, ...), not for one run.
        generator: its seed keys the noise, by run, so that an image gets the same answer wherever it stands; a list of them,
        one for each image, gives each its own noise. latents (images x ensemble_size, 4, h, w; 4 channels for each label
        image), run by run within image: the noise to start from. Images of one padded size, and runs, share batches of up to
        batch_size. boxes, for tasks on regions (pose): (N, 4) x, y, width, height in pixels, or (N, 5) with a score; a list of
        such arrays for a list of images; None: the whole image. flip_test: the mean with the mirror image's raw map. tiles,
        overlap, refine: see `check_sharpness`. paradigm and further keywords (betas=, ...): another one, and its options.
        """
        chosen = self.paradigm(paradigm, **paradigm_options)
        steps = self.default_steps(chosen) if num_inference_steps is None else num_inference_steps
        call.check_runs(chosen, ensemble_size, latents, ensembling_kwargs, batch_size)
        merging = call.merging(self.info, ensemble_size, ensembling_kwargs)
        resolution = self.resolution if processing_resolution is None else processing_resolution
        tiling = call.whole_or(self.check_sharpness(tiles, overlap, refine), latents, resize_mode)

        with self._computing():
            photographs, single = read_many(image)
            images = [pixels for pixels, _ in photographs]
            regions = self._regions(images, call.boxes_by_image(boxes, len(images), single))
            run = Run(chosen, steps, call.seeds_of(generator, len(images)), ensemble_size, batch_size, flip_test)
            if tiling is not None:
                predictions = self._in_tiles(images, resolution, resize_mode, tiling, run, merging)
            elif regions is None:
                predictions = self._predict(images, resolution, resize_mode, run, latents, merging)
            else:
                predictions = self._in_regions(regions, run, latents, merging)
            if refine:
                predictions = [refining.refine(p, i, self._task) for p, i in zip(predictions, images, strict=True)]
            for prediction, seed, (_, camera) in zip(predictions, run.seeds, photographs, strict=True):
                known = {} if camera is None else {"camera": camera.to_meta()}
                prediction.meta = self._meta_of(run, seed) | known | prediction.meta
                if isinstance(self._task, JudgingTask):
                    prediction.meta |= self._task.judge(prediction)
        return predictions[0] if single else predictions

    def video(
        self,
        source: Any,
        *,
        smooth: float = 0.0,
        align: bool = True,
        live: bool = False,
        rate: float | None = None,
        batch_size: int = 1,
        **options: Any,
    ) -> Iterator[Prediction]:
        """Predict a clip frame by frame: a generator of Predictions in the frames' order, in memory that does not grow.

        source: a film's path (extra `genpercept[video]`); a folder of images, sorted by name, or a list of images, each as for
        a call; with `live` any iterator of images. Each meta has frame (from 0), time in seconds, shot (from 0) and, of depth
        and disparity, the scale and the shift that brought the frame to its shot's one range (align=False: left alone).
        smooth: weight of the frame before along the motion, 0 to below 1; 0.8 is a good one. live: each frame at once, on a
        range that grows; else a shot's frames come when its end has been seen. rate: frames a second, where the source does
        not say [25]. options: as for a call. ValueError for what is no clip, and behind the last frame of a film that is cut
        off; ImportError without PyAV or OpenCV.
        """
        from genpercept.pipeline.video.sources import clip_of
        from genpercept.pipeline.video.stream import How, Video

        how = How(smooth, align, 1 if live else batch_size, live)
        clip = clip_of(source, rate, live)

        def predict(images: list[np.ndarray]) -> list[Prediction]:
            return self(images, batch_size=how.batch_size, **options)

        return iter(Video(clip, predict, how))

    def joint(self, image: Any, tasks: Sequence[str] = (), **options: Any) -> Any:
        """Of several tasks at the price of one run: {task: Prediction}, or a list of these for a list of images.

        tasks: of `self.tasks`, all if none are named. Each is what `self.answering(task)(image, **options)` gives, to the bit.
        ValueError for a task that the model does not answer.
        """
        tape, found, single = Tape(), dict[str, Any](), not isinstance(image, list | tuple)
        for task in asked(tasks, self.info):
            view = copy(self.answering(task))
            view._tape = tape
            tape.rewind()
            found[task] = view(image, **options)
        return by_task(found, single)

    def answering(self, task: str) -> Self:
        """The same model, over the same parts, asked for another of the tasks that it answers. ValueError for others."""
        if task == self.task:
            return self
        other = copy(self)
        other._describe(info_for(self.info, task))
        return other

    @property
    def tasks(self) -> tuple[str, ...]:
        """All that the network answers at once; `task`, one of them, is what a call gives."""
        return tasks_of(self.info)

    def _regions(self, images: Sequence[np.ndarray], boxes: Sequence[np.ndarray | None]) -> list[list[Region]] | None:
        """The parts that a task on regions looks at, by image; None for other tasks, which have no use for boxes."""
        if isinstance(self._task, RegionTask):
            return [self._task.regions(self._planes(x), rows) for x, rows in zip(images, boxes, strict=True)]
        if any(rows is not None for rows in boxes):
            raise ValueError(f"boxes: task {self.task!r} looks at whole images; leave them out")
        return None

    def _in_regions(
        self, regions: Sequence[Sequence[Region]], run: Run, latents: Tensor | None, options: dict[str, Any]
    ) -> list[Prediction]:
        """The regions of all images as `_predict` does images, merged to a prediction for each image."""
        parts = [region.image for each in regions for region in each]
        of_parts = replace(run, seeds=[seed for seed, each in zip(run.seeds, regions, strict=True) for _ in each])
        found = iter(self._predict(parts, 0, "fit", of_parts, latents, options))
        return [cast(RegionTask, self._task).merge([next(found) for _ in each], each) for each in regions]

    def _predict(
        self,
        images: Sequence[Any],
        resolution: int,
        resize_mode: str | None,
        run: Run,
        latents: Tensor | None,
        options: dict[str, Any],
    ) -> list[Prediction]:
        """Images of any sizes, (H, W, 3) as `read` gives them or (1, 3, H, W) in [0, 1], -> their predictions; those of one
        padded size share batches.
        """
        geometries = [self.geometry(call.size_of(x), resolution, resize_mode) for x in images]
        start = None if latents is None else self._start(latents, geometries, run)
        predictions: dict[int, Prediction] = {}
        for batch in call.batches([g.padded for g in geometries], run.batch_size):
            inputs = [self._input(geometries[i], images[i]) for i in batch]
            xp = arrays.space(inputs[0])
            x = xp.concatenate(inputs)
            noise = None if start is None else start[batch].flatten(0, 1)
            its = replace(run, seeds=[run.seeds[i] for i in batch], sizes=[geometries[i].resized for i in batch])
            raw = self._raw(x, its, noise)
            for place, i in enumerate(batch):
                its_runs = raw[place * run.members : (place + 1) * run.members]
                predictions[i] = call.decode(self._task, its_runs, geometries[i], options)
                predictions[i].meta["resolution"] = list(geometries[i].padded)
        return [predictions[i] for i in range(len(images))]

    def _raw(self, x: Any, run: Run, noise: Tensor | None = None) -> Any:
        """`_forward`, or, with a flip test, its mean with that of the mirror images."""
        raw = self._forward(x, run, noise)
        if not run.flip_test:
            return raw
        mirrored = self._forward(arrays.space(x).flip(x, (-1,)), run, None if noise is None else noise.flip(-1))
        return (raw + self._task.flip(mirrored)) / 2

    def _in_tiles(
        self,
        images: Sequence[Any],
        resolution: int,
        resize_mode: str | None,
        tiling: Tiling,
        run: Run,
        options: dict[str, Any],
    ) -> list[Prediction]:
        """Images one after the other, each in tiles that share batches; those that one tile covers as `_predict` does."""
        found = []
        for image, seed in zip(images, run.seeds, strict=True):
            size, its = call.size_of(image), replace(run, seeds=[seed])
            plan = tiling.plan(size, resolution, self.stride)
            if plan is None:
                found += self._predict([image], resolution, resize_mode, its, None, options)
                continue
            from genpercept.pipeline.tiles import run as in_tiles

            whole = self.geometry(size, resolution or self.resolution, resize_mode)
            inputs = self._input(whole, image), self._input(plan.geometry, image)
            found.append(in_tiles.predict(plan, inputs, whole, self._raw, its, self._task, options, self.stride))
        return found

    # ---- what the network runs on ----------------------------------------------------------------------------------

    @abstractmethod
    def _computing(self) -> AbstractContextManager[Any]:
        """Around each call."""

    @abstractmethod
    def _planes(self, image_HWC: np.ndarray) -> Any:
        """An image as `read` gives it -> (1, 3, H, W) in [0, 1], as a task on regions takes it."""

    @abstractmethod
    def _input(self, geometry: Geometry, image: Any) -> Any:
        """An image (H, W, 3) as `read` gives it, or (1, 3, H, W) in [0, 1] -> (1, 3, *padded) where the network wants it."""

    @abstractmethod
    def _forward(self, image_BCHW: Any, run: Run, latents: Tensor | None) -> Any:
        """Padded images (B, 3, H, W) in [0, 1] -> raw maps (B runs, C, H, W) float32, run by run within image by image."""

    @abstractmethod
    def _start(self, latents: Tensor, geometries: Sequence[Geometry], run: Run) -> Tensor:
        """`latents` of all runs -> (images, runs, C, h, w). ValueError where their shape is not the images'."""

    # ---- what goes with what ---------------------------------------------------------------------------------------

    @abstractmethod
    def paradigm(self, name: str | None = None, **options: Any) -> Paradigm:
        """The paradigm of this name (None: the model's own, with its stored options), with these options.

        ValueError for unknown names and options, and for a paradigm that the network cannot run.
        """

    @property
    @abstractmethod
    def stride(self) -> int:
        """Pixels of which padded sizes are multiples."""

    def geometry(
        self, size: tuple[int, int], resolution: int | None = None, resize_mode: str | None = None
    ) -> Geometry:
        """How an image of this size, (H, W), comes to the network; None: as the model's own; resolution 0: the image's."""
        longest = self.resolution if resolution is None else resolution
        return Geometry.plan(size, longest, self.stride, resize_mode or self.resize_mode, self.official_size)

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

    def check_sharpness(
        self, tiles: int | Literal["auto"] | None = None, overlap: float = OVERLAP, refine: bool = False
    ) -> Tiling | None:
        """The tiling that is asked for, None: none. ValueError for what the model's task cannot do in tiles, or refined.

        tiles: edge of tiles in pixels of the image, or "auto"; beside the whole image, each is seen at
        processing_resolution as an image of its own, but never enlarged (0: at its own size, the whole then at the
        model's). overlap: the least share of its edge that a tile has in common with the next one. They are joined without
        seams (genpercept.pipeline.tiles). refine: bring edges to those of the image (genpercept.pipeline.refine).
        """
        if isinstance(self._task, RegionTask) and (tiles is not None or refine):
            asked = "refine" if tiles is None else "tiles"
            raise ValueError(f"{asked}: task {self.task!r} looks at parts of an image already; leave it out")
        if refine:
            refining.check(self._task)
        tiling = Tiling() if tiles is None else Tiling(tiles, overlap)
        if isinstance(tiling.size, int) and tiling.size < self.stride:
            raise ValueError(
                f"tiles={tiles}: smaller than the network's stride of {self.stride} pixels; give a larger edge"
            )
        return None if tiles is None else tiling

    @property
    def task_plugin(self) -> Task:
        """The task with this model's options: its class table, its crop size, ..."""
        return self._task

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
