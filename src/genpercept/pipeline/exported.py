"""Models that `genpercept export` wrote for ONNX Runtime or OpenVINO, as pipelines: one file's graph in place of the networks.

The graph takes padded images in [0, 1] and gives raw maps in our axes. What is before and after it (reading, sizes, regions,
the task's decoding) is GenPerceptPipeline's own code. Settings are a JSON object in the file's metadata, so that no other
file is needed.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Lock
from typing import Any, NoReturn, Protocol, Self, cast

import numpy as np
import torch
from torch import Tensor, nn

from genpercept.checkpoints import parts, stand_ins
from genpercept.core import dtypes
from genpercept.core.texts import one_line
from genpercept.models.paradigms import PARADIGMS, Paradigm
from genpercept.pipeline import manifest
from genpercept.pipeline.call import Run
from genpercept.pipeline.pipeline import GenPerceptPipeline
from genpercept.tasks import TASKS

KEY = "genpercept"  # of the metadata
MARKER = "genpercept_export.json"  # what tells an export from a folder of someone else's
INPUT, OUTPUT = "image", "raw"
SUFFIXES = {"onnx": ".onnx", "openvino": ".xml"}  # of the files that export targets write
_LARGEST_STRIDE = 4096  # pixels
_SHOWN = 160  # letters of another library's message


class Graph(Protocol):
    """A network in a file, ready to run."""

    def __call__(self, image_BCHW: np.ndarray) -> np.ndarray:
        """Padded images (B, 3, H, W) float32 in [0, 1] -> raw maps (B, C, h, w) float32."""
        ...


def find(name: str | Path) -> Path | None:
    """The graph's file that `name` is, or the one that the folder `name` was exported as; None for all other models."""
    path = Path(name).expanduser()
    if path.is_file():
        return path if path.suffix.lower() in FORMATS else None
    if not (path / MARKER).is_file():
        return None
    return next((p for p in sorted(path.iterdir()) if p.suffix.lower() in FORMATS), None)


def read_info(path: Path) -> dict[str, Any]:
    """The settings in a file's metadata, as genpercept.json has them, with `export`. ValueError for a file that has none."""
    text = FORMATS[path.suffix.lower()][0](path)
    if not text:
        raise ValueError(
            f"{path}: was not written by `genpercept export`: nothing in it says what it predicts; export the model again"
        )
    info = stand_ins.parse(text, path)
    if info.get("format") != parts.FORMAT:
        raise ValueError(f"{path}: of format {info.get('format')}, not {parts.FORMAT}: update genpercept")
    manifest.check_settings(path, info)
    stride = info["export"].get("stride") if isinstance(info.get("export"), dict) else None
    if not isinstance(stride, int) or not 1 <= stride <= _LARGEST_STRIDE:
        raise ValueError(f"{path}: its settings of the export have stride {stride!r}; export the model again")
    return info


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


# ---- ONNX Runtime ----------------------------------------------------------------------------------------------------


def _onnx_metadata(path: Path) -> str:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, OSError) as error:
        raise _damaged(path, error) from None
    return next((entry.value for entry in model.metadata_props if entry.key == KEY), "")


class _OnnxRuntime:
    def __init__(self, path: Path, dtype: torch.dtype | None, device: str) -> None:
        import onnxruntime

        if dtype not in (None, torch.float32):
            raise ValueError(f"{path}: its dtype was chosen when it was exported: leave the dtype out, or export again")
        kind, _, number = device.partition(":")
        provider = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}.get(kind, kind)
        if provider not in onnxruntime.get_available_providers():
            raise ValueError(
                f"{path}: this ONNX Runtime cannot use {device!r}: pass device cpu, or install one that can"
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3  # its warnings are about how it folds constants
        chosen = [(provider, {"device_id": int(number or 0)})] if kind == "cuda" else [provider]
        try:
            self.session = onnxruntime.InferenceSession(path, options, providers=chosen)
        except _onnx_errors() as error:
            raise _damaged(path, error) from None

    def __call__(self, image_BCHW: np.ndarray) -> np.ndarray:
        return cast(np.ndarray, self.session.run([OUTPUT], {INPUT: image_BCHW})[0])


def _onnx_errors() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises for a file that it cannot run; its classes share no base of their own."""
    state: Any = importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    return state.Fail, state.InvalidProtobuf, state.InvalidGraph, state.NoSuchFile, state.RuntimeException


# ---- OpenVINO --------------------------------------------------------------------------------------------------------


def _openvino_metadata(path: Path) -> str:
    import openvino

    try:
        model = openvino.Core().read_model(path)
    except RuntimeError as error:
        raise _damaged(path, error) from None
    return str(model.get_rt_info(KEY).value) if model.has_rt_info(KEY) else ""


class _OpenVino:
    def __init__(self, path: Path, dtype: torch.dtype | None, device: str) -> None:
        import openvino

        kind = device.partition(":")[0]
        if kind != "cpu":
            raise ValueError(f"{path}: OpenVINO models run on the CPU here, not on {device!r}: pass device cpu")
        # without it OpenVINO computes in bf16 wherever the processor has it
        options = {
            "INFERENCE_PRECISION_HINT": dtypes.to_openvino(dtype),
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        try:
            self.model = openvino.Core().compile_model(path, "CPU", options)
        except RuntimeError as error:
            raise _damaged(path, error) from None
        self.one_at_a_time = Lock()  # a compiled model has one request, which refuses a second call

    def __call__(self, image_BCHW: np.ndarray) -> np.ndarray:
        with self.one_at_a_time:
            return np.array(self.model([image_BCHW])[OUTPUT])  # a copy: the next call overwrites the runtime's own


def _damaged(path: Path, error: Exception) -> ValueError:
    reason = one_line(error, _SHOWN)
    return ValueError(
        f"{path}: cannot be read or run ({reason}); copy it and the file of weights beside it, or export again"
    )


FORMATS: Mapping[str, tuple[Callable[[Path], str], Callable[[Path, torch.dtype | None, str], Graph]]] = {
    SUFFIXES["onnx"]: (_onnx_metadata, _OnnxRuntime),
    SUFFIXES["openvino"]: (_openvino_metadata, _OpenVino),
}
