"""Docstrings as the site shows them: what is laid out in columns keeps its columns."""

from __future__ import annotations

import re
from typing import Any

import griffe

_COLUMNS = re.compile(r"\S {2,}\S")


class Columns(griffe.Extension):
    """Paragraphs of which two lines or more have columns become blocks of text."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Change an object's docstring in place."""
        if obj.docstring is not None:
            obj.docstring.value = "\n\n".join(_kept(part) for part in obj.docstring.value.split("\n\n"))


def _kept(paragraph: str) -> str:
    lines = paragraph.splitlines()
    columns = [line for line in lines if _COLUMNS.search(line)]
    return f"```text\n{paragraph}\n```" if len(columns) > 1 else paragraph
