"""What gives the same answer without the app: a command, and a few lines of Python."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from genpercept.commands.app.store import Photograph
from genpercept.commands.serve import answers
from genpercept.core import dtypes
from genpercept.imaging import write

_EXAMPLES = "from genpercept.commands.demo.photographs import photographs"
_TF32 = "tf32"  # of the process: a flag of commands, a call of its own in Python


@dataclass(frozen=True)
class Call:
    """One question to one model. resolution None: the model's own; 0: the photograph's. tiles: as many as `auto` makes.

    options: of predict and of genpercept.load alike, such as base, family, device or dtype; tf32, where it makes a difference.
    """

    model: str
    task: str
    kind: str
    resolution: int | None = None
    runs: int = 1
    tiles: bool = False
    refine: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)


def formats_of(kind: str) -> tuple[str, ...]:
    """What is written: the usual files of a kind, all of it as npz, and of a foreground its cut-out where that can be made."""
    wanted = [*write.default_formats(kind), "npz", *(["cutout"] if "cutout" in answers.formats(kind) else [])]
    return tuple(dict.fromkeys(wanted))


def command(call: Call, photograph: Photograph) -> str:
    """For a shell. The package's own photographs are not files: a first line makes one."""
    name = f"./{photograph.name}" if photograph.name.startswith("-") else photograph.name
    words = ["genpercept", "predict", name, "--model", call.model]
    for name, value in call.options.items():
        words += flag(name, value)
    if call.resolution is not None:
        words += ["--processing-resolution", str(call.resolution)]
    if call.runs > 1:
        words += ["--ensemble-size", str(call.runs)]
    words += [*(["--tiles=auto"] if call.tiles else []), *(["--refine"] if call.refine else [])]
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
    if "dtype" in call.options:
        lines.insert(0, "import torch")
    if _TF32 in call.options:
        lines.append("from genpercept.core.devices import allow_tf32")
    if photograph.example:
        lines += [_EXAMPLES, "", f'image = next(p.image for p in photographs() if p.name == "{photograph.example}")']
    else:
        lines += ["from genpercept.imaging.read import read", "", f"image = read({photograph.name!r})"]
    if _TF32 in call.options:
        lines.append(f"allow_tf32({call.options[_TF32]})")
    options = {} if call.resolution is None else {"processing_resolution": str(call.resolution)}
    if call.runs > 1:
        options["ensemble_size"] = str(call.runs)
    options |= ({"tiles": '"auto"'} if call.tiles else {}) | ({"refine": "True"} if call.refine else {})
    given = "".join(f", {_argument(name, value)}" for name, value in call.options.items() if name != _TF32)
    lines.append(f"pipe = genpercept.load({call.model!r}{given})")
    lines.append(f"prediction = pipe({', '.join(['image', *(f'{k}={v}' for k, v in options.items())])})")
    target = f"{photograph.stem}_{call.task}.png"
    formats = formats_of(call.kind)
    named = f", name={photograph.stem!r}" if "coco" in formats else ""  # which goes by the photograph's
    lines.append(f"prediction.save({target!r}, {list(formats)}, image=image{named})")
    return "\n".join(lines)


def flag(name: str, value: Any) -> list[str]:
    """An option of the app as `genpercept predict` has it."""
    if name == _TF32:
        return [f"--{_TF32}"] if value else []
    option = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{option}" if value else f"--no-{option}"]
    return [f"--{option}", str(value)]


def _argument(name: str, value: Any) -> str:
    """The same as genpercept.load has it."""
    return f"torch_dtype={dtypes.to_torch(value)}" if name == "dtype" else f"{name}={value!r}"


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
