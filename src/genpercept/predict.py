"""Many images through one model, into files: read ahead, predicted, written behind; what fails is told at the end."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from genpercept import plugins
from genpercept.detectors import Detector
from genpercept.devices import pick_device
from genpercept.imaging import write
from genpercept.imaging.boxes import read_boxes
from genpercept.imaging.inputs import gather, name_results
from genpercept.imaging.jobs import (
    Job,
    batches,
    failure_line,
    is_done,
    prepare_folder,
    protect_inputs,
    read_ahead,
    source,
)
from genpercept.prediction import Prediction

DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
# What one image can suffer without the next one having to; RuntimeError is how torch says that memory was short.
_ONE_IMAGE = (ValueError, OSError, MemoryError, RuntimeError)
_READERS, _WRITERS = 2, 2


@dataclass(frozen=True)
class Request:
    """What decides the pixels of a result; `--resume` compares it. model None: the embedded one of the task.

    boxes: a JSON file of people's boxes (genpercept.imaging.boxes); detector: "yolos" or "yolos=MODEL", which finds them;
    box_score: least score of either's. flip_test: mean with the mirror image's.
    """

    model: str | None = None
    base: str | None = None
    family: str | None = None
    subfolder: str | None = None
    task: str | None = None
    allow_pickle: bool = False
    processing_resolution: int | None = None
    steps: int | None = None
    ensemble_size: int = 1
    seed: int = 0
    dtype: str = "fp32"
    fov: float = write.DEFAULT_FOV
    flip_test: bool = False
    boxes: str | None = None
    detector: str | None = None
    box_score: float = 0.3

    @property
    def model_name(self) -> str:
        return self.model or f"mini/{self.task or 'depth'}"

    def record(self) -> dict[str, Any]:
        """For the sidecar: as plain values, the model spelt out."""
        plain = Request()
        later = ("flip_test", "boxes", "detector", "box_score", "allow_pickle")  # unknown to older sidecars
        kept = {k: v for k, v in asdict(self).items() if k not in later or v != getattr(plain, k)}
        return {**kept, "model": self.model_name}


@dataclass(frozen=True)
class Machine:
    """How it is computed: device auto, cpu, cuda, cuda:1 or mps; images per batch; memory savers of diffusers."""

    device: str = "auto"
    batch_size: int = 1
    offload: bool = False
    vae_slicing: bool = False
    vae_tiling: bool = False


class Pipeline(Protocol):
    """What is used of GenPerceptPipeline."""

    task: str

    def __call__(self, image: Any, **options: Any) -> Any: ...

    def check_request(self, num_inference_steps: int | None = None, ensemble_size: int = 1) -> None: ...


@dataclass
class Outcome:
    """Counts and the line of each failure. `done` are written, `predicted` at least on their way."""

    done: int = 0
    predicted: int = 0
    skipped: int = 0
    failures: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0: all went well; 1: some did; 2: none did."""
        return 0 if not self.failures else (1 if self.done + self.skipped else 2)


def run(
    inputs: Sequence[str | Path],
    out: Path,
    request: Request | None = None,
    *,
    formats: Iterable[str] | None = None,
    machine: Machine | None = None,
    resume: bool = False,
    load: Callable[..., Pipeline] | None = None,
) -> int:
    """Predict files, folders and patterns into `out`/<stem>_<task>.<ext>. The exit code: Outcome's, 130 on Ctrl-C.

    Nothing is loaded before the arguments are known to be good and a first image has been read. Files appear whole or
    not at all; formats None: those of the kind (png and color; coco and color of keypoints). `resume` skips images
    whose files are there and were made from the same file by the same request. `load` stands in for genpercept.load.
    Raises ValueError for what concerns all images: folders, formats, model, device.
    """
    request, machine = request or Request(), machine or Machine()
    chosen = _check(request, machine, formats)
    files, problems = gather(inputs)
    outcome = Outcome(failures=problems)
    jobs = [Job(file, out / name) for file, name in zip(files, name_results(files), strict=True)]
    if jobs:
        prepare_folder(out, inputs)
    model = _Model(request, machine, load or _genpercept_load)
    try:
        _all(jobs, model, chosen, resume, outcome)
    except KeyboardInterrupt:
        _say(f"genpercept: interrupted; {outcome.done} images are done and whole, --resume continues with the rest")
        return 130
    for failure in outcome.failures:
        _say(f"genpercept: error: {failure}")
    return outcome.exit_code


def _check(request: Request, machine: Machine, formats: Iterable[str] | None) -> tuple[str, ...] | None:
    """Refuse what is wrong whatever the images are. Returns the formats, each once."""
    chosen = None if formats is None else write.check_formats(formats)
    if request.boxes and request.detector:
        raise ValueError("--boxes and --detector both say where people are: give one of them")
    if not 0 <= request.box_score <= 1:
        raise ValueError(f"box score {request.box_score:g}: must lie between 0 and 1")
    if request.task is not None and request.task not in plugins.names("tasks"):
        plugins.find("tasks", request.task)  # which says what there is
    if request.dtype not in DTYPES:
        raise ValueError(f"dtype {request.dtype!r}: choose {', '.join(DTYPES)}")
    for name, value, least in (
        ("processing resolution", request.processing_resolution, 0),
        ("steps", request.steps, 1),
        ("ensemble size", request.ensemble_size, 1),
        ("batch size", machine.batch_size, 1),
    ):
        if value is not None and value < least:
            raise ValueError(f"{name} {value}: must be at least {least}")
    if not 0 < request.fov < 180:
        raise ValueError(f"field of view {request.fov:g}: must lie between 0 and 180 degrees")
    return chosen


class _Model:
    """The pipeline, loaded when it is first needed."""

    def __init__(self, request: Request, machine: Machine, load: Callable[..., Pipeline]) -> None:
        self.request, self.machine, self._load = request, machine, load
        self._pipe: Pipeline | None = None
        self._people = None if request.boxes is None else read_boxes(Path(request.boxes), request.box_score)
        self._detector: Detector | None = None

    def load(self) -> Pipeline:
        """The pipeline, loaded at the first call."""
        if self._pipe is None:
            self._pipe = self._loaded()
        return self._pipe

    @property
    def task(self) -> str:
        """Known without loading for a named task and for embedded models, whose name is their task."""
        if self._pipe is None and self.request.task is not None:
            return self.request.task
        folder, _, name = self.request.model_name.partition("/")
        if self._pipe is None and folder == "mini" and name in plugins.names("tasks"):
            return name
        return self.load().task

    @property
    def kind(self) -> str:
        return plugins.find("tasks", self.task).kind

    def predict(self, images: list[np.ndarray], paths: list[Path]) -> list[Prediction]:
        """One Prediction per image (H, W, 3). Each call has the same seed, so that a resumed run gives the same."""
        import torch

        request = self.request
        options: dict[str, Any] = {"processing_resolution": request.processing_resolution}
        options |= {"num_inference_steps": request.steps, "ensemble_size": request.ensemble_size}
        options |= {"generator": torch.Generator().manual_seed(request.seed), "batch_size": self.machine.batch_size}
        if request.flip_test:
            options["flip_test"] = True
        if self._people is not None:
            options["boxes"] = [self._people.of(path) for path in paths]
        elif request.detector is not None:
            options["boxes"] = [self._detect(image) for image in images]
        return self.load()(images, **options)

    def _detect(self, image: np.ndarray) -> np.ndarray:
        if self._detector is None:
            name, _, model = str(self.request.detector).partition("=")
            device = pick_device(self.machine.device)
            self._detector = plugins.find("detectors", name).load(model or None, device, self.request.box_score)
        return self._detector(image)

    def _loaded(self) -> Pipeline:
        import torch

        request, machine = self.request, self.machine
        device = pick_device(machine.device)
        if machine.offload and device == "cpu":
            raise ValueError("--offload moves parts off an accelerator, and here is only the CPU: leave it out")
        task = None if request.model is None else request.task  # an embedded model's name has said it
        names = {"base": request.base, "family": request.family, "subfolder": request.subfolder, "task": task}
        given: dict[str, Any] = {k: v for k, v in names.items() if v is not None}
        if request.allow_pickle:
            given["allow_pickle"] = True
        dtype = getattr(torch, DTYPES[request.dtype])
        if request.model is None:
            _say(
                f"genpercept: no --model given: using {request.model_name}, small and embedded; name a full-size one by"
                " its folder or hub id: --model M [--base B --family F --task T]"
            )
        pipe: Any = self._load(
            request.model_name, torch_dtype=dtype, device="cpu" if machine.offload else device, **given
        )
        if request.task not in (None, pipe.task):
            raise ValueError(
                f"{request.model_name} does {pipe.task}, not {request.task}: leave --task out, or name another model"
            )
        pipe.check_request(request.steps, request.ensemble_size)  # once, not for each image
        if machine.offload:
            pipe.enable_model_cpu_offload(device=device)
        for flag, method in ((machine.vae_slicing, "enable_slicing"), (machine.vae_tiling, "enable_tiling")):
            if flag:
                enable = getattr(getattr(pipe, "vae", None), method, None)
                if enable is None:
                    name = method.removeprefix("enable_")
                    raise ValueError(f"--vae-{name}: this model's codec has no such mode; leave it out")
                enable()
        return pipe


def _genpercept_load(model: str, **options: Any) -> Pipeline:
    import genpercept

    return genpercept.load(model, **options)  # type: ignore[attr-defined]


def _all(jobs: list[Job], model: _Model, formats: tuple[str, ...] | None, resume: bool, outcome: Outcome) -> None:
    """Fill `outcome`. Reading and writing overlap with the network; an interrupt waits only for files being written."""
    if resume:
        formats = formats or write.default_formats(model.kind)
        todo = [job for job in jobs if not is_done(job, model.request.record(), model.task, formats)]
        outcome.skipped = len(jobs) - len(todo)
        jobs = todo
    readers = ThreadPoolExecutor(_READERS, "read")
    writers = ThreadPoolExecutor(_WRITERS, "write")
    writing: deque[tuple[Job, Future[Any]]] = deque()
    batch_size = model.machine.batch_size
    try:
        with Progress(len(jobs), outcome) as progress:
            for batch in batches(read_ahead(jobs, readers, batch_size + _READERS, outcome.failures), batch_size):
                if not outcome.predicted:
                    model.load()
                    formats = formats or write.default_formats(model.kind)
                    protect_inputs(jobs, model.load().task, formats)
                    progress.restart()
                assert formats is not None  # the first batch has chosen them
                for job, image, prediction in _predict(batch, model, formats, outcome):
                    writing.append((job, writers.submit(_save, job, image, prediction, model, formats)))
                _finish(writing, 2 * _WRITERS, outcome)
                progress.update()
            _finish(writing, 0, outcome)
            progress.update()
    finally:
        readers.shutdown(wait=False, cancel_futures=True)
        # What has begun to be written is finished, so that nothing stays half-written.
        writers.shutdown(wait=True, cancel_futures=True)


def _predict(
    batch: list[tuple[Job, np.ndarray]], model: _Model, formats: tuple[str, ...], outcome: Outcome
) -> list[tuple[Job, np.ndarray, Prediction]]:
    """The batch's predictions; when it fails, one by one, so that only the guilty are left out."""
    model.load()  # outside `try`: what is wrong with the model is wrong for every image
    try:
        predictions = model.predict([image for _, image in batch], [job.path for job, _ in batch])
    except _ONE_IMAGE as error:
        if len(batch) > 1:
            return [done for item in batch for done in _predict([item], model, formats, outcome)]
        if outcome.predicted + outcome.skipped == 0 and any(str(error) in earlier for earlier in outcome.failures):
            # The same complaint about two images while none went through: it is about the call, not about them.
            raise ValueError(str(error)) from error
        outcome.failures.append(failure_line(batch[0][0], error))
        return []
    write.check_formats(formats, predictions[0].kind)  # as soon as the kind is known, and for all of them
    outcome.predicted += len(batch)
    return [(job, image, p) for (job, image), p in zip(batch, predictions, strict=True)]


def _save(job: Job, image: np.ndarray, prediction: Prediction, model: _Model, formats: tuple[str, ...]) -> None:
    traced = {**prediction.meta, "input": source(job.path), "request": model.request.record()}
    path = job.stem.with_name(f"{job.stem.name}_{model.load().task}.json")  # with a suffix of ours, dots in names stay
    replace(prediction, meta=traced).save(path, formats, image=image, fov=model.request.fov, name=job.path.stem)


def _finish(writing: deque[tuple[Job, Future[Any]]], leave: int, outcome: Outcome) -> None:
    """Collect written files, waiting until at most `leave` are under way."""
    while writing and (len(writing) > leave or writing[0][1].done()):
        job, future = writing.popleft()
        try:
            future.result()
            outcome.done += 1
        except _ONE_IMAGE as error:
            outcome.failures.append(failure_line(job, error))


class Progress:
    """A bar with images/s and time left on a terminal, a line now and then elsewhere; the sum at the end. On stderr."""

    _EVERY = 5.0  # seconds between lines where there is no terminal

    def __init__(self, total: int, outcome: Outcome) -> None:
        self._total, self._outcome = total, outcome
        self._bar: Any = None

    def __enter__(self) -> Progress:
        self._start = self._last = time.monotonic()
        if sys.stderr.isatty() and self._total > 1:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = (
                "predict",
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
            )
            self._bar = Bar(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task("predict", total=self._total, rate="")
        self._failed_before = len(self._outcome.failures)
        return self

    def restart(self) -> None:
        """The clock starts anew: loading the model is no part of images/s."""
        self._start = time.monotonic()

    def update(self) -> None:
        seen = self._outcome.done + len(self._outcome.failures) - self._failed_before
        now = time.monotonic()
        rate = self._outcome.done / max(now - self._start, 1e-9)
        if self._bar is not None:
            self._bar.update(self._task, completed=seen, rate=f"{rate:.2f} images/s")
        elif now - self._last >= self._EVERY and seen < self._total:
            self._last = now
            left = (self._total - seen) * (now - self._start) / max(seen, 1)
            _say(f"{seen}/{self._total} images, {rate:.2f} images/s, {left / 60:.0f} min {left % 60:02.0f} s left")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
        if kind is None and (self._outcome.done or self._outcome.skipped):
            seconds = time.monotonic() - self._start
            parts = [f"{self._outcome.done} images predicted in {seconds:.1f} s"]
            if self._outcome.done:
                parts.append(f"{self._outcome.done / max(seconds, 1e-9):.2f} images/s")
            parts += [f"{self._outcome.skipped} done before"] if self._outcome.skipped else []
            parts += [f"{len(self._outcome.failures)} failed"] if self._outcome.failures else []
            _say(", ".join(parts))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
