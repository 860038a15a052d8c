"""Text: lists, tables, TOML and JSON out of files, and what messages say, on one line.

Every file that a user may have written comes through `read_text`, so that all are read alike: UTF-8 with or without a
byte order mark; lines end in LF, CR LF or CR and in nothing else (a name may hold U+2028). An error is one ValueError that
says where: file, line, column.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# ---- files

_MARKS = {  # of encodings that are not read; UTF-32's begins with UTF-16's
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_DELIMITERS = (",", ";", "\t")


def decoded(content: bytes, errors: str = "strict") -> str:
    """UTF-8 as text with LF as its only line end, without its mark. ValueError that says the line and column.

    errors: as `open` has it; "replace" lets everything through, for logs and lists that are not the user's own.
    """
    if errors == "strict":
        for mark, name in _MARKS.items():
            if content.startswith(mark):
                raise ValueError(f"{name}, not UTF-8; save it as UTF-8")
    try:
        text = content.decode("utf-8-sig", errors)
    except UnicodeDecodeError as error:
        before = _plain_ends(content[: error.start].decode("utf-8-sig", "replace"))
        raise ValueError(
            f"line {before.count(chr(10)) + 1}, column {len(before) - before.rfind(chr(10))}: "
            f"byte 0x{content[error.start]:02x} is not UTF-8; save it as UTF-8"
        ) from None
    if errors == "strict" and "\0" in text:
        line = _plain_ends(text[: text.index("\0")]).count("\n") + 1
        raise ValueError(f"line {line}: a null character: UTF-16, or no text; save it as UTF-8")
    return _plain_ends(text)


def _plain_ends(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_text(path: Path, what: str = "", *, errors: str = "strict") -> str:
    """A text file, see `decoded`. ValueError where it cannot be read; `what` ends its verb: " as a split list"."""
    with _reading(path, what):
        return decoded(path.read_bytes(), errors)


def read_numbered(path: Path, what: str = "", *, errors: str = "strict") -> list[tuple[int, str]]:
    """The lines that are not blank, as they stand, with their numbers from 1. Errors as `read_text`."""
    lines = read_text(path, what, errors=errors).split("\n")
    return [(number, line) for number, line in enumerate(lines, 1) if line.strip()]


def read_lines(path: Path, what: str = "", *, comment: str = "", errors: str = "strict") -> list[str]:
    """The lines that are not blank, as they stand, without those that begin with `comment`. Errors as above."""
    found = [line for _, line in read_numbered(path, what, errors=errors)]
    return [line for line in found if not comment or not line.startswith(comment)]


def read_csv(path: Path, what: str = "") -> list[dict[str, str]]:
    """The rows of a CSV file by the names in its first line; cells that a short row lacks are "". See `table`."""
    return [row for _, row in read_table(path, what)]


def read_table(path: Path, what: str = "") -> list[tuple[int, dict[str, str]]]:
    """The same with the number of each row's first line. ValueError as above, for what is no table, too."""
    text = read_text(path, what)
    with _reading(path, what):
        return list(table(text))


def table(text: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows of a CSV by the names in its first line, with the number of each row's first line, from 1.

    Cells are separated by comma, semicolon or tab, whichever the first line has most of, and may be quoted; blanks around
    them go, and so do rows of nothing else. ValueError for a value without a name above it, and for two columns of a name.
    """
    rows = _cells(text)
    _, names = next(rows, (1, []))
    for column, name in enumerate(names, 1):
        if name and name in names[: column - 1]:
            raise ValueError(f"line 1, column {column}: a second column {name!r}; rename one")
    for line, cells in rows:
        for column, cell in enumerate(cells, 1):
            if cell and (column > len(names) or not names[column - 1]):
                raise ValueError(
                    f"line {line}, column {column}: {cell!r} has no name in the first line, which names "
                    f"{', '.join(filter(None, names))}; quote a cell that holds the separator"
                )
        yield line, {name: cells[i] if i < len(cells) else "" for i, name in enumerate(names) if name}


def _cells(text: str) -> Iterator[tuple[int, list[str]]]:
    """Rows that are not blank, their cells without blanks around, and the line that each begins in."""
    first = next((line for line in text.split("\n") if line.strip()), "")
    bare = "".join(first.split('"')[::2])  # what is outside of quotes
    delimiter = max(_DELIMITERS, key=bare.count)
    reader, line = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True), 1
    for row in reader:
        cells = [cell.strip() for cell in row]
        if any(cells):
            yield line, cells
        line = reader.line_num + 1


def read_toml(path: Path, what: str = "") -> dict[str, Any]:
    """What a TOML file holds. ValueError as above; it says line and column of what is no TOML."""
    text = read_text(path, what)
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{shown(path)}: not a TOML file: {one_line(error)}") from None
    except RecursionError:
        raise ValueError(f"{shown(path)}: not a TOML file: nested too deeply") from None


def read_json(path: Path, what: str = "", *, errors: str = "strict") -> Any:
    """What a JSON file holds. ValueError as above; it says line and column of what is no JSON."""
    return json_value(read_text(path, what, errors=errors), shown(path))


def json_value(text: str, where: str, first: int = 1) -> Any:
    """A text as JSON. ValueError on one line that begins with `where`; first: the number of its first line, there."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        at = f"line {first + error.lineno - 1}, column {error.colno}"
        raise ValueError(f"{where}: not JSON: {error.msg} (at {at})") from None
    except RecursionError:
        raise ValueError(f"{where}: not JSON: nested too deeply") from None


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


def slashes(text: str) -> str:
    """A path of a list or table with / between its parts, whichever way its slashes lean; no ./ before it."""
    return text.strip().replace("\\", "/").removeprefix("./")


@contextmanager
def _reading(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"{shown(path)}: cannot be read{what}: {reason}") from None


# ---- values and messages


def toml_value(text: str) -> Any:
    """What TOML takes the text for as a value; the text itself, without blanks around it, where it is none."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text.strip()


def words(text: str) -> tuple[str, ...]:
    """What stands between commas, each once, without the spaces around it."""
    return tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))


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
    return _printable(str(path))


def class_shown(name: object) -> str:
    """A class as a config.json names it, for a message: short and on one line whatever it holds."""
    return _printable(str(name)[:80])


def sentence_shown(text: object) -> str:
    """What a model says of itself, for a message: short and on one line whatever it holds."""
    return _printable(one_line(text, 300))


def _printable(text: str) -> str:
    return text if text.isprintable() else ascii(text)


def one_line(error: object, most: int | None = None) -> str:
    """An error's message on one line, of at most so many letters; its type where it has none."""
    return (" ".join(str(error).split()) or type(error).__name__)[:most]


def listed(names: Sequence[str], most: int = 4) -> str:
    """The first few names, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def time_left(done: int, total: int, seconds: float) -> str:
    """What is left at the rate so far, for a line of progress: "1 min 39 s left"; "" while nothing is done."""
    if not done:
        return ""
    minutes, rest = divmod(round((total - done) * seconds / done), 60)
    return f"{minutes} min {rest:02d} s left"
