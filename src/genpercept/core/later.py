"""What our modules and diffusers' import at their top and do not use yet is imported when it is used.

diffusers' packages import all their modules, and these import accelerate, peft, transformers, scipy and torch's compiler: to
make one U-Net takes 2,400 modules, several seconds, of which it uses 300. Here its packages that only gather names run when
a name is asked of them, and what its modules import of other packages, at their top, is a stand-in that becomes the
real thing when it is called, read or inherited from. Our own modules are given stand-ins of torch, until somebody imports
torch; then the real thing takes the places of all of them, so that nothing is slower for it. Only the program asks for
this (`__main__`): to import genpercept changes nobody's imports.
DIFFUSERS_SLOW_IMPORT=1, diffusers' own switch, leaves all as it is.
"""

from __future__ import annotations

import builtins
import importlib
import importlib.util
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, wraps
from importlib.machinery import ModuleSpec, PathFinder
from types import CodeType, ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from genpercept.core.stand_ins import Later

if TYPE_CHECKING:
    from importlib.abc import InspectLoader, Loader

_PACKAGE, _OURS, _TORCH = "diffusers", "genpercept", "torch"
SWITCH = "DIFFUSERS_SLOW_IMPORT"
_COMPILER, _MARK = "torch._dynamo", "allow_in_graph"
# packages of diffusers that do nothing but import their modules
_GATHERS = ("hooks", "models.autoencoders", "models.controlnets", "models.transformers", "models.unets", "quantizers")
_GATHERING = frozenset(f"{_PACKAGE}.{name}" for name in _GATHERS)
# packages and modules of which its modules get stand-ins
_WAITING = (
    "accelerate",
    "peft",
    "requests",
    "scipy",
    "transformers",
    _COMPILER,
    "torch.distributed.tensor",
    f"{_PACKAGE}.loaders.single_file_utils",
    f"{_PACKAGE}.quantizers",
)
# what of diffusers gets stand-ins: networks and what they stand on. Its pipelines read their own annotations, and its loader
# of single files catches errors: those need the real things
_GIVEN = (
    "configuration_utils",
    "hooks",
    "image_processor",
    "loaders.lora_base",
    "loaders.peft",
    "loaders.single_file_model",
    "loaders.unet",
    "models",
    "pipelines.pipeline_loading_utils",
    "pipelines.pipeline_utils",
    "quantizers",
    "schedulers",
    "utils",
    "video_processor",
)
_ours_wait = [_TORCH, "safetensors.torch"]  # modules of which ours get stand-ins; `wait` adds some of ours
_METADATA, _ASKING = "importlib.metadata", f"{_PACKAGE}.utils.import_utils"
# modules that keep some of their functions from torch's compiler, which torch loads to be told so
_KEEPING = (f"{_PACKAGE}.hooks.group_offloading", f"{_PACKAGE}.pipelines.pipeline_utils")
_reading = threading.RLock()  # of a gathering package
_holding: list[dict[str, Any]] = []  # namespaces of modules with stand-ins
_there_is: set[str] = set()  # of what waits for us, what has been imported
_marked: list[Any] = []  # what diffusers has marked for torch's compiler, which is not there yet


class _Names:
    """What `from module import ...` reads its names of. package: one of ours, of which only some modules wait."""

    def __init__(self, module: str, package: ModuleType | None = None) -> None:
        self._module, self._package = module, package

    def __getattr__(self, name: str) -> Any:
        whole = f"{self._module}.{name}"
        if self._package is not None:
            return Later(whole) if _waits(whole, _ours_wait) else getattr(self._package, name)
        return _mark if whole == f"{_COMPILER}.{_MARK}" else Later(self._module, name)


def _mark(marked: Any) -> Any:
    """torch's `allow_in_graph`, which says to its compiler what not to look into: said when there is a compiler."""
    if _COMPILER in sys.modules:
        return sys.modules[_COMPILER].allow_in_graph(marked)
    _marked.append(marked)
    return marked


class _Torch(Later):
    """torch, but for `compiler.disable`, which would load the compiler."""

    @property
    def compiler(self) -> _TorchCompiler:
        return _TorchCompiler("torch.compiler")


class _TorchCompiler(Later):
    @staticmethod
    def disable(function: Callable[..., Any] | None = None) -> Callable[..., Any]:
        return _keep(function)


def _keep(function: Callable[..., Any] | None = None) -> Callable[..., Any]:
    """`torch.compiler.disable`, as a decorator with and without parentheses: asked of the compiler where there is one."""
    if function is None:
        return _keep
    kept = function

    @wraps(kept)
    def call(*args: Any, **options: Any) -> Any:
        return (sys.modules[_COMPILER].disable(kept) if _COMPILER in sys.modules else kept)(*args, **options)

    return call


def _is_compiled(asked: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Whether a module is the compiler's work, which none is where there is no compiler: to ask would load it."""
    return wraps(asked)(lambda module: _COMPILER in sys.modules and asked(module))


def _unwrapped(asked: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A module without what the compiler and peft put around it; to ask for a plain one would load peft."""
    return wraps(asked)(
        lambda module: asked(module) if "peft" in sys.modules or hasattr(module, "_orig_mod") else module
    )


class _Metadata(Later):
    """importlib.metadata, but for the table of all installed packages, which takes long to read and is rarely looked at."""

    @staticmethod
    def packages_distributions() -> Mapping[str, list[str]]:
        return _Packages()


class _Packages(Mapping[str, list[str]]):
    """Names of distributions by those of their packages."""

    @cached_property
    def _read(self) -> Mapping[str, list[str]]:
        from importlib.metadata import packages_distributions

        return packages_distributions()

    def __getitem__(self, name: str) -> list[str]:
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read)

    def __len__(self) -> int:
        return len(self._read)


def _waits(name: str, waiting: Sequence[str]) -> bool:
    top = name.partition(".")[0]
    known = name in waiting or top in waiting
    if not known or (name in sys.modules and not isinstance(sys.modules[name], _Gathering)):
        return False
    return top in sys.modules or _there(top)


def _there(package: str) -> bool:
    try:
        return PathFinder.find_spec(package) is not None
    except (ImportError, ValueError):
        return False


def _import(
    name: str,
    globals: Mapping[str, Any] | None = None,  # as __import__ calls it
    locals: Mapping[str, Any] | None = None,
    fromlist: Sequence[str] | None = (),
    level: int = 0,
) -> Any:
    """__import__ of diffusers' modules and ours. At their tops, where both namespaces are one, it gives stand-ins."""
    if globals is not None and locals is globals:
        whole = name if not level else importlib.util.resolve_name("." * level + name, str(globals["__package__"]))
        found = _stand_in(str(globals["__name__"]), whole, fromlist or ())
        if found is not None:
            return found
    return builtins.__import__(name, globals, locals, fromlist or (), level)


def _stand_in(by: str, whole: str, names: Sequence[str]) -> Any:
    """What the module `by` gets of the module `whole`; None where it gets the thing itself."""
    if by.startswith(f"{_OURS}."):
        if whole.partition(".")[0] == _TORCH and _TORCH in sys.modules:
            return None
        if not names or _waits(whole, _ours_wait):
            return _given(whole, names, _ours_wait)
        if not any(f"{whole}.{name}" in _ours_wait for name in names):
            return None
        others = [name for name in names if not _waits(f"{whole}.{name}", _ours_wait)]
        builtins.__import__(whole, fromlist=others)  # the modules among them
        return _Names(whole, importlib.import_module(whole))
    if whole == _TORCH and by in _KEEPING:
        return _Torch(whole)
    if whole == _METADATA and by == _ASKING:
        return SimpleNamespace(metadata=_Metadata(whole))  # `import importlib.metadata as ...` takes it out of this
    if by.removeprefix(f"{_PACKAGE}.").startswith(_GIVEN):
        return _given(whole, names, _WAITING)
    return None


def _given(whole: str, names: Sequence[str], waiting: Sequence[str]) -> Any:
    if not _waits(whole, waiting):
        return None
    return _Names(whole) if names else Later(whole.partition(".")[0], inside=whole)


# functions of diffusers that import a package to ask whether a module is of it, and what answers before that is there
_JUDGING = {
    f"{_PACKAGE}.utils.torch_utils": {"is_compiled_module": _is_compiled},
    f"{_PACKAGE}.pipelines.pipeline_loading_utils": {"_unwrap_model": _unwrapped},
}
_BUILTINS = vars(builtins) | {"__import__": _import}


class _Gathering(ModuleType):
    """A package whose file has not run yet. Its modules can be imported; any name of its own has it run."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        with _reading:
            if isinstance(self, _Gathering):
                object.__setattr__(self, "__class__", ModuleType)
                spec = cast(ModuleSpec, self.__spec__)
                cast(_Loader, spec.loader).run(self)
        return getattr(self, name)


class _Loader:
    """Python's own loader of a module, but for when the module runs, and what its top imports."""

    def __init__(self, own: Any) -> None:
        self._own = own

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return _Gathering(spec.name) if spec.name in _GATHERING else None

    def exec_module(self, module: ModuleType) -> None:
        if not isinstance(module, _Gathering):
            self.run(module)

    def run(self, module: ModuleType) -> None:
        names = vars(module)
        names["__builtins__"] = _BUILTINS
        self._own.exec_module(module)
        if module.__name__ in _ours_wait:
            _arrived(module.__name__)
        if module.__name__.startswith(f"{_OURS}.") and not _settle(names):
            _holding.append(names)
        for name, instead in _JUDGING.get(module.__name__, {}).items():
            names[name] = instead(names[name])

    def get_code(self, fullname: str) -> CodeType | None:
        return cast("InspectLoader", self._own).get_code(fullname)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)  # get_source, get_data, path, ...


class _TorchLoader(_Loader):
    """Of torch: it takes the places of its stand-ins."""

    def run(self, module: ModuleType) -> None:
        self._own.exec_module(module)
        _arrived(_TORCH)


def _arrived(module: str) -> None:
    """It has been imported: it takes the places of its stand-ins in our modules."""
    _there_is.add(module)
    _holding[:] = [names for names in _holding if not _settle(names)]


def _settle(names: dict[str, Any]) -> bool:
    """Put what has been imported in the places of its stand-ins. Whether no other stand-in is left in this namespace."""
    waiting = [(name, value) for name, value in [*names.items()] if type(value) is Later]
    ready = {name: value._real() for name, value in waiting if value._module.removeprefix("safetensors.") in _there_is}
    ready |= {
        name: value._real() for name, value in waiting if value._module.startswith(f"{_TORCH}.") and _TORCH in _there_is
    }
    names.update(ready)
    return len(ready) == len(waiting)


class _CompilerLoader(_Loader):
    """Of torch's compiler: it is told what has been marked for it."""

    def run(self, module: ModuleType) -> None:
        self._own.exec_module(module)
        while _marked:
            module.allow_in_graph(_marked.pop())


class _Finder:
    """A finder by what it has, as core.moved's."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, module: ModuleType | None = None
    ) -> ModuleSpec | None:
        chosen: Callable[[Any], _Loader]
        if fullname.startswith((f"{_PACKAGE}.", f"{_OURS}.")):
            chosen = _Loader
        elif fullname == _TORCH:
            chosen = _TorchLoader
        elif fullname == _COMPILER:
            chosen = _CompilerLoader
        else:
            return None
        spec = PathFinder.find_spec(fullname, path)
        if spec is not None and spec.loader is not None:
            spec.loader = cast("Loader", chosen(spec.loader))
        return spec


def wait(*ours: str) -> None:
    """From now on imports wait. Nothing changes where diffusers has been imported already. ours: heavy modules of ours."""
    if _PACKAGE in sys.modules or os.environ.get(SWITCH, "").upper() in ("1", "ON", "YES", "TRUE"):
        return
    _ours_wait[:] = dict.fromkeys((*_ours_wait, *ours))
    if _TORCH in sys.modules:
        _there_is.add(_TORCH)
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
