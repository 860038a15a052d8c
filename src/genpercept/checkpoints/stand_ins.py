"""JSON of models, and what downloads leave in the place of a file."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NoReturn

from genpercept.checkpoints import regular
from genpercept.core.texts import one_line, shown

_DEEPEST = 32  # lists and objects in each other: configs of models have five or so
_NAMES = ("_class_name", "model_type")  # shown in messages
_LONGEST = 100  # letters of such a name


def refuse_stand_in(path: Path) -> None:
    """ValueError for an empty file, Git's pointer to a large file, a page of a web site under the file's name, or no file."""
    with regular.opened(path) as stream:
        _refuse(path, stream.read(64))


def _refuse(path: Path, begin: bytes) -> None:
    if not begin:
        raise ValueError(f"{path}: is empty (0 bytes): its download or copy did not finish; fetch it again")
    if begin.startswith(b"version https://git-lfs"):
        raise ValueError(
            f"{path}: is a Git LFS pointer, not the file itself: run `git lfs pull` in its repository, or download the file"
        )
    if begin.lstrip()[:1] == b"<":
        raise ValueError(
            f"{path}: is a web page saved under this name, such as an error or login page; download it again"
        )


def read_json(path: Path, most: int = regular.SETTINGS) -> dict[str, Any]:
    """A JSON object of at most `most` bytes, in UTF-8, with or without a byte order mark.

    ValueError in one line when the file is missing, is none, leads out of its folder, is no such object, or holds NaN, an
    infinity, letters that are none, or lists too deep in each other.
    """
    try:
        content = regular.read(path, most)
        _refuse(path, content[:64])
        text = content.decode("utf-8-sig")
        return parse(text, path)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file: the model folder is incomplete; copy or download it again") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{shown(path)}: not readable as JSON ({error}); copy or download it again") from None


def parse(text: str, path: Path) -> dict[str, Any]:
    """The object in the JSON of the file `path`. ValueError as `read_json` has it."""
    try:
        value = json.loads(text, parse_constant=_refuse_constant, parse_float=_float)
        _check(value, _DEEPEST)
    except _NoSetting as error:
        raise ValueError(f"{path}: holds {error}, which is no setting of a model; copy or download it again") from None
    except RecursionError:
        raise ValueError(f"{path}: holds {_TOO_DEEP}, which is no setting of a model; copy it again") from None
    except ValueError as error:  # a JSONDecodeError, or an integer of thousands of digits
        reason = one_line(error, 120)
        raise ValueError(f"{path}: not readable as JSON ({reason}); copy or download it again") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: must hold a JSON object, not a {type(value).__name__}")
    for key in _NAMES:
        name = value.get(key, "")
        if not isinstance(name, str) or len(name) > _LONGEST or not name.isprintable():
            raise ValueError(f"{path}: {key} is {str(name)[:_LONGEST]!r}: must be a name; copy or download it again")
    return value


_TOO_DEEP = f"lists or objects more than {_DEEPEST} deep in each other"


class _NoSetting(Exception):
    """What JSON, or Python's reader of it, can say, and no config does."""


def _refuse_constant(text: str) -> NoReturn:
    raise _NoSetting(f"the number {text}")


def _float(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refuse_constant(text[:20])


def _check(value: Any, deeper: int) -> None:
    """Raises for what is too deep, and for halves of letters (\\ud800), which cannot be printed."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise _NoSetting("a text with half of a letter in it") from None
    elif isinstance(value, dict | list):
        if not deeper:
            raise _NoSetting(_TOO_DEEP)
        for each in (*value.keys(), *value.values()) if isinstance(value, dict) else value:
            _check(each, deeper - 1)
