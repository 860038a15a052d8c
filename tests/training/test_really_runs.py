"""Every recipe, and every arm of every study, runs to its end on miniatures: benchmarks/robustness/really_runs.py, as tests."""

from __future__ import annotations

import fnmatch
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.miniature import runs
from tests.support.paths import RECIPES, ROOT

# One of each kind. A part of them is trained on the way: segmentation's first stage, the own VAE.
KINDS = {
    "heads": ["paper/segmentation", "paper/pose", "paper/v1_depth_dpt", "paper/depth_dinov2"],
    "tasks": ["paper/anomaly", "paper/matting", "paper/depth_gaussian", "paper/depth_pixart"],
    "arms": ["studies/codec: own VAE", "studies/adapters: LoRA 4", "studies/adapters: ControlNet"],
}
OTHERS = ["paper/*", "distil/*", "mini/*", "studies/[a-h]*", "studies/[i-o]*", "studies/[p-z]*"]


def failures(names: list[str], folder: Path) -> list[str]:
    """Of these cases, each in a word and its line; run by a process of their own, as they fork."""
    script = ROOT / "benchmarks" / "robustness" / "really_runs.py"
    words = [str(script), *names, "--work", str(folder), "--json", str(folder / "rows.json"), "--jobs", "1"]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
    assert (folder / "rows.json").is_file(), done.stderr[-2000:]
    rows = json.loads((folder / "rows.json").read_text())
    assert len(rows) >= len(names)
    return [f"{row['name']}: {row['stage']}: {row['line']}" for row in rows if not row["done"]]


@pytest.mark.parametrize("kind", KINDS)
def test_one_of_each_kind(kind: str, tmp_path: Path) -> None:
    assert not failures(KINDS[kind], tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("pattern", OTHERS)
def test_all_others(pattern: str, tmp_path: Path) -> None:
    seen = {name for names in KINDS.values() for name in names}
    found, broken = runs.read(RECIPES)
    assert not broken
    names = [case.name for case in found if case.name not in seen and fnmatch.fnmatchcase(case.name, pattern)]
    assert names and not failures(names, tmp_path)


def test_the_groups_hold_every_case() -> None:
    found, broken = runs.read(RECIPES)
    assert not broken and len(found) > 100
    assert all(sum(fnmatch.fnmatchcase(case.name, pattern) for pattern in OTHERS) == 1 for case in found)
    assert {name for names in KINDS.values() for name in names} <= {case.name for case in found}
