"""Single files of PyMatting, loaded by themselves: the package's __init__ compiles all of its algorithms, for minutes."""

from __future__ import annotations

import os
import sys
import sysconfig
import threading
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from genpercept.core.said import say

# several images are written at once, and a module that is being loaded has no functions yet
_loading = threading.Lock()


def load(module: str, what: str) -> ModuleType:
    """The module of this name inside the package, such as "foreground.estimate_foreground_ml". what: needs it, for messages.

    It must import nothing of PyMatting's. ValueError where PyMatting is not installed.
    """
    with _loading:
        name = f"pymatting.{module}"
        if name not in sys.modules:
            _run(name, what)
        return sys.modules[name]


def _run(name: str, what: str) -> None:
    package = find_spec("pymatting")
    if package is None or not package.submodule_search_locations:
        raise ValueError(f"{what} need PyMatting: pip install 'genpercept[matting]'")
    file = Path(package.submodule_search_locations[0], *name.split(".")[1:]).with_suffix(".py")
    spec = spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    _announce(file, what)
    sys.modules[name] = module = module_from_spec(spec)  # numba's cache looks its functions up by this name
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise


def _announce(file: Path, what: str) -> None:
    """Say that numba compiles the file, which takes a while, unless it has done so before."""
    beside, home = file.parent / "__pycache__", Path("~/.cache/numba").expanduser()
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    version = sysconfig.get_python_version().replace(".", "")
    compiled = f"{file.stem}.*.py{version}.nbi"
    folders = [Path(chosen)] if chosen else [beside, home]
    if not any(any(folder.glob(p)) for folder in folders for p in (compiled, f"{file.parent.name}_*/{compiled}")):
        place = chosen or (beside if os.access(file.parent, os.W_OK) else home)
        say(f"{what}: compiling once for this machine, about 20 s; kept in {place}")
