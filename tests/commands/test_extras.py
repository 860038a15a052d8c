"""A package that is not installed is one line with the extra that brings it, wherever it is wanted."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genpercept.core.extras import EXTRAS, explain
from tests.support import absent
from tests.support.paths import ROOT

SOURCE = ROOT / "src" / "genpercept"
REQUIRED = {
    *(
        "torch",
        "numpy",
        "PIL",
        "isal",
        "safetensors",
        "diffusers",
        "transformers",
        "huggingface_hub",
        "h11",  # whose client for HTTP has it, as uvicorn has
        "pydantic",
        "click",
        "rich",
    ),
    *("rich_click", "jinja2", "scipy", "genpercept", "pydantic_core", "packaging"),
    *("starlette", "anyio"),  # with fastapi
    "threadpoolctl",  # where it is there
}
OPTIONAL = sorted({package for packages in EXTRAS.values() for package in packages})
# command -> the package whose line it ends with, where none of the optional ones is there
COMMANDS = {
    "evaluate --dataset synthetic --out evaluated": ("skimage", "synthetic"),
    "train mini/depth --dry-run": ("accelerate", "train"),
    "train mini/depth --out run": ("accelerate", "train"),
    "study paradigms --out study": ("accelerate", "train"),
    "demo --out demo": ("skimage", "demo"),
    "predict a.png --task matting --format cutout --out cut": ("pymatting", "matting"),
    "predict a.png --format exr --out exr": ("OpenEXR", "exr"),
    "predict a.png --engine ray --out ray": ("ray", "ray"),
    "export mini/depth --to onnx --out d.onnx": ("onnx", "onnx"),
    "export mini/depth --to openvino --out d": ("openvino", "openvino"),
    "data preview synthetic --split val --out sheet.png": ("skimage", "synthetic"),
    "score dis --pred a.npy --gt a.npy": ("py_sod_metrics", "evaluate"),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bare")
    Image.fromarray(np.zeros((20, 24, 3), np.uint8)).save(folder / "a.png")
    np.save(folder / "a.npy", np.ones((20, 24), np.float32))
    return folder


def bare(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own that finds none of the optional packages."""
    command = [sys.executable, absent.__file__, ",".join(OPTIONAL), *words]
    env = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(command, cwd=place, env=env, capture_output=True, text=True, timeout=300, check=False)


QUICK = ("evaluate --dataset synthetic --out evaluated", "predict a.png --format exr --out exr")


@pytest.mark.parametrize("command", [pytest.param(c, marks=[] if c in QUICK else pytest.mark.slow) for c in COMMANDS])
def test_a_command_ends_in_one_line(command: str, place: Path) -> None:
    done = bare(place, *command.split())
    package, extra = COMMANDS[command]
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 2 and last.startswith("genpercept: error: ") and "Traceback" not in done.stderr
    assert package in last and f"pip install 'genpercept[{extra}]'" in last


def test_what_needs_none_of_them_works(place: Path) -> None:
    assert bare(place, "predict", "a.png", "--out", "depth").returncode == 0
    said = bare(place, "doctor")
    assert said.returncode == 0 and all(f"'genpercept[{extra}]'" in said.stdout for extra in EXTRAS)


def imported(path: Path) -> set[str]:
    """Packages that a file imports, at its top or in a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def test_every_package_that_is_imported_is_required_or_in_the_table() -> None:
    known = {*REQUIRED, *OPTIONAL, *sys.stdlib_module_names}
    wrong = {str(path.relative_to(SOURCE)): imported(path) - known for path in SOURCE.rglob("*.py")}
    assert {path: names for path, names in wrong.items() if names} == {}


def test_the_table_is_that_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = project["optional-dependencies"]
    assert set(EXTRAS) == set(declared) - {"dev", "docs"}
    brought = {extra: " ".join(lines).lower() for extra, lines in declared.items()}
    for extra, packages in EXTRAS.items():
        for package in packages:
            name = absent.DISTRIBUTIONS.get(package, package).lower()
            assert name.replace("_", "-") in brought[extra].replace("_", "-"), f"{extra}: {package}"


def test_an_installed_package_that_is_broken_says_so() -> None:
    broken = ImportError("libGL.so.1: cannot open shared object file", name="cv2")
    assert explain(broken) == (
        "the package cv2 is installed, but cannot be imported (libGL.so.1: cannot open shared object file); "
        "try pip install 'genpercept[evaluate]'"
    )
    assert explain(ModuleNotFoundError("No module named 'torc'", name="torc")) is None
