"""docs/tutorial.ipynb is docs/tutorial.md, and its cells run, and print what the page says."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.support.paths import ROOT


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("_notebook_maker", ROOT / "tools/site/notebook.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_notebook_is_the_page(maker: ModuleType) -> None:
    """`python tools/site/notebook.py` makes it so."""
    made = nbformat.writes(maker.notebook(maker.PAGE.read_text(encoding="utf-8")))
    assert maker.NOTEBOOK.read_text(encoding="utf-8").rstrip() == made.rstrip()


def test_the_notebook_runs_and_prints_what_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, maker: Any
) -> None:
    command = tmp_path / "bin" / "genpercept"  # of this checkout, whatever is installed
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m genpercept "$@"\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(maker.NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()

    printed = "".join(o.get("text", "") for cell in notebook.cells for o in cell.get("outputs", []))
    promised = re.findall(r"^```text\n(.*?)^```", maker.PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert promised
    assert [block for block in promised if _figures(block) not in _figures(printed)] == []
    assert (tmp_path / "results/china_depth_color.png").exists()
    assert (tmp_path / "results/flower_cutout.png").exists()


def _figures(text: str) -> str:
    """Rounded to two digits: the last ones are the machine's."""
    return re.sub(r"\d+\.\d+", lambda found: f"{float(found[0]):.2f}", text)
