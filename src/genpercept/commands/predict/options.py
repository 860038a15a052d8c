"""The options of `genpercept predict`; the work is done by `run.py`, imported when the command runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal

import rich_click as click

from genpercept.commands import shared_options as shared


@click.command(
    epilog=shared.examples(
        "genpercept predict photos/ -o results",
        "genpercept predict photo.jpg -o normals.png -t normals",
        "genpercept predict 'shots/**/*.jpg' -o results -t matting --format cutout --resume",
        "genpercept predict photos/ -o results -m prs-eth/marigold-depth-v1-1 --steps 4 --ensemble-size 5",
    )
)
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@shared.model(help="Embedded name, folder or hub id.  [default: mini/depth]")
@shared.model_source(
    task="Task, where the model does not say, or several that it answers at once: depth,normals; alone: the embedded mini/T."
)
@shared.out(required=True, help="Folder for DIR/<stem>_<task>.<ext>; or, of one image, a file.png, or - for stdout.")
@click.option(
    "--recursive",
    panel=shared.FILES,
    is_flag=True,
    help="Folders with their subfolders; results lie in a tree like theirs.",
)
@click.option(
    "--format",
    "formats",
    panel=shared.FILES,
    metavar="LIST",
    shell_complete=shared.complete_formats,
    help="Of png (16 bits), color, npy, npz, exr, ply; masks: mask, cutout; poses: coco; anomaly: overlay.  [default: "
    "png,color; poses: coco,color; anomaly: overlay, too]",
)
@shared.processing_resolution()
@shared.steps()
@shared.ensemble_size(help="Runs to merge, for models that start from noise; also writes their uncertainty.")
@shared.seed()
@click.option(
    "--noise",
    panel=shared.HOW,
    metavar="FILE",
    help="Of the start, in place of --seed's: .npy, (runs, 4, height / 8, width / 8).",
)
@click.option(
    "--resize-mode",
    panel=shared.HOW,
    type=click.Choice(["fit", "official"]),
    default="fit",
    show_default=True,
    help="How images come to the network: fit pads; official follows the public code of the model's family.",
)
@shared.device(help="auto, cpu, cuda, cuda:1, mps, or cuda:0,cuda:1.")
@shared.dtype()
@shared.tf32()
@shared.batch_size(type=shared.BatchSize(), help="Images of one size at once; auto: as memory allows.")
@click.option(
    "--engine",
    panel=shared.MACHINE,
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="ray: the workers of a Ray cluster; also writes DIR/manifest.jsonl.",
)
@click.option(
    "--fov",
    panel="Poses and points",
    type=float,
    default=60.0,
    show_default=True,
    help="Horizontal field of view in degrees, for ply.",
)
@shared.flip_test()
@click.option(
    "--boxes",
    panel="Poses and points",
    metavar="FILE",
    help="Poses: people's boxes, JSON: by image name, or COCO's.",
)
@click.option(
    "--detector",
    panel="Poses and points",
    metavar="NAME[=MODEL]",
    help="Poses: find the people with it, such as yolos.",
)
@click.option(
    "--box-score",
    panel="Poses and points",
    type=float,
    default=0.3,
    show_default=True,
    metavar="X",
    help="Poses: least score of a box.",
)
@shared.specialised(help="Fold what is constant in one step: quicker.  [default: as the model was saved]")
@click.option(
    "--encoder",
    panel=shared.MODEL,
    metavar="C",
    help="Another codec's encoder: its folder or hub id, or a model's that has one.",
)
@shared.decoder(metavar="C", help="Another codec's decoder, likewise.")
@click.option(
    "--offload",
    panel=shared.MACHINE,
    is_flag=True,
    help="Keep parts in main memory while the accelerator does not need them.",
)
@click.option(
    "--vae-slicing",
    panel=shared.MACHINE,
    is_flag=True,
    help="Encode and decode image by image: less memory with --batch-size.",
)
@shared.vae_tiling()
@shared.strips(help="--specialised, its codec in strips: less memory for large images, no seams.")
@shared.resume(help="Skip images whose results are there and whole.")
@shared.max_pixels()
@click.option(
    "--overwrite",
    panel=shared.FILES,
    is_flag=True,
    help="Replace files that are not results of the same image, too.",
)
@shared.debuggable
def predict(
    inputs: tuple[str, ...],
    out: Path,
    formats: str | None,
    resume: bool,
    recursive: bool,
    overwrite: bool,
    device: str,
    batch_size: int | Literal["auto"],
    engine: str,
    offload: bool,
    vae_slicing: bool,
    vae_tiling: bool,
    **request: Any,
) -> int:
    """Predict images: files, folders, patterns such as 'photos/**/*.jpg', or - for stdin. Under `accelerate launch`: by several
    processes.

    Ctrl-C finishes what is in hand; twice, it leaves at once. Exit code 0 when all went well, 1 when some images failed (they
    are listed at the end), 2 when none could be done.
    """
    from genpercept.commands.predict.run import Machine, Request, run

    names = None if formats is None else [name.strip().lower() for name in formats.split(",") if name.strip()]
    machine = Machine(device, batch_size, offload, vae_slicing, vae_tiling)
    return run(
        inputs,
        out,
        Request(**request),
        formats=names,
        machine=machine,
        resume=resume,
        engine=engine,
        recursive=recursive,
        overwrite=overwrite,
        debug="--debug" in sys.argv,
    )
