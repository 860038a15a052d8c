"""The options of `genpercept study`; the work is done by `plan.py`, imported when the command runs."""

from __future__ import annotations

from typing import Any

import click

from genpercept.commands import shared_options as shared


@click.command()
@click.argument("name", metavar="NAME_OR_FILE.toml")
@click.option(
    "--scale",
    type=click.Choice(["mini", "full"]),
    default="mini",
    show_default=True,
    help="Which study of that NAME: with the embedded base on the synthetic world, or at the paper's size.",
)
@shared.out(required=True, metavar="RUN", help="Folder of the study's runs and its report.")
@shared.resume(help="Go on: finished runs are left as they are.")
@click.option("--arms", default="", metavar="A,B", help="Only these arms.")
@click.option("--seeds", default="", metavar="0,1", help="Only these seeds.")
@click.option("--jobs", "at_once", type=click.IntRange(min=1), default=1, show_default=True, help="Runs side by side.")
@shared.override(help="Override a key of every recipe, or study.K. Repeatable.")
@shared.dry_run(help="Print the runs and the time they would take, and stop.")
@shared.debuggable
def study(**options: Any) -> int:
    """Train and compare the arms of a study: NAME.md, NAME.json and NAME.png in RUN.

    Exit code 0 when all runs went well, 1 when some failed, 2 when all did; of a dry run 3 where the runs are sound, but this
    machine lacks something for them: it is listed.
    """
    from genpercept.commands.study.plan import main

    return main(**options)
