"""JSON of models, and what downloads leave in the place of a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn


def refuse_stand_in(path: Path) -> None:
    """ValueError for an empty file, Git's pointer to a large file, or a page of a web site under the file's name."""
    with path.open("rb") as stream:
        begin = stream.read(64)
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


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. ValueError in one line when the file is missing, is not one, or holds NaN or an infinity."""
    try:
        if path.is_file():
            refuse_stand_in(path)
        value = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file: the model folder is incomplete; copy or download it again") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: not readable as JSON ({error}); copy or download it again") from None
    except _NotFinite as error:
        raise ValueError(f"{path}: holds the number {error}, which is no JSON and no setting; write a number") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: must hold a JSON object, not a {type(value).__name__}")
    return value


class _NotFinite(Exception):
    """NaN or an infinity where JSON has numbers."""


def _refuse_constant(text: str) -> NoReturn:
    raise _NotFinite(text)
