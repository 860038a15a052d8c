"""Model folders that anybody may have made: each that is hostile is refused in one line, before anything is built of it."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import genpercept
from genpercept.checkpoints import budget, regular, schema
from genpercept.checkpoints.parts import read_json
from genpercept.commands.inspect.show import inspect
from tools.campaigns import _hostile_cases as hostile

CASES = {case.title: case for case in hostile.cases()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("whole")
    hostile.starts(root)
    return root


@pytest.mark.skipif(sys.platform == "win32", reason="named pipes, sockets and /dev")
@pytest.mark.timeout(60)  # no case may be read to its end: 400 GB would take minutes
@pytest.mark.parametrize("title", CASES)
def test_a_hostile_folder_is_one_line(title: str, whole: Path, tmp_path: Path) -> None:
    """A pipe that were opened would hang; a million layers would, too."""
    case, work = CASES[title], tmp_path / "w"
    shutil.copytree(whole / case.start, work)
    case.damage(work)
    options: dict[str, Any] = {k: work / v if k == "base" else v for k, v in case.options.items()}
    if case.loads:
        genpercept.load(work / "m", device="cpu", **options)
    else:
        with pytest.raises(ValueError, match=r".") as error:
            genpercept.load(work / "m", device="cpu", **options)
        assert str(error.value).isprintable()  # no line breaks, nothing that a terminal obeys
        try:
            problems = inspect(work / "m", **options).problems
        except ValueError as refused:
            problems = [str(refused)]
        assert problems and all(line.isprintable() for line in problems)
    assert not (work / "canary").exists()


@pytest.mark.parametrize("start", ["clip", "dinov2", "dpt", "pair", "pixart", "pose"])
def test_the_whole_ones_are_whole(start: str, whole: Path) -> None:
    assert not inspect(whole / start / "m").problems
    genpercept.load(whole / start / "m", device="cpu")


def test_the_cases_found_by_users(tmp_path: Path) -> None:
    """A copy of mini/depth, with a part that is a number, one that is null, and a million layers."""
    from genpercept.checkpoints import hub

    shutil.copytree(hub.embedded_root(), tmp_path / "mini")
    model = tmp_path / "mini" / "depth"
    manifest = json.loads((model / "genpercept.json").read_text())
    for entry, key in ((None, "parts.unet"), ({**manifest["parts"]["unet"], "path": 5}, "parts.unet.path")):
        changed = {**manifest, "parts": {**manifest["parts"], "unet": entry}}
        (model / "genpercept.json").write_text(json.dumps(changed))
        with pytest.raises(ValueError, match=rf"genpercept\.json: {key} is (None|5): must be"):
            genpercept.load(model, device="cpu")
    (model / "genpercept.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r"part 'vae' lies outside the model's folder \(\.\./base/vae\)"):
        genpercept.load(model, device="cpu")  # only what comes with the package may share parts so


def test_the_hubs_cache_may_link_its_blobs(tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "models--a--b" / "blobs", tmp_path / "models--a--b" / "snapshots" / "1"
    (snapshot / "unet").mkdir(parents=True)
    blobs.mkdir()
    (blobs / "abc").write_text('{"a": 1}')
    (snapshot / "unet" / "config.json").symlink_to("../../../blobs/abc")
    (snapshot / "model_index.json").symlink_to("../../blobs/abc")
    (tmp_path / "linked").symlink_to(snapshot)
    for path in (snapshot / "unet", tmp_path / "linked" / "unet"):
        assert read_json(path / "config.json") == {"a": 1}
    assert read_json(snapshot / "model_index.json") == {"a": 1}
    (tmp_path / "elsewhere").write_text('{"a": 1}')
    (snapshot / "other.json").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"a link to .*elsewhere, outside of its folder"):
        read_json(snapshot / "other.json")
    (snapshot / "beside.json").symlink_to("model_index.json")
    assert read_json(snapshot / "beside.json") == {"a": 1}


def test_a_file_is_read_up_to_its_bound(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(b'{"a": "' + b"x" * (regular.SETTINGS - 9) + b'"}')
    assert len(read_json(path)["a"]) == regular.SETTINGS - 9
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(ValueError, match="is larger than 2 MB"):
        read_json(path)
    path.write_text('{"a": ' + "[" * 31 + "]" * 31 + "}")
    read_json(path)
    path.write_text('{"a": ' + "[" * 32 + "]" * 32 + "}")
    with pytest.raises(ValueError, match="more than 32 deep"):
        read_json(path)


def test_modules_are_bounded_by_what_fills_them() -> None:
    layer = {"weight": (8, 8), "bias": (8,)}
    with torch.device("meta"), budget.of(layer):
        nn.Linear(8, 8)
    with torch.device("meta"), pytest.raises(budget.Exceeded, match="more layers than 2 stored"), budget.of(layer):
        nn.Sequential(*(nn.Linear(8, 8) for _ in range(100)))
    with torch.device("meta"), pytest.raises(budget.Exceeded, match="larger layers"), budget.of(layer):
        nn.Linear(10_000, 10_000)
    with pytest.raises(budget.Exceeded, match="more layers"), budget.of(layer):
        nn.ModuleList(nn.Identity() for _ in range(10_000))
    nn.ModuleList(nn.Linear(2, 2) for _ in range(100))  # outside, nothing is counted


def test_settings_are_what_their_class_says(tmp_path: Path) -> None:
    def network(width: int = 4, names: tuple[str, ...] = (), scale: float = 1, on: bool = False) -> None: ...

    path = tmp_path / "config.json"
    schema.check_arguments(path, {"width": 8, "names": ["a"], "scale": 2, "on": None, "other": object()}, network)
    for wrong, words in (
        ({"width": True}, "width is True: must be an integer from 0 to 10000000"),
        ({"width": 1.0}, r"width is 1\.0: must be an integer"),
        ({"names": "a"}, "names is 'a': must be a list of at most 128, each a short text"),
        ({"names": ["a"] * 129}, "names is "),
        ({"scale": 1e30}, "scale is 1e[+]30: must be a number"),
        ({"on": 1.5}, "on is 1.5: must be true or false"),
    ):
        with pytest.raises(ValueError, match=words):
            schema.check_arguments(path, wrong, network)


def test_a_weights_pipe_never_waits(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="is a named pipe, not a file"):
        regular.opened(tmp_path / "pipe")
