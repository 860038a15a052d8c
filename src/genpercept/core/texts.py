"""Text: lists, tables and logs out of files, and what messages say, on one line."""

from __future__ import annotations

import csv
import json
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# ---- files


def read_numbered(
    path: Path, what: str = "", *, encoding: str = "utf-8", errors: str = "strict"
) -> list[tuple[int, str]]:
    """The lines that are not blank, as they stand, with their numbers from 1.

    ValueError where the file cannot be read; `what` ends its verb: " as a split list". errors: as `open` has it.
    """
    with _reading(path, what):
        lines = path.read_text(encoding=encoding, errors=errors).splitlines()
    return [(number, line) for number, line in enumerate(lines, 1) if line.strip()]


def read_lines(path: Path, what: str = "", *, comment: str = "", errors: str = "strict") -> list[str]:
    """The lines that are not blank, as they stand, without those that begin with `comment`. Errors as above."""
    found = [line for _, line in read_numbered(path, what, errors=errors)]
    return [line for line in found if not comment or not line.startswith(comment)]


def read_csv(path: Path, what: str = "", *, encoding: str = "utf-8") -> list[dict[str, str]]:
    """The rows of a CSV file by the names in its first line. ValueError as above, for what is no CSV, too."""
    with _reading(path, what), path.open(encoding=encoding, newline="") as file:
        return list(csv.DictReader(file))


def read_log(path: Path) -> list[dict[str, Any]]:
    """The JSON objects, one a line, that a program has appended; none where there is no file.

    A line that a kill cut short, which may be in the middle of a letter, is left out.
    """
    found = []
    for line in read_lines(path, errors="replace") if path.is_file() else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            found.append(row)
    return found


@contextmanager
def _reading(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{shown(path)}: cannot be read{what}: {error}") from None


# ---- values and messages


def toml_value(text: str) -> Any:
    """What TOML takes the text for as a value; the text itself, without blanks around it, where it is none."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text.strip()


def assignments(pairs: Sequence[str], example: str) -> dict[str, Any]:
    """("a=1", "b=c") of --option -> {"a": 1, "b": "c"}, by `toml_value`. ValueError, with an example, for one without `=`."""
    found: dict[str, Any] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key.strip():
            raise ValueError(f"--option {pair!r}: write key=value, as in {example}")
        found[key.strip()] = toml_value(value)
    return found


def shown(path: Path) -> str:
    """The path for a message: on one line whatever the name holds."""
    text = str(path)
    return text if text.isprintable() else ascii(text)


def one_line(error: object, most: int | None = None) -> str:
    """An error's message on one line, of at most so many letters; its type where it has none."""
    return (" ".join(str(error).split()) or type(error).__name__)[:most]


def listed(names: Sequence[str], most: int = 4) -> str:
    """The first few names, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
