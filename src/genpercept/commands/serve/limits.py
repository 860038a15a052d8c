"""What a server allows, what a request may ask for, and how a request is refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from genpercept.commands.predict.clips import plan as clips
from genpercept.imaging.camera import check_fov
from genpercept.pipeline.tiles.plan import AUTO, OVERLAP, Tiling

MIB = 2**20


@dataclass(frozen=True)
class Limits:
    """Of one server. Bytes, pixels, seconds. ValueError for one that lets nothing through.

    body: of an upload. pixels: of an image, by its header, before anything is decoded. queue, queue_bytes: requests that are
    in hand at once, from their headers to the last byte of their answer, and what they hold: uploads, pixels, predictions and
    answers. header_seconds, body_seconds: until a request's headers and its body are there. stall_seconds: in which a client
    reads nothing of its answer. connections: at once. decoders: child processes. decode_seconds: of one image, wall time and
    processor time alike. decode_memory: addresses of a child. decoder_images: after which a child is replaced. drain:
    seconds for what is in hand when the server is asked to end. ensemble, steps, resolution: the most that a request may
    ask; tiles: of one image.

    Of films: film_body, film_upload_seconds: of an upload. film_pixels: of a frame. film_frames: of a film. film_queue: films
    that are sent, wait or run at once. film_disk: bytes of all films, what is computed of them, and the results that are
    kept; where room is short the oldest results go. film_seconds: for one, from its turn on. film_keep: for which a result is
    kept.
    """

    body: int = 32 * MIB
    pixels: int = 50_000_000
    queue: int = 64
    queue_bytes: int = 512 * MIB
    header_seconds: float = 10
    body_seconds: float = 30
    stall_seconds: float = 30
    connections: int = 256
    decoders: int = 2
    decode_seconds: float = 10
    decode_memory: int = 1536 * MIB
    decoder_images: int = 1000
    drain: float = 30
    ensemble: int = 10
    steps: int = 50
    resolution: int = 1024
    tiles: int = 64
    film_body: int = 256 * MIB
    film_upload_seconds: float = 300
    film_pixels: int = 8_294_400
    film_frames: int = 3000
    film_queue: int = 8
    film_disk: int = 4096 * MIB
    film_seconds: float = 3600
    film_keep: float = 3600

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value <= 0 and not (name == "drain" and value == 0):
                raise ValueError(f"{name} {value}: must be more than 0")
        if self.queue_bytes < self.body:
            raise ValueError(f"the queue's {self.queue_bytes:,} bytes hold no upload of {self.body:,}: raise it")
        if self.film_disk < self.film_body:
            raise ValueError(f"the films' {self.film_disk:,} bytes hold no upload of {self.film_body:,}: raise them")


@dataclass(frozen=True)
class Asked:
    """What one request asks for beside its image and its model; None: as the model has it.

    format: of the answer, see `answers.FORMATS`; None: the task's usual one. processing_resolution, steps, ensemble_size,
    seed, flip_test, fov: as `genpercept predict` has them. threshold: from which a mask is white, or a pixel a defect. known:
    distances, x, y, metres in each line, by which depth and disparity are fitted to metres. tiles, overlap, refine: as
    `genpercept predict` has them.
    """

    format: str | None = None
    processing_resolution: int | None = None
    steps: int | None = None
    ensemble_size: int = 1
    seed: int = 0
    flip_test: bool = False
    fov: float | None = None
    threshold: float | None = None
    known: str | None = None
    tiles: int | Literal["auto"] | None = None
    overlap: float = OVERLAP
    refine: bool = False

    @property
    def computed(self) -> dict[str, Any]:
        """What decides the prediction; the rest says how it is shown. Images that have it in common may share a batch."""
        names = (
            "processing_resolution",
            "steps",
            "ensemble_size",
            "seed",
            "flip_test",
            "fov",
            "tiles",
            "overlap",
            "refine",
        )
        return {name: getattr(self, name) for name in names}

    def check(self, limits: Limits) -> None:
        """Unacceptable (422) for what no model would do, and for more than `limits` allow."""
        for name, value, least, most in (
            ("processing_resolution", self.processing_resolution, 0, limits.resolution),
            ("steps", self.steps, 1, limits.steps),
            ("ensemble_size", self.ensemble_size, 1, limits.ensemble),
            ("seed", self.seed, 0, 2**63 - 1),
        ):
            if value is not None and not least <= value <= most:
                raise Unacceptable(f"{name}={value}: must lie between {least} and {most}")
        if self.fov is not None:
            try:
                check_fov(self.fov)
            except ValueError as error:
                raise Unacceptable(str(error)) from None
        try:
            Tiling(AUTO if self.tiles is None else self.tiles, self.overlap)
        except ValueError as error:
            raise Unacceptable(str(error)) from None
        if self.threshold is not None and not 0 <= self.threshold <= 1e9:
            raise Unacceptable(f"threshold={self.threshold:g}: must not be negative")


@dataclass(frozen=True)
class FilmAsked(Asked):
    """What a request asks for of a film. format: a list with commas, of mp4 and what frames can be had as.

    smooth, side_by_side: as `genpercept predict` has them.
    """

    smooth: float = 0.0
    side_by_side: bool = False

    @property
    def formats(self) -> tuple[str, ...]:
        """Those named, each once; mp4, where none is."""
        return clips.formats(None if self.format is None else [name.strip() for name in self.format.split(",")])[1]

    def check(self, limits: Limits) -> None:
        super().check(limits)
        if not 0 <= self.smooth < 1:
            raise Unacceptable(f"smooth={self.smooth:g}: the weight of the frame before, from 0 to below 1")
        try:
            beside = clips.FILM in self.formats
        except ValueError as error:
            raise NoSuchFormat(str(error)) from None
        if self.side_by_side and not beside:
            raise Unacceptable(f"side_by_side: of format {clips.FILM}, which is not asked for: leave it out")


class Refusal(ValueError):
    """One request is not answered, and this says why in one line without a path. status: of HTTP."""

    status = 400
    headers: dict[str, str] = {}  # noqa: RUF012  # replaced by instances, never changed


class Broken(Refusal):
    """The image cannot be read."""


class Unknown(Refusal):
    """No such task or model."""

    status = 404


class NoSuchFormat(Refusal):
    """None of what the client accepts is there."""

    status = 406


class NotYet(Refusal):
    """There is no result, or none yet."""

    status = 409


class TooSlow(Refusal):
    """The client did not send in time."""

    status = 408


class TooLarge(Refusal):
    """More bytes or pixels than are taken."""

    status = 413


class NoImage(Refusal):
    """A body of a type that holds no image."""

    status = 415


class Unacceptable(Refusal):
    """Options that the model or the server does not allow."""

    status = 422


class Failed(Refusal):
    """A fault of the server or its model, which its log tells more about."""

    status = 500


class _Later(Refusal):
    def __init__(self, message: str, seconds: float = 1) -> None:
        super().__init__(message)
        self.headers = {"Retry-After": str(max(1, min(60, round(seconds + 0.5))))}


class Busy(_Later):
    """The queue is full."""

    status = 429


class Ending(_Later):
    """The server is not ready yet, or ends."""

    status = 503
