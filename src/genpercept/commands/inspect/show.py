"""`genpercept inspect`: what a model is, what it lacks, and whether it would load. Reads headers, not weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from genpercept.checkpoints import hub, weights
from genpercept.commands import terminal
from genpercept.commands.inspect.facts import look
from genpercept.commands.inspect.report import Given, Part, Report
from genpercept.core import said
from genpercept.pipeline import graphs

__all__ = ["Given", "Report", "inspect", "main"]


def inspect(
    model: str | Path,
    *,
    subfolder: str | None = None,
    base: str | Path | None = None,
    family: str | None = None,
    task: str | None = None,
    allow_pickle: bool = False,
    revision: str | None = None,
    variant: str | None = None,
) -> Report:
    """What `model` is: an embedded name, a folder (ours, a base, a public checkpoint, an adapter, a run) or a hub id.

    Weights stay on disk. ValueError where there is no such model, or nothing in it that could be one.
    """
    if (file := graphs.find(Path(model) / (subfolder or ""))) is not None:
        return _graph(str(model), file)
    with weights.variant(variant):
        folder = hub.resolve(model, subfolder=subfolder, revision=revision, allow_pickle=allow_pickle, lone_files=True)
        weights.check_variant(folder, variant)
        given = Given(None if base is None else str(base), family, task, allow_pickle, subfolder)
        return look(str(model), folder, given)


def _graph(model: str, file: Path) -> Report:
    """Of a file for ONNX Runtime or OpenVINO: what its metadata says."""
    info = graphs.read_info(file)
    keys = (
        *("family", "task", "paradigm", "backbone", "codec", "head", "resolution"),
        *("licence", "caution", "model_sha256"),
    )
    facts = {key: info[key] for key in keys if info.get(key) is not None}
    size = sum(path.stat().st_size for path in file.parent.glob(f"{file.stem}.*"))
    return Report(model, str(file.parent), "exported graph", facts | info["export"] | {"bytes": size})


def main(
    model: str,
    subfolder: str | None = None,
    base: str | None = None,
    family: str | None = None,
    task: str | None = None,
    allow_pickle: bool = False,
    revision: str | None = None,
    variant: str | None = None,
) -> int:
    """Print what `model` is; 0 when whole, 1 when parts are damaged, missing or do not fit each other."""
    how: dict[str, Any] = {"allow_pickle": allow_pickle, "revision": revision, "variant": variant}
    report = inspect(model, subfolder=subfolder, base=base, family=family, task=task, **how)
    said.result(report.as_dict())
    _show(report)
    return 1 if report.problems else 0


def _show(report: Report) -> None:
    facts = [("model", report.model), ("folder", report.folder), ("kind", report.kind)]
    for key, value in report.facts.items():
        text = str(value) if str(value).isprintable() else ascii(value)  # whatever a model says of itself
        facts.append((key, text or "(empty)"))
    parts = [(f"part {part.name}", _line(part)) for part in report.parts]
    terminal.show(terminal.pairs(facts))
    if parts:
        terminal.show(terminal.pairs(parts))
    for problem in report.problems:
        print(f"problem: {problem}")
    for need in report.needs:
        print(f"needs: {need}")
    if report.problems:
        print(f"{len(report.problems)} problem(s): it would not load")
    elif report.needs:
        print("whole, but needs what is named above")
    else:
        would = "genpercept.load takes it" if report.loads else "genpercept train starts from it"
        print(f"whole: every tensor that the parts need is there; {would} (values are checked then)")


def _line(part: Part) -> str:
    if not part.parameters:
        return f"damaged or missing, {part.path}"
    text = f"{part.parameters:,} parameters, {'/'.join(part.dtypes)}, {part.bytes / 1e6:.1f} MB, {part.path}"
    return f"{text}; {part.details}" if part.details else text
