"""The campaigns of `predict` in their short form: they find nothing, and would say so."""

from __future__ import annotations

import importlib
import random
import sys
from pathlib import Path

import pytest

from tools.campaigns import _predicts


def campaign(name: str, out: Path, monkeypatch: pytest.MonkeyPatch, *words: object) -> str:
    """The page that it writes; AssertionError where it ends with an error."""
    module = importlib.import_module(f"tools.campaigns.{name}")
    path = Path(str(module.__file__))
    monkeypatch.setattr(sys, "argv", [str(path), *map(str, words), "--out", str(out)])
    with pytest.raises(SystemExit) as stop:
        module.main()
    page = out.read_text(encoding="utf-8")
    assert stop.value.code == 0, page
    return page


def test_mutants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = campaign("predict_mutants", tmp_path / "page.md", monkeypatch, "--mutants", 40, "--seed", 1)
    assert "40 mutants with seed 1" in page and "Wrong: nothing." in page


def test_kills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = campaign("predict_kills", tmp_path / "page.md", monkeypatch, "--runs", 2, "--images", 8)
    assert "| 2 | nothing |" in page or page.count("| nothing |") == 2


def test_two_writers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = campaign("two_writers", tmp_path / "page.md", monkeypatch, "--rounds", 1, "--images", 60)
    assert "in use by process PID on HOST since" in page


def test_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = campaign("many_files", tmp_path / "page.md", monkeypatch, "--count", 60)
    assert "| all, --resume | 60 |" in page


def test_what_differs_is_seen(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.json").write_text('{"files": {"png": "x.png"}}')
        (tmp_path / name / "x.png").write_text("same")
    assert _predicts.differences(tmp_path / "a", tmp_path / "b") == [] and _predicts.claims(tmp_path / "a") == []
    (tmp_path / "b/x.png").write_text("other")
    (tmp_path / "b/.left.tmp").touch()
    (tmp_path / "b/stray.png").touch()
    assert _predicts.differences(tmp_path / "a", tmp_path / "b") == [".left.tmp", "stray.png", "x.png"]
    assert [Path(name).name for name in _predicts.claims(tmp_path / "b")] == ["stray.png"]
    data = _predicts.pictures(tmp_path / "p", 3, random.Random(0))[0].read_bytes()
    assert len({_predicts.damaged(data, random.Random(seed)) for seed in range(20)}) > 15
