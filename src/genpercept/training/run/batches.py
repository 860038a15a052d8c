"""How the samples of a step are divided: over the processes, and a process's share over passes through the network.

Nothing that is learnt depends on it, but for rounding (and for batch normalisation, whose statistics are a pass's): losses
are per sample, every sample weighs alike, and what a sample draws is keyed by its slot in the whole batch.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from genpercept.core.files import read_json, write_text
from genpercept.training.run.unwritable import explained

_FILE = "batches.json"  # in the run's folder


@dataclass(frozen=True)
class Split:
    """The effective batch of a step, in slots 0 to `batch` - 1, as the process of number `rank` sees it.

    micro: samples of one pass at most; 0: a process's whole share. ValueError for a batch that leaves a process nothing.
    """

    batch: int
    processes: int = 1
    rank: int = 0
    micro: int = 0

    def __post_init__(self) -> None:
        if self.batch < self.processes:
            raise ValueError(
                f"loader.batch_size {self.batch}: fewer samples than processes ({self.processes}): raise it, or start"
                f" {self.batch}"
            )

    @property
    def share(self) -> range:
        """This process's slots; shares differ by one sample where the processes do not divide the batch."""
        return range(self.rank * self.batch // self.processes, (self.rank + 1) * self.batch // self.processes)

    @property
    def largest(self) -> int:
        """Samples of the largest share."""
        return -(-self.batch // self.processes)

    @property
    def at_once(self) -> int:
        """The most samples that go through the network together."""
        return min(self.micro or self.largest, self.largest)

    @property
    def passes(self) -> int:
        """Of each process, the same for all: layers that talk to the other processes must run equally often."""
        return -(-self.largest // self.at_once)

    def slots(self, part: int) -> range:
        """Those of one pass; never empty: see `weight`."""
        return self.share[slice(*self._ends(part))] or self.share[:1]

    def weight(self, part: int) -> float:
        """What the mean loss of a pass counts for in the gradient, which is the mean over the processes: samples weigh alike.

        0 for a pass of a process that has fewer samples than passes: it repeats a sample.
        """
        begin, end = self._ends(part)
        return (end - begin) * self.processes / self.batch

    def _ends(self, part: int) -> tuple[int, int]:
        """Of a pass, within the share."""
        size = len(self.share)
        return part * size // self.passes, (part + 1) * size // self.passes

    def __str__(self) -> str:
        processes = f"{self.processes} processes x " if self.processes > 1 else ""
        passes = f"{self.passes} passes" if self.passes > 1 else "1 pass"
        return f"batch of {self.batch}: {processes}{passes} of {self.at_once}{' at most' if self.uneven else ''}"

    @property
    def uneven(self) -> bool:
        """Whether passes differ in their number of samples."""
        return self.batch % (self.processes * self.passes) > 0


def record(run: Path, split: Split) -> None:
    """Write RUN/batches.json: how the batches of this run are divided. Raises Unwritable."""
    found = {
        "batch_size": split.batch,
        "processes": split.processes,
        "micro_batch": split.at_once,
        "passes": split.passes,
    }
    with explained(run, _FILE):
        write_text(run / _FILE, json.dumps(found) + "\n")


def recorded(run: Path, split: Split) -> Split | None:
    """As an earlier sitting of this run found the same batch to fit as many processes, so that it goes on bit by bit."""
    path = run / _FILE
    known = read_json(path) if path.is_file() else {}
    if (known.get("batch_size"), known.get("processes")) != (split.batch, split.processes):
        return None
    return replace(split, micro=int(known["micro_batch"]))
