"""The options of `genpercept data` and its commands; the work is done by `list.py`, `check.py` and `prepare.py`,
imported when a command runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import rich_click as click

from genpercept.commands import shared_options as shared

_data_set = shared.together(
    shared.root(panel=shared.FILES, type=shared.PATH, help="The data set's folder, in its published layout."),
    shared.split(panel=shared.DATA, help="Such as train, val or test; `genpercept data list --json` has all."),
    shared.dataset_option("pairs", panel=shared.DATA, help="Option of the data set. Repeatable."),
)


@click.group()
def data() -> None:
    """Data sets: the published ones (docs/datasets.md), and your own images and labels (docs/training.md)."""


@data.command("list", epilog=shared.examples("genpercept data list", "genpercept data list --json"))
@shared.debuggable
def data_list() -> int:
    """List the data sets: what each provides, its tasks and protocols, licence, and the extra that it needs.

    --json has all that is known of them.
    """
    from genpercept.commands.data import list

    return list.main()


@data.command(
    "check",
    epilog=shared.examples(
        "genpercept data check photos",
        "genpercept data check photos -t matting -o sheets",
        "genpercept data check nyuv2 --root NYU --split test",
    ),
)
@click.argument("name", metavar="NAME_OR_FOLDER")
@_data_set
@click.option(
    "--limit",
    panel=shared.DATA,
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Read only N samples, evenly spaced.",
)
@shared.skip_bad(panel=shared.DATA, help="Broken samples are counted and named, but are no failure.")
@shared.out(help="Folder for contact_sheet.png; made if missing.")
@click.option(
    "--depth-scale",
    panel=shared.DATA,
    type=float,
    metavar="X",
    help="FOLDER: units of 16-bit depth per metre.  [default: 1000]",
)
@click.option(
    "--normals-axes",
    panel=shared.DATA,
    type=click.Choice(["ours", "opencv"]),
    help="FOLDER: axes of normals.  [default: ours]",
)
@shared.max_pixels()
@shared.task(panel=shared.DATA, help="FOLDER: whose labels each sample must have.  [default: those of any sample]")
@shared.debuggable
def data_check(
    name: str,
    root: Path | None,
    split: str | None,
    pairs: tuple[str, ...],
    limit: int,
    skip_bad: bool,
    out: Path | None,
    task: str | None,
    **short: Any,
) -> int:
    """Read a data set, or every sample of your own FOLDER (or manifest): what is there, what is broken, value ranges.

    Exit code 0 when training takes it, 1 when some samples are broken (they are named) or training would refuse the set, 2 when
    none can be read.
    """
    from genpercept.commands.data import check

    options = {k: v for k, v in short.items() if v is not None} | check.options_of(pairs)
    if check.named(name, root):
        return check.check_named(name, root, split, out, options, limit, skip_bad)
    return check.main(Path(name), out, options, split or "all", limit, skip_bad, task)


@data.command(
    "preview", epilog=shared.examples("genpercept data preview synthetic --split test -o sheet.png --count 6")
)
@click.argument("name")
@_data_set
@shared.out(required=True, metavar="FILE.png", help="The sheet; its folder is made if missing.")
@shared.count(
    panel=shared.DATA, type=click.IntRange(1, 200), default=12, show_default=True, help="Samples, evenly spaced."
)
@shared.max_pixels()
@shared.debuggable
def data_preview(name: str, root: Path | None, split: str | None, pairs: tuple[str, ...], out: Path, count: int) -> int:
    """Draw a contact sheet of the data set NAME: images beside their labels."""
    from genpercept.commands.data import check

    return check.preview(name, root, split, out, count, check.options_of(pairs))


@data.command(
    "prepare",
    epilog=shared.examples("genpercept data prepare hypersim --root HYPERSIM -o prepared --split train"),
)
@click.argument("name")
@shared.root(panel=shared.FILES, type=shared.PATH, help="The data set's folder, in its published layout.")
@shared.out(required=True, help="Folder to write; a new one, an empty one, or one that an earlier call has begun.")
@shared.split(
    "splits", panel=shared.DATA, multiple=True, help="Only this one. Repeatable.  [default: those that are there]"
)
@shared.dataset_option("pairs", panel=shared.DATA, help="Option of the data set. Repeatable.")
@click.option(
    "--processes",
    panel=shared.MACHINE,
    type=click.IntRange(0),
    default=0,
    metavar="N",
    help="0: one per core.",
    show_default=True,
)
@click.option(
    "--eight-bits",
    panel=shared.DATA,
    is_flag=True,
    help="Round images to 8 bits, as training does; other values stay equal.",
)
@shared.skip_bad(panel=shared.DATA, help="Samples that cannot be read are named, but are no failure.")
@shared.max_pixels()
@shared.debuggable
def data_prepare(
    name: str,
    root: Path | None,
    out: Path,
    splits: tuple[str, ...],
    pairs: tuple[str, ...],
    processes: int,
    eight_bits: bool,
    skip_bad: bool,
) -> int:
    """Turn the data set NAME once into a form that is quick to read, with equal values: give OUT as its root afterwards.

    Stopped, it goes on when it is called again. Exit code 0, or 1 when samples could not be read (they are named).
    """
    from genpercept.commands.data import check, prepare

    return prepare.main(name, root, out, check.options_of(pairs), splits, processes, eight_bits, skip_bad)
