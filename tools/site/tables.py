"""The parts of pages that are made from the code each time the site is built. Each function gives Markdown."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Sequence
from typing import Any

import click
from links import ROOT

from genpercept.commands.cli import cli
from genpercept.imaging.kinds import KINDS
from genpercept.imaging.write import FORMATS, default_formats
from genpercept.tasks import TASKS, listed

ASSETS = ROOT / "src/genpercept/checkpoints/assets/mini"
# What a format holds, and the file it makes of photo.jpg, {} being the task.
HOLDS = {
    "png": "16-bit PNG: the values, for programs",
    "color": "8-bit PNG: a picture, to look at, never to measure in",
    "npy": "NumPy array of the values, as they are",
    "npz": "values, valid, uncertainty, raw and meta; `Prediction.load` reads it",
    "exr": "OpenEXR, float32 (`genpercept[exr]`)",
    "ply": "coloured points in space ([3D](3d.md))",
    "points": "(H, W, 3): where each pixel lies",
    "mesh": "a mesh of triangles with colours and normals",
    "glb": "a mesh with the photograph on it (`genpercept[mesh]`)",
    "mask": "8-bit PNG: white from 0.5 on, black below",
    "cutout": "RGBA PNG: the foreground, freed of the background's colours (`genpercept[matting]`)",
    "overlay": "8-bit PNG: scores as heat over the photograph",
    "coco": "COCO results, as pycocotools reads them",
}


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |" for row in lines
    )


# ---- tasks and formats


def tasks() -> str:
    """What each task answers, in which shape and range, in which files, and by which figures it is judged."""
    rows = []
    for name in listed():
        task = TASKS.find(name)
        kind = KINDS[task.kind]
        limits = "any" if kind.limits is None else f"{kind.limits[0]:g} to {kind.limits[1]:g}"
        embedded = f"[mini/{name}](../models/{name}.md)" if (ASSETS / name).is_dir() else "none"
        page = ROOT / "docs/how-to" / f"{name}.md"
        title = f"[{name}]({name}.md)" if page.exists() else name
        written = ", ".join(default_formats(task.kind))
        rows.append(
            [title, f"{kind.shape} {kind.dtype.__name__}", kind.meaning, limits, written, task.metric or "", embedded]
        )
    return table(["task", "values", "meaning", "range", "files by default", "metric", "embedded"], rows)


def formats(name: str) -> str:
    """The files that a task's answer can be written to."""
    kind = KINDS[TASKS.find(name).kind]
    chosen = default_formats(kind.name)
    rows = [
        [f"`{key}`" + (", default" if key in chosen else ""), f"`photo_{name}{form.suffix}`", HOLDS[key]]
        for key, form in FORMATS.items()
        if form.holds(kind)
    ]
    return table(["`--format`", "file", "what it holds"], rows)


# ---- models


def card(name: str) -> str:
    """What the files of an embedded model say of it."""
    folder = ASSETS / name
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    rows = [["size on disk", f"{size / 1e6:.1f} MB"]]
    if (folder / "genpercept.json").exists():
        rows += list(_stated(json.loads((folder / "genpercept.json").read_text(encoding="utf-8"))))
    return table(["its files say", ""], rows)


def _stated(info: dict[str, Any]) -> Iterator[list[str]]:
    recipe = info.get("recipe") or {}
    yield ["licence", str(info["licence"])]
    options = _plain(info.get("task_options") or {})
    yield ["task", f"`{info['task']}`" + (f", options `{options}`" if options else "")]
    yield ["paradigm", f"`{info['paradigm']}`, one step"]
    yield ["head", f"`{info['head']}`"]
    yield ["processing resolution", f"{info['resolution']} pixels, the longest edge"]
    if recipe:
        yield ["started from", f'`{recipe["model"]["base"]}`, `learn.denoiser = "{recipe["learn"]["denoiser"]}"`']
        data = recipe["data"][0]
        yield ["data", f"{data['count']:,} scenes of the [synthetic world](../world.md), domain `{data['domain']}`"]
        yield ["steps, batch", f"{recipe['steps']:,} steps of {recipe['loader']['batch_size']}, the last stage"]
    for part, stored in info["parts"].items():
        yield [f"{part}, SHA-256", f"`{stored['sha256'][:16]}...` in `{stored['path']}`"]


def _plain(options: dict[str, Any]) -> str:
    """Without the tables of classes, which fill pages."""
    short = {k: (v["name"] if isinstance(v, dict) and "name" in v else v) for k, v in options.items()}
    return ", ".join(f"{k} = {v}" for k, v in short.items())


def scores(name: str) -> str:
    """What an embedded model scores, of the page that its measurement wrote."""
    if name in ("depth", "normals"):
        return _measured(name)
    text = (ROOT / "docs/mini.md").read_text(encoding="utf-8").partition("<!-- tasks:begin -->")[2]
    found = re.search(rf"^\| {name}, .*?(?=\n\n)", text, re.MULTILINE | re.DOTALL)
    assert found, f"docs/mini.md has no table of {name}"
    return found[0]


def _measured(name: str) -> str:
    results = json.loads((ROOT / "docs/mini_results.json").read_text(encoding="utf-8"))
    columns = {
        "depth": (("abs_rel", "AbsRel ↓", "{:.3f}"), ("delta1", "δ1 ↑", "{:.3f}")),
        "normals": (
            ("mean", "mean angle ↓", "{:.1f}°"),
            ("median", "median ↓", "{:.1f}°"),
            ("a11_25", "< 11.25° ↑", "{:.0%}"),
        ),
    }[name]
    answers = results[name]["mixed"]
    count = answers["model"]["images"]
    rows = [
        [
            f"mini/{name}" if who == "model" else who,
            *(form.format(_share(found[key], form)) for key, _, form in columns),
        ]
        for who, found in answers.items()
        if all(key in found for key, _, _ in columns)
    ]
    return table([f"{count} held-out scenes, {results['date']}", *(title for _, title, _ in columns)], rows)


def _share(value: float, form: str) -> float:
    return value / 100 if "%" in form and value > 1 else value


# ---- commands


def commands() -> str:
    """Every command with its arguments and options, as `--help` has them."""
    return "\n\n".join(_command(command, f"genpercept {name}") for name, command in cli.commands.items())


def _command(command: click.Command, path: str, depth: int = 2) -> str:
    context = click.Context(command, info_name=path)
    lines = ["#" * depth + f" {path}", "", _prose(command.help or ""), ""]
    if isinstance(command, click.Group):
        below = [_command(sub, f"{path} {name}", depth + 1) for name, sub in command.commands.items()]
        return "\n".join(lines) + "\n\n".join(below)
    lines += ["```", command.get_usage(context).removeprefix("Usage: "), "```", ""]
    rows = []
    for param in command.params:
        record = param.get_help_record(context)
        if record is not None:
            rows.append([f"`{' '.join(record[0].split())}`", _plain_text(" ".join(record[1].split()))])
    return "\n".join([*lines, table(["option", "meaning"], rows)])


def _prose(text: str) -> str:
    """click's help: paragraphs, and blocks that begin with \\b, which keep their lines."""
    parts = [part.strip("\n") for part in text.partition("\f")[0].split("\n\n")]
    out = []
    for part in parts:
        if part.startswith("\b"):
            body = "\n".join(line.rstrip() for line in part.removeprefix("\b").strip("\n").splitlines())
            out.append(f"```\n{body}\n```")
        else:
            out.append(_plain_text(" ".join(part.split())))
    return "\n\n".join(out)


def _plain_text(text: str) -> str:
    """Marks of Markdown that are none."""
    return re.sub(r"([\[\]*_<])", r"\\\1", text)


# ---- installing


def extras() -> str:
    """What `pip install 'genpercept[NAME]'` adds."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    used = {
        "synthetic": "render the synthetic world; train on it",
        "train": "`train`, `study`, `fit`",
        "demo": "`demo`",
        "exr": "write and read OpenEXR",
        "heic": "read photographs of phones",
        "tiff": "read float and many-channel TIFF",
        "data": "Hypersim and NYUv2, which are HDF5",
        "evaluate": "the figures of masks, poses and anomalies",
        "ray": "`predict --engine ray`",
        "onnx": "`export --to onnx`, and to run it",
        "openvino": "`export --to openvino`, and to run it",
        "matting": "cut-outs (`--format cutout`)",
        "plot": "the charts of studies",
        "video": "films: `predict clip.mp4`, `pipe.video`",
        "serve": "`genpercept serve`",
        "app": "`genpercept app`",
        "docs": "this site (`make docs`)",
        "dev": "all of it, and the tests",
    }
    rows = []
    for name, packages in project["optional-dependencies"].items():
        plain = ", ".join(re.split(r"[><=]", p)[0] for p in packages)
        rows.append([f"`{name}`", used.get(name, ""), plain])
    return table(["extra", "for", "brings"], rows)
