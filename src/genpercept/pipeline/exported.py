"""Models that `genpercept export` wrote for ONNX Runtime or OpenVINO, as pipelines: one file's graph in place of the networks.

The graph takes padded images in [0, 1] and gives raw maps in our axes. What is before and after it (reading, sizes, regions,
the task's decoding) is GenPerceptPipeline's own code. Settings are a JSON object in the file's metadata, so that no other
file is needed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn, Self, cast

import numpy as np
import torch
from torch import Tensor, nn

from genpercept.models.paradigms import PARADIGMS, Paradigm
from genpercept.pipeline.call import Run
from genpercept.pipeline.graphs import FORMATS, INPUT, KEY, MARKER, OUTPUT, SUFFIXES, Graph, find, read_info
from genpercept.pipeline.pipeline import GenPerceptPipeline
from genpercept.tasks import TASKS

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


def load(path: Path, dtype: torch.dtype | None = None, device: str = "cpu") -> ExportedPipeline:
    """The pipeline over a file. dtype: what OpenVINO computes in; ONNX Runtime computes in the file's own (None or float32).

    ValueError for a file that is damaged or not ours, and for a device or dtype that its runtime does not offer.
    """
    info = read_info(path) | {"model": str(path)}
    return ExportedPipeline(FORMATS[path.suffix.lower()][1](path, dtype, device), info)


class ExportedPipeline(GenPerceptPipeline):
    """GenPerceptPipeline's call over a graph: one paradigm, one prompt, one device, no parts that could be changed or saved."""

    def __init__(self, graph: Graph | None = None, info: dict[str, Any] | None = None) -> None:
        """Use `genpercept.load`. The parent takes arguments without a default for modules, hence the defaults."""
        super(GenPerceptPipeline, self).__init__()
        if graph is None or info is None:
            raise ValueError("ExportedPipeline needs a graph and its settings: build it with genpercept.load")
        self.register_modules(**{part: cast(nn.Module, None) for part in ("unet", "vae", "head")})
        self.info, self._graph = info, graph
        self.task, self.resolution = str(info["task"]), int(info["resolution"])
        self._task = TASKS.find(self.task).with_options(**(info.get("task_options") or {}))

    @property
    def stride(self) -> int:
        """Pixels of which padded sizes are multiples."""
        return int(self.info["export"]["stride"])

    @property
    def device(self) -> torch.device:
        """Where images and raw maps are, which is the CPU; the graph may run elsewhere."""
        return torch.device("cpu")

    @property
    def _execution_device(self) -> torch.device:
        """diffusers asks the parts, which a graph has not."""
        return self.device

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

    def _forward(self, image_BCHW: Tensor, run: Run, latents: Tensor | None) -> Tensor:
        h, w = image_BCHW.shape[-2:]
        if h % self.stride or w % self.stride:
            raise ValueError(
                f"{h} x {w} pixels: an exported model takes multiples of {self.stride}; leave resize_mode at 'fit'"
            )
        return torch.from_numpy(self._graph(np.ascontiguousarray(image_BCHW.numpy())))

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """As it is on the CPU. ValueError for anything else: device and dtype are chosen when it is loaded."""
        if any(str(x) not in ("cpu", "auto") for x in (*args, *kwargs.values())):
            raise ValueError(
                "an exported model cannot be moved or cast: pass device= and torch_dtype= to genpercept.load"
            )
        return self

    def maybe_free_model_hooks(self) -> None:
        """There are none."""

    def _refused(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise ValueError(
            f"{self.info['model']}: is an exported graph without parts: use the model it was exported from"
        )

    save_pretrained = with_codec = enable_model_cpu_offload = enable_sequential_cpu_offload = _refused
