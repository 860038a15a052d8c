"""docs/tutorial.ipynb out of docs/tutorial.md: `python tools/site/notebook.py`. tests/test_notebook.py runs it and compares.

Blocks of Python become cells, commands become cells that run them. Blocks of text, which show what was printed, are left
out, as the cells print it themselves. A block behind `<!-- not in the notebook -->` stays text.
"""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).resolve().parents[2]
PAGE, NOTEBOOK = ROOT / "docs/tutorial.md", ROOT / "docs/tutorial.ipynb"
BLOCK = re.compile(r"((?:^<!-- [\w ]+ -->\n)?^```\w*\n.*?^```\n)", re.MULTILINE | re.DOTALL)
MARK, STAYS = re.compile(r"^<!-- ([\w ]+) -->\n"), "not in the notebook"


def notebook(text: str) -> nbformat.NotebookNode:
    """The page as a notebook without outputs, the same bytes each time."""
    cells = []
    for i, part in enumerate(BLOCK.split(text)):
        mark = MARK.match(part)
        body = MARK.sub("", part)
        language, _, code = body.removeprefix("```").partition("\n")
        if i % 2 == 0 or (mark and mark[1] == STAYS):
            cells.append(new_markdown_cell(body.strip()))
        elif language == "python":
            cells.append(new_code_cell(code.removesuffix("```\n").rstrip()))
        elif language == "bash":
            cells.append(new_code_cell("\n".join(f"!{line}" for line in code.removesuffix("```\n").splitlines())))
    cells = [cell for cell in cells if cell.source]
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return new_notebook(cells=cells, metadata=kernel | {"language_info": {"name": "python"}})


def main() -> None:
    """Write it."""
    nbformat.write(notebook(PAGE.read_text(encoding="utf-8")), NOTEBOOK)
    print(NOTEBOOK)


if __name__ == "__main__":
    main()
