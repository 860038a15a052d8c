"""The options of `genpercept export`; the work is done by `run.py`, imported when the command runs."""

from __future__ import annotations

from typing import Any

import rich_click as click

from genpercept.commands import shared_options as shared


@click.command(
    epilog=shared.examples(
        "genpercept export mini/depth --to onnx -o depth.onnx", "genpercept predict photos/ -m depth.onnx -o results"
    )
)
@click.argument("model")
@click.option(
    "--to", metavar="TARGET", required=True, help="diffusers, onnx, openvino, or one of another installed package."
)
@shared.out(required=True, help="A new or empty folder, or an earlier export; FILE.onnx, FILE.xml.")
@shared.dtype(
    type=click.Choice(["fp32", "fp16", "int8"]),
    default=None,
    show_default=None,
    metavar="T",
    help="onnx: fp32, fp16; openvino: fp32, fp16, int8.  [default: fp32]",
)
@click.option(
    "--images",
    multiple=True,
    metavar="FILE",
    help="Graphs: check on these, int8: and calibrate. Repeatable.  [drawn ones]",
)
@shared.model_source(
    base="Its base model: of a public checkpoint, and where the layout has its parts.",
    family="Layout of a public checkpoint, where its files leave it open.",
    task="Task, where the model does not say.",
)
@shared.debuggable
def export(model: str, **options: Any) -> int:
    """Write MODEL for other programs.

    diffusers: a GenPercept folder (U-Net, DPT head, decoder where trained), or a full Marigold, E2E-FT or Lotus folder, by how
    the model is run. onnx, openvino: one step as a graph, for models of one step, checked against the model on ten images;
    `genpercept predict --model FILE.onnx` runs it. Exit code 0 when it is written, 2 when it cannot hold the model.
    """
    from genpercept.commands.export.run import main

    return main(model=model, **options)
