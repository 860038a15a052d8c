"""Tables on the terminal; where nobody looks at one, nothing of a table is cut or broken, and nothing is coloured."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

_WIDE = 10_000  # columns of what is no terminal: a table takes no more than it needs


def console(width: int | None = None) -> Console:
    """On stdout. width: default: the terminal's, and as much as is needed where there is none."""
    from rich.console import Console

    return Console(
        highlight=False, markup=False, soft_wrap=False, width=width or (None if sys.stdout.isatty() else _WIDE)
    )


def table(
    header: Sequence[str], rows: Iterable[Sequence[str]], *, words: Collection[int] = (0,), title: str = ""
) -> None:
    """Print it. words: the columns of text, which break where a terminal is narrow; all others are figures."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(box=box.SIMPLE_HEAD, title=title or None, title_justify="left", title_style="bold", pad_edge=False)
    for i, name in enumerate(header):
        made.add_column(Text(name), justify="left" if i in words else "right", overflow="fold", no_wrap=i not in words)
    for row in rows:
        made.add_row(*map(Text, row))
    console().print(made)
