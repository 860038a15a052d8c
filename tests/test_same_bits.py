"""tools/same_bits.py: what counts as a difference, what is left out of a hash."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.paths import ROOT


@pytest.fixture(autouse=True)
def tools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))


def hashes(value: Any) -> str:
    """Of one array, or of one JSON value."""
    from bits.entries import Entries

    entries = Entries()
    (entries.array if isinstance(value, np.ndarray) else entries.json)("x", value)
    return entries.found["x"][0]


def test_shape_type_and_bits_count_but_not_the_time(tmp_path: Path) -> None:
    zeros = np.zeros((2, 3), np.float32)
    others = [zeros.T, zeros.astype(np.float64), zeros - 0.0 * np.float32(-1), -zeros, zeros + np.float32(1e-45)]
    assert hashes(zeros) == hashes(zeros.copy(order="F")) == hashes(others[2])
    assert hashes(zeros) not in {hashes(others[i]) for i in (0, 1, 3, 4)}  # -0.0 and the smallest number, too
    assert hashes({"a": 1, "timing": {"seconds": 2}}) == hashes({"a": 1, "timing": {"seconds": 3}})
    assert hashes({"a": 1}) != hashes({"a": 2})


def test_a_case_that_fails_is_recorded_and_the_next_one_runs(capsys: pytest.CaptureFixture[str]) -> None:
    from bits.entries import Entries

    entries = Entries()
    with entries.case("bad"):
        raise ValueError("nothing there")
    with entries.case("good"):
        entries.text("good", "yes")
    assert entries.found["bad/error"][1] == "ValueError: nothing there" and list(entries.failed) == ["bad"]
    assert "good" in entries.found and "bad" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "no differences"),
        ({"a/x": ["2", "two"]}, "DIFFERENT  a/x: one  ->  two"),
        ({"a/x": ["2", "one"]}, "DIFFERENT  a/x: one, in both"),
        ({"b/new": ["3", "three"]}, "ONLY IN THE SECOND  b/new: three"),
    ],
)
def test_comparison(
    changes: dict[str, list[str]], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from bits import compare

    entries = {"a/x": ["1", "one"], "b/y": ["5", "five"]}
    for name, each in (("old", entries), ("new", entries | changes)):
        (tmp_path / f"{name}.json").write_text(json.dumps({"about": {"torch": "1"}, "entries": each}))
    assert compare.main(tmp_path / "old.json", tmp_path / "new.json") == bool(changes)
    out = capsys.readouterr().out
    assert said in out and "compared 2 outputs" in out
