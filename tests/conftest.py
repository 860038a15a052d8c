"""Fixtures of several rooms. Models are loaded once for all tests of a process: leave them as they are, or take a copy."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest

import genpercept
from genpercept.commands import cli
from tests.support import strangers
from tests.support.commands import Call
from tests.support.paths import GOLDEN, SD_TINY

if TYPE_CHECKING:
    from genpercept import GenPerceptPipeline

# Before torch is imported, and for the processes that tests start: with tensors as small as these, several threads wait for
# each other longer than they work, the more so beside another worker of pytest.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# What is started in the background of a shell ignores Ctrl-C, and so would everything that these tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def threads_of_its_own() -> Iterator[None]:
    """A test that tells torch another number of threads leaves the former one to the next."""
    if "torch" not in sys.modules:
        yield
        return
    from genpercept.core.devices import threads_kept

    with threads_kept():
        yield


@pytest.fixture(scope="session")
def depth() -> GenPerceptPipeline:
    """The tiny base as a predictor of depth in one step, at an image's own size."""
    return genpercept.GenPerceptPipeline.from_base(SD_TINY, "depth", resolution=0)


@pytest.fixture(scope="session")
def saved(depth: GenPerceptPipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its folder."""
    folder = tmp_path_factory.mktemp("saved") / "depth"
    depth.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def taesd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny autoencoder of random weights."""
    from tests.support.tiny_codec import tiny  # and torch

    folder = tmp_path_factory.mktemp("taesd")
    cast(Any, tiny()).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def official() -> dict[str, np.ndarray]:
    """Answers of the public GenPercept code over the tiny base, and the images that it was asked."""
    with np.load(GOLDEN / "one_step.npz") as one_step, np.load(GOLDEN / "dpt.npz") as dpt:
        return dict(one_step) | dict(dpt)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """`genpercept WORD...` in this process, which has torch already: exit code, stdout, stderr."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)  # pytest's own handlers stay
    monkeypatch.setattr(
        cli, "leave_at_second", lambda: None
    )  # this process is no program: others of its tests interrupt it

    def genpercept(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["genpercept", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        captured = capsys.readouterr()
        return int(stop.value.code or 0), captured.out, captured.err

    return genpercept


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Iterator[strangers.Install]:
    """Makes objects, {group: {name: object}}, found as those of another installed package."""
    yield partial(strangers.install, monkeypatch)
    strangers.forget()
