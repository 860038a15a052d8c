"""`genpercept export`: a model written for other programs. One file per target, in `targets`.

diffusers: the layout that the family's own code loads. Weights keep their bits; what a layout cannot say is refused. onnx and
openvino: one step as a graph, checked against the pipeline, which `genpercept predict` runs, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from genpercept.checkpoints import hub, parts
from genpercept.commands.export.source import Source
from genpercept.commands.export.targets import TARGETS, Target
from genpercept.core import said
from genpercept.core.files import atomic_files, atomic_folder, sweep
from genpercept.pipeline import base_model, graphs, loading

MARKER = graphs.MARKER


def main(
    model: str,
    to: str,
    out: Path,
    base: str | None = None,
    family: str | None = None,
    task: str | None = None,
    subfolder: str | None = None,
    allow_pickle: bool = False,
    revision: str | None = None,
    variant: str | None = None,
    dtype: str | None = None,
    images: Sequence[str] = (),
) -> int:
    """Write `model` to `out` for the program `to`, a folder, or for graphs a file; prints what was written. 0, or ValueError.

    dtype, images: of graphs, see `Source`.
    """
    target = TARGETS.find(to)
    suffix = target.suffix
    if not suffix and (dtype or images):
        raise ValueError(f"--to {to} copies weights as they are: leave --dtype and --images out")
    sweep(out.parent)
    single = bool(suffix) and out.suffix.lower() == suffix
    (_refuse_foreign_file if single else _refuse_foreign)(out)
    if graphs.find(Path(model) / (subfolder or "")) is not None:
        raise ValueError(f"{model}: is an export already: pass the model that it was made from")
    pipe = loading.load(
        model,
        base=base,
        family=family,
        task=task,
        subfolder=subfolder,
        allow_pickle=allow_pickle,
        revision=revision,
        variant=variant,
        specialised=False,
        device="cpu",
    )
    known = base or pipe.info.get("base")
    folder = base_model.local(str(known)) if known else None
    if folder is None and base is not None:
        folder = hub.resolve(base, allow_pickle=allow_pickle)
    source = Source(
        pipe, folder, allow_pickle, out.name if single else f"model{suffix}", dtype or "fp32", tuple(images)
    )
    if single:
        _write_file(target, source, out)
    else:
        _write_folder(target, source, out)
    return 0


def _write_folder(target: Target, source: Source, out: Path) -> None:
    with atomic_folder(out) as work:
        layout = target.write(source, work)
        facts = {key: source.pipe.info.get(key) for key in ("model", "model_sha256", "task", "base", "licence")}
        facts = {"to": target.name, "layout": layout, **facts, "software": source.pipe.meta["software"]}
        parts.write_config(work / MARKER, facts)
    _say_what(out, target, layout)


def _write_file(target: Target, source: Source, out: Path) -> None:
    """The file, and beside it that of its weights where it has one."""
    with atomic_files(out) as work:
        layout = target.write(source, work)
    _say_what(out, target, layout)


def _say_what(out: Path, target: Target, layout: str) -> None:
    said.result({"out": str(out), "to": target.name, "layout": layout})
    print(f"{out}: {layout}")


def _refuse_foreign(out: Path) -> None:
    """Only an earlier export may be replaced."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out}: is a file; pass a folder to export into")
    if out.is_dir() and any(out.iterdir()) and not (out / MARKER).is_file():
        raise ValueError(f"{out}: holds something else than an export; pass a new or empty folder")


def _refuse_foreign_file(out: Path) -> None:
    """As for folders; settings in a file's metadata tell ours."""
    if out.is_dir():
        raise ValueError(f"{out}: is a folder; pass a file, or a folder of another name")
    if out.is_file():
        try:
            graphs.read_info(out)
        except ValueError:
            raise ValueError(f"{out}: is something else than an export; pass a new file") from None
