"""The options of `genpercept demo`; the work is done by `run.py`, imported when the command runs."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from genpercept.commands import shared_options as shared


@click.command(epilog=shared.examples("genpercept demo -o demo"))
@shared.out(default=Path("demo"), show_default=True, help="Folder of report.html.")
@click.option("--model-depth", default="mini/depth", show_default=True, metavar="M", help="The depth model.")
@click.option("--model-normals", default="mini/normals", show_default=True, metavar="M", help="The normals model.")
@shared.device()
@shared.debuggable
def demo(out: Path, model_depth: str, model_normals: str, device: str) -> int:
    """Show the embedded models on real photographs and on scenes with known answers: DIR/report.html."""
    from genpercept.commands.demo.run import main

    return main(out=out, model_depth=model_depth, model_normals=model_normals, device=device)
