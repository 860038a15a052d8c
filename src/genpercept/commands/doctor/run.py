"""`genpercept doctor`: what is installed, what works, where models would come from."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from genpercept.core import extras, said
from genpercept.core.names import hint
from genpercept.core.texts import one_line
from genpercept.core.version import __version__

if TYPE_CHECKING:
    from genpercept.core.registry import Registry, Table

_CORE = ("torch", "diffusers", "transformers", "numpy", "pillow", "safetensors", "huggingface_hub", "pydantic")
_PROBE = 3.0  # seconds that the speed of bf16 is measured for, about
_LEAST = 128  # rows of the smallest matrices


class Line(NamedTuple):
    """One finding; `problem` when predicting does not work because of it."""

    name: str
    text: str
    problem: bool = False


def main(device: str = "auto") -> int:
    """Print the findings to stdout. 0: predicting would work; 1: something that it needs is missing or broken."""
    problems, found = 0, list[Line]()
    for line in chain(_versions(), _compute(device), _extras(), _models(), _additions()):  # each as soon as it is known
        problems += line.problem
        found.append(line)
        print(f"{'!!' if line.problem else '  '} {line.name:<16} {line.text}", flush=True)
    print(f"{problems} problem(s), marked !!" if problems else "all that predicting needs is there")
    said.result({"findings": [line._asdict() for line in found], "problems": problems})
    return 1 if problems else 0


def _versions() -> Iterator[Line]:
    yield Line("genpercept", f"{__version__} in {Path(__file__).parents[2]}")
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

        from genpercept.core.devices import pick_device

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
        yield Line("bf16", _bf16(name))
        if name.startswith("cuda"):
            yield from _memory_formats(torch.cuda.get_device_name(name))
    except (ValueError, RuntimeError, ImportError, OSError) as error:
        yield Line("device", one_line(error), True)


def _bf16(device: str) -> str:
    """Some processors have bf16 and are slower with it than in float32 (Intel's without AMX): only measuring tells.

    Larger and larger products, so that a processor which takes minutes for a large one is known by a small one.
    """
    import torch

    from genpercept.commands.bench import ceiling
    from genpercept.commands.bench.setting import Effort

    cannot = "not on this device: leave --dtype at fp32"
    end, speed, effort = time.perf_counter() + _PROBE, 0.0, Effort(matmul_seconds=0.05)
    try:
        x = torch.ones(8, 8, device=device, dtype=torch.bfloat16)
        if not torch.isfinite(x @ x).all():
            return cannot
        for size in ceiling.sizes(device, least=_LEAST):
            start = time.perf_counter()
            plain, half = (ceiling.measure(d, device, effort, (size,))["tflops"] for d in ("fp32", "bf16"))
            speed = half / plain
            if time.perf_counter() + 8 * (time.perf_counter() - start) > end:  # twice the size is 8 times the work
                break
    except RuntimeError:
        return cannot
    advice = "--dtype bf16 pays" if speed > 1.2 else "leave --dtype at fp32"
    return f"works, matrix products at {speed:.1f} x the speed of float32: {advice}"


def _memory_formats(device: str) -> Iterator[Line]:
    """What was measured on this GPU; each choice is of one network, which its file names by a hash."""
    from genpercept.pipeline.specialise import memory_format

    found = memory_format.all_remembered(device)
    if not found:
        yield Line("memory format", "nothing measured yet: a specialised model does so at its first image")
    for choice in found:
        yield Line("memory format", f"network {choice.case.network[:8]}, {choice.line}")


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
    """A line for each extra: the versions of its packages, or how to install those that are not there."""
    distributions = packages_distributions()
    for extra, packages in extras.EXTRAS.items():
        there = [f"{name} {_version(name, distributions)}" for name in packages if find_spec(name) is not None]
        gone = [name for name in packages if find_spec(name) is None]
        lacks = f"{', '.join(gone)} not installed (optional): {extras.install(extra)}" if gone else ""
        yield Line(f"extra {extra}", "; ".join(filter(None, (", ".join(there), lacks))))


def _version(package: str, distributions: Mapping[str, Sequence[str]]) -> str:
    """Of the distribution that brings an importable package."""
    for name in (*distributions.get(package, ()), package):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "of an unknown version"


def _models() -> Iterator[Line]:
    names, where = [], "?"
    try:
        from genpercept.checkpoints import hub

        where, names = str(hub.embedded_root()), hub.embedded_names()
    except (ImportError, OSError) as error:
        where = one_line(error)
    yield Line("embedded models", ", ".join(names) or f"none in {where}: install genpercept again", not names)
    try:
        from huggingface_hub.constants import HF_HUB_CACHE, HF_HUB_OFFLINE

        cached = sum(1 for _ in Path(HF_HUB_CACHE).glob("models--*"))
        yield Line("hub cache", f"{HF_HUB_CACHE}, {cached} model(s){', offline' if HF_HUB_OFFLINE else ''}")
    except ImportError:
        yield Line("hub cache", "huggingface_hub is missing")
    yield from _base()


def _additions() -> Iterator[Line]:
    """What other installed packages add by entry points; a problem where it cannot be loaded, or where nobody reads it."""
    from genpercept.core import registry

    known = {kind.group: kind for kind in _extensible()}
    added: dict[str, list[str]] = {}
    for group in registry.groups():
        for name, entry in registry.entries(group).items():
            package = registry.package_of(entry)
            if group not in known:
                yield Line(package, f"{group} {name!r}: nobody reads this group; {hint(group, known)}", True)
                continue
            kind = known[group]
            try:
                kind.find(name)
            except ValueError as error:
                yield Line(package, one_line(error), True)
            ours = " (not used: the name is ours)" if kind.ours(name) else ""
            added.setdefault(package, []).append(f"{kind.noun} {name}{ours}")
    for package, names in added.items():
        yield Line(package, f"adds {', '.join(names)}")


def _extensible() -> list[Registry[Any] | Table[Any]]:
    """All that another package can add to."""
    from genpercept.commands.export.targets import TARGETS
    from genpercept.core.labels import LABELS
    from genpercept.data import DATASETS
    from genpercept.imaging.kinds import KINDS
    from genpercept.metrics import METRICS
    from genpercept.models.backbones import BACKBONES
    from genpercept.models.codecs import CODECS
    from genpercept.models.detectors import DETECTORS
    from genpercept.models.heads import HEADS
    from genpercept.models.paradigms import PARADIGMS
    from genpercept.pipeline.families import FAMILIES
    from genpercept.tasks import TASKS
    from genpercept.training.losses import LOSSES

    rows: list[Registry[Any] | Table[Any]] = [LABELS, KINDS]
    return [*rows, TASKS, METRICS, DATASETS, LOSSES, HEADS, BACKBONES, CODECS, PARADIGMS, DETECTORS, FAMILIES, TARGETS]


def _base() -> Iterator[Line]:
    """Which base a public checkpoint would get, by what rule, whether it is here, and what its headers say."""
    rule = "--base, or base=, comes before it"
    try:
        from genpercept.checkpoints import hub
        from genpercept.pipeline import base_model

        name = os.environ.get(base_model.VARIABLE)
        if name is None:
            here = [f"{known} is in the hub cache: --base {known}" for known in base_model.KNOWN if hub.cached(known)]
            advice = here[0] if here else "docs/checkpoints.md says where to get Stable Diffusion 2.1"
            yield Line(base_model.VARIABLE, f"not set: public checkpoints need --base; {advice}")
            return
        folder = base_model.local(name)
        if folder is None:
            yield _absent(name)
            return
        base = base_model.read_base(folder)
        where = "" if str(folder) == name else f" in {folder}"
        yield Line(base_model.VARIABLE, f"{name}{where} ({rule}): {base.line}", bool(base.problems))
        for problem in [*base.problems, *([base.advice] if base.advice else [])]:
            yield Line("", problem, problem in base.problems)
    except (ValueError, ImportError, OSError) as error:
        yield Line("GENPERCEPT_BASE", one_line(error), True)


def _absent(name: str) -> Line:
    from huggingface_hub.constants import HF_HUB_OFFLINE

    from genpercept.checkpoints import hub
    from genpercept.pipeline import base_model

    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        return Line(base_model.VARIABLE, f"{name}: no such folder", True)
    if HF_HUB_OFFLINE:
        return Line(base_model.VARIABLE, f"{name}: not in the hub cache, and HF_HUB_OFFLINE forbids to fetch it", True)
    return Line(base_model.VARIABLE, f"{name}: not in the hub cache; it would be downloaded from {hub.endpoint()}")
