"""The options of `genpercept inspect`; the work is done by `show.py`, imported when the command runs."""

from __future__ import annotations

from typing import Any

import rich_click as click

from genpercept.commands import shared_options as shared


@click.command(epilog=shared.examples("genpercept inspect mini/depth", "genpercept inspect runs/depth --json"))
@click.argument("model")
@shared.model_source(
    base="The base that a public checkpoint is to be loaded with.",
    family="Layout of a public checkpoint, where its files leave it open.",
    task="Task, where the model does not say.",
)
@shared.debuggable
def inspect(model: str, **options: Any) -> int:
    """Tell what MODEL is: family, task, parts, sizes, what is missing, and whether it would load. Reads headers only.

    MODEL: an embedded name, a folder (a predictor, a base, a public checkpoint, an adapter, a training run) or a hub id.
    Exit code 0 when it is whole, 1 when it has problems, 2 when it is no model.
    """
    from genpercept.commands.inspect.show import main

    return main(model=model, **options)
