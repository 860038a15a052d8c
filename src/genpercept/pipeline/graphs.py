"""Files that `genpercept export` wrote for ONNX Runtime or OpenVINO: found, their settings read, and made ready to run.

Nothing here needs torch, but to find accelerators. The predictor over such a file is `exported`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

import numpy as np

from genpercept.checkpoints import onnx_metadata, parts, stand_ins
from genpercept.core import devices, dtypes
from genpercept.core.texts import one_line
from genpercept.pipeline import manifest

if TYPE_CHECKING:
    import torch

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


def pick_device(path: Path, device: str) -> str:
    """The device for the graph in a file: "auto" is the CPU, unless its runtime knows accelerators and one is there.

    ValueError for one that is not there.
    """
    if device == "auto" and not FORMATS[path.suffix.lower()].accelerated():
        return "cpu"
    return devices.pick_device(device)


def read_info(path: Path) -> dict[str, Any]:
    """The settings in a file's metadata, as genpercept.json has them, with `export`. ValueError for a file that has none."""
    text = FORMATS[path.suffix.lower()].metadata(path)
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


# ---- ONNX Runtime ----------------------------------------------------------------------------------------------------


def _onnx_metadata(path: Path) -> str:
    try:
        return onnx_metadata.read(path).get(KEY, "")
    except (ValueError, OSError) as error:
        raise _damaged(path, error) from None


class _OnnxRuntime:
    def __init__(self, path: Path, dtype: torch.dtype | str | None, device: str) -> None:
        import onnxruntime

        if dtype is not None and dtypes.torch_name(dtype) != "float32":
            raise ValueError(f"{path}: its dtype was chosen when it was exported: leave the dtype out, or export again")
        kind, _, number = device.partition(":")
        provider = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}.get(kind, kind)
        if provider not in onnxruntime.get_available_providers():
            raise ValueError(
                f"{path}: this ONNX Runtime cannot use {device!r}: pass device cpu, or install one that can"
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = devices.threads()
        options.log_severity_level = 3  # its warnings are about how it folds constants
        chosen = [(provider, {"device_id": int(number or 0)})] if kind == "cuda" else [provider]
        try:
            self.session = onnxruntime.InferenceSession(path, options, providers=chosen)
        except _onnx_errors() as error:
            raise _damaged(path, error) from None

    def __call__(self, image_BCHW: np.ndarray) -> np.ndarray:
        return cast(np.ndarray, self.session.run([OUTPUT], {INPUT: image_BCHW})[0])


def _onnx_accelerated() -> bool:
    import onnxruntime

    return "CUDAExecutionProvider" in onnxruntime.get_available_providers()


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
    def __init__(self, path: Path, dtype: torch.dtype | str | None, device: str) -> None:
        import openvino

        kind = device.partition(":")[0]
        if kind != "cpu":
            raise ValueError(f"{path}: OpenVINO models run on the CPU here, not on {device!r}: pass device cpu")
        # without it OpenVINO computes in bf16 wherever the processor has it
        options = {
            "INFERENCE_PRECISION_HINT": dtypes.to_openvino(dtype),
            "INFERENCE_NUM_THREADS": devices.threads(),
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


class Format(NamedTuple):
    """What a suffix means. metadata: our settings in a file, "" where it has none. accelerated: whether its runtime, as it is
    installed, runs on more than CPUs. ready: the graph in a file, in a dtype, on a device."""

    metadata: Callable[[Path], str]
    accelerated: Callable[[], bool]
    ready: Callable[[Path, torch.dtype | str | None, str], Graph]


FORMATS: Mapping[str, Format] = {
    SUFFIXES["onnx"]: Format(_onnx_metadata, _onnx_accelerated, _OnnxRuntime),
    SUFFIXES["openvino"]: Format(_openvino_metadata, lambda: False, _OpenVino),
}
