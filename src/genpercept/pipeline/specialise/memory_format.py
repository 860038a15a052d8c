"""In which memory format a specialised network runs on a GPU: measured at the first image of a size, then remembered.

Which one is quicker depends on the GPU, its libraries, the network, the dtype and the size, and no rule tells it. The choice is
kept in a file of the user's cache, so that the next process computes the same bits; on CPUs a rule decides (`Settings`).
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genpercept.core import said
from genpercept.core.devices import out_of_memory, synchronise
from genpercept.core.files import make_folder, read_json, to_json, write_json
from genpercept.core.places import cache_folder

MEASURED = ("cuda",)  # types of devices on which it is measured
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
_WARM, _RUNS = 2, 3  # a CUDA graph is recorded in the second run
_CLEARLY = 0.98  # of the usual format's time: what is not quicker than that changes nothing
_measuring = threading.Lock()  # two at once would measure each other


@dataclass(frozen=True)
class Case:
    """What a choice holds for. network: hash of its tensors' names and shapes; edge: longest of the padded image, rounded up to
    a power of two; way: how its calls are run, in words; tf32: of float32 alone."""

    device: str
    torch: str
    network: str
    dtype: str
    edge: int
    way: str = ""
    tf32: bool = False

    @property
    def path(self) -> Path:
        """Of the file that keeps the choice. It may not exist."""
        return folder() / f"{hashlib.sha256(to_json(asdict(self)).encode()).hexdigest()[:16]}.json"


@dataclass(frozen=True)
class Choice:
    """chosen: of FORMATS. seconds: of one run, by format."""

    case: Case
    chosen: str
    seconds: Mapping[str, float]

    @property
    def line(self) -> str:
        """For people."""
        dtype = f"{self.case.dtype}{' (TF32)' if self.case.tf32 else ''}"
        times = "; ".join(f"{name} {1e3 * seconds:.3g} ms" for name, seconds in sorted(self.seconds.items()))
        way = f", {self.case.way}" if self.case.way else ""
        return f"{dtype}, up to {self.case.edge} pixels{way}: {self.chosen} ({times})"


def folder() -> Path:
    return cache_folder() / "memory_formats"


def remembered(path: Path) -> Choice | None:
    """The choice that a file keeps; None where there is none, or it is damaged or of another version: it is measured anew."""
    try:
        found = read_json(path)
        choice = Choice(Case(**found["case"]), found["chosen"], found["seconds"])
        sound = all(name in FORMATS and seconds > 0 for name, seconds in choice.seconds.items())
        return choice if sound and choice.chosen in FORMATS and choice.case.path.name == path.name else None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None


def all_remembered(device: str) -> list[Choice]:
    """The choices for a GPU of this name and the torch that is installed."""
    found = [choice for path in sorted(folder().glob("*.json")) if (choice := remembered(path))]
    mine = [choice for choice in found if (choice.case.device, choice.case.torch) == (device, str(torch.__version__))]
    return sorted(mine, key=lambda choice: (choice.case.dtype, choice.case.edge, choice.case.way))


class MemoryFormat:
    """The format of some networks' weights, which that of their maps follows. `present`: of FORMATS.

    usual: the one that they have, and that the rule gives. dtype, way: as Case has them. changed: is called when the weights
    have moved, because graphs and compiled code know where they lay. clock: seconds.
    """

    def __init__(
        self,
        networks: nn.Module,
        usual: str,
        dtype: str,
        way: str = "",
        changed: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._networks, self._usual, self.present = networks, usual, usual
        self._changed, self._clock = changed, clock
        self._case = Case("", str(torch.__version__), _shape_of(networks), dtype, 0, way)
        self._by_edge: dict[int, str] = {}

    def settle(self, longest: int, device: torch.device, run: Callable[[], Any]) -> None:
        """Lay the networks out as is quickest for images of about this size. longest: edge, in pixels. run: runs them on one.

        Errors are those of `run`; that memory is too short is one only where it is for both formats.
        """
        edge = 1 << (longest - 1).bit_length()
        if edge not in self._by_edge:
            tf32 = self._case.dtype == "float32" and torch.backends.cudnn.allow_tf32
            name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
            case = replace(self._case, device=name, edge=edge, tf32=tf32)
            with _measuring:
                known = remembered(case.path) or self._measure(case, device, run)
            said.detail(f"memory format of {known.line}")
            self._by_edge[edge] = known.chosen
        self._lay_out(self._by_edge[edge])

    def reset(self) -> None:
        """The networks go to another device: the usual format, and nothing decided."""
        self._by_edge.clear()
        self._lay_out(self._usual)

    def _measure(self, case: Case, device: torch.device, run: Callable[[], Any]) -> Choice:
        said.once(f"measuring the quicker memory format on {case.device}, once for each network; the first image waits")
        seconds: dict[str, float] = {}
        order = sorted(FORMATS, key=lambda name: name != self.present)
        for name in order:
            self._lay_out(name)
            try:
                seconds[name] = self._timed(device, run)
            except RuntimeError as error:  # not kept: its traceback holds what there was no room for
                if not out_of_memory(error) or (name == order[-1] and not seconds):
                    raise
        quickest = min(seconds, key=seconds.__getitem__)
        usual = seconds.get(self._usual)
        stays = usual is not None and seconds[quickest] > _CLEARLY * usual
        choice = Choice(case, self._usual if stays else quickest, seconds)
        return _remember(choice) if len(seconds) == len(FORMATS) else choice  # another time memory may not be short

    def _timed(self, device: torch.device, run: Callable[[], Any]) -> float:
        """Seconds of the quickest run: whatever else the machine does makes some slower, none quicker."""
        times = []
        for _ in range(_WARM + _RUNS):
            synchronise(device)
            start = self._clock()
            run()
            synchronise(device)
            times.append(self._clock() - start)
        return min(times[_WARM:])

    def _lay_out(self, name: str) -> None:
        if name == self.present:
            return
        with torch.inference_mode(False), torch.no_grad():
            for tensor in _tensors(self._networks):
                tensor.data = tensor.data.to(memory_format=FORMATS[name])
        self.present = name
        self._changed()


def _remember(choice: Choice) -> Choice:
    """What is kept from now on: another process may have been first."""
    path = choice.case.path
    if first := remembered(path):
        return first
    with suppress(OSError):  # a read-only home costs the measuring again in the next process, nothing else
        make_folder(path.parent)
        write_json(path, {"case": asdict(choice.case), "chosen": choice.chosen, "seconds": choice.seconds})
    return choice


def _tensors(networks: nn.Module) -> Iterator[Tensor]:
    """Those that have a memory format: of four axes."""
    return (tensor for tensor in (*networks.parameters(), *networks.buffers()) if tensor.ndim == 4)


def _shape_of(networks: nn.Module) -> str:
    shapes = [(name, list(tensor.shape)) for name, tensor in networks.named_parameters()]
    return hashlib.sha256(to_json(shapes).encode()).hexdigest()[:16]
