"""Films made for a test, with sound, turned, of a variable rate, or cut off."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

TICK = Fraction(1, 1000)


def textured(seed: int, size: tuple[int, int], cell: int = 6) -> np.ndarray:
    """(H, W, 3) uint8 with something to follow everywhere: noise of `cell` pixels, smooth."""
    import cv2

    noise = np.random.default_rng(seed).standard_normal((*size, 3)).astype(np.float32)
    blurred = cv2.GaussianBlur(noise, (0, 0), cell / 2)
    low, high = blurred.min(), blurred.max()
    return np.rint((blurred - low) / (high - low) * 255).astype(np.uint8)


def panned(large: np.ndarray, count: int, size: tuple[int, int], step: float = 4) -> list[np.ndarray]:
    """A window of `size` that moves to the right by `step` pixels a frame."""
    return [large[: size[0], round(step * i) : round(step * i) + size[1]] for i in range(count)]


def film(
    path: Path,
    frames: Sequence[np.ndarray],
    *,
    times: Sequence[int] | None = None,
    sound: str = "",
    longer: int = 0,
    turned: int = 0,
    options: dict[str, str] | None = None,
) -> Path:
    """Frames (H, W, 3), of even sizes, into a film. times: milliseconds [every 40]; sound: its codec; turned: degrees, left.

    longer: blocks of 40 ms by which the sound goes on behind the last frame.
    """
    with av.open(str(path), "w", options=options or {}) as out:
        picture: Any = out.add_stream("libx264", rate=25, options={"crf": "10"})
        picture.height, picture.width = frames[0].shape[:2]
        picture.pix_fmt = "yuv420p"
        picture.codec_context.time_base = TICK
        if turned:
            picture.set_display_rotation(turned)
        track: Any = out.add_stream(sound, rate=48000) if sound else None  # type: ignore[call-overload]
        for i, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts, frame.time_base = (40 * i if times is None else times[i]), TICK
            out.mux(picture.encode(frame))
            if track is not None:
                out.mux(track.encode(tone(i)))
        out.mux(picture.encode())
        if track is not None:
            for i in range(len(frames), len(frames) + longer):
                out.mux(track.encode(tone(i)))
            out.mux(track.encode())
    return path


def tone(block: int) -> av.AudioFrame:
    """40 ms of 440 Hz."""
    at = (np.arange(1920) + 1920 * block) / 48000
    wave = (0.3 * np.sin(2 * np.pi * 440 * at)).astype(np.float32)[None]
    frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = 48000, 1920 * block, Fraction(1, 48000)
    return frame


def shortened(path: Path, share: float) -> Path:
    """A copy beside it that ends after this share of its bytes."""
    data = path.read_bytes()
    cut = path.with_name(f"cut_{path.name}")
    cut.write_bytes(data[: int(len(data) * share)])
    return cut


def decoded(path: Path) -> tuple[list[np.ndarray], list[float], int]:
    """(pictures, times, samples of sound) of a film, by PyAV itself."""
    with av.open(str(path)) as found:
        frames = list(found.decode(video=0))
    with av.open(str(path)) as found:
        samples = sum(f.samples for f in found.decode(audio=0)) if found.streams.audio else 0
    return [f.to_ndarray(format="rgb24") for f in frames], [float(f.time or 0) for f in frames], samples
