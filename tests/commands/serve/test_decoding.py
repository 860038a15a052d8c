"""Images are decoded by children that can be lost without anybody else noticing."""

from __future__ import annotations

import io
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genpercept.commands.serve.decoding import Decoders
from genpercept.commands.serve.limits import Limits, Refusal, TooLarge
from genpercept.imaging.read import read
from tests.support.pixel_types import PIXEL_TYPES, write_pixel_type
from tools.campaigns._serving import scratch


def png(size: tuple[int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


SMALL = png((8, 9))


@pytest.fixture
def one(monkeypatch: pytest.MonkeyPatch) -> Iterator[Decoders]:
    monkeypatch.setenv("GENPERCEPT_API_KEY", "nobody else's business")
    decoders = Decoders(Limits(decoders=1, decode_seconds=1, decoder_images=3, pixels=10**7))
    yield decoders
    decoders.close()


def test_every_kind_of_file_is_decoded_as_predict_reads_it(tmp_path: Path) -> None:
    decoders = Decoders(Limits(decoders=1))
    try:
        for kind in PIXEL_TYPES:
            path = write_pixel_type(tmp_path, kind, (40, 30))
            assert np.array_equal(decoders.decode(path.read_bytes()).image, read(path)), kind
        assert decoders.replaced == {"lost": 0, "used": 0}
    finally:
        decoders.close()


def test_a_killed_child_is_replaced_and_its_image_decoded(one: Decoders) -> None:
    assert one.decode(SMALL).image.shape == (8, 9, 3)
    (first,) = one.processes
    os.kill(first, signal.SIGKILL)
    assert one.decode(SMALL).image.shape == (8, 9, 3)
    assert one.processes != [first] and one.replaced["lost"] == 1


def test_a_child_that_hangs_is_replaced_in_time(one: Decoders) -> None:
    one.decode(SMALL)
    (first,) = one.processes
    os.kill(first, signal.SIGSTOP)
    started = time.monotonic()
    with pytest.raises(Refusal, match="more than 1 seconds"):
        one.decode(SMALL)
    assert time.monotonic() - started < 5 and first not in one.processes and not Path(f"/proc/{first}").exists()
    assert one.decode(SMALL).image.shape == (8, 9, 3)


def test_a_child_is_replaced_when_it_has_done_its_share(one: Decoders) -> None:
    seen = set()
    for _ in range(7):
        seen |= {*one.processes}
        one.decode(SMALL)
    assert len(seen) == 3 and one.replaced == {"lost": 0, "used": 2}


def test_a_child_has_little_and_knows_nothing(one: Decoders) -> None:
    one.decode(SMALL)
    (child,) = one.processes
    limits = Path(f"/proc/{child}/limits").read_text()
    for name in ("Max address space", "Max file size", "Max cpu time", "Max core file size"):
        (line,) = (line for line in limits.splitlines() if line.startswith(name))
        assert line.split()[-3] != "unlimited", line
    environment = Path(f"/proc/{child}/environ").read_bytes()
    assert b"PYTHONPATH" in environment and b"GENPERCEPT" not in environment and b"HOME" not in environment


def test_memory_is_refused_to_one_image_alone() -> None:
    decoders = Decoders(Limits(decoders=1, decode_memory=450 * 2**20))
    try:
        with pytest.raises(Refusal, match="do not fit in memory"):
            decoders.decode(png_of_nothing(7000, 7000))
        assert decoders.decode(SMALL).image.shape == (8, 9, 3)
    finally:
        decoders.close()


def png_of_nothing(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGBA", (width, height)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def test_too_many_pixels_are_told_from_damage(one: Decoders) -> None:
    with pytest.raises(TooLarge, match=r"^the image: 4000 x 3000 pixels, over the limit of 10,000,000; shrink it$"):
        one.decode(png_of_nothing(4000, 3000))
    with pytest.raises(Refusal, match="the image: ") as broken:
        one.decode(SMALL[:50])
    assert broken.value.status == 400 and "/" not in str(broken.value)


def test_nothing_is_left_of_it() -> None:
    before = {*scratch()}
    decoders = Decoders(Limits(decoders=2))
    decoders.decode(SMALL)
    children = decoders.processes
    assert len({*scratch()} - before) >= 1
    decoders.close()
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]
    assert not [path for path in {*scratch()} - before if f"-{os.getpid()}-" in path]
