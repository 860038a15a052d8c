"""The memory format of specialised networks on GPUs: measured once for each size, kept, read again.

A clock of its own tells the times; the CPU stands in for a GPU.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import genpercept
from genpercept import GenPerceptPipeline
from genpercept.commands.doctor import run as doctor
from genpercept.pipeline.specialise import memory_format
from genpercept.pipeline.specialise.pipeline import SpecialisedPipeline

QUICKER = {
    "contiguous": {"contiguous": 1.0, "channels_last": 1.5},
    "channels_last": {"contiguous": 1.5, "channels_last": 1.0},
}


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of choices."""
    monkeypatch.setenv("GENPERCEPT_CACHE", str(tmp_path))
    monkeypatch.setattr(memory_format, "MEASURED", ("cpu",))
    return tmp_path / "memory_formats"


class Clock:
    """Each reading is later by the seconds that the present format costs. runs: of the networks, by format."""

    def __init__(self, quick: SpecialisedPipeline, seconds: dict[str, float], fails: str = "") -> None:
        self.format, self.seconds, self.now = quick._format, seconds, 0.0
        self.runs: Counter[str] = Counter()
        self.format._clock = self
        plain = quick._codec.encode

        def encode(image: Any) -> Any:
            self.runs[self.format.present] += 1
            if self.format.present in fails:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return plain(image)

        quick._codec.encode = encode  # type: ignore[method-assign]

    def __call__(self) -> float:
        self.now += self.seconds[self.format.present]
        return self.now


def picture(edge: int = 32) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (edge, edge, 3), np.uint8)


def kept(store: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(store.glob("*.json"))]


@pytest.mark.parametrize("quicker", QUICKER)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_quicker_one_is_measured_and_remembered(
    depth: GenPerceptPipeline, store: Path, quicker: str, dtype: str, capsys: pytest.CaptureFixture[str]
) -> None:
    first = genpercept.specialise(depth, dtype=dtype)
    assert first.memory_format == ("contiguous" if dtype == "float32" else "channels_last")
    clock = Clock(first, QUICKER[quicker])
    answer = first(picture())
    assert first.memory_format == quicker and clock.runs.total() == 11  # five in each format, and the answer
    first(picture(30))
    assert clock.runs.total() == 12
    chosen = genpercept.specialise(depth, dtype=dtype, layout=quicker)
    np.testing.assert_array_equal(answer.values, chosen(picture()).values)
    (found,) = kept(store)
    assert found["chosen"] == quicker and found["seconds"] == QUICKER[quicker]
    assert (found["case"]["dtype"], found["case"]["edge"], found["case"]["device"]) == (dtype, 32, "cpu")

    second = genpercept.specialise(depth, dtype=dtype)
    other = Clock(second, {})
    np.testing.assert_array_equal(answer.values, second(picture()).values)
    assert second.memory_format == quicker and other.runs == {quicker: 1}
    assert first.info["specialised"]["layout"] == "auto"  # a choice of this machine, not of the model
    assert depth.unet.state_dict()["conv_in.weight"].is_contiguous()


def test_a_difference_within_noise_changes_nothing(depth: GenPerceptPipeline, store: Path) -> None:
    quick = genpercept.specialise(depth)
    Clock(quick, {"contiguous": 1.0, "channels_last": 0.99})
    quick(picture())
    assert quick.memory_format == "contiguous" and kept(store)[0]["chosen"] == "contiguous"


def test_a_layout_that_was_asked_for_is_not_measured(depth: GenPerceptPipeline, store: Path) -> None:
    quick = genpercept.specialise(depth, layout="contiguous")
    clock = Clock(quick, {})
    quick(picture())
    assert clock.runs == {"contiguous": 1} and not store.exists()


def test_each_size_has_its_own(depth: GenPerceptPipeline, store: Path) -> None:
    """And what knows where the weights lay is told."""
    quick = genpercept.specialise(depth)
    told: list[str] = []
    quick._format._changed = lambda: told.append(quick.memory_format)
    clock = Clock(quick, QUICKER["channels_last"])
    quick(picture(32))
    clock.seconds = QUICKER["contiguous"]
    quick(picture(40))
    assert quick.memory_format == "contiguous" and {one["case"]["edge"] for one in kept(store)} == {32, 64}
    told.clear()
    quick(picture(24))
    assert told == ["channels_last"]
    quick.to("cpu")
    assert quick.memory_format == "contiguous" and all(p.is_contiguous() for p in quick._runs.parameters())


def test_what_is_run_in_another_way_is_measured_apart(depth: GenPerceptPipeline, store: Path) -> None:
    ways: list[dict[str, Any]] = [{}, {"strips": True}, {"fold": False}, {"cuda_graphs": True}]
    for more in ways:
        quick = genpercept.specialise(depth, **more)
        Clock(quick, QUICKER["contiguous"])
        quick(picture())
    assert {one["case"]["way"] for one in kept(store)} == {"", "in strips", "not folded", "CUDA graphs"}


DAMAGES: dict[str, Callable[[str], str]] = {
    "empty": lambda text: "",
    "cut": lambda text: text[: len(text) // 2],
    "too deep": lambda text: "[" * 100_000,
    "no table": lambda text: "[1, 2]",
    "no format": lambda text: text.replace('"chosen": "contiguous"', '"chosen": "sideways"'),
    "no seconds": lambda text: text.replace("1.0", '"soon"'),
    "of another case": lambda text: text.replace('"edge": 32', '"edge": 64'),
    "of a newer version": lambda text: text.replace('"edge"', '"edges"'),
    "no case": lambda text: text.replace('"case"', '"cases"'),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_none(depth: GenPerceptPipeline, store: Path, damage: str) -> None:
    quick = genpercept.specialise(depth)
    Clock(quick, QUICKER["contiguous"])
    quick(picture())
    (path,) = store.glob("*.json")
    whole = path.read_text()
    path.write_text(DAMAGES[damage](whole))
    assert path.read_text() != whole and not memory_format.all_remembered("cpu")
    again = genpercept.specialise(depth)
    clock = Clock(again, QUICKER["contiguous"])
    again(picture())
    assert clock.runs.total() == 11 and path.read_text() == whole and len(list(store.iterdir())) == 1


def test_where_nothing_can_be_kept_it_is_measured_each_time(
    depth: GenPerceptPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GENPERCEPT_CACHE", str(tmp_path / "file"))
    for _ in range(2):
        quick = genpercept.specialise(depth)
        clock = Clock(quick, QUICKER["channels_last"])
        quick(picture())
        assert quick.memory_format == "channels_last" and clock.runs.total() == 11


def test_a_format_that_memory_is_too_short_for_loses(depth: GenPerceptPipeline, store: Path) -> None:
    quick = genpercept.specialise(depth)
    Clock(quick, QUICKER["channels_last"], fails="channels_last")
    quick(picture())
    assert quick.memory_format == "contiguous" and not kept(store)  # the next process may have more
    both = genpercept.specialise(depth)
    clock = Clock(both, QUICKER["contiguous"], fails="contiguous, channels_last")
    with pytest.raises(torch.OutOfMemoryError):
        both(picture())
    assert clock.runs == {"contiguous": 1, "channels_last": 1} and not kept(store)


def test_it_is_said_once(
    depth: GenPerceptPipeline, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(memory_format.said, "_said", set())
    for dtype in ("float32", "bfloat16"):
        quick = genpercept.specialise(depth, dtype=dtype)
        Clock(quick, QUICKER["contiguous"])
        quick(picture())
    lines = [line for line in capsys.readouterr().err.splitlines() if "memory format" in line]
    assert lines == ["measuring the quicker memory format on cpu, once for each network; the first image waits"]


def test_doctor_says_what_was_measured(depth: GenPerceptPipeline) -> None:
    assert [line.text for line in doctor._memory_formats("cpu")] == [
        "nothing measured yet: a specialised model does so at its first image"
    ]
    for dtype in ("float32", "bfloat16"):
        quick = genpercept.specialise(depth, dtype=dtype, strips=dtype == "float32")
        Clock(quick, {"contiguous": 0.0123, "channels_last": 0.01})
        quick(picture())
    texts = [line.text.partition(", ")[2].replace(" (TF32)", "") for line in doctor._memory_formats("cpu")]
    times = "channels_last (channels_last 10 ms; contiguous 12.3 ms)"
    assert texts == [f"bfloat16, up to 32 pixels: {times}", f"float32, up to 32 pixels, in strips: {times}"]
    assert not list(memory_format.all_remembered("another GPU"))
