"""The options of `genpercept train`; the work is done by `genpercept.training.loop`, imported when the command runs."""

from __future__ import annotations

from pathlib import Path

import click

from genpercept.commands import shared_options as shared


@click.command()
@click.argument("recipe", type=shared.PATH, required=False, metavar="RECIPE.toml")
@shared.override(help="Override a key, such as optim.lr=1e-4. Repeatable.")
@shared.out(metavar="RUN", help="Folder of the run.")
@shared.resume(help="Go on from the run's last checkpoint.")
@shared.dry_run(help="Check all, print the resolved recipe and stop; needs no --out.")
@click.option(
    "--explain",
    is_flag=False,
    flag_value="",
    metavar="[KEY]",
    help="Print what KEY, such as optim.lr or optim, means and stop; all keys without one. With RECIPE.toml: its values too.",
)
@shared.max_pixels()
@shared.debuggable
def train(
    recipe: Path | None,
    overrides: tuple[str, ...],
    out: Path | None,
    resume: bool,
    dry_run: bool,
    explain: str | None,
) -> int:
    """Train what RECIPE.toml describes: an autoencoder, a denoiser, or a predictor.

    A dry run resolves all that a run does. Its exit code: 0 it would run here, 2 it can never work, 3 it would, but for what
    this machine lacks (data, weights, packages, room), which is listed.
    """
    if explain is not None:
        if recipe is None and explain.endswith(".toml"):  # `--explain R.toml`: the recipe, not a key
            recipe, explain = Path(explain), ""
        if recipe or not overrides:
            from genpercept.training import recipe_reference

            click.echo(recipe_reference.explain(explain, recipe, overrides))
            return 0
    if recipe is None:
        raise click.MissingParameter(param_hint="'RECIPE.toml'", param_type="argument")
    from genpercept.training.loop import main

    if out is None and not dry_run:
        raise click.UsageError("--out RUN is missing: the folder that the run is to be written to")
    return main(recipe=recipe, overrides=list(overrides), out=out or Path(), resume=resume, dry_run=dry_run)
