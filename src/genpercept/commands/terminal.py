"""Tables on the terminal. Where nobody looks at one (a pipe, a file), nothing is cut, broken or coloured."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

_WIDE = 10_000  # columns of what is no terminal: a table takes no more of them than it needs
_NAME = 10  # columns of a name, at least, so that one command's blocks of names line up
_WORD = 16  # letters of a column of words that stay together on the narrowest terminal


def table(
    header: Sequence[str], rows: Iterable[Sequence[str]], *, words: Collection[int] = (0,), title: str = ""
) -> Table:
    """Of plain text. words: the columns of text; all others are figures, to the right."""
    from rich.text import Text

    made = empty(header, words=words, title=title)
    for row in rows:
        made.add_row(*map(Text, row))
    return made


def empty(header: Sequence[str], *, words: Collection[int] = (0,), title: str = "") -> Table:
    """A table that has no rows yet. Where a terminal is too narrow, words are broken; figures stay whole."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, title_justify="left", title_style="bold")
    made.title = Text(title) if title else None
    for i, name in enumerate(header):
        made.add_column(Text(name), justify="left" if i in words else "right", overflow="fold", no_wrap=i not in words)
    return made


def pairs(rows: Iterable[tuple[str, str]]) -> Table:
    """Names and values, a row each; where a terminal is narrow, values are broken."""
    from rich.table import Table
    from rich.text import Text

    made = Table.grid(padding=(0, 2, 0, 0))
    made.add_column(min_width=_NAME, overflow="fold")
    made.add_column(overflow="fold")
    for name, value in rows:
        made.add_row(Text(name), Text(value))
    return made


def show(*parts: RenderableType, width: int | None = None) -> None:
    """Print to stdout, with a blank line between the parts. width: default: the terminal's; elsewhere what is needed."""
    from rich.console import Console

    if sys.stdout.isatty():
        console = Console(highlight=False, width=width)
        console.width = max(console.width, *map(_least, parts), 0)  # of a wider line the terminal makes two
        _print(console, parts)
        return
    console = Console(highlight=False, width=width or _WIDE, color_system=None)
    with console.capture() as captured:
        _print(console, parts)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))


def _least(part: RenderableType) -> int:
    """Columns that a table takes at least: figures whole, words broken after `_WORD` letters."""
    from rich.cells import cell_len
    from rich.table import Table

    if not isinstance(part, Table):
        return 0
    total = 3 * (len(part.columns) - 1)  # between columns
    for column in part.columns:
        most = max(cell_len(str(cell)) for cell in (column.header, *column.cells))
        total += most if column.no_wrap else min(most, _WORD)
    return total


def _print(console: Console, parts: Sequence[RenderableType]) -> None:
    for i, part in enumerate(parts):
        if i:
            console.print()
        console.print(part)
