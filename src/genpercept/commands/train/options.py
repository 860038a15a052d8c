"""The options of `genpercept train`; the work is done by `genpercept.training.loop`, imported when the command runs."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from genpercept.commands import shared_options as shared
from genpercept.core.texts import read_text


@click.command(
    epilog=shared.examples(
        "genpercept train --list",
        "genpercept train mini/depth --dry-run",
        "genpercept train mini/depth -o runs/depth --set steps=500",
        "genpercept train mini/depth --show > mine.toml",
    )
)
@click.argument("recipe", required=False, metavar="RECIPE", shell_complete=shared.complete_recipe)
@shared.override(help="Override a key, such as optim.lr=1e-4. Repeatable.")
@shared.out(metavar="RUN", help="Folder of the run.")
@shared.resume(help="Go on from the run's last checkpoint.")
@shared.dry_run(help="Check all, print the resolved recipe and stop; needs no --out.")
@shared.list_them(help="Print the names of the recipes that there are, and stop.")
@shared.show(help="Print RECIPE's file, to copy and change, and stop.")
@click.option(
    "--explain",
    is_flag=False,
    flag_value="",
    metavar="[KEY]",
    help="Print what KEY, such as optim.lr or optim, means and stop; all keys without one. With RECIPE: its values too.",
)
@shared.max_pixels()
@shared.debuggable
def train(
    recipe: str | None,
    overrides: tuple[str, ...],
    out: Path | None,
    resume: bool,
    dry_run: bool,
    listed: bool,
    show: bool,
    explain: str | None,
) -> int:
    """Train what RECIPE describes: an autoencoder, a denoiser, or a predictor.

    RECIPE: the name of one that comes with the package, such as mini/depth, or a TOML file of yours.

    A dry run resolves all that a run does. Its exit code: 0 it would run here, 2 it can never work, 3 it would, but for what
    this machine lacks (data, weights, packages, room), which is listed.
    """
    from genpercept.training import recipe_names

    if listed:
        shared.print_list(recipe_names.listing(recipe_names.FOLDER, recipe_names.names()))
        return 0
    if explain is not None:
        if recipe is None and (explain.endswith(".toml") or explain in recipe_names.names()):  # the recipe, not a key
            recipe, explain = explain, ""
        if recipe or not overrides:
            from genpercept.training import recipe_reference

            click.echo(recipe_reference.explain(explain, recipe, overrides))
            return 0
    if recipe is None:
        raise click.MissingParameter(param_hint="'RECIPE'", param_type="argument")
    if show:
        click.echo(read_text(recipe_names.find(recipe)), nl=False)
        return 0
    from genpercept.training.loop import main

    if out is None and not dry_run:
        raise click.UsageError("--out RUN is missing: the folder that the run is to be written to")
    return main(recipe=recipe, overrides=list(overrides), out=out, resume=resume, dry_run=dry_run)
