"""The stream under `genpercept predict`: buckets, memory, copies of the model, several processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import genpercept
from genpercept.commands.files.results import Job
from genpercept.commands.predict import batching, manifest, stream
from genpercept.commands.predict.batching import Buckets, Item, Limits
from genpercept.commands.predict.model import Model
from genpercept.commands.predict.run import Machine, Request, run
from genpercept.imaging.prediction import Prediction


def item(number: int, size: tuple[int, int]) -> Item:
    return Item(Job(Path(f"{number}.png"), Path(str(number))), np.zeros((*size, 3), np.uint8), size)


def numbers(batches: list[list[Item]]) -> list[list[int]]:
    return [[int(i.job.path.stem) for i in batch] for batch in batches]


class Fake:
    """Depth that is the red channel, of a network with a stride, so that sizes matter. Memory holds `fits` pixels."""

    task = "depth"
    stride, resolution = 8, 0

    def __init__(self, fits: int = 10**9) -> None:
        self.fits, self.calls = fits, list[list[tuple[int, int]]]()
        self.running = self.most = 0
        self.lock = threading.Lock()

    def check_request(self, *request: Any) -> None: ...

    def __call__(self, images: list[np.ndarray], batch_size: int, **options: Any) -> list[Prediction]:
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
            self.calls.append([image.shape[:2] for image in images])
        time.sleep(0.01)
        with self.lock:
            self.running -= 1
        if sum(h * w for h, w in self.calls[-1][:batch_size]) > self.fits and self.most == 1:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
        return [Prediction(one[..., 0] / 255, "depth_affine") for one in images]


def loader(fake: Fake) -> Callable[..., Fake]:
    return lambda model, **options: fake


def save(folder: Path, sizes: list[tuple[int, int]]) -> Path:
    folder.mkdir()
    for i, (h, w) in enumerate(sizes):
        Image.new("RGB", (w, h), (i, 0, 0)).save(folder / f"{i:03d}.png")
    return folder


# ---- buckets and memory


def test_buckets_gather_sizes_and_let_the_oldest_go_first() -> None:
    buckets = Buckets(lambda padded: 2)
    out = [numbers(buckets.add(item(i, size))) for i, size in enumerate([(8, 8), (8, 16), (8, 8), (16, 8), (8, 16)])]
    assert out == [[], [], [[0, 2]], [], [[1, 4]]]
    assert numbers(buckets.flush()) == [[3]] and buckets.flush() == []


def test_buckets_are_bounded() -> None:
    buckets = Buckets(lambda padded: 2)
    out = [batch for i in range(40) for batch in numbers(buckets.add(item(i, (8, 8 + i))))]
    assert out == [[i] for i in range(40 - batching._WINDOW * 2)]
    large = Buckets(lambda padded: 100)
    heavy = batching._WINDOW_BYTES // (4000 * 4000 * 3) + 1
    assert sum(len(large.add(item(i, (4000, 4000)))) for i in range(heavy)) == 1  # by their bytes


def test_very_large_images_share_no_batch() -> None:
    buckets = Buckets(lambda padded: 4)
    assert numbers(buckets.add(item(0, (4096, 4096)))) == [[0]]


def test_limits_hold_pixels_and_learn() -> None:
    limits = Limits(8, 1000)
    assert [limits.capacity(size) for size in ((10, 10), (10, 50), (100, 100), None)] == [8, 2, 1, 8]
    assert limits.shrink(2, (10, 50)) == 1
    assert limits.capacity((10, 50)) == 1 and limits.capacity((10, 10)) == 5
    limits.shrink(8, None)
    assert limits.capacity(None) == 4


def test_auto_goes_by_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = genpercept.load("mini/depth", device="cpu")
    model = Model(Request("m"), Machine("cpu", "auto"), lambda name, **options: pipe)
    per_pixel = batching.bytes_per_pixel(pipe)
    assert per_pixel == 4 * 48 * 4  # the mini codec's second width, in float32
    monkeypatch.setattr(batching, "free_memory", lambda device: 4 * 96 * 96 * per_pixel * 2)
    assert batching.limits(model, 1).capacity((96, 96)) == 4
    assert batching.limits(model, 2).capacity((96, 96)) == 2
    assert batching.limits(model, 1).capacity((960, 960)) == 1
    monkeypatch.setattr(batching, "free_memory", lambda device: None)
    assert batching.limits(model, 1).capacity((960, 960)) == batching._AUTO_CPU
    assert batching.bytes_per_pixel(object()) == batching._UNKNOWN
    slim = {"_class_name": "AutoencoderTiny", "encoder_block_out_channels": [16], "decoder_block_out_channels": [16]}
    whole = {"_class_name": "AutoencoderKL", "block_out_channels": [128, 256]}
    for ends, channels in (((slim, slim), 16), ((whole, slim), 128), ((slim, whole), 256)):
        codec = SimpleNamespace(config=dict(zip(("encoder", "decoder"), ends, strict=True)))
        assert batching.bytes_per_pixel(SimpleNamespace(vae=codec)) == 4 * channels * 4


def test_free_memory_is_less_than_all_of_it() -> None:
    free = batching.free_memory("cpu")
    assert free is not None and 2**20 < free <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


# ---- the stream


@pytest.mark.parametrize("batch_size", [1, 3, "auto"])
@pytest.mark.parametrize("count", [1, 4, 7, 18, 19, 40])
def test_every_image_is_done_whatever_their_number(tmp_path: Path, count: int, batch_size: Any) -> None:
    sizes = [[(8, 8), (8, 16), (24, 8)][i * i % 3] for i in range(count)]
    fake = Fake()
    photos, out = save(tmp_path / "in", sizes), tmp_path / "o"
    assert run([photos], out, formats=["npy"], machine=Machine("cpu", batch_size), load=loader(fake)) == 0
    for i, size in enumerate(sizes):
        values = np.load(out / f"{i:03d}_depth.npy")
        assert values.shape == size and values[0, 0] == np.float32(i / 255)
    assert sum(map(len, fake.calls)) == count and all(len(set(call)) == 1 for call in fake.calls)
    if batch_size == 3 and count == 40:
        assert max(map(len, fake.calls)) == 3


def test_short_memory_halves_the_batch_and_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Model, "streams", lambda self, threads: 1)
    fake = Fake(fits=2 * 64)
    photos = save(tmp_path / "in", [(8, 8)] * 24)
    assert run([photos], tmp_path / "o", formats=["npy"], machine=Machine("cpu", 8), load=loader(fake)) == 0
    assert [len(call) for call in fake.calls[:3]] == [8, 4, 2]
    assert all(len(call) <= 2 for call in fake.calls[2:])


def test_one_image_too_large_is_told_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Model, "streams", lambda self, threads: 1)
    fake = Fake(fits=100)
    photos = save(tmp_path / "in", [(8, 8), (16, 16), (8, 8)])
    assert run([photos], tmp_path / "o", formats=["npy"], machine=Machine("cpu", 2), load=loader(fake)) == 1
    assert "001.png: not enough memory" in capsys.readouterr().err
    assert len(list((tmp_path / "o").glob("*.npy"))) == 2


def test_batches_run_beside_each_other_but_not_before_one_came_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Model, "streams", lambda self, threads: 2)
    fake = Fake()
    photos = save(tmp_path / "in", [(8, 8)] * 12)
    assert run([photos], tmp_path / "o", formats=["npy"], machine=Machine("cpu"), load=loader(fake)) == 0
    assert fake.most == 2


def test_a_batch_that_needs_all_memory_runs_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Model, "streams", lambda self, threads: 2)
    monkeypatch.setattr(batching, "free_memory", lambda device: 64 * batching._UNKNOWN * 2)  # half of a large image's
    fake = Fake()
    photos = save(tmp_path / "in", [(16, 16)] * 8)
    assert run([photos], tmp_path / "o", formats=["npy"], machine=Machine("cpu"), load=loader(fake)) == 0
    assert fake.most == 1


def test_several_devices_have_a_copy_each(tmp_path: Path) -> None:
    copies = [Fake(), Fake()]
    left = iter(copies)
    photos = save(tmp_path / "in", [(8, 8)] * 20)
    load = lambda model, **options: next(left)  # noqa: E731
    assert run([photos], tmp_path / "o", formats=["npy"], machine=Machine("cpu,cpu"), load=load) == 0
    assert sum(len(fake.calls) for fake in copies) == 20 and all(fake.calls for fake in copies)
    assert len(list((tmp_path / "o").glob("*.npy"))) == 20


def test_failures_are_told_in_the_order_of_the_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = save(tmp_path / "in", [(8, 8 * (1 + i % 5)) for i in range(30)])
    bad = (3, 11, 12, 29)
    for i in bad:
        (photos / f"{i:03d}.png").write_text("no image")
    assert run([photos], tmp_path / "o", formats=["npy"], machine=Machine("cpu", 4), load=loader(Fake())) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(lines) == 4 and all(f"{i:03d}.png" in line for i, line in zip(bad, lines, strict=True))


def test_reading_stays_within_its_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow network does not let the readers run away with the memory."""
    read_so_far, fake = 0, Fake()
    ahead = []
    real = stream.read_photograph

    def counted(path: Path) -> np.ndarray:
        nonlocal read_so_far
        read_so_far += 1
        ahead.append(read_so_far - sum(map(len, fake.calls)))
        return real(path)

    monkeypatch.setattr(stream, "read_photograph", counted)
    photos = save(tmp_path / "in", [(8, 8)] * 60)
    assert run([photos], tmp_path / "o", formats=["npy"], machine=Machine("cpu"), load=loader(fake)) == 0
    assert max(ahead) <= 12


def test_threads_of_torch_are_as_before(tmp_path: Path) -> None:
    torch.set_num_threads(2)
    photos = save(tmp_path / "in", [(16, 16)] * 4)
    assert run([photos], tmp_path / "o", Request("mini/depth"), formats=["npy"], machine=Machine("cpu")) == 0
    assert torch.get_num_threads() == 2
    with ThreadPoolExecutor(1) as another:
        assert another.submit(torch.get_num_threads).result() == 2


def test_streams_and_batches_answer_as_one_image_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Model, "streams", lambda self, threads: 2)
    rng = np.random.default_rng(0)
    photos = save(tmp_path / "in", [])
    for i in range(6):
        Image.fromarray(rng.integers(0, 255, (24, 32 if i % 2 else 24, 3), np.uint8)).save(photos / f"{i}.png")
    request = Request("mini/depth", processing_resolution=32)
    assert run([photos], tmp_path / "o", request, formats=["npy"], machine=Machine("cpu", "auto")) == 0
    pipe = genpercept.load("mini/depth", device="cpu")
    for path in sorted(photos.iterdir()):
        alone = pipe(path, processing_resolution=32).values
        assert np.abs(np.load(tmp_path / "o" / f"{path.stem}_depth.npy") - alone).max() < 1e-5


# ---- several processes

_DRIVER = """
import sys
from pathlib import Path
import numpy as np
from genpercept.commands.predict.run import Machine, run
from genpercept.imaging.prediction import Prediction

class Red:
    task = "depth"
    def check_request(self, *request): pass
    def __call__(self, images, **options):
        return [Prediction(one[..., 0] / 255, "depth_affine") for one in images]

load = lambda model, **options: Red()
sys.exit(run([sys.argv[1]], Path(sys.argv[2]), formats=["npy"], machine=Machine("cpu"), resume=True, load=load))
"""


def two_processes(photos: Path, out: Path) -> tuple[list[int], list[str]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = {**os.environ, "OMP_NUM_THREADS": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    command = [sys.executable, "-c", _DRIVER, str(photos), str(out)]
    children = [
        subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        )
        for rank in range(2)
    ]
    said = [child.communicate(timeout=300)[1] for child in children]
    return [child.returncode for child in children], said


def test_two_processes_share_the_images_and_one_manifest(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    photos, out = save(tmp_path / "in", [(8, 8 + i) for i in range(9)]), tmp_path / "o"
    (photos / "003.png").write_text("no image")
    codes, said = two_processes(photos, out)
    assert codes == [1, 1]
    assert said[0].count("003.png") == 1 and "003.png" not in said[1]
    assert "8 images predicted" not in said[1]
    lines = {line["result"]: line for line in manifest.entries(out / "manifest.jsonl")}
    assert sorted(lines) == [f"{i:03d}_depth" for i in range(9)]
    assert [r for r, line in lines.items() if line["status"] == "failed"] == ["003_depth"]
    assert "not an image" in lines["003_depth"]["error"] and not (out / ".manifest").exists()
    written = {p: p.stat().st_mtime_ns for p in out.glob("*.npy")}
    assert len(written) == 8

    Image.new("RGB", (8, 8)).save(photos / "003.png")
    codes, said = two_processes(photos, out)
    assert codes == [0, 0]
    assert {line["status"] for line in manifest.entries(out / "manifest.jsonl")} == {"done"}
    assert all(p.stat().st_mtime_ns == t for p, t in written.items())  # what was done was left alone


def test_manifest_keeps_what_a_killed_run_left(tmp_path: Path) -> None:
    job = Job(tmp_path / "a.png", tmp_path / "a")
    Image.new("RGB", (2, 2)).save(job.path)
    first = manifest.Part(tmp_path, 0)
    first.note(job, "depth", "no memory")
    first.close()
    second = manifest.Part(tmp_path, 1)
    second.note(Job(tmp_path / "gone.png", tmp_path / "gone"), "depth", "no such file")
    second.close()
    with (tmp_path / ".manifest" / "00001.jsonl").open("a") as torn:
        torn.write('{"result": "b_de')
    manifest.merge(tmp_path)
    again = manifest.Part(tmp_path, 0)
    again.note(job, "depth")
    again.close()
    manifest.merge(tmp_path)
    assert [(line["result"], line["status"]) for line in manifest.entries(tmp_path / "manifest.jsonl")] == [
        ("a_depth", "done"),
        ("gone_depth", "failed"),
    ]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "manifest.jsonl"]
