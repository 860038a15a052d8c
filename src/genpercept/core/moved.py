"""Import paths of before the rooms: each answers for this version, with a DeprecationWarning that names the new one."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from importlib.abc import InspectLoader, Loader

MOVED = {
    "adapters": "models.adapters",
    "bases": "pipeline.base_model",
    "bench": "commands.bench.run",
    "checkpoint": "checkpoints.parts",
    "classes": "core.classes",
    "cli": "commands.cli",
    "datacheck": "commands.data.check",
    "datalist": "commands.data.list",
    "datasheet": "commands.data.sheet",
    "demo": "commands.demo.photographs",
    "devices": "core.devices",
    "doctor": "commands.doctor.run",
    "downloads": "checkpoints.stand_ins",
    "ensemble": "pipeline.ensemble",
    "evaluate": "commands.evaluate.run",
    "export": "commands.export.run",
    "exported": "pipeline.exported",
    "hub": "checkpoints.hub",
    "imaging.inputs": "commands.files.inputs",
    "imaging.jobs": "commands.files.results",
    "inspect": "commands.inspect.show",
    "loading": "pipeline.loading",
    "lowrank": "checkpoints.lowrank",
    "names": "core.names",
    "options": "core.options",
    "pickles": "checkpoints.pickles",
    "plugins": "core.registry",
    "predict": "commands.predict.run",
    "prediction": "imaging.prediction",
    "recipe": "training.recipe",
    "report": "imaging.html",
    "rng": "core.rng",
    "score": "commands.score.run",
    "specialising": "pipeline.specialise.pipeline",
    "study": "commands.study.plan",
    "train": "training.loop",
    "types": "core.values",
}
# Folders of plugins: what lay in the old folder lies in the new one by the same name.
FOLDERS = {
    "backbones": "models.backbones",
    "codecs": "models.codecs",
    "datasets": "data",
    "detectors": "models.detectors",
    "families": "pipeline.families",
    "heads": "models.heads",
    "losses": "training.losses",
    "paradigms": "models.paradigms",
    "text": "models.text",
}
# Modules that `python -m` ran, where what it runs is another module now than what an import gives.
PROGRAMS = {"train": "training.__main__"}
_PACKAGE = "genpercept."


def target(name: str) -> str | None:
    """Where the module that was `genpercept.<name>` is today; None where it has not moved."""
    if name in MOVED:
        return MOVED[name]
    folder, _, rest = name.partition(".")
    return ".".join(filter(None, (FOLDERS[folder], rest))) if folder in FOLDERS else None


class _Finder:
    """Answers an old name with the module itself, never a second copy of it: classes stay the same objects.

    A finder and a loader by what it has; importlib.abc, whose classes say so, doubles the time of `import genpercept`.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, module: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith(_PACKAGE) or target(fullname.removeprefix(_PACKAGE)) is None:
            return None
        return ModuleSpec(fullname, cast("Loader", self))

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        new = f"{_PACKAGE}{target(spec.name.removeprefix(_PACKAGE))}"
        warnings.warn(f"{spec.name} is {new} now; the old name ends with the next version", DeprecationWarning, 2)
        module = importlib.import_module(new)
        spec.loader_state = module.__spec__  # the machinery writes its own over it
        return module

    def get_code(self, fullname: str) -> CodeType | None:
        """For `python -m` of an old name."""
        name = fullname.removeprefix(_PACKAGE)
        new = f"{_PACKAGE}{PROGRAMS.get(name) or target(name)}"
        print(
            f"{fullname} is {new.removesuffix('.__main__')} now; the old name ends with the next version",
            file=sys.stderr,
        )
        from importlib.util import find_spec

        spec = find_spec(new)
        return cast("InspectLoader", spec.loader).get_code(new) if spec is not None else None

    def exec_module(self, module: ModuleType) -> None:
        own: Any = module.__spec__
        if own is not None and own.loader_state is not None:
            module.__spec__ = own.loader_state


def answer() -> None:
    """Begin to answer old names. First in line: the finder of files would load a moved folder's modules a second time."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
