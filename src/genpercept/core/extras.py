"""Optional packages: which extra of ours brings each, and what to say where one is not installed."""

from __future__ import annotations

from importlib.util import find_spec

from genpercept.core.texts import one_line

# extra -> what it brings, by the names under which it is imported; `genpercept doctor` lists them in this order
EXTRAS: dict[str, tuple[str, ...]] = {
    "synthetic": ("numba", "skimage"),
    "train": ("accelerate", "peft", "tensorboard"),
    "demo": ("sklearn",),
    "video": ("av", "cv2"),
    "evaluate": ("py_sod_metrics", "pycocotools", "cv2"),
    "matting": ("pymatting",),
    "mesh": ("trimesh",),
    "show": ("viser",),
    "exr": ("OpenEXR",),
    "heic": ("pillow_heif",),
    "tiff": ("tifffile",),
    "data": ("h5py",),
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("openvino", "nncf"),
    "torchao": ("torchao",),
    "ray": ("ray",),
    "plot": ("matplotlib",),
    "serve": ("fastapi", "fastapi_offline", "uvicorn", "python_multipart", "prometheus_client"),
    "app": ("gradio",),
}
_EXTRA_OF = {package: extra for extra, packages in EXTRAS.items() for package in packages}


def install(extra: str) -> str:
    """The line that installs an extra."""
    return f"pip install 'genpercept[{extra}]'"


def require(extra: str) -> None:
    """ModuleNotFoundError for the first of an extra's packages that is not installed, before any work is done for nothing."""
    for package in EXTRAS[extra]:
        if find_spec(package) is None:
            raise ModuleNotFoundError(f"No module named {package!r}", name=package)


def explain(error: ImportError) -> str | None:
    """An import that failed for want of an optional package, on one line; None where it failed for another reason.

    An ImportError of our own says what to do already.
    """
    package = (error.name or "").partition(".")[0]
    if package not in _EXTRA_OF:
        text = one_line(error)
        return text if "pip install" in text else None
    advice = install(_EXTRA_OF[package])
    if isinstance(error, ModuleNotFoundError):
        return f"this needs the package {package}: {advice}"
    return f"the package {package} is installed, but cannot be imported ({one_line(error)}); try {advice}"
