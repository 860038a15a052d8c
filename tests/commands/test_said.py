"""One rule for all commands: the result on stdout, notes on stderr, --quiet, --verbose, --json; short options; completion."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rich_click as click
from click.shell_completion import ShellComplete
from PIL import Image

from genpercept.commands import cli
from genpercept.core import said
from tests.support.commands import Call


def commands(group: click.Group, before: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*before, name))
        else:
            yield (*before, name), command


ALL = dict(commands(cli.cli))


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_every_command_has_the_same_four_and_the_same_short_ones(words: tuple[str, ...]) -> None:
    options = [param for param in ALL[words].params if isinstance(param, click.Option)]
    names = {name for option in options for name in option.opts}
    assert {"--json", "--quiet", "-q", "--verbose", "-v", "--debug"} <= names
    short = {"--out": "-o", "--model": "-m", "--task": "-t"}
    assert all(short[option.opts[0]] in option.opts for option in options if option.opts[0] in short)


def test_quiet_and_json(call: Call, tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(photo)
    code, out, err = call("predict", photo, "-o", tmp_path / "a", "-q")
    assert (code, out, err) == (0, "", "")
    assert said.VARIABLE not in os.environ
    code, out, err = call("predict", photo, "-o", tmp_path / "b", "--json")
    found, files = (
        json.loads(out),
        {"png": "photo_depth.png", "color": "photo_depth_color.png", "json": "photo_depth.json"},
    )
    assert (
        code == 0 and (found["predicted"], found["failed"], found["exit_code"]) == (1, 0, 0) and "predicted in" in err
    )
    there = {name: str(tmp_path / "b" / file) for name, file in files.items()}
    assert found["images"] == [{"image": str(photo), "files": there}] and all(map(os.path.exists, there.values()))
    broken = tmp_path / "broken.png"
    broken.write_bytes(photo.read_bytes()[:40])
    code, out, err = call("predict", photo, broken, "-o", tmp_path / "d", "--json")
    found = json.loads(out)
    assert code == found["exit_code"] == 1 and found["failed"] == 1 and str(broken) in found["images"][1]["error"]
    code, out, err = call("predict", photo, "-o", tmp_path / "one_depth.png", "--json")
    assert json.loads(out)["images"][0]["files"] == {"png": str(tmp_path / "one_depth.png")}
    code, out, err = call("predict", tmp_path / "none.png", "-o", tmp_path / "c", "--quiet")
    assert code == 2 and err.startswith("genpercept: error: ")


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (("data", "list"), 0),
        (("inspect", "mini/depth"), "parts"),
        (("train", "mini/depth", "--dry-run"), "plan"),
        (("train", "--list"), "lines"),
        (("--json", "study", "--list"), "lines"),
    ],
    ids=str,
)
def test_json_is_one_document(words: tuple[str, ...], key: str | int, call: Call) -> None:
    _, out, _ = call(*words, *([] if "--json" in words else ["--json"]))
    assert json.loads(out)[key]


@pytest.mark.parametrize(
    ("words", "begun", "found"),
    [
        (["predict", "-t"], "d", ["depth", "dis", "disparity"]),
        (["predict", "-m"], "mini/de", ["mini/depth"]),
        (["predict", "--format"], "png,cut", ["png,cutout"]),
        (["train"], "paper/own", ["paper/own_vae"]),
        (["study"], "para", ["paradigms"]),
    ],
    ids=str,
)
def test_completion(words: list[str], begun: str, found: list[str]) -> None:
    items = ShellComplete(cli.cli, {}, "genpercept", "_GENPERCEPT_COMPLETE").get_completions(words, begun)
    assert sorted(item.value for item in items if item.type == "plain") == found
