"""A run of the benchmark: settings and peers measured one after the other, then written out."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from genpercept.commands.bench import published, worker
from genpercept.commands.bench.setting import Effort, Setting
from genpercept.core.said import say

# Answers are compared with those of the same networks in float32, neither specialised nor cut up.
_PLAIN: dict[str, Any] = {
    "dtype": "fp32",
    "runtime": "torch",
    "specialised": False,
    "compile": "",
    "cuda_graphs": False,
    "layout": "auto",
}
_PLAIN |= {"attention_slicing": False, "vae_tiling": False, "strips": False, "quantise": ""}


@dataclass
class Session:
    """Results so far, as plain values for JSON. A setting that fails is a row with its error, and the others go on.

    deadline: seconds after which nothing new is begun; what is left out is listed.
    """

    effort: Effort = field(default_factory=Effort)
    deadline: float = float("inf")
    quiet: bool = False

    def __post_init__(self) -> None:
        self._start = time.monotonic()
        self._counts: dict[str, dict[str, Any]] = {}
        self._answers: dict[Setting, np.ndarray] = {}
        self._graphs: dict[Setting, str] = {}
        self.result: dict[str, Any] = {
            "date": datetime.now(UTC).strftime("%Y-%m-%d"),
            "effort": asdict(self.effort),
            "machine": {},
            "rows": [],
            "peers": [],
            "left_out": [],
        }

    @cached_property
    def _folder(self) -> tempfile.TemporaryDirectory[str]:
        """Of the graphs; gone with the session."""
        return tempfile.TemporaryDirectory(prefix="genpercept_bench_")

    @property
    def failed(self) -> int:
        return sum("error" in row for row in (*self.result["rows"], *self.result["peers"]))

    def add(self, setting: Setting, batches: Sequence[int] = (1,), *, cold: bool = True, compare: bool = False) -> None:
        """Measure one setting. compare: its answer with the plain float32 one's, which costs a run of that."""
        if self._late(setting.label):
            return
        rows: list[dict[str, Any]] = []
        self._say(setting.label)
        try:
            rows = self._measured(setting, batches)
            further: dict[str, Any] = {"cold": self._run("cold", setting)} if cold else {}
            if compare and self._plain(setting) != setting:
                further["difference"] = self._difference(setting)
            rows[0] |= further
        except ValueError as error:
            known = {"setting": asdict(setting), "label": setting.label, "resolution": setting.resolution}
            rows.append(known | {"error": str(error)})
        self.result["rows"] += rows

    def peers(self, names: Sequence[str], setting: Setting, **way: Any) -> None:
        """Measure peers at the setting's resolution, dtype, device and threads, each in a process of its own.

        way: of `peers.Way`, such as cuda_graphs=True.
        """
        for some in [[name] for name in names]:
            if self._late(", ".join(some)):
                continue
            self._say(f"peers: {', '.join(some)}")
            try:
                found = worker.run("peer", setting, self.effort, names=some, way=way)
            except ValueError as error:
                self.result["peers"].append({"name": ", ".join(some), "error": str(error)})
                continue
            for row in found["rows"]:
                share = _share(row["tflops"] / row["network"]["median"], found["ceiling"])
                self.result["peers"].append(row | {"ceiling": found["ceiling"], "share": share, "dtype": setting.dtype})

    def quote(self) -> None:
        """Add the paper's own table."""
        self.result["paper"] = {"source": published.SOURCE, "rows": [asdict(row) for row in published.ROWS]}

    def _measured(self, setting: Setting, batches: Sequence[int]) -> list[dict[str, Any]]:
        """A row for each batch size. On the CPU each has a process of its own, so that its peak memory is its own."""
        groups = [list(batches)] if setting.device.startswith("cuda") else [[size] for size in batches]
        rows = []
        for group in groups:
            known = {"counts": self._counts[setting.network]} if setting.network in self._counts else {}
            found = self._run("measure", setting, batches=group, **known)
            self._counts[setting.network] = found["flops"]
            self.result["machine"] = self.result["machine"] or found.pop("machine")
            total = sum(stage["total"] for stage in found["flops"].values())
            label = ", ".join(filter(None, [setting.label, found.pop("memory_format", "")]))
            for one in found.pop("batches"):
                rate = total * one["batch"] / one["network"]["median"]
                row = {"setting": asdict(setting), "label": label, "resolution": setting.resolution} | found | one
                row |= {"tflops": total, "tflops_per_s": rate, "share": _share(rate, found["ceiling"])}
                rows.append(row)
        return rows

    def _plain(self, setting: Setting) -> Setting:
        return replace(setting, **_PLAIN)

    def _difference(self, setting: Setting) -> dict[str, float]:
        from genpercept.commands.bench.measure import apart

        plain = self._plain(setting)
        if plain not in self._answers:
            self._answers[plain] = self._answer(plain)
        return apart(self._answer(setting), self._answers[plain])

    def _answer(self, setting: Setting) -> np.ndarray:
        with tempfile.TemporaryDirectory(prefix="genpercept_bench_") as temp:
            file = Path(temp) / "answer.npy"
            self._run("answer", setting, file=str(file))
            return np.load(file)

    def _run(self, kind: str, setting: Setting, **further: Any) -> dict[str, Any]:
        """A job on a setting, whose graph, where it has one, is written before."""
        if setting.runtime == "torch":
            return worker.run(kind, setting, self.effort, **further)
        key = replace(setting, dtype="fp32")
        if key not in self._graphs:
            self._say(f"writing the graph of {key.label}")
            folder = tempfile.mkdtemp(dir=self._folder.name)
            self._graphs[key] = worker.run("export", key, self.effort, folder=folder)["graph"]
        return worker.run(kind, setting, self.effort, graph=self._graphs[key], **further)

    def _late(self, what: str) -> bool:
        if time.monotonic() - self._start < self.deadline:
            return False
        self.result["left_out"].append(what)
        return True

    def _say(self, what: str) -> None:
        if not self.quiet:
            say(f"{time.monotonic() - self._start:6.0f} s  {what}")


def _share(tflops_per_s: float, ceiling: dict[str, Any]) -> float:
    return tflops_per_s / ceiling["tflops"] if ceiling["tflops"] else float("nan")
