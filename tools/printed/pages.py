"""The commands and Python blocks that a page prints, in their order, and what a reader needs for them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

SHELLS = ("bash", "sh", "shell", "console")
PROGRAMS = (
    *("genpercept", "python", "python3", "make", "pip", "pipx", "uv", "accelerate", "torchrun", "hf", "curl", "git"),
    *("docker", "podman", "for", "cd", "export", "mkdir", "cp", "cat", "wget", "gh", "conda"),
)
_NEEDS = re.compile(r"<!--\s*needs:\s*(.*?)\s*-->")
_FENCE = re.compile(r"^(\s*)(`{3,}|~{3,})\s*(\S*)\s*(.*?)\s*$")
_INLINE = re.compile(r"(?<!`)`(genpercept [a-z][^`]*)`(?!`)")
_ASSIGNED = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*=\S*$")
_PLACEHOLDER = re.compile(r"(?<![\w-])[A-Z][A-Z0-9]*(?:[-_][A-Z0-9]+)*(?![\w])")
_OPERATORS = set("();<>|&")


@dataclass(frozen=True)
class Printed:
    """One command, or one block of Python. kind: shell, python, file (a block with a name), inline (in a line of text).

    needs: what the page says a reader must have beside an installation, by `<!-- needs: ... -->` before the block. transcript:
    its output is printed, too.
    """

    page: str
    line: int
    kind: str
    text: str
    needs: str = ""
    title: str = ""
    transcript: bool = False

    @property
    def shown(self) -> str:
        """Its beginning, on one line."""
        first = next((line.strip() for line in self.text.splitlines() if line.strip()), "")
        return re.sub(r"\s+#.*$", "", re.sub(r"\s+", " ", self.text if self.kind != "python" else first)).strip()


def pages(root: Path) -> list[Path]:
    """README and the documentation, but for what was written for those who work on it."""
    found = [root / "README.md", *sorted((root / "docs").rglob("*.md"))]
    return [path for path in found if path.is_file() and "development" not in path.parts]


def read(path: Path, root: Path) -> list[Printed]:
    """All that a page prints, in its order."""
    return list(_printed(path.read_text(encoding="utf-8").splitlines(), path.relative_to(root).as_posix()))


def _printed(lines: Sequence[str], page: str) -> Iterator[Printed]:
    number, needs = 0, ""
    while number < len(lines):
        line = lines[number]
        if fence := _FENCE.match(line):
            end = number + 1
            while end < len(lines) and not lines[end].strip().startswith(fence[2]):
                end += 1
            body = [text.removeprefix(fence[1]) for text in lines[number + 1 : end]]
            yield from _block(body, fence[3], fence[4], page, number + 2, needs)
            number, needs = end + 1, ""
        elif line.startswith("    ") and (number == 0 or not lines[number - 1].strip()):
            end = number
            while end < len(lines) and (lines[end].startswith("    ") or not lines[end].strip()):
                end += 1
            yield from _block([text[4:] for text in lines[number:end]], "", "", page, number + 1, needs)
            number, needs = end, ""
        else:
            if found := _NEEDS.search(line):
                needs = found[1]
            elif line.strip() and not line.lstrip().startswith("<!--"):
                needs = ""
            yield from (Printed(page, number + 1, "inline", text) for text in _INLINE.findall(line))
            number += 1


def _block(body: Sequence[str], language: str, title: str, page: str, first: int, needs: str) -> Iterator[Printed]:
    if title and not title.startswith(("{", "hl_lines", "linenums")):
        yield Printed(page, first, "file", "\n".join(body) + "\n", needs, title)
    elif language in ("python", "py"):
        yield Printed(page, first, "python", "\n".join(body) + "\n", needs)
    elif language in ("", *SHELLS):
        transcript = any(line.startswith("$ ") for line in body)
        for number, text in _commands(body, prompted=transcript, all_of_it=language in SHELLS and not transcript):
            yield Printed(page, first + number, "shell", text, needs, transcript=transcript)


def _commands(body: Sequence[str], prompted: bool, all_of_it: bool) -> Iterator[tuple[int, str]]:
    """Commands with the lines that they go on over.

    prompted: those behind `$ `. all_of_it: also what no known program begins.
    """
    number = 0
    while number < len(body):
        begin, text = number, body[number]
        number += 1
        if prompted and not text.startswith("$ "):
            continue
        text = text.removeprefix("$ ") if prompted else text
        while number < len(body) and (text.rstrip().endswith("\\") or _open(text)):
            text += "\n" + body[number]
            number += 1
        if program(text) in PROGRAMS or (all_of_it and text.strip() and not text.lstrip().startswith("#")):
            yield begin, text


def _open(text: str) -> bool:
    """Whether a loop, or a quoted text, goes on in the next line."""
    words = re.findall(r"\b(for|done)\b", re.sub(r"#.*", "", text))
    if words.count("for") > words.count("done") and program(text) == "for":
        return True
    try:
        shlex.split(text, comments=True)
    except ValueError:
        return True
    return False


def program(text: str) -> str:
    """The first word of a command that sets no variable."""
    return next((word for word in text.split() if not _ASSIGNED.match(word)), "")


def calls(text: str) -> list[list[str]]:
    """The words of each `genpercept` in a command, without what is piped or redirected."""
    found: list[list[str]] = []
    lexer = shlex.shlex(text.replace("\\\n", " "), posix=True, punctuation_chars=True)
    lexer.whitespace_split, lexer.commenters = True, "#"
    words: list[str] = []
    skip = False
    for word in [*lexer, ";"]:
        if word == "\n" or set(word) <= _OPERATORS:
            if set(word) <= set("<>&") and not set(word) <= {"&"}:
                skip = True  # the file that follows is no word of the command
                continue
            found += [words] if words else []
            words, skip = [], False
        elif skip:
            skip = False
        elif words or (word not in ("do", "then") and not _ASSIGNED.match(word)):
            words.append(word)
    return [words[1:] for words in found if words[0] == "genpercept"]


def placeholder(text: str) -> str:
    """A word in capitals that stands for something of the reader's, or an ellipsis; "" where there is none."""
    bare = re.sub(r"(?m)(?<!\S)#.*$", "", text)
    bare = " ".join(word for word in bare.split() if not _ASSIGNED.match(word) or not word.split("=")[0].isupper())
    if re.search(r"(?<![\w'\"./])\.\.\.(?!\w)|<[a-z][^>]*>|\[[a-z-]", bare):
        return "..."
    found = _PLACEHOLDER.search(bare)
    return found[0] if found else ""


def unneeded(found: Sequence[Printed]) -> list[Printed]:
    """Without those that are printed in a line of text beside the same in a block."""
    blocks = {one.shown for one in found if one.kind == "shell"}
    return [replace(one) for one in found if one.kind != "inline" or one.shown not in blocks]
