"""Every key of a recipe with its meaning, type, default and range: `genpercept train --explain`, and docs/recipe.md."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from genpercept.core.names import hint
from genpercept.training import recipe
from genpercept.training.recipe import Recipe
from genpercept.training.recipe_fields import Section

_WIDTH = 100  # columns of --explain
_GIVEN = "must be given"
_WORDS = {str: "text", int: "integer", float: "number", bool: "true or false", Path: "path"}


@dataclass(frozen=True)
class Key:
    """One key. name: with its section, such as optim.lr. takes: its type and its range or choices. default: as TOML has it.

    plugins: the kind of plugin whose names it takes; "" where it takes none.
    """

    name: str
    meaning: str
    takes: str
    default: str
    plugins: str = ""


@dataclass(frozen=True)
class Group:
    """The keys of a section, by its TOML heading ("" for the top of the file), with what the section is."""

    name: str
    heading: str
    about: str
    keys: tuple[Key, ...]


def groups() -> list[Group]:
    """The whole recipe, in the order of its fields; the keys of no section come first."""
    found = [_group("", "", Recipe)]
    for name, info in Recipe.model_fields.items():
        if section := recipe.section_of(info.annotation):
            many = info.annotation is not section
            found.append(_group(name, f"[[{name}]]" if many else f"[{name}]", section))
            inner = {k: recipe.section_of(v.annotation) for k, v in section.model_fields.items()}
            found += [_group(f"{name}.{k}", f"[[{name}.{k}]]", s) for k, s in inner.items() if s]
    return found


def explain(key: str = "", path: str | Path | None = None, overrides: Sequence[str] = ()) -> str:
    """What a key means, takes and is by default; of a section all its keys, of "" all there are. ValueError if there is none.

    path, overrides: a recipe, whose own values are shown too; read as `recipe.load` reads it.
    """
    wanted = ".".join(part for part in key.split(".") if not part.isdigit())
    values = recipe.load(path, overrides).resolved() if path else None
    said = []
    for group in groups():
        chosen = [k for k in group.keys if _answers(k, wanted)]
        if chosen and wanted in ("", group.name):
            said.append(_wrapped(f"{group.heading} {group.about}".strip()))
        said += [_entry(k, values) for k in chosen]
    if not said:
        raise ValueError(f"{key}: unknown key; {_suggestion(wanted)}")
    return "\n\n".join(said)


def markdown() -> str:
    """docs/recipe.md."""
    lines = [
        "# The keys of a recipe",
        "",
        "How a recipe is used: [training.md](training.md). `genpercept train --explain optim.lr` prints the same of a key,",
        "`--explain optim` of a section, and `genpercept train R.toml --explain` of all keys, with their values in R.toml.",
        "The code is where this page comes from: `python -m genpercept.training.recipe_reference docs/recipe.md`.",
    ]
    for group in groups():
        lines += ["", f"## `{group.heading}`" if group.heading else "## Top of the file", "", group.about, ""]
        lines += ["| key | meaning | takes | default |", "| --- | --- | --- | --- |"]
        for key in group.keys:
            default = key.default if key.default == _GIVEN else f"`{key.default}`"
            lines.append(f"| `{key.name}` | {key.meaning} | {key.takes} | {default} |")
    return "\n".join(lines) + "\n"


# Fields -------------------------------------------------------------------------------------------------------------------


def _group(name: str, heading: str, section: type[Section]) -> Group:
    left_out = getattr(section, "unread", ())
    fields = {
        k: v for k, v in section.model_fields.items() if k not in left_out and not recipe.section_of(v.annotation)
    }
    keys = tuple(_key(f"{name}.{field}" if name else field, info) for field, info in fields.items())
    return Group(name, heading, " ".join((section.__doc__ or "").split()), keys)


def _key(name: str, info: FieldInfo) -> Key:
    extra: Any = info.json_schema_extra if isinstance(info.json_schema_extra, Mapping) else {}
    default = (
        _GIVEN if info.is_required() else extra.get("default") or _toml(info.get_default(call_default_factory=True))
    )
    takes = f"{_type(info.annotation)} {_range(info)}".strip()
    return Key(name, info.description or "", takes, default, extra.get("plugins", ""))


def _type(annotation: Any) -> str:
    """In words: "list of pairs of integers"."""
    origin, inside = get_origin(annotation), get_args(annotation)
    if annotation in _WORDS:
        return _WORDS[annotation]
    if origin is Literal:
        return f"one of {_choices(annotation)}"
    if origin in (Union, UnionType):
        return _type(next(a for a in inside if a is not type(None)))
    if origin is tuple and inside[-1] is Ellipsis:
        return f"list of {_plural(inside[0])}"
    if origin is tuple:
        return f"pair of {_plural(inside[0])}"
    return "table" if inside[1] is Any else f"table of {_plural(inside[1])}"


def _plural(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return _choices(annotation)
    first, *rest = _type(annotation).split(" ")
    return " ".join([f"{first}s", *rest])


def _choices(annotation: Any) -> str:
    return ", ".join(str(choice) or '""' for choice in get_args(annotation))


def _range(info: FieldInfo) -> str:
    """Bounds in words; "" where there are none."""
    found = {
        side: getattr(bound, side)
        for bound in info.metadata
        for side in ("ge", "gt", "le", "lt")
        if hasattr(bound, side)
    }
    if found.keys() == {"ge", "le"}:
        return f"from {found['ge']:g} to {found['le']:g}"
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    return ", ".join(f"{words[side]} {found[side]:g}" for side in words if side in found)


def _toml(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{k} = {_toml(v)}" for k, v in value.items()) + " }" if value else "{}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


# --explain ----------------------------------------------------------------------------------------------------------------


def _answers(key: Key, wanted: str) -> bool:
    """Whether the key is the one that is asked for, lies in that section, or is the table that it lies in."""
    inside = key.takes.startswith("table") and wanted.startswith(f"{key.name}.")
    return wanted in ("", key.name) or key.name.startswith(f"{wanted}.") or inside


def _entry(key: Key, values: Mapping[str, Any] | None) -> str:
    default = key.default if key.default == _GIVEN else f"default {key.default}"
    own = "" if values is None else f"; here {_own(values, key.name.split('.'))}"
    lines = [f"{key.name}: {key.takes}; {default}{own}", _wrapped(key.meaning, "    ")]
    if key.plugins:
        lines.append(_wrapped(f"Names: {', '.join(_names(key.plugins))}.", "    "))
    return "\n".join(lines)


def _names(kind: str) -> list[str]:
    """Names of the plugins of a folder. Imported here because they bring torch, which no other key needs."""
    from genpercept.data import DATASETS
    from genpercept.models.heads import HEADS
    from genpercept.models.paradigms import PARADIGMS
    from genpercept.tasks import TASKS
    from genpercept.training.losses import LOSSES

    known = {"datasets": DATASETS, "heads": HEADS, "losses": LOSSES, "paradigms": PARADIGMS, "tasks": TASKS}
    return known[kind].names()


def _own(values: Any, path: Sequence[str]) -> str:
    """The value at the end of the path; of a list of sections that of each."""
    if not path:
        return _toml(values)
    if isinstance(values, list):
        return ", ".join(_own(section, path) for section in values) or "none"
    return _own(values[path[0]], path[1:])


def _wrapped(text: str, indent: str = "") -> str:
    return textwrap.fill(text, _WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)


def _suggestion(wanted: str) -> str:
    known = groups()
    first, _, last = wanted.rpartition(".")
    section = next((g for g in known if g.name == first and first), None)
    if section:
        return hint(last, [k.name.removeprefix(f"{first}.") for k in section.keys])
    alike = [k.name for g in known for k in g.keys if k.name.endswith(f".{wanted}")]
    if alike:
        return f"did you mean {' or '.join(map(repr, alike))}?"
    return hint(wanted, [*(k.name for k in known[0].keys), *(g.name for g in known[1:])])


if __name__ == "__main__":  # python -m genpercept.training.recipe_reference docs/recipe.md
    Path(sys.argv[1]).write_text(markdown(), encoding="utf-8")
