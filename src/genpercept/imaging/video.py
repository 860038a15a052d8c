"""Films and folders of frames in, as one frame after another; films out, as H.264 in MP4, with the sound of another.

Nothing is held but the frame in hand. Films are decoded by PyAV (FFmpeg), the extra `genpercept[video]`:

- Frames are RGB, upright: the rotation that a phone notes in its film is applied, as players do.
- Times are those that the film gives its frames, as exact fractions of a second: a variable rate stays variable.
- A film that is damaged or ends early gives its frames up to there, and then `Damaged`, a ValueError of one line.
- Written films are yuv420p, which every player takes; odd edges are padded by one pixel. Sound is copied packet by packet.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from genpercept.core.files import atomic
from genpercept.core.texts import one_line, shown
from genpercept.imaging.decode import pixel_limit
from genpercept.imaging.pixels import TooManyPixels
from genpercept.imaging.read import read

SUFFIXES = (
    *(".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mts", ".m2ts", ".mpg", ".mpeg", ".wmv", ".3gp"),
    *(".ogv", ".flv"),
)
DEFAULT_RATE = Fraction(25)  # frames a second of a folder of images, as FFmpeg takes them

# The containers of these suffixes, by FFmpeg's names, and files alone: a playlist under a film's name would have FFmpeg open
# what it lists.
_HARMLESS = {
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,asf,flv,ogg",
    "protocol_whitelist": "file",
}

# Sound that players expect in an MP4; PCM of cameras, for one, has no place in it.
_SOUND = ("aac", "mp3", "ac3", "eac3", "alac", "opus", "flac", "vorbis")
# Good to look at, and quick. With x264's macroblock tree the same frames gave other bytes one time in twelve, with one thread,
# too; without it, in none of twelve.
_SETTINGS = {"crf": "18", "preset": "veryfast", "x264-params": "mbtree=0"}
_SLACK = 1.0  # seconds that a film may end before its header says: some headers round up, some count the sound's tail
_HD = 720  # rows from which a film that does not name its colour matrix has that of HDTV, as players take it


class Damaged(ValueError):
    """A film that ends before its end. `frames`: how many came before."""

    def __init__(self, line: str, frames: int) -> None:
        super().__init__(line)
        self.frames = frames


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame of a clip. index: from 0. time: seconds from the clip's zero, exact. image: (H, W, 3) uint8 RGB, upright."""

    index: int
    time: Fraction
    image: np.ndarray


class Clip(Protocol):
    """Frames in their order, all of one size; each call of `frames` begins anew. ValueError where they cannot be read."""

    @property
    def rate(self) -> Fraction:
        """Frames a second, on average."""
        ...

    @property
    def count(self) -> int | None:
        """How many frames there are, as far as is known without decoding them."""
        ...

    @property
    def tick(self) -> Fraction:
        """Seconds of which all times are multiples."""
        ...

    def frames(self) -> Iterator[Frame]: ...


def av() -> ModuleType:
    """PyAV. ImportError with what to install where it is not there."""
    try:
        import av
    except ImportError:
        raise ImportError("films need PyAV: pip install 'genpercept[video]'") from None
    av.logging.set_level(None)  # FFmpeg's own lines would stand between ours
    return av


def is_film(path: Path) -> bool:
    """By its name."""
    return path.suffix.lower() in SUFFIXES


# ---- films in


@dataclass(frozen=True)
class Film:
    """A film on disk. Opened once to see what it is: ValueError for what is no film, has no picture, or is too large."""

    path: Path
    size: tuple[int, int] = field(init=False)  # (H, W), upright
    rate: Fraction = field(init=False)
    count: int | None = field(init=False)
    tick: Fraction = field(init=False)

    def __post_init__(self) -> None:
        with _opened(self.path) as container:
            track = container.streams.video[0]
            h, w = track.codec_context.height, track.codec_context.width
            if h * w > pixel_limit():
                raise TooManyPixels(
                    f"{shown(self.path)}: frames of {w:,} x {h:,} pixels, more than the limit of {pixel_limit():,}:"
                    " raise --max-pixels"
                )
            rate = track.average_rate or track.guessed_rate or DEFAULT_RATE
            seconds = _seconds(track, container)
            object.__setattr__(self, "rate", Fraction(rate))
            object.__setattr__(self, "count", track.frames or (round(seconds * rate) if seconds else None))
            object.__setattr__(self, "tick", Fraction(track.time_base or 1 / Fraction(rate)))
            turned = next((frame.rotation for frame in _first(container, track)), 0) % 180 != 0
            object.__setattr__(self, "size", (w, h) if turned else (h, w))

    def frames(self) -> Iterator[Frame]:
        """All frames; ValueError (`Damaged`) behind the last whole one of a film that ends early."""
        done, last, read_to = 0, Fraction(-1), Fraction(0)
        with _opened(self.path) as container:
            track = container.streams.video[0]
            track.thread_type = "AUTO"
            promised = _seconds(track, container)
            try:
                for frame, end in _decoded(container, track):
                    read_to = end
                    if frame is None:
                        continue
                    time = done / self.rate if frame.pts is None else frame.pts * Fraction(frame.time_base)
                    time = max(time, last + self.tick)  # some films repeat a time
                    yield Frame(done, time, _upright(frame, self.size))
                    done, last = done + 1, time
            except (av().error.FFmpegError, OSError) as error:
                raise Damaged(self._cut(done, last, one_line(getattr(error, "strerror", "") or error)), done) from error
            if not done:
                raise Damaged(f"{shown(self.path)}: no frame of it can be decoded; check the file", 0)
            if promised and read_to < promised - _SLACK:
                raise Damaged(self._cut(done, last, f"its header promises {float(promised):.1f} s"), done)

    def _cut(self, done: int, last: Fraction, why: str) -> str:
        at = f"after frame {done:,}, at {max(float(last), 0):.1f} s" if done else "before its first frame"
        return f"{shown(self.path)}: damaged or cut off {at} ({why}); copy or download it again"


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The container, which has a picture track. ValueError where it cannot be opened."""
    package = av()
    if path.is_dir():
        raise ValueError(f"{shown(path)}: a folder, not a film; --video takes its images as frames")
    try:
        container = _demuxer(path)
    except FileNotFoundError:
        raise ValueError(f"{shown(path)}: no such file; check the path") from None
    except (package.error.FFmpegError, OSError, ValueError) as error:
        why = one_line(getattr(error, "strerror", "") or error)
        raise ValueError(f"{shown(path)}: no film that can be read, or cut off ({why}); check the file") from None
    with container:
        tracks = container.streams.video
        if not tracks or not tracks[0].codec_context or not tracks[0].codec_context.width:
            what = "sound alone" if container.streams.audio else "nothing to see"
            raise ValueError(f"{shown(path)}: holds {what}, no picture track; name a film")
        yield container


def _demuxer(path: Path) -> Any:
    """The file, opened by PyAV, as what its content is."""
    return av().open(f"file:{path}", metadata_errors="ignore", options=_HARMLESS)


def _first(container: Any, track: Any) -> Iterator[Any]:
    """The first frame, if there is one that can be decoded."""
    try:
        yield next(container.decode(track))
    except (StopIteration, av().error.FFmpegError):
        return


def _decoded(container: Any, track: Any) -> Iterator[tuple[Any, Fraction]]:
    """(frame, seconds up to which the file has been read, sound included); no frame at the end."""
    end = Fraction(0)
    for packet in container.demux([track, *container.streams.audio]):
        if packet.pts is not None and packet.time_base:
            end = max(end, (packet.pts + (packet.duration or 0)) * Fraction(packet.time_base))
        if packet.stream.index == track.index:
            for frame in packet.decode():
                yield frame, end
    yield None, end


def _seconds(track: Any, container: Any) -> Fraction | None:
    """How long the film says that it is: its picture, or all of it."""
    if track.duration and track.time_base:
        return track.duration * Fraction(track.time_base)
    return Fraction(container.duration, 1_000_000) if container.duration else None


def _upright(frame: Any, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8. A film that changes its size on the way keeps that of its beginning."""
    quarter = round(frame.rotation / 90) % 4
    h, w = size[::-1] if quarter % 2 else size
    unsaid = frame.colorspace in (0, 2)
    matrix = {"src_colorspace": "ITU709" if frame.height >= _HD else "ITU601"} if unsaid else {}
    rgb = frame.reformat(width=w, height=h, format="rgb24", **matrix).to_ndarray()
    return np.ascontiguousarray(np.rot90(rgb, quarter))


# ---- folders of frames


@dataclass(frozen=True)
class Stills:
    """Image files as the frames of a clip, in the order given, so many a second. ValueError where their sizes differ."""

    files: Sequence[Path]
    rate: Fraction = DEFAULT_RATE

    @property
    def count(self) -> int | None:
        return len(self.files)

    @property
    def tick(self) -> Fraction:
        return 1 / self.rate

    def frames(self) -> Iterator[Frame]:
        first: tuple[int, ...] = ()
        for index, file in enumerate(self.files):
            image = read(file)
            if image.dtype != np.uint8:
                image = np.rint(image * 255).astype(np.uint8)
            first = first or image.shape
            if image.shape != first:
                raise ValueError(
                    f"{shown(file)}: {image.shape[1]} x {image.shape[0]} pixels, but {shown(self.files[0])} has"
                    f" {first[1]} x {first[0]}: frames of one clip are of one size"
                )
            yield Frame(index, index / self.rate, image)


# ---- films out


class Writer:
    """Frames into a film, which appears when the block ends well, whole or not at all.

    tick: seconds of which all times are multiples. rate: frames a second, on average. sound: the film whose sound is copied
    beside the picture; `silent` says which of its tracks an MP4 does not take.
    """

    def __init__(self, path: str | Path, rate: Fraction, tick: Fraction, sound: Path | None = None) -> None:
        self._path, self._rate, self._tick, self._source = Path(path), rate, tick, sound
        self._track: Any = None
        self._last = -1
        self._sound: Iterator[tuple[Fraction, Any]] = iter(())
        self._waiting: tuple[Fraction, Any] | None = None
        self.silent: list[str] = []

    def __enter__(self) -> Writer:
        package = av()
        self._atomic = atomic(self._path)
        temp = self._atomic.__enter__()
        try:
            self._out: Any = package.open(str(temp), "w", format="mp4", options={"movflags": "+faststart"})
            self._from: Any = None if self._source is None else _demuxer(self._source)
        except BaseException as error:
            self._atomic.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def write(self, image: np.ndarray, time: Fraction) -> None:
        """image: (H, W, 3) uint8, of one size throughout."""
        image = np.pad(image, ((0, image.shape[0] % 2), (0, image.shape[1] % 2), (0, 0)), mode="edge")
        if self._track is None:
            self._track = self._begin(image.shape[0], image.shape[1])
        frame = av().VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709")
        self._last = frame.pts = max(round(time / self._tick), self._last + 1)
        frame.time_base = self._tick
        self._put(self._track.encode(frame))
        self._copy_sound(time)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        try:
            if kind is None and self._track is not None:
                self._put(self._track.encode())
                self._copy_sound(None)
        except BaseException as late:
            kind, error, trace = type(late), late, late.__traceback__
            raise
        finally:
            for container in (self._from, self._out):
                if container is not None:
                    container.close()
            self._atomic.__exit__(kind, error, trace)

    def _begin(self, height: int, width: int) -> Any:
        """The tracks, before the first frame: the header comes with it. Returns the picture's."""
        package = av()
        picture = self._out.add_stream("libx264", rate=self._rate, options=_SETTINGS)
        picture.width, picture.height, picture.pix_fmt = width, height, "yuv420p"
        context = picture.codec_context
        context.time_base = self._tick
        context.colorspace = context.color_primaries = context.color_trc = 1  # BT.709
        tracks: dict[int, Any] = {}
        for track in self._from.streams.audio if self._from is not None else ():
            if track.codec_context is not None and track.codec_context.codec.canonical_name in _SOUND:
                tracks[track.index] = self._out.add_stream_from_template(track)
            else:
                self.silent.append("unknown" if track.codec_context is None else track.codec_context.name)
        if tracks:
            self._sound = self._packets(tracks, package.error.FFmpegError)
            self._waiting = next(self._sound, None)
        return picture

    def _packets(self, tracks: dict[int, Any], broken: type[Exception]) -> Iterator[tuple[Fraction, Any]]:
        """(time, packet) of the sound that is copied; as far as it goes, of a film that is cut off."""
        try:
            for packet in self._from.demux([self._from.streams[index] for index in tracks]):
                if packet.dts is not None:
                    time = packet.dts * Fraction(packet.time_base)
                    packet.stream = tracks[packet.stream.index]
                    yield time, packet
        except broken:
            return

    def _copy_sound(self, until: Fraction | None) -> None:
        """What sounds up to a time, so that picture and sound lie beside each other in the file; None: all of it."""
        while self._waiting is not None and (until is None or self._waiting[0] <= until):
            self._put([self._waiting[1]])
            self._waiting = next(self._sound, None)

    def _put(self, packets: Sequence[Any]) -> None:
        for packet in packets:
            self._out.mux(packet)
