"""Cut-outs: the foreground alone, as RGBA, with its own colours estimated where it mixes with the background.

Multi-level foreground estimation (Germer et al. 2020), by PyMatting.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import threading
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np

from genpercept.core.said import say

_MODULE = "pymatting.foreground.estimate_foreground_ml"
_loading = (
    threading.Lock()
)  # several images are written at once, and a module that is being loaded has no functions yet


def cutout(image: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Image (H, W, 3) uint8 or float in [0, 1] and alpha (H, W) in [0, 1] -> RGBA (H, W, 4) uint8.

    Without the estimate, hair and glass keep the old background's colours. ValueError for sizes that differ, or when PyMatting
    is missing.
    """
    with _loading:
        estimate_foreground_ml = _estimator()
    if image.shape[:2] != alpha.shape:
        raise ValueError(f"an image of {image.shape[:2]} pixels for an alpha of {alpha.shape}: give its own")
    rgb = image.astype(np.float64) / (255 if image.dtype == np.uint8 else 1)
    a = alpha.astype(np.float64).clip(0, 1)
    # One pixel has no neighbours to tell its colours from, and PyMatting divides by its size less one.
    foreground = rgb if a.size == 1 else np.asarray(estimate_foreground_ml(rgb, a))
    return np.rint(np.concatenate([foreground.clip(0, 1), a[..., None]], -1) * 255).astype(np.uint8)


@cache
def _estimator() -> Callable[..., Any]:
    """PyMatting's estimate_foreground_ml, from its own file: the package's __init__ compiles all its other algorithms, too.

    ValueError where it is not installed.
    """
    if _MODULE not in sys.modules:
        package = find_spec("pymatting")
        if package is None or not package.submodule_search_locations:
            raise ValueError("cut-outs need PyMatting: pip install 'genpercept[matting]'")
        file = Path(package.submodule_search_locations[0], *_MODULE.split(".")[1:]).with_suffix(".py")
        spec = spec_from_file_location(_MODULE, file)
        assert spec is not None and spec.loader is not None
        _announce(file)
        sys.modules[_MODULE] = module = module_from_spec(spec)  # numba's cache looks its functions up by this name
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[_MODULE]
            raise
    return sys.modules[_MODULE].estimate_foreground_ml


def _announce(file: Path) -> None:
    """Say that numba compiles the file, which takes a while, unless it has done so before."""
    beside, home = file.parent / "__pycache__", Path("~/.cache/numba").expanduser()
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    version = sysconfig.get_python_version().replace(".", "")
    compiled = f"{file.stem}.*.py{version}.nbi"
    folders = [Path(chosen)] if chosen else [beside, home]
    if not any(any(folder.glob(p)) for folder in folders for p in (compiled, f"{file.parent.name}_*/{compiled}")):
        place = chosen or (beside if os.access(file.parent, os.W_OK) else home)
        say(f"cut-outs: compiling once for this machine, about 20 s; kept in {place}")
