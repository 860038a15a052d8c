"""The options of `genpercept fit`; the work is done by the module of each subcommand, imported when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import rich_click as click

from genpercept.commands import shared_options as shared

THRESHOLDS = "Thresholds"
_SHARE = click.FloatRange(min=0, max=1, max_open=True)


@click.group()
@shared.debuggable
def fit() -> None:
    """Train one model for each part of a data set, set its thresholds, and measure it."""


@fit.command(
    epilog=shared.examples(
        "genpercept fit anomaly --root MVTEC -o runs/fit --categories bottle,carpet",
        "genpercept predict MVTEC/bottle/test -o found -m runs/fit/bottle/model --recursive",
    )
)
@shared.root(
    panel=shared.DATA,
    required=True,
    metavar="MVTEC",
    help="Folder of MVTec AD, or another in its layout: CATEGORY/train/good/...",
)
@click.option(
    "--categories", panel=shared.DATA, default="", metavar="A,B", help="Only these.  [default: all in the folder]"
)
@click.option(
    "--recipe",
    panel=shared.TRAINING,
    metavar="RECIPE",
    help="What is trained, a name or a file; its data are replaced.  [default: mini/anomaly for an embedded --model, else "
    "paper/anomaly]",
)
@shared.model(
    "base", panel=shared.TRAINING, help="The base, instead of the recipe's: a folder, hub id or embedded name."
)
@shared.override(panel=shared.TRAINING, help="Override a key of the recipe, but for its data. Repeatable.")
@click.option(
    "--held-out",
    panel=THRESHOLDS,
    type=click.FloatRange(min=0, max=1, min_open=True, max_open=True),
    default=0.1,
    show_default=True,
    metavar="SHARE",
    help="Of the good training images, for the thresholds; they are not trained on.",
)
@click.option(
    "--image-rate",
    panel=THRESHOLDS,
    type=_SHARE,
    default=0.05,
    show_default=True,
    metavar="SHARE",
    help="Of the held-out good images that may be called anomalous.",
)
@click.option(
    "--pixel-rate",
    panel=THRESHOLDS,
    type=_SHARE,
    default=0.01,
    show_default=True,
    metavar="SHARE",
    help="Of their pixels that may be called defective.",
)
@shared.out(required=True, metavar="DIR", help="Folder: DIR/fit.json, and DIR/CATEGORY with each model.")
@shared.resume(help="Go on: finished categories are left as they are.")
@shared.device()
@shared.batch_size()
@shared.max_pixels()
@shared.debuggable
def anomaly(categories: str, root: str, out: Path, **options: Any) -> int:
    """Train a detector for each category of MVTec AD, set its thresholds on good images, and print its figures.

    `predict --model DIR/CATEGORY/model` says of each image whether it is anomalous. Exit code 130 or 143 when interrupted.
    """
    from genpercept.commands.fit.run import main

    return main(Path(root), out, tuple(filter(None, map(str.strip, categories.split(",")))), **options)
