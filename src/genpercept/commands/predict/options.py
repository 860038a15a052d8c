"""The options of `genpercept predict`; the work is done by `run.py`, imported when the command runs."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any, Literal

import rich_click as click

from genpercept.commands import shared_options as shared

_SPACE, _POSES, _SHARPNESS, VIDEOS = "Depth in space", "Poses", "Sharpness", "Videos"
OVERLAP = 0.25  # of pipeline.tiles.plan, which brings numpy: no help should wait for it
_STRENGTH = "0.8"  # of pipeline.video.smooth, whose arithmetic no help should wait for


class _Command(click.RichCommand):
    """`--smooth` with or without its number: an input behind it is none."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        given = list(args)
        for place, word in enumerate(given[: given.index("--")] if "--" in given else given):
            following = given[place + 1 : place + 2]
            if word == "--smooth" and not (following and _NUMBER.fullmatch(following[0])):
                given[place] = f"--smooth={_STRENGTH}"
        return super().parse_args(ctx, given)


_NUMBER = re.compile(r"[+-]?[0-9]*\.?[0-9]+")


@click.command(
    epilog=shared.examples(
        "genpercept predict photos/ -o results",
        "genpercept predict photo.jpg -o normals.png -t normals",
        "genpercept predict 'shots/**/*.jpg' -o results -t matting --format cutout --resume",
        "genpercept predict photos/ -o results -m prs-eth/marigold-depth-v1-1 --steps 4 --ensemble-size 5",
        "genpercept predict photo.jpg -o room.glb --fit measured.csv --show",
        "genpercept predict clip.mp4 -o results --smooth --side-by-side",
    ),
    cls=_Command,
)
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@shared.model(help="Embedded name, folder or hub id.  [default: mini/depth]")
@shared.model_source(
    task="Task, where the model does not say, or several that it answers at once: depth,normals; alone: the embedded mini/T."
)
@shared.out(help="Folder for DIR/<stem>_<task>.<ext>; or, of one image, a file.png, or - for stdout.")
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
    help="Of png (16 bits), color, npy, npz, exr; depth: ply, points, mesh, glb; masks: mask, cutout; poses: coco; anomaly: "
    "overlay; films: mp4, too.  [default: png,color; poses: coco,color; anomaly: overlay, too; films: mp4]",
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
@shared.resize_mode()
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
    "--fit",
    panel=_SPACE,
    metavar="KNOWN",
    help="Depth in metres, by known distances: CSV of x,y,metres, or a depth map; of several images a folder.",
)
@click.option(
    "--fit-scale",
    panel=_SPACE,
    type=float,
    metavar="X",
    help="Metres for each unit of KNOWN.  [default: 1; of 16-bit images 0.001]",
)
@click.option(
    "--fov",
    panel=_SPACE,
    type=float,
    metavar="X",
    help="Horizontal field of view in degrees.  [default: by EXIF, else 60]",
)
@click.option(
    "--mesh-vertices",
    panel=_SPACE,
    type=click.IntRange(min=4),
    default=1_000_000,
    show_default=True,
    metavar="N",
    help="Of a mesh at most.",
)
@shared.show(panel=_SPACE, help="Then show depth in space, in a browser, until Ctrl-C (viser).")
@shared.flip_test()
@click.option(
    "--tiles",
    panel=_SHARPNESS,
    type=shared.BatchSize(),
    is_flag=False,
    flag_value="auto",
    default=None,
    metavar="N",
    help="Large images: also in tiles of N x N pixels, joined without seams; auto: N by the image and the model.",
)
@click.option(
    "--overlap",
    panel=_SHARPNESS,
    type=float,
    default=OVERLAP,
    show_default=True,
    metavar="X",
    help="Least share of a tile's edge that its neighbour has, too: 0 to 0.9.",
)
@click.option(
    "--refine",
    panel=_SHARPNESS,
    is_flag=True,
    help="Bring edges to those of the image; of mattes and masks, hair to hair.",
)
@click.option(
    "--boxes",
    panel=_POSES,
    metavar="FILE",
    help="Poses: people's boxes, JSON: by image name, or COCO's.",
)
@click.option(
    "--detector",
    panel=_POSES,
    metavar="NAME[=MODEL]",
    help="Poses: find the people with it, such as yolos.",
)
@click.option(
    "--box-score",
    panel=_POSES,
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
@click.option(
    "--video",
    panel=VIDEOS,
    is_flag=True,
    help="Take each folder or pattern of images as the frames of one clip, by name.",
)
@click.option("--fps", panel=VIDEOS, type=float, metavar="N", help="Frames a second of such a clip.  [default: 25]")
@click.option(
    "--smooth",
    panel=VIDEOS,
    type=click.FloatRange(0, 1, max_open=True),
    default=0.0,
    metavar="[W]",
    help=f"Steady each pixel along its motion; W from 0 to below 1 is the past's weight, {_STRENGTH} unless given.",
)
@click.option("--side-by-side", panel=VIDEOS, is_flag=True, help="The film beside its colours, in one picture.")
@shared.resume(help="Skip images whose results are there and whole; go on within a clip.")
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
    out: Path | None,
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
    show: bool,
    video: bool,
    fps: float | None,
    smooth: float,
    side_by_side: bool,
    **request: Any,
) -> int:
    """Predict images: files, folders, patterns such as 'photos/**/*.jpg', or - for stdin. Under `accelerate launch`: by several
    processes. Films, frame by frame, become a film, DIR/<stem>_<task>.mp4.

    Ctrl-C finishes what is in hand; twice, it leaves at once. Exit code 0 when all went well, 1 when some images failed (they
    are listed at the end), 2 when none could be done.
    """
    if out is None and not show:
        raise click.UsageError("Missing option '--out' / '-o'.")
    from genpercept.commands.predict.run import Asked, Machine, Request, run, run_and_show

    names = None if formats is None else [name.strip().lower() for name in formats.split(",") if name.strip()]
    machine = Machine(device, batch_size, offload, vae_slicing, vae_tiling)
    how: dict[str, Any] = {"formats": names, "machine": machine, "resume": resume, "engine": engine}
    how |= {"recursive": recursive, "overwrite": overwrite, "debug": "--debug" in sys.argv}
    how["clips"] = Asked(video, fps, smooth, side_by_side)
    if show or out is None:
        return run_and_show(inputs, out, Request(**request), **how)
    return run(inputs, out, Request(**request), **how)
