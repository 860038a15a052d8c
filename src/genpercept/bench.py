"""`genpercept bench`: stages timed apart and together, memory, FLOPs, cold start, the machine's ceiling, and peers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

_PATH = click.Path(path_type=Path)


@click.command()
@click.option("--model", metavar="M", help="Embedded name, folder or hub id; in place of --shape.")
@click.option("--shape", type=click.Choice(["sd21", "mini"]), help="Random weights at these sizes.  [default: sd21]")
@click.option("--codec", type=click.Choice(["kl", "tiny"]), help="Of --shape.  [default: kl]")
@click.option("--head", type=click.Choice(["vae", "dpt"]), help="Of --shape; vae: the codec's decoder.  [default: vae]")
@click.option(
    "--processing-resolution",
    type=click.IntRange(min=8),
    metavar="N",
    help="Longest edge the network sees.  [default: 768]",
)
@click.option("--batch-size", "batches", default="1", show_default=True, metavar="LIST", help="Such as 1,4,16.")
@click.option("--dtype", "dtypes", default="fp32", show_default=True, metavar="LIST", help="Of fp32, bf16, fp16.")
@click.option("--device", default="auto", show_default=True, metavar="D", help="auto, cpu, cuda, cuda:1, mps.")
@click.option("--threads", type=click.IntRange(min=1), metavar="N", help="Of the CPU.  [default: torch's choice]")
@click.option(
    "--specialised/--no-specialised",
    default=None,
    help="Fold what is constant.  [default: no; with --compile, --cuda-graphs or --strips: yes]",
)
@click.option("--compile", "compiled", type=click.Choice(["dynamic", "static"]), help="Compile the specialised one.")
@click.option("--cuda-graphs", is_flag=True, help="Replay the specialised one's graphs.")
@click.option(
    "--runtime",
    type=click.Choice(["torch", "onnx", "openvino", "openvino-int8"]),
    help="What runs the network.  [default: torch]",
)
@click.option("--attention-slicing", is_flag=True, help="Attention in slices: less memory.")
@click.option("--vae-tiling", is_flag=True, help="Encode and decode in tiles: less memory for large images.")
@click.option("--strips", is_flag=True, help="The specialised codec in strips: less memory, no seams.")
@click.option("--compare/--no-compare", default=False, help="Answers with those in float32, plain; a run of that more.")
@click.option("--cold/--no-cold", default=True, show_default=True, help="Time a cold start in a fresh process.")
@click.option(
    "--against", multiple=True, metavar="PEER", help="Also peers, or all, with random weights. Repeatable; see below."
)
@click.option("--warmup", type=click.IntRange(min=0), default=1, show_default=True, help="Runs before the clock.")
@click.option("--repeats", type=click.IntRange(min=1), default=7, show_default=True, help="Runs of each figure.")
@click.option("--seconds", type=float, default=20.0, show_default=True, help="After which a figure repeats no more.")
@click.option("--out", type=_PATH, metavar="DIR", help="Folder for bench.md and bench.json; made if missing.")
def command(**options: Any) -> int:
    """Measure how fast a model is here, stage by stage, and how much memory it takes.

    Each setting runs in a process of its own. PEER: marigold-1, marigold-4, marigold-10, marigold-10x10,
    depth-anything-v2-small, -base, -large, dpt-large, zoedepth-nyu, depth-pro; the paper's own table is added.
    Exit code 0 when all was measured, 1 when some was not, 2 when nothing was.
    """
    return main(**options)


def main(
    model: str | None = None,
    shape: str | None = None,
    codec: str | None = None,
    head: str | None = None,
    processing_resolution: int | None = None,
    batches: str = "1",
    dtypes: str = "fp32",
    device: str = "auto",
    threads: int | None = None,
    specialised: bool | None = None,
    compiled: str | None = None,
    cuda_graphs: bool = False,
    attention_slicing: bool = False,
    vae_tiling: bool = False,
    strips: bool = False,
    runtime: str | None = None,
    compare: bool = False,
    cold: bool = True,
    against: Sequence[str] = (),
    warmup: int = 1,
    repeats: int = 7,
    seconds: float = 20.0,
    out: Path | None = None,
) -> int:
    """Measure, print the tables, write bench.md and bench.json into `out`. The exit code; ValueError for what does not fit.

    `batches` and `dtypes`: separated by commas. Every other argument as `Setting` and `Effort` have it.
    """
    from genpercept._bench import output, peers
    from genpercept._bench.session import Session
    from genpercept._bench.setting import Effort, Setting
    from genpercept.devices import pick_device

    if model and (shape or codec or head):
        raise ValueError(f"{model}: a model has its own networks; leave --shape, --codec and --head out")
    names, sizes = peers.chosen(against), _sizes(batches)
    settings = [
        Setting(
            model=model,
            shape=shape or "sd21",
            codec=codec or "kl",
            head=head or "vae",
            resolution=processing_resolution or 768,
            dtype=dtype.strip(),
            device=pick_device(device),
            threads=threads or 0,
            specialised=bool(compiled or cuda_graphs or strips) if specialised is None else specialised,
            compile=compiled or "",
            cuda_graphs=cuda_graphs,
            attention_slicing=attention_slicing,
            vae_tiling=vae_tiling,
            strips=strips,
            runtime=runtime or "torch",
        )
        for dtype in dtypes.split(",")
    ]
    session = Session(Effort(warmup, repeats, seconds))
    for setting in settings:
        session.add(setting, sizes, cold=cold, compare=compare)
    for setting in settings:
        session.peers(names, setting)
    if names:
        session.quote()
    output.show(session.result)
    if out is not None:
        for path in output.save(session.result, out, "bench", f"Speed of {settings[0].network}"):
            click.echo(f"wrote {path}", err=True)
    measured = len(session.result["rows"]) + len(session.result["peers"]) - session.failed
    return 0 if not session.failed else 1 if measured else 2


def _sizes(text: str) -> list[int]:
    """ "1,4" -> [1, 4]. ValueError for anything else than integers of at least 1."""
    try:
        sizes = [int(part) for part in text.split(",")]
    except ValueError:
        sizes = []
    if not sizes or min(sizes) < 1:
        raise ValueError(f"batch size {text!r}: give integers of at least 1, such as 1,4,16")
    return list(dict.fromkeys(sizes))
