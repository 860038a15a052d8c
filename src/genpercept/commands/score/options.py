"""The options of `genpercept score`; the work is done by `run.py`, imported when the command runs."""

from __future__ import annotations

from typing import Any

import rich_click as click

from genpercept.commands import shared_options as shared


@click.command(epilog=shared.examples("genpercept score depth --pred results --gt truth --protocol nyu"))
@click.argument("task")
@click.option("--pred", type=shared.PATH, required=True, metavar="P", help="Prediction, or folder of them.")
@click.option("--gt", type=shared.PATH, required=True, metavar="G", help="Ground truth, or folder; matched by name.")
@click.option("--valid", type=shared.PATH, metavar="V", help="Mask, or folder: which pixels count.")
@click.option("--trimap", type=shared.PATH, metavar="T", help="Matting: trimap, or folder: 0, 128 where unknown, 255.")
@click.option("--skeleton", type=shared.PATH, metavar="S", help="DIS: skeleton of the ground truth, or folder.")
@shared.protocol(metavar="NAME", help="A named protocol, such as nyu, kitti or dim; options override it.")
@click.option("--align", metavar="HOW", help="Depth: least_squares, ransac, median, none.")
@click.option("--space", metavar="SPACE", help="Where depth is aligned: depth, disparity or root_disparity.")
@click.option("--min-depth", type=float, metavar="M", help="Metres.")
@click.option("--max-depth", type=float, metavar="M", help="Metres.")
@click.option("--crop", metavar="NAME", help="Evaluation crop, such as nyu_eigen or kitti_garg.")
@click.option("--max-res", type=int, metavar="N", help="Depth: align on maps no wider than this.")
@click.option("--mask-only", is_flag=True, default=None, help="Depth: the mask alone says what counts, not the range.")
@click.option("--aggregate", metavar="HOW", help="Normals: pixels (pooled) or images.")
@click.option("--num-classes", type=int, metavar="N", help="Segmentation: ids from N on are no class.  [default: any]")
@click.option(
    "--ignore-index", type=int, multiple=True, metavar="I", help="Segmentation: not counted; repeatable.  [-1, 255]"
)
@click.option("--region", metavar="R", help="Matting: all, or trimap (where it says unknown).")
@click.option("--fpr-limit", type=float, metavar="X", help="Anomaly: AUPRO up to this rate.  [default: 0.3]")
@click.option("--pred-scale", type=float, metavar="X", help="Stored predictions are divided by X.")
@click.option("--gt-scale", type=float, metavar="X", help="Stored ground truth is divided by X (KITTI: 256).")
@shared.dataset_option("pairs", help="What else the metric takes: an option, or a further file or folder. Repeatable.")
@click.option("--per-image", is_flag=True, help="Add the figures of each image.")
@click.option("--details", is_flag=True, help="Add what there is besides: per class, per category, recall.")
@shared.debuggable
def score(ignore_index: tuple[int, ...], pairs: tuple[str, ...], **options: Any) -> int:
    """Score predictions of TASK in files or folders against ground truth: JSON on stdout.

    TASK: depth, disparity, normals, segmentation, dis, matting (npy, npz, exr, png, tif), anomaly (the same, in folders as
    MVTec AD's), pose (COCO's JSON files), or a metric of another installed package.
    """
    from genpercept.commands.score.run import main
    from genpercept.core.texts import assignments

    options["ignore_index"] = ignore_index or None
    return main(**options | assignments(pairs, "region=trimap"))
