"""`genpercept data list`, and the part of docs/datasets.md that is made from what the data sets say of themselves."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from genpercept.commands import terminal
from genpercept.core import said
from genpercept.core.labels import LABELS
from genpercept.data import DATASETS

if TYPE_CHECKING:
    from rich.table import Table

BEGIN, END = "<!-- data sets: begin -->", "<!-- data sets: end -->"


def main() -> int:
    """Print the table, or JSON with all that is known; 0."""
    said.result(rows())
    terminal.show(table(), "Layouts, options, and how to get each: docs/datasets.md, or --json.")
    return 0


def rows() -> list[dict[str, Any]]:
    """Each data set's name, title, what it provides, splits, protocols by task, options, licence, layout, and its extra."""
    return [_row(name) for name in DATASETS.names()]


def table() -> Table:
    """The list for a terminal."""
    header = ("name", "provides", "tasks (protocol)", "licence", "needs")
    lines = [
        (
            row["name"],
            ", ".join(row["provides"]) or "what its folders hold",
            _tasks(row["protocols"]) or "any",
            row["licence"],
            f"genpercept[{row['extra']}]" if row["extra"] else "-",
        )
        for row in rows()
    ]
    return terminal.table(header, lines, words=range(len(header)))


def markdown() -> str:
    """The generated part of docs/datasets.md: what data sets provide, the labels, and each data set."""
    found = [row for row in rows() if row["title"]]
    lines = ["| name | data set | provides | tasks (protocol) | splits |", "| --- | --- | --- | --- | --- |"]
    for row in found:
        provides, splits = ", ".join(row["provides"]), ", ".join(row["splits"])
        lines.append(
            f"| [{row['name']}](#{row['name']}) | {row['title']} | {provides} | {_tasks(row['protocols'])} | {splits} |"
        )
    lines += ["", "| label | type | what it is |", "| --- | --- | --- |"]
    for label in LABELS.values():
        shape = {0: "", 1: "(H, W) "}.get(label.channels, f"({label.channels}, H, W) ")
        lines.append(f"| {label.name} | {shape}{np.dtype(label.dtype).name} | {label.meaning} |")
    for row in found:
        lines += ["", f"### {row['name']}", "", *_section(row)]
    return "\n".join(lines)


def _section(row: Mapping[str, Any]) -> list[str]:
    lines = [
        f"{row['title']}: {row['url']}. {row['reference']}".rstrip(". ") + ".",
        "",
        f"- Get it: {row['obtain']}",
        f"- Licence: {row['licence']}",
        "- Layout under the root:",
        *(f"  - `{line}`" for line in row["layout"]),
    ]
    if row["classes"]:
        lines.append(f"- Classes: the table `{row['classes']}`")
    if row["extra"]:
        lines.append(f"- Needs `pip install 'genpercept[{row['extra']}]'`")
    if row["options"]:
        lines.append("- Options: " + ", ".join(f"`{k} = {_shown(v)}`" for k, v in row["options"].items()))
    if row["about_options"]:
        lines += ["", row["about_options"]]
    return lines


def _row(name: str) -> dict[str, Any]:
    plugin = DATASETS.find(name)
    about = plugin.about
    return {
        "name": name,
        "title": about.title if about else "",
        "url": about.url if about else "",
        "provides": list(about.provides) if about else [],
        "splits": list(about.splits) if about else [],
        "protocols": dict(about.protocols) if about else {},
        "classes": about.classes if about else None,
        "licence": plugin.licence,
        "obtain": about.obtain if about else "",
        "layout": list(about.layout) if about else [],
        "options": _options(plugin) if about else {},
        "about_options": _words(type(plugin)) if about else "",
        "reference": about.reference if about else "",
        "extra": about.extra if about else "",
    }


def _options(plugin: Any) -> dict[str, Any]:
    if not is_dataclass(plugin):
        return {}
    return {f.name: getattr(plugin, f.name) for f in fields(plugin)}


def _words(kind: type) -> str:
    """The class's docstring, where its options are explained, as one paragraph."""
    own = kind.__doc__ or ""
    # a dataclass without words gets a signature
    return "" if own.startswith(f"{kind.__name__}(") else " ".join(own.split())


def _shown(value: Any) -> str:
    return json.dumps(list(value) if isinstance(value, tuple) else value, default=str)


def _tasks(protocols: Mapping[str, str]) -> str:
    return ", ".join(f"{task} ({protocol})" if protocol else task for task, protocol in protocols.items())


def write(path: Path) -> None:
    """Put the generated part into a document, between BEGIN and END."""
    text = path.read_text(encoding="utf-8")
    before, after = text[: text.index(BEGIN) + len(BEGIN)], text[text.index(END) :]
    path.write_text(f"{before}\n\n{markdown()}\n\n{after}", encoding="utf-8")


if __name__ == "__main__":  # python -m genpercept.commands.data.list docs/datasets.md
    write(Path(sys.argv[1]))
