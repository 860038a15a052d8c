"""The options of `genpercept study`; the work is done by `plan.py`, imported when the command runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click
from click.shell_completion import CompletionItem

from genpercept.commands import shared_options as shared
from genpercept.core.texts import read_text

if TYPE_CHECKING:
    from genpercept.commands.study.shipped import Scale


def _complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The package's studies of the scale, and files."""
    from genpercept.commands.study import shipped

    known = shipped.names(ctx.params.get("scale") or "mini")
    return [*(CompletionItem(n) for n in known if n.startswith(incomplete)), CompletionItem(incomplete, type="file")]


@click.command(
    epilog=shared.examples(
        "genpercept study --list",
        "genpercept study paradigms --dry-run",
        "genpercept study paradigms -o runs/paradigms --jobs 2",
    )
)
@click.argument("name", required=False, metavar="NAME", shell_complete=_complete)
@click.option(
    "--scale",
    type=click.Choice(["mini", "full"]),
    default="mini",
    show_default=True,
    help="Which study of that NAME: with the embedded base on the synthetic world, or at the paper's size.",
)
@shared.out(metavar="RUN", help="Folder of the study's runs and its report.")
@shared.resume(help="Go on: finished runs are left as they are.")
@shared.list_them(help="Print the names of the studies that there are, and stop.")
@shared.show(help="Print NAME's file, to copy and change, and stop.")
@click.option("--arms", default="", metavar="A,B", help="Only these arms.")
@click.option("--seeds", default="", metavar="0,1", help="Only these seeds.")
@click.option(
    "--photographs",
    type=shared.PATH,
    metavar="FOLDER",
    help="Your photographs, as data set folder, for a study that pretrains on some; tools/photographs.py makes such a folder.",
)
@click.option(
    "--frames",
    type=shared.PATH,
    metavar="FOLDER",
    help="Real frames with measured depth, for a study that scores on some: what tools/real_frames.py writes. Without, their "
    "columns are left out.",
)
@click.option("--jobs", "at_once", type=click.IntRange(min=1), default=1, show_default=True, help="Runs side by side.")
@shared.override(help="Override a key of every arm's recipe, or study.K. Repeatable.")
@shared.dry_run(help="Print the runs and the time they would take, and stop; needs no --out.")
@shared.debuggable
def study(name: str | None, out: Path | None, scale: Scale, listed: bool, show: bool, **options: Any) -> int:
    """Train and compare the arms of a study: NAME.md, NAME.json and NAME.png in RUN.

    NAME: of one that comes with the package, or a TOML file of yours.

    Exit code 0 when all runs went well, 1 when some failed, 2 when all did; of a dry run 3 where the runs are sound, but this
    machine lacks something for them: it is listed.
    """
    from genpercept.commands.study import shipped

    if listed:
        shared.print_list(shipped.listing())
        return 0
    if name is None:
        raise click.MissingParameter(param_hint="'NAME'", param_type="argument")
    if show:
        click.echo(read_text(shipped.find(name, scale)), nl=False)
        return 0
    if out is None and not options["dry_run"]:
        raise click.UsageError("--out RUN is missing: the folder of the study's runs and its report")
    from genpercept.commands.study.plan import main
    from genpercept.commands.study.schema import FOLDERS

    given = {folder: path for folder in FOLDERS if (path := options.pop(folder)) is not None}
    return main(name, out or Path(), scale, given=given, **options)
