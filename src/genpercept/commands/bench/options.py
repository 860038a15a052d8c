"""The options of `genpercept bench`; the work is done by `run.py`, imported when the command runs."""

from __future__ import annotations

from typing import Any

import rich_click as click

from genpercept.commands import shared_options as shared


@click.command(
    epilog=shared.examples(
        "genpercept bench -m mini/depth", "genpercept bench --shape sd21 --processing-resolution 768 --dtype fp32,bf16"
    )
)
@shared.model(help="Embedded name, folder or hub id; in place of --shape.")
@click.option("--shape", type=click.Choice(["sd21", "mini"]), help="Random weights at these sizes.  [default: sd21]")
@click.option("--codec", type=click.Choice(["kl", "tiny"]), help="Of --shape.  [default: kl]")
@click.option("--head", type=click.Choice(["vae", "dpt"]), help="Of --shape; vae: the codec's decoder.  [default: vae]")
@shared.decoder(type=click.Choice(["half", "quarter"]), help="Of --shape: at so much of the size, guided.")
@click.option("--unet", type=click.Choice(["slim"]), help="Of --shape: without some of its blocks.")
@shared.processing_resolution(type=click.IntRange(min=8), help="Longest edge the network sees.  [default: 768]")
@shared.batch_size("batches", type=str, default="1", metavar="LIST", help="Such as 1,4,16.")
@shared.dtype("dtypes", type=str, metavar="LIST", help="Of fp32, bf16, fp16.")
@shared.device()
@click.option("--threads", type=click.IntRange(min=1), metavar="N", help="Of the CPU.  [default: torch's choice]")
@shared.specialised(
    help="Fold what is constant.  [default: no; with --compile, --cuda-graphs, --layout or --strips: yes]"
)
@click.option("--compile", "compiled", type=click.Choice(["dynamic", "static"]), help="Compile the specialised one.")
@click.option("--cuda-graphs", is_flag=True, help="Replay the specialised one's graphs.")
@click.option(
    "--layout",
    type=click.Choice(["channels_last", "contiguous"]),
    help="Memory format of the specialised one.  [default: on GPUs what is measured to be quicker]",
)
@click.option(
    "--runtime",
    type=click.Choice(["torch", "onnx", "openvino", "openvino-int8"]),
    help="What runs the network.  [default: torch]",
)
@click.option(
    "--quantise",
    type=click.Choice(["int8wo", "int8dq"]),
    help="Linear layers by torchao: int8 weights, or activations too.",
)
@click.option("--attention-slicing", is_flag=True, help="Attention in slices: less memory.")
@shared.vae_tiling()
@shared.strips(help="The specialised codec in strips: less memory, no seams.")
@click.option("--compare/--no-compare", default=False, help="Answers with those in float32, plain; a run of that more.")
@click.option("--cold/--no-cold", default=True, show_default=True, help="Time a cold start in a fresh process.")
@click.option(
    "--against", multiple=True, metavar="PEER", help="Also peers, or all, with random weights. Repeatable; see below."
)
@click.option("--warmup", type=click.IntRange(min=0), default=1, show_default=True, help="Runs before the clock.")
@click.option("--repeats", type=click.IntRange(min=1), default=7, show_default=True, help="Runs of each figure.")
@click.option("--seconds", type=float, default=20.0, show_default=True, help="After which a figure repeats no more.")
@shared.out(help="Folder for bench.md and bench.json; made if missing.")
@shared.debuggable
def bench(**options: Any) -> int:
    """Measure how fast a model is here, stage by stage, and how much memory it takes.

    Each setting runs in a process of its own. PEER, with its steps x members: marigold-1, marigold-4, marigold-10,
    marigold-10x10, geowizard-1, geowizard-10, geowizard-10x10, depthfm-2, depthfm-2x4, depthmaster,
    depth-anything-v2-small, depth-anything-v2-base, depth-anything-v2-large (@392 and @770: its input's edge, as
    depth-anything-v2-small@770), dpt-large, zoedepth-nyu, depth-pro, and all. The paper's own table is added.
    Exit code 0 when all was measured, 1 when some was not, 2 when nothing was.
    """
    from genpercept.commands.bench.run import main

    return main(**options)
