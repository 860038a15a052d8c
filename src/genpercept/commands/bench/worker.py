"""A process of its own for each job, a job as JSON on stdin, its answer on stdout.

Imports are inside the jobs, so that a cold start can time them.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from genpercept.commands.bench.setting import Effort, Setting

_BEGAN = time.time()
_MARK = "genpercept-bench-answer "


def run(kind: str, setting: Setting, effort: Effort | None = None, **further: Any) -> dict[str, Any]:
    """A job in a fresh process. ValueError, with the process's last line, where it failed or took longer than its limit."""
    job = {
        "kind": kind,
        "setting": asdict(setting),
        "effort": asdict(effort or Effort()),
        "asked": time.time(),
    } | further
    threads = {"OMP_NUM_THREADS": str(setting.threads)} if setting.threads else {}
    limit = job["effort"]["limit"]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "genpercept.commands.bench.worker"],
            input=json.dumps(job),
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | threads,
            timeout=limit or None,
        )
    except subprocess.TimeoutExpired:
        raise ValueError(f"{setting.label}: {kind} was ended after {limit:g} s") from None
    lines = [line for line in done.stdout.splitlines() if line.startswith(_MARK)]
    if done.returncode or not lines:
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        reason = said[-1] if said else _ended(done.returncode)
        raise ValueError(f"{setting.label}: {kind} failed: {reason}")
    return json.loads(lines[-1].removeprefix(_MARK))


def _ended(code: int) -> str:
    return f"ended with code {code}" + (", perhaps for want of memory" if code == -signal.SIGKILL else "")


def main() -> None:
    job = json.loads(sys.stdin.read())
    job["setting"], job["effort"] = Setting(**job["setting"]), Effort(**job["effort"])
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    answer = _JOBS[job["kind"]](job)
    print(_MARK + json.dumps(answer), flush=True)


def _threads(job: dict[str, Any]) -> None:
    if job["setting"].device.startswith("cuda"):
        from genpercept.core.devices import allow_tf32

        allow_tf32(False)  # as in predict: float32 is float32
    if job["setting"].threads:
        import torch

        torch.set_num_threads(job["setting"].threads)


def _graph(job: dict[str, Any]) -> Path | None:
    return Path(job["graph"]) if "graph" in job else None


def _measure(job: dict[str, Any]) -> dict[str, Any]:
    _threads(job)
    from genpercept.commands.bench import machine, measure

    found = measure.setting(job["setting"], job["batches"], job["effort"], job.get("counts"), _graph(job))
    return found | {"machine": machine.describe(job["setting"].device, job["setting"].threads)}


def _cold(job: dict[str, Any]) -> dict[str, Any]:
    """Seconds from the start of the process to the first image's answer, part by part."""
    seconds = {"interpreter": _BEGAN - job["asked"]}
    last = time.perf_counter()

    def note(name: str) -> None:
        nonlocal last
        seconds[name], last = time.perf_counter() - last, time.perf_counter()

    _threads(job)
    import torch  # noqa: F401

    note("import torch")
    import genpercept.pipeline.loading
    import genpercept.pipeline.pipeline  # noqa: F401

    note("import genpercept, diffusers, transformers")
    from genpercept.commands.bench import build, machine, measure

    of: Setting = job["setting"]
    with tempfile.TemporaryDirectory(prefix="genpercept_bench_") as temp:
        photo = measure.photograph(Path(temp) / "photograph.jpg", round(of.resolution * measure.FILE_SCALE))
        last = time.perf_counter()  # making the file is no part of it
        pipe: Any = build.pipeline(of, _graph(job))
        note("load" if of.model or of.runtime != "torch" else "random weights")
        pipe(photo, processing_resolution=of.resolution)
        note("first image")
    return {"seconds": seconds, "total": sum(seconds.values()), "peak": machine.peak(of.device)}


def _answer(job: dict[str, Any]) -> dict[str, Any]:
    _threads(job)
    import numpy as np

    from genpercept.commands.bench import measure

    np.save(job["file"], measure.answer(job["setting"], _graph(job)))
    return {}


def _export(job: dict[str, Any]) -> dict[str, Any]:
    _threads(job)
    from genpercept.commands.bench import build

    return {"graph": str(build.export(job["setting"], Path(job["folder"])))}


def _peer(job: dict[str, Any]) -> dict[str, Any]:
    _threads(job)
    from genpercept.commands.bench import ceiling, peers

    of: Setting = job["setting"]
    way = peers.Way(**job.get("way", {}))
    rows = [peers.measure(peers.find(name), of, job["effort"], way) for name in job["names"]]
    return {"rows": rows, "ceiling": ceiling.measure(of.dtype, of.device, job["effort"])}


_JOBS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "measure": _measure,
    "cold": _cold,
    "answer": _answer,
    "export": _export,
    "peer": _peer,
}

if __name__ == "__main__":
    main()
