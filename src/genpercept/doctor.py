"""`genpercept doctor`: what is installed, what works, where models would come from."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from genpercept import __version__

_CORE = ("torch", "diffusers", "transformers", "numpy", "pillow", "safetensors", "huggingface_hub", "pydantic")
_EXTRAS = {
    "numba": "synthetic",
    "skimage": "synthetic",
    "accelerate": "train",
    "tensorboard": "train",
    "sklearn": "demo",
}
_EXTRAS["OpenEXR"] = "exr"


class Line(NamedTuple):
    """One finding; `problem` when predicting does not work because of it."""

    name: str
    text: str
    problem: bool = False


def main(device: str = "auto") -> int:
    """Print the findings to stdout. 0: predicting would work; 1: something that it needs is missing or broken."""
    problems = 0
    for line in [*_versions(), *_compute(device), *_extras(), *_models()]:
        problems += line.problem
        print(f"{'!!' if line.problem else '  '} {line.name:<16} {line.text}")
    print(f"{problems} problem(s), marked !!" if problems else "all that predicting needs is there")
    return 1 if problems else 0


def _versions() -> Iterator[Line]:
    yield Line("genpercept", f"{__version__} in {Path(__file__).parent}")
    yield Line("python", f"{platform.python_version()} on {platform.platform()}", sys.version_info < (3, 11))
    for name in _CORE:
        try:
            yield Line(name, version(name))
        except PackageNotFoundError:
            yield Line(name, "missing: pip install genpercept", True)


def _compute(device: str) -> Iterator[Line]:
    """The device is asked to compute, because drivers that do not fit show only then."""
    try:
        import torch

        from genpercept.devices import pick_device

        name = pick_device(device)
        start = time.perf_counter()
        x = torch.ones(256, 256, device=name)
        right = float((x @ x)[0, 0]) == 256.0
        milliseconds = (time.perf_counter() - start) * 1e3
        what = (
            torch.cuda.get_device_name(name) if name.startswith("cuda") else platform.processor() or platform.machine()
        )
        yield Line("device", f"{name} ({what}), a matrix product in {milliseconds:.1f} ms", not right)
        yield Line("threads", f"{torch.get_num_threads()} of {os.cpu_count()} cores")
        yield Line("memory", _memory(name))
        yield Line("bf16", "works" if _bf16(name) else "not on this device: leave --dtype at fp32")
    except (ValueError, RuntimeError, ImportError, OSError) as error:
        yield Line("device", " ".join(str(error).split()), True)


def _bf16(device: str) -> bool:
    import torch

    try:
        x = torch.ones(8, 8, device=device, dtype=torch.bfloat16)
        return bool(torch.isfinite(x @ x).all())
    except RuntimeError:
        return False


def _memory(device: str) -> str:
    import torch

    parts = []
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        parts.append(f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB main")
    if device.startswith("cuda"):
        free, total = torch.cuda.mem_get_info(device)
        parts.append(f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB free on {device}")
    return ", ".join(parts) or "unknown"


def _extras() -> Iterator[Line]:
    for package, extra in _EXTRAS.items():
        there = find_spec(package) is not None
        yield Line(package, "there" if there else f"not installed (optional): pip install 'genpercept[{extra}]'")


def _models() -> Iterator[Line]:
    names, where = [], "?"
    try:
        from genpercept import hub

        where, names = str(hub.embedded_root()), hub.embedded_names()
    except (ImportError, OSError) as error:
        where = " ".join(str(error).split())
    yield Line("embedded models", ", ".join(names) or f"none in {where}: install genpercept again", not names)
    try:
        from huggingface_hub.constants import HF_HUB_CACHE, HF_HUB_OFFLINE

        cached = sum(1 for _ in Path(HF_HUB_CACHE).glob("models--*"))
        yield Line("hub cache", f"{HF_HUB_CACHE}, {cached} model(s){', offline' if HF_HUB_OFFLINE else ''}")
    except ImportError:
        yield Line("hub cache", "huggingface_hub is missing")
    base = os.environ.get("GENPERCEPT_BASE")
    if base is None:
        yield Line("GENPERCEPT_BASE", "not set (folder or hub id of the base for public checkpoints)")
    else:
        local = base.startswith((".", "/", "~"))
        missing = local and not Path(base).expanduser().is_dir()
        yield Line("GENPERCEPT_BASE", f"{base}: no such folder" if missing else base, missing)
