"""Suites: data sets that a paper evaluates on, with the figures it prints. One TOML file each in `suites/`.

Tables of a paper are CSV files, in `suites/paper/`; `tools/paper_rows.py` compares them with its texts.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from genpercept.commands.evaluate.sets import Reported, SetSpec, options_of, placed
from genpercept.core.names import choose, hint
from genpercept.core.texts import decoded, table


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Part(_Section):
    """One set of a suite. id: what paper figures and --root call it."""

    id: str
    title: str
    dataset: str
    split: str
    folder: str = ""  # under a --root for all; default: the data set's name
    protocol: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    note: str = ""  # what it needs beside its folder


class Table(_Section):
    """A row of a table of the paper: method, where it stands, and figures by set."""

    method: str
    source: str  # one place, or several: "v1, Table 6; supplement, Table 3"
    figures: dict[str, dict[str, float]]
    main: bool = True  # False: an ablation, which the table on the terminal leaves out


class Printed(_Section):
    """A table of the paper in a CSV file beside the suite: method, set, then a column per figure; empty: not printed."""

    source: str
    file: str
    main: bool = True


class Suite(_Section):
    title: str
    tasks: tuple[str, ...] = Field(min_length=1)
    set: tuple[Part, ...] = Field(min_length=1)
    paper: tuple[Table, ...] = ()
    printed: tuple[Printed, ...] = ()

    @model_validator(mode="after")
    def _known(self) -> Suite:
        ids = [part.id for part in self.set]
        if len(set(ids)) != len(ids):
            raise ValueError("two sets have the same id")
        for paper in self.paper:
            for name in paper.figures:
                if name not in ids:
                    raise ValueError(f"paper figures for {name!r}, which is no set of it: {hint(name, ids)}")
        return self


@dataclass(frozen=True)
class Chosen:
    """A suite with its sets placed on disk."""

    suite: Suite
    specs: list[SetSpec] = field(default_factory=list)


def names() -> list[str]:
    """The suites there are."""
    return sorted(p.name.removesuffix(".toml") for p in _folder().iterdir() if p.name.endswith(".toml"))


def load(name: str) -> Suite:
    """The suite of this name, or from a .toml file of yours. ValueError in one line for an unknown or wrong one."""
    file: Any = Path(name).expanduser()
    file = file if name.endswith(".toml") else _folder() / f"{choose('suite', name, names())}.toml"
    try:
        suite = Suite.model_validate(tomllib.loads(_text(file)))
        tables = [row for one in suite.printed for row in _rows(one, _beside(file, one.file))]
        return Suite.model_validate(suite.model_dump() | {"paper": (*suite.paper, *tables)})
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"suite {name}: not a TOML file: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"suite {name}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def specs(
    suite: Suite, only: Sequence[str], roots: Sequence[str], options: Sequence[str], protocol: str | None
) -> list[SetSpec]:
    """The suite's sets, or those of `only` (ids or data sets), with their folders. ValueError for unknown names.

    --root DIR: a folder in it for each data set; --root NAME=DIR: by id or data set.
    """
    called = list(dict.fromkeys(name for part in suite.set for name in (part.id, part.dataset)))
    for name in only:
        choose("set of this suite", name, called)
    parts = [p for p in suite.set if not only or p.id in only or p.dataset in only]
    where = placed(roots, called, single=True)
    own = {p.id: _named(roots, p) for p in parts}
    extra = options_of(options, called)
    out = []
    for p in parts:
        base = where.get(p.id)
        root = own[p.id] or (None if base is None else base / (p.folder or p.dataset))
        chosen = {**p.options, **extra[p.dataset], **extra[p.id]}
        out.append(SetSpec(p.dataset, p.title, root, p.split, protocol or p.protocol, chosen, _reported(suite, p.id)))
    return out


def _text(file: Any) -> str:
    try:
        return decoded(file.read_bytes())
    except (OSError, ValueError) as error:
        raise ValueError(f"{file}: cannot be read as part of a suite: {error}") from None


def _beside(file: Any, name: str) -> Any:
    """`name` from the folder of a suite's file: of the package, or of yours."""
    return file.parent / name if isinstance(file, Path) else _folder() / name


def _rows(printed: Printed, file: Any) -> list[Table]:
    """The rows of a CSV, one per method, in order. ValueError that names the line for what is no number."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    try:
        rows = list(table(_text(file)))
    except ValueError as error:
        raise ValueError(f"{file}, {error}") from None
    for line, row in rows:
        method, name = row.pop("method", ""), row.pop("set", "")
        if not method or not name:
            raise ValueError(f"{file}, line {line}: expected the columns method, set, and one per figure")
        try:
            found.setdefault(method, {})[name] = {key: float(value) for key, value in row.items() if value}
        except ValueError as error:
            raise ValueError(f"{file}, line {line}: {error}") from None
    return [Table(method=m, source=printed.source, figures=f, main=printed.main) for m, f in found.items()]


def _named(roots: Sequence[str], part: Part) -> Path | None:
    """The folder given for this very set or its data set; None where there is only one for all."""
    pairs: Mapping[str, str] = {n: path for n, sep, path in (text.partition("=") for text in roots) if sep}
    found = pairs.get(part.id) or pairs.get(part.dataset)
    return Path(found) if found else None


def _reported(suite: Suite, name: str) -> tuple[Reported, ...]:
    return tuple(Reported(t.method, t.source, t.figures[name], t.main) for t in suite.paper if name in t.figures)


def _folder() -> Any:
    return files("genpercept.commands.evaluate") / "suites"
