"""The command line, and scripts beside it, in this process."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from click.testing import CliRunner, Result

from genpercept.commands.cli import cli
from tests.support.paths import ROOT

Call = Callable[..., tuple[int, str, str]]  # of the fixture `call`: words to exit code, stdout, stderr


def invoke(*words: str | Path) -> Result:
    """The command's return value, or its exception, before the command line makes an exit code and a line of it."""
    return CliRunner().invoke(cli, [*map(str, words)], standalone_mode=False)


def script(name: str) -> ModuleType:
    """benchmarks/NAME.py, which is in no package."""
    path = ROOT / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"benchmark_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # for dataclasses
    spec.loader.exec_module(module)
    return module
