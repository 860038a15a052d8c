"""Names that users type: refusing an unknown one with the nearest known one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def hint(name: object, known: Iterable[str]) -> str:
    """What to do about an unknown name: the nearest known one, or all of them."""
    known = list(known)
    close = difflib.get_close_matches(str(name), known, 1)
    return f"did you mean {close[0]!r}?" if close else f"choose one of {', '.join(known) or '(none yet)'}"


def choose(what: str, name: str, known: Iterable[str], where: str = "") -> str:
    """The name, if it is known; else a ValueError with the nearest one, or the choices. where: begins its line."""
    known = list(known)
    if name not in known:
        raise ValueError(f"{where}unknown {what} {name!r}: {hint(name, known)}")
    return name
