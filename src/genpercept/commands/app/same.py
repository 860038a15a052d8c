"""What gives the same answer without the app: a command, and a few lines of Python."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from genpercept.commands.app.store import Photograph
from genpercept.imaging import write
from genpercept.imaging.kinds import KINDS

_EXAMPLES = "from genpercept.commands.demo.photographs import photographs"


@dataclass(frozen=True)
class Call:
    """One question to one model. resolution None: the model's own; 0: the photograph's. load: genpercept.load's options."""

    model: str
    task: str
    kind: str
    resolution: int | None = None
    runs: int = 1
    options: Mapping[str, str] | None = None  # of the command, where the app was started with other than its defaults
    load: Mapping[str, str] | None = None  # the same for genpercept.load, as Python


def formats_of(kind: str) -> tuple[str, ...]:
    """What is written: the usual files of a kind, all of it as npz, and of a foreground its cut-out where that can be made."""
    chosen = [*write.default_formats(kind), "npz"]
    if KINDS.find(kind).foreground and available("cutout", kind):
        chosen.append("cutout")
    return tuple(dict.fromkeys(chosen))


def available(name: str, kind: str) -> bool:
    """Whether the format holds this kind and its package is installed."""
    try:
        write.check_formats([name], kind)
    except ValueError:
        return False
    return True


def command(call: Call, photograph: Photograph) -> str:
    """For a shell. The package's own photographs are not files: a first line makes one."""
    words = ["genpercept", "predict", photograph.name, "--model", call.model]
    for name, value in (call.options or {}).items():
        words += [name, value]
    if call.resolution is not None:
        words += ["--processing-resolution", str(call.resolution)]
    if call.runs > 1:
        words += ["--ensemble-size", str(call.runs)]
    words += ["--format", ",".join(formats_of(call.kind)), "--out", "results"]
    line = _wrapped(words)
    if not photograph.example:
        return line
    code = (
        f"from PIL import Image; {_EXAMPLES}; "
        f"[Image.fromarray(p.image).save(p.name + '.png') for p in photographs() if p.name == '{photograph.example}']"
    )
    return f"python -c {shlex.quote(code)}\n{line}" if "'" not in code else f'python -c "{code}"\n{line}'


def python(call: Call, photograph: Photograph) -> str:
    """A script that writes the same files into the folder it is run in."""
    lines = ["import genpercept"]
    if photograph.example:
        lines += [_EXAMPLES, "", f'image = next(p.image for p in photographs() if p.name == "{photograph.example}")']
    else:
        lines += ["from genpercept.imaging.read import read", "", f"image = read({photograph.name!r})"]
    options = {} if call.resolution is None else {"processing_resolution": str(call.resolution)}
    if call.runs > 1:
        options["ensemble_size"] = str(call.runs)
    given = "".join(f", {name}={value}" for name, value in (call.load or {}).items())
    lines.append(f"pipe = genpercept.load({call.model!r}{given})")
    lines.append(f"prediction = pipe({', '.join(['image', *(f'{k}={v}' for k, v in options.items())])})")
    target = f"{photograph.stem}_{call.task}.png"
    lines.append(f"prediction.save({target!r}, {list(formats_of(call.kind))}, image=image)")
    return "\n".join(lines)


def _wrapped(words: Iterable[str]) -> str:
    """One command on lines that fit a phone: each option on its own, joined by backslashes."""
    lines: list[str] = []
    for word in map(shlex.quote, words):
        if word.startswith("--"):
            lines.append(f"  {word}")
        elif lines:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return " \\\n".join(lines)
