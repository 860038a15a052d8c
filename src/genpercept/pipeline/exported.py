"""Models that `genpercept export` wrote for ONNX Runtime or OpenVINO, as predictors: one file's graph in place of the networks.

The graph takes padded images in [0, 1] and gives raw maps in our axes. What is before and after it (reading, sizes, regions,
the task's decoding) is that of all pipelines (`predictor`), on NumPy's arrays: nothing imports torch, unless the task is
another package's and takes tensors, sizes are the public code's (resize_mode "official"), or a device other than the CPU is
asked for. Settings are a JSON object in the file's metadata, so that no other file is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NoReturn, Self

import numpy as np
import torch
from torch import Tensor

from genpercept.core import arrays
from genpercept.core.values import Geometry, planes
from genpercept.models.paradigms import PARADIGMS, Paradigm
from genpercept.pipeline.call import Run
from genpercept.pipeline.graphs import FORMATS, INPUT, KEY, MARKER, OUTPUT, SUFFIXES, Graph, find, read_info
from genpercept.pipeline.predictor import Predictor
from genpercept.tasks import ArrayTask

__all__ = [
    "FORMATS",
    "INPUT",
    "KEY",
    "MARKER",
    "OUTPUT",
    "SUFFIXES",
    "ExportedPipeline",
    "Graph",
    "find",
    "load",
    "read_info",
]


def load(path: Path, dtype: torch.dtype | str | None = None, device: str = "cpu") -> ExportedPipeline:
    """The predictor over a file. dtype: what OpenVINO computes in; ONNX Runtime computes in the file's own (None or float32).

    ValueError for a file that is damaged or not ours, and for a device or dtype that its runtime does not offer.
    """
    info = read_info(path) | {"model": str(path)}
    return ExportedPipeline(FORMATS[path.suffix.lower()].ready(path, dtype, device), info)


class ExportedPipeline(Predictor):
    """The pipelines' call over a graph: one paradigm, one prompt, one device, no parts that could be changed or saved."""

    one_at_a_time = True  # it has threads of its own

    def __init__(self, graph: Graph, info: dict[str, Any]) -> None:
        """Use `genpercept.load`. info: contents of genpercept.json, with `export`."""
        self._describe(info)
        self._graph = graph
        self._tensors = not (isinstance(self._task, ArrayTask) and self._task.takes_arrays)

    @property
    def stride(self) -> int:
        """Pixels of which padded sizes are multiples."""
        return int(self.info["export"]["stride"])

    @property
    def device(self) -> torch.device:
        """Where images and raw maps are, which is the CPU; the graph may run elsewhere."""
        return torch.device("cpu")

    @property
    def unet_dtype(self) -> torch.dtype:
        """Of images and raw maps."""
        return torch.float32

    def paradigm(self, name: str | None = None, **options: Any) -> Paradigm:
        """The one it was exported with. ValueError for any other, and for other options."""
        own = PARADIGMS.find(self.info["paradigm"]).with_options(**(self.info.get("paradigm_options") or {}))
        if name not in (None, own.name) or any(own.options.get(key) != value for key, value in options.items()):
            asked = ", ".join([*([name] if name else []), *(f"{k}={v!r}" for k, v in options.items())])
            raise ValueError(
                f"{self.info['model']}: was exported for paradigm {own.name!r} with its options, not for {asked}; "
                "use the model that it was exported from"
            )
        return own

    def _computing(self) -> AbstractContextManager[None]:
        return nullcontext()

    def _planes(self, image_HWC: np.ndarray) -> np.ndarray | Tensor:
        return self._for_the_task(planes(image_HWC))

    def _input(self, geometry: Geometry, image: np.ndarray | Tensor) -> np.ndarray:
        """image: (H, W, 3), or what a task on regions made of `_planes`, (1, 3, H, W)."""
        if image.ndim == 3:
            return geometry.apply_pixels(arrays.to_numpy(image))
        return geometry.apply(arrays.to_numpy(image))

    def _forward(self, image_BCHW: np.ndarray | Tensor, run: Run, latents: Tensor | None) -> Any:
        run.paradigm.check_steps(run.steps)
        h, w = image_BCHW.shape[-2:]
        if h % self.stride or w % self.stride:
            raise ValueError(
                f"{h} x {w} pixels: an exported model takes multiples of {self.stride}; resize_mode 'fit' and 'area' do"
            )
        raw = self._graph(np.ascontiguousarray(arrays.to_numpy(image_BCHW)))
        return self._for_the_task(raw) if isinstance(image_BCHW, np.ndarray) else torch.from_numpy(raw)

    def _for_the_task(self, x: np.ndarray) -> np.ndarray | Tensor:
        return torch.from_numpy(x) if self._tensors else x

    def _start(self, latents: Tensor, geometries: Sequence[Geometry], run: Run) -> NoReturn:
        self._refused()  # a graph's paradigm starts from the image, and the call has said so

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """As it is on the CPU. ValueError for anything else: device and dtype are chosen when it is loaded."""
        if any(str(x) not in ("cpu", "auto") for x in (*args, *kwargs.values())):
            raise ValueError(
                "an exported model cannot be moved or cast: pass device= and torch_dtype= to genpercept.load"
            )
        return self

    def _refused(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise ValueError(
            f"{self.info['model']}: is an exported graph without parts: use the model it was exported from"
        )

    save_pretrained = with_codec = enable_model_cpu_offload = enable_sequential_cpu_offload = _refused
