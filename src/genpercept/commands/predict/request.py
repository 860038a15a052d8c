"""What is asked of a run, and what came of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

from genpercept.checkpoints import hub
from genpercept.commands.files.results import Job
from genpercept.core import dtypes
from genpercept.core.texts import words
from genpercept.imaging import write
from genpercept.imaging.camera import DEFAULT_FOV, check_fov
from genpercept.imaging.mesh import VERTICES
from genpercept.pipeline.tiles.plan import OVERLAP, Tiling
from genpercept.tasks import TASKS

ENGINES = ("local", "ray")


@dataclass(frozen=True)
class Request:
    """What decides the pixels of a result; `--resume` compares it. model None: the embedded one of the task.

    boxes: a JSON file of people's boxes (genpercept.imaging.boxes); detector: "yolos" or "yolos=MODEL", which finds them;
    box_score: least score of either's. flip_test: mean with the mirror image's. specialised, encoder, decoder,
    revision, variant: as genpercept.load has them. strips: of genpercept.specialise. tf32: of float32 on NVIDIA's GPUs.
    fov: degrees, None: by EXIF, or 60. fit: a file or folder of known distances (genpercept.imaging.known), fit_scale:
    metres for each unit of it. mesh_vertices: of a mesh at most.
    tiles, overlap, refine: as the pipeline's call has them.
    task: or several, with commas, for a model that answers them at once.
    resize_mode: as the pipeline's call has it. noise: a .npy file, (runs, 4, h, w): what to start from in place of the seed's.
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
    fov: float | None = None
    flip_test: bool = False
    boxes: str | None = None
    detector: str | None = None
    box_score: float = 0.3
    specialised: bool | None = None
    encoder: str | None = None
    decoder: str | None = None
    strips: bool = False
    revision: str | None = None
    variant: str | None = None
    tf32: bool = False
    fit: str | None = None
    fit_scale: float | None = None
    mesh_vertices: int = VERTICES
    tiles: int | Literal["auto"] | None = None
    overlap: float = OVERLAP
    refine: bool = False
    resize_mode: str | None = None
    noise: str | None = None

    @property
    def tasks(self) -> tuple[str, ...]:
        """Those that are named, each once."""
        return words(self.task or "")

    @property
    def model_name(self) -> str:
        return self.model or f"mini/{self.task or 'depth'}"

    def record(self) -> dict[str, Any]:
        """For the sidecar: as plain values, the model spelt out."""
        plain = Request()
        later = ["flip_test", "boxes", "detector", "box_score", "allow_pickle"]  # unknown to older sidecars
        later += ["specialised", "encoder", "decoder", "strips", "revision", "variant", "tf32", "resize_mode", "noise"]
        later += ["fit", "fit_scale", "mesh_vertices", "tiles", "overlap", "refine"]
        kept = {k: v for k, v in asdict(self).items() if k not in later or v != getattr(plain, k)}
        # older sidecars have 60 where nobody said anything
        given = {"fov_given": True} if self.fov == DEFAULT_FOV else {}
        return {**kept, "fov": self.fov or DEFAULT_FOV, **given, "model": self.model_name}


@dataclass(frozen=True)
class Machine:
    """How it is computed. device: auto, cpu, cuda, cuda:1, mps, or several (cuda:0,cuda:1), each with a copy of the model.

    batch_size: images at once, or "auto": as many as memory holds. offload, vae_slicing, vae_tiling: diffusers' memory
    savers.
    """

    device: str = "auto"
    batch_size: int | Literal["auto"] = 1
    offload: bool = False
    vae_slicing: bool = False
    vae_tiling: bool = False

    @property
    def memory_saver(self) -> str | None:
        """The first of the flags that are on."""
        flags = {"--offload": self.offload, "--vae-slicing": self.vae_slicing, "--vae-tiling": self.vae_tiling}
        return next((flag for flag, on in flags.items() if on), None)

    @property
    def devices(self) -> tuple[str, ...]:
        return tuple(name.strip() for name in self.device.split(","))


class Pipeline(Protocol):
    """What is used of GenPerceptPipeline."""

    task: str

    def __call__(self, image: Any, **options: Any) -> Any: ...

    def check_request(self, num_inference_steps: int | None = None, ensemble_size: int = 1) -> None: ...

    def check_sharpness(self, tiles: int | Literal["auto"] | None, overlap: float, refine: bool) -> Any: ...


@dataclass
class Outcome:
    """Counts, and a line for each failure: `problems` of inputs without images, `failed` of jobs.

    `done` are written, `predicted` at least on their way. `fits`: of --fit, how well each image's known distances agree
    (`imaging.metric.Fit.to_meta`).
    """

    problems: list[str] = field(default_factory=list)
    done: int = 0
    predicted: int = 0
    skipped: int = 0
    failed: dict[Job, str] = field(default_factory=dict)
    fits: dict[Job, dict[str, Any]] = field(default_factory=dict)

    @property
    def seen(self) -> int:
        return self.done + len(self.failed)

    @property
    def failures(self) -> int:
        return len(self.problems) + len(self.failed)

    @property
    def exit_code(self) -> int:
        """0: all went well; 1: some did; 2: none did."""
        return 0 if not self.failures else (1 if self.done + self.skipped else 2)


def check(request: Request, machine: Machine, formats: Iterable[str] | None) -> tuple[str, ...] | None:
    """Refuse what is wrong whatever the images are. Returns the formats, each once."""
    chosen = None if formats is None else write.check_formats(formats)
    if request.boxes and request.detector:
        raise ValueError("--boxes and --detector both say where people are: give one of them")
    if request.strips and request.specialised is False:
        raise ValueError("--strips: only a specialised model works in strips: leave --no-specialised out")
    if (request.specialised or request.strips) and (flag := machine.memory_saver):
        way = "--strips" if request.strips else "--specialised"
        raise ValueError(f"{flag}: a specialised model cannot do that: leave it out, or {way}")
    if request.tiles is not None:
        Tiling(request.tiles, request.overlap)  # which says what is wrong
    elif request.overlap != OVERLAP:
        raise ValueError("--overlap: is of tiles, and there are none: add --tiles, or leave it out")
    if not 0 <= request.box_score <= 1:
        raise ValueError(f"box score {request.box_score:g}: must lie between 0 and 1")
    for name in request.tasks:
        if name not in TASKS:
            TASKS.find(name)  # which says what there is
    if len(request.tasks) > 1 and request.model is None:
        raise ValueError(f"--task {request.task}: no embedded model answers several tasks at once: name one by --model")
    if request.task is not None and request.model is None:
        hub.embedded_for(request.task)
    dtypes.check(request.dtype)
    for name, value, least in (
        ("processing resolution", request.processing_resolution, 0),
        ("steps", request.steps, 1),
        ("ensemble size", request.ensemble_size, 1),
        ("mesh vertices", request.mesh_vertices, 4),
        ("batch size", None if machine.batch_size == "auto" else machine.batch_size, 1),
    ):
        if value is not None and value < least:
            raise ValueError(f"{name} {value}: must be at least {least}")
    if request.fov is not None:
        check_fov(request.fov)
    if request.fit_scale is not None and not (request.fit and request.fit_scale > 0):
        wrong = "must be above 0" if request.fit else "says nothing without --fit"
        raise ValueError(f"--fit-scale {request.fit_scale:g}: metres for each unit of --fit; {wrong}")
    return chosen
