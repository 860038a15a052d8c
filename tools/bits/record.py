"""Run every part with one version of the program, each in a process of its own, and write what they hash into one file."""

from __future__ import annotations

import importlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bits.entries import Entries

PARTS = ("embedded", "golden", "files", "figures", "training")  # the modules beside this one
_PACKAGES = ("torch", "numpy", "diffusers", "transformers", "pillow", "scipy", "numba")
_SCRIPT = Path(__file__).parents[1] / "same_bits.py"
# The place is the same for all recordings, because keys of caches hold it. Kernels are compiled once per source: a minute.
WORK = Path(tempfile.gettempdir()) / "genpercept-same-bits"
_KERNELS = Path(tempfile.gettempdir()) / "genpercept-same-bits-kernels"


def main(source: Path, out: Path, parts: list[str], work: Path, keep: bool) -> int:
    """Exit code 1 when a case ended in an error, which is recorded all the same."""
    if not (source / "genpercept" / "__init__.py").is_file():
        raise SystemExit(f"{source}: no genpercept/ in it: give the checkout's src folder")
    if work.exists():
        raise SystemExit(f"{work}: is there already: another recording is running, or one was killed: remove it then")
    begin = time.monotonic()
    entries: dict[str, list[str]] = {}
    failed: dict[str, str] = {}
    try:
        for name in parts:
            found = _run(name, source.resolve(), work.resolve() / name)
            entries |= found["entries"]
            failed |= found["failed"]
    finally:
        if not keep:
            shutil.rmtree(work, ignore_errors=True)
    about = _about(source, work) | {"seconds": round(time.monotonic() - begin)}
    out.write_text(json.dumps({"about": about, "entries": entries}, indent=0, sort_keys=True), encoding="utf-8")
    for name, said in failed.items():
        print(f"failed: {name}: {said}", file=sys.stderr)
    print(f"{out}: {len(entries)} outputs, {len(failed)} failed cases, {about['seconds']} s")
    return 1 if failed else 0


def _run(name: str, source: Path, work: Path) -> dict[str, Any]:
    """One part in `work`, in a new process that finds the program in `source`."""
    begin = time.monotonic()
    print(f"{name} ...", flush=True)
    work.mkdir(parents=True)
    command = [sys.executable, str(_SCRIPT), "part", name, "--out", "found.json"]
    done = subprocess.run(command, cwd=work, env=_environment(source, work), check=False)
    if done.returncode:
        raise SystemExit(f"part {name} ended with {done.returncode}")
    found = json.loads((work / "found.json").read_text(encoding="utf-8"))
    print(f"{name}: {len(found['entries'])} outputs in {time.monotonic() - begin:.0f} s", flush=True)
    return found


def run_part(name: str, out: Path) -> int:
    """In the new process: run the part here, and write what was found."""
    import genpercept

    home, wanted = Path(genpercept.__file__).resolve().parents[1], Path(os.environ["PYTHONPATH"]).resolve()
    if home != wanted:
        raise SystemExit(f"genpercept came from {home}, not from {wanted}")
    entries = Entries()
    importlib.import_module(f"bits.{name}").run(entries)
    named = {f"{name}/{key}": value for key, value in entries.found.items()}
    failed = {f"{name}/{key}": value for key, value in entries.failed.items()}
    out.write_text(json.dumps({"entries": named, "failed": failed}), encoding="utf-8")
    return 0


def _environment(source: Path, work: Path) -> dict[str, str]:
    """One thread, one CPU, no network, no cache of anybody's, nothing of the user's settings."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("GENPERCEPT_", "HF_", "XDG_", "PYTHON"))}
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
    return kept | threads | {
        "PYTHONPATH": str(source),
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONWARNINGS": "ignore",
        "NUMBA_CACHE_DIR": str(_KERNELS),
        "GENPERCEPT_CACHE": str(work / "cache"),
        "XDG_CACHE_HOME": str(work / "cache"),
        "HF_HOME": str(work / "cache" / "hub"),
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "CUDA_VISIBLE_DEVICES": "",
        "COLUMNS": "120",
        "NO_COLOR": "1",
    }  # fmt: skip


def _about(source: Path, work: Path) -> dict[str, Any]:
    """What the bits may depend on beside the program."""
    return {
        "source": str(source),
        "commit": _commit(source),
        "place": str(work),
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{platform.machine()} {_processor()}",
        "Python": platform.python_version(),
        **{name: version(name) for name in _PACKAGES},
    }


def _commit(source: Path) -> str:
    words = ["git", "-C", str(source), "describe", "--always", "--dirty", "--exclude", "*"]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())
