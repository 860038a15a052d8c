"""The command line, thin: options here, work in the modules, which are imported only when their command runs."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar

import click

from genpercept import __version__, bench

F = TypeVar("F", bound=Callable[..., Any])

# Which extra brings a package that a plain installation lacks.
_EXTRAS = {
    **dict.fromkeys(("accelerate", "tensorboard"), "train"),
    **dict.fromkeys(("numba", "skimage"), "synthetic"),
    **dict.fromkeys(("py_sod_metrics", "pycocotools", "sklearn", "cv2"), "evaluate"),
    "OpenEXR": "exr",
    "h5py": "data",
    "pymatting": "matting",
    **dict.fromkeys(("onnx", "onnxscript", "onnxruntime"), "onnx"),
    **dict.fromkeys(("openvino", "nncf"), "openvino"),
    "ray": "ray",
}
_PATH = click.Path(path_type=Path)
_EXPORTS = ("diffusers", "onnx", "openvino")  # as genpercept.export.TARGETS, which is heavy to import


def main() -> NoReturn:
    """Entry point. Exit codes: 0 done, 1 partly done, 2 nothing could be done or wrong usage, 130 interrupted."""
    signal.signal(signal.SIGTERM, _terminated)
    # transformers warns at import of whatever optional package is absent; what we need of it is checked where it is needed
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    warnings.filterwarnings("ignore", category=UserWarning, module="PIL")  # damaged metadata of readable images
    try:
        code = cli.main(prog_name="genpercept", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        _fail(error.format_message())
    except (click.Abort, KeyboardInterrupt):
        print("genpercept: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        if "--debug" in sys.argv:
            raise
        _fail(_message(error))
    sys.exit(code if isinstance(code, int) else 0)


def _terminated(number: int, frame: Any) -> NoReturn:
    sys.exit(128 + number)  # as an exception, so that temporary files are removed on the way out


def _message(error: Exception) -> str:
    """A user's mistake on one line; what is a mistake of ours keeps its traceback."""
    if isinstance(error, ModuleNotFoundError):
        package = (error.name or "").partition(".")[0]
        if package not in _EXTRAS:
            raise error
        return f"this needs the package {package}: pip install 'genpercept[{_EXTRAS[package]}]'"
    return str(error) or type(error).__name__


def _fail(message: str) -> NoReturn:
    print(f"genpercept: error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)


def debuggable(command: F) -> F:
    """Adds --debug: a traceback in place of the one line. `main` looks for it, since commands need not know."""
    return click.option("--debug", is_flag=True, expose_value=False, help="Show a traceback on errors.")(command)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="genpercept")
@debuggable
def cli() -> None:
    """Depth, normals and other dense predictions from one-step diffusion models: run, train, compare.

    Start with `genpercept demo`, or `genpercept predict photo.jpg --out results`. Models: an embedded name such as
    mini/depth, a folder, or a hub id.
    """


allow_pickle = click.option(
    "--allow-pickle", is_flag=True, help="Read .bin and .ckpt weights too; nothing but tensors is read from them."
)


class _BatchSize(click.ParamType):
    """A number from 1 on, or auto."""

    name = "n|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | Literal["auto"]:
        return "auto" if value == "auto" else click.IntRange(min=1).convert(value, param, ctx)


def model_options(command: F) -> F:
    """--model, --subfolder, --base, --family, --task, --allow-pickle."""
    for option in (
        allow_pickle,
        click.option("--task", metavar="T", help="Task, where the model does not say; alone: the embedded mini/T."),
        click.option("--family", metavar="F", help="Layout of a public checkpoint, such as genpercept."),
        click.option("--base", metavar="B", help="The base model that a public checkpoint was fine-tuned from."),
        click.option("--subfolder", metavar="S", help="Where the model lies inside its folder or hub repository."),
        click.option("--model", metavar="M", help="Embedded name, folder or hub id.  [default: mini/depth]"),
    ):
        command = option(command)
    return command


@cli.command()
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@model_options
@click.option(
    "--out", type=_PATH, required=True, metavar="DIR", help="Folder for DIR/<stem>_<task>.<ext>; made if missing."
)
@click.option(
    "--format",
    "formats",
    metavar="LIST",
    help="Of png (16 bits), color, npy, npz, exr, ply; masks: mask, cutout; poses: coco.  [default: png,color; poses: "
    "coco,color]",
)
@click.option(
    "--processing-resolution",
    type=click.IntRange(min=0),
    metavar="N",
    help="Longest edge the network sees; 0: the image's own.  [default: the model's]",
)
@click.option("--steps", type=click.IntRange(min=1), metavar="N", help="Steps, for models that take several.")
@click.option(
    "--ensemble-size",
    type=click.IntRange(min=1),
    default=1,
    metavar="N",
    help="Runs to merge, for models that start from noise; also writes their uncertainty.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the noise, where there is any."
)
@click.option(
    "--device", default="auto", show_default=True, metavar="D", help="auto, cpu, cuda, cuda:1, mps, or cuda:0,cuda:1."
)
@click.option(
    "--dtype",
    type=click.Choice(["fp32", "bf16", "fp16"]),
    default="fp32",
    show_default=True,
    help="Of the network's weights.",
)
@click.option(
    "--batch-size",
    type=_BatchSize(),
    default=1,
    show_default=True,
    help="Images of one size at once; auto: as memory allows.",
)
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="ray: the workers of a Ray cluster; also writes DIR/manifest.jsonl.",
)
@click.option(
    "--fov", type=float, default=60.0, show_default=True, help="Horizontal field of view in degrees, for ply."
)
@click.option("--flip-test", is_flag=True, help="Mean of the image's and its mirror image's answer; twice the time.")
@click.option("--boxes", metavar="FILE", help="Poses: people's boxes, JSON: by image name, or COCO's.")
@click.option("--detector", metavar="NAME[=MODEL]", help="Poses: find the people with it, such as yolos.")
@click.option(
    "--box-score", type=float, default=0.3, show_default=True, metavar="X", help="Poses: least score of a box."
)
@click.option(
    "--specialised/--no-specialised",
    default=None,
    help="Fold what is constant in one step: quicker.  [default: as the model was saved]",
)
@click.option(
    "--encoder", metavar="C", help="Another codec's encoder: its folder or hub id, or a model's that has one."
)
@click.option("--decoder", metavar="C", help="Another codec's decoder, likewise.")
@click.option("--offload", is_flag=True, help="Keep parts in main memory while the accelerator does not need them.")
@click.option("--vae-slicing", is_flag=True, help="Encode and decode image by image: less memory with --batch-size.")
@click.option("--vae-tiling", is_flag=True, help="Encode and decode in tiles: less memory for large images.")
@click.option(
    "--strips", is_flag=True, help="--specialised, its codec in strips: less memory for large images, no seams."
)
@click.option("--resume", is_flag=True, help="Skip images whose results are there and whole.")
@debuggable
def predict(
    inputs: tuple[str, ...],
    out: Path,
    formats: str | None,
    resume: bool,
    device: str,
    batch_size: int | Literal["auto"],
    engine: str,
    offload: bool,
    vae_slicing: bool,
    vae_tiling: bool,
    **request: Any,
) -> int:
    """Predict images: files, folders and patterns such as 'photos/**/*.jpg'. Under `accelerate launch`: by several processes.

    Exit code 0 when all went well, 1 when some images failed (they are listed at the end), 2 when none could be done.
    """
    from genpercept.predict import Machine, Request, run

    names = None if formats is None else [name.strip().lower() for name in formats.split(",") if name.strip()]
    machine = Machine(device, batch_size, offload, vae_slicing, vae_tiling)
    return run(inputs, out, Request(**request), formats=names, machine=machine, resume=resume, engine=engine)


@cli.command()
@click.argument("recipe", type=_PATH, metavar="RECIPE.toml")
@click.option(
    "--set", "overrides", multiple=True, metavar="K=V", help="Override a key, such as optim.lr=1e-4. Repeatable."
)
@click.option("--out", type=_PATH, metavar="RUN", help="Folder of the run.")
@click.option("--resume", is_flag=True, help="Go on from the run's last checkpoint.")
@click.option("--dry-run", is_flag=True, help="Print the resolved recipe and stop; needs no --out.")
@debuggable
def train(recipe: Path, overrides: tuple[str, ...], out: Path | None, resume: bool, dry_run: bool) -> int:
    """Train what RECIPE.toml describes: an autoencoder, a denoiser, or a predictor."""
    from genpercept import train as module  # pyright: ignore[reportAttributeAccessIssue]

    if out is None and not dry_run:
        raise click.UsageError("--out RUN is missing: the folder that the run is to be written to")
    return module.main(recipe=recipe, overrides=list(overrides), out=out or Path(), resume=resume, dry_run=dry_run)


@cli.group()
def data() -> None:
    """Data sets: the published ones (docs/datasets.md), and your own images and labels (docs/training.md)."""


@data.command("list")
@click.option("--json", "as_json", is_flag=True, help="All that is known of them, as JSON.")
@debuggable
def data_list(as_json: bool) -> int:
    """List the data sets: what each provides, its tasks and protocols, licence, and the extra that it needs."""
    from genpercept import datalist

    return datalist.main(as_json)


_DATA_OPTIONS = (
    click.option("--option", "pairs", multiple=True, metavar="K=V", help="Option of the data set. Repeatable."),
    click.option("--split", metavar="S", help="Such as train, val or test; `genpercept data list --json` has all."),
    click.option("--root", type=_PATH, metavar="R", help="The data set's folder, in its published layout."),
)


def data_options(command: F) -> F:
    """--root, --split, --option."""
    for option in _DATA_OPTIONS:
        command = option(command)
    return command


@data.command("check")
@click.argument("name", metavar="NAME_OR_FOLDER")
@data_options
@click.option("--limit", type=click.IntRange(min=0), default=0, metavar="N", help="Read only N samples, evenly spaced.")
@click.option("--skip-bad", is_flag=True, help="Broken samples are counted and named, but are no failure.")
@click.option("--out", type=_PATH, metavar="DIR", help="Folder for contact_sheet.png; made if missing.")
@click.option(
    "--depth-scale", type=float, metavar="X", help="FOLDER: units of 16-bit depth per metre.  [default: 1000]"
)
@click.option("--normals-axes", type=click.Choice(["ours", "opencv"]), help="FOLDER: axes of normals.  [default: ours]")
@debuggable
def data_check(
    name: str,
    root: Path | None,
    split: str | None,
    pairs: tuple[str, ...],
    limit: int,
    skip_bad: bool,
    out: Path | None,
    **short: Any,
) -> int:
    """Read a data set, or every sample of your own FOLDER (or manifest): what is there, what is broken, value ranges.

    Exit code 0 when all is well, 1 when some samples are broken (they are named), 2 when none can be read.
    """
    from genpercept import datacheck

    options = {k: v for k, v in short.items() if v is not None} | datacheck.options_of(pairs)
    if datacheck.named(name, root):
        return datacheck.check_named(name, root, split, out, options, limit, skip_bad)
    return datacheck.main(Path(name), out, options, split or "all", limit, skip_bad)


@data.command("preview")
@click.argument("name")
@data_options
@click.option("--out", type=_PATH, required=True, metavar="FILE.png", help="The sheet; its folder is made if missing.")
@click.option("--count", type=click.IntRange(1, 200), default=12, show_default=True, help="Samples, evenly spaced.")
@debuggable
def data_preview(name: str, root: Path | None, split: str | None, pairs: tuple[str, ...], out: Path, count: int) -> int:
    """Draw a contact sheet of the data set NAME: images beside their labels."""
    from genpercept import datacheck

    return datacheck.preview(name, root, split, out, count, datacheck.options_of(pairs))


@cli.command()
@click.argument("name", metavar="NAME_OR_FILE.toml")
@click.option(
    "--scale",
    type=click.Choice(["mini", "full"]),
    default="mini",
    show_default=True,
    help="Which study of that NAME: with the embedded base on the synthetic world, or at the paper's size.",
)
@click.option("--out", type=_PATH, required=True, metavar="RUN", help="Folder of the study's runs and its report.")
@click.option("--resume", is_flag=True, help="Go on: finished runs are left as they are.")
@click.option("--arms", default="", metavar="A,B", help="Only these arms.")
@click.option("--seeds", default="", metavar="0,1", help="Only these seeds.")
@click.option("--jobs", "at_once", type=click.IntRange(min=1), default=1, show_default=True, help="Runs side by side.")
@click.option(
    "--set", "overrides", multiple=True, metavar="K=V", help="Override a key of every recipe, or study.K. Repeatable."
)
@click.option("--dry-run", is_flag=True, help="Print the runs and the time they would take, and stop.")
@debuggable
def study(**options: Any) -> int:
    """Train and compare the arms of a study: NAME.md, NAME.json and NAME.png in RUN.

    Exit code 0 when all runs went well, 1 when some failed, 2 when all did.
    """
    from genpercept import study as module  # pyright: ignore[reportAttributeAccessIssue]

    return module.main(**options)


@cli.command()
@click.option(
    "--model", "models", multiple=True, metavar="M", help="Embedded name, folder or hub id. Repeatable: a table."
)
@click.option("--subfolder", metavar="S", help="Where the model lies inside its folder or hub repository.")
@click.option("--base", metavar="B", help="The base model that a public checkpoint was fine-tuned from.")
@click.option("--family", metavar="F", help="Layout of a public checkpoint, such as genpercept.")
@click.option("--task", metavar="T", help="Task, where the model does not say; alone: the embedded mini/T.")
@allow_pickle
@click.option(
    "--dataset", "datasets", multiple=True, metavar="D[=ROOT]", help="Data set, with its folder. Repeatable: a table."
)
@click.option("--suite", metavar="NAME", help="Several sets beside a paper's figures, such as depth-zero-shot.")
@click.option(
    "--root",
    "roots",
    multiple=True,
    metavar="R",
    help="The data set's folder; of several: D=R, or a folder that has D/.",
)
@click.option("--split", metavar="S", help="Split.  [default: test, else val, else all]")
@click.option("--protocol", metavar="P", help="Protocol of the metric.  [default: the data set's own]")
@click.option("--option", "options", multiple=True, metavar="K=V", help="Data set option, D.K=V for one. Repeatable.")
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="Only the first N samples.")
@click.option(
    "--processing-resolution",
    type=click.IntRange(min=0),
    metavar="N",
    help="Longest edge the network sees; 0: the image's own.  [default: the model's]",
)
@click.option("--steps", type=click.IntRange(min=1), metavar="N", help="Steps, for models that take several.")
@click.option("--ensemble-size", type=click.IntRange(min=1), default=1, metavar="N", help="Runs to merge.")
@click.option("--flip-test", is_flag=True, help="Mean of the image's and its mirror image's answer; twice the time.")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the noise, where there is any."
)
@click.option("--batch-size", type=click.IntRange(min=1), default=1, show_default=True, help="Images at once.")
@click.option("--device", default="auto", show_default=True, metavar="D", help="auto, cpu, cuda, cuda:1, mps.")
@click.option(
    "--dtype",
    type=click.Choice(["fp32", "bf16", "fp16"]),
    default="fp32",
    show_default=True,
    help="Of the network's weights.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    default=2,
    show_default=True,
    help="Processes for the metrics; 0: none of their own.",
)
@click.option("--baselines", is_flag=True, help="Also trivial answers, such as one depth everywhere.")
@click.option("--resume", is_flag=True, help="Use the predictions that are in DIR and made under the same settings.")
@click.option("--skip-bad", is_flag=True, help="Samples that cannot be used are counted and listed; exit code 1.")
@click.option("--keep-predictions/--no-keep-predictions", "keep", default=True, help="In DIR/predictions, once scored.")
@click.option("--out", type=_PATH, required=True, metavar="DIR", help="Folder of results.json and report.html.")
@debuggable
def evaluate(
    processing_resolution: int | None,
    steps: int | None,
    ensemble_size: int,
    flip_test: bool,
    seed: int,
    dtype: str,
    **options: Any,
) -> int:
    """Evaluate models on data sets: a table, results.json, .csv and .tex, and report.html in DIR.

    Exit code 0 when all went well, 1 when bad samples were skipped, 2 when it stopped.
    """
    from genpercept import evaluate as module  # pyright: ignore[reportAttributeAccessIssue]

    way = module.Way(processing_resolution, steps, ensemble_size, flip_test, seed, dtype)
    return module.main(**options, way=way)


@cli.command()
@click.argument("task")
@click.option("--pred", type=_PATH, required=True, metavar="P", help="Prediction, or folder of them.")
@click.option("--gt", type=_PATH, required=True, metavar="G", help="Ground truth, or folder; matched by name.")
@click.option("--valid", type=_PATH, metavar="V", help="Mask, or folder: which pixels count.")
@click.option("--trimap", type=_PATH, metavar="T", help="Matting: trimap, or folder: 0, 128 where unknown, 255.")
@click.option("--skeleton", type=_PATH, metavar="S", help="DIS: skeleton of the ground truth, or folder.")
@click.option("--protocol", metavar="NAME", help="A named protocol, such as nyu, kitti or dim; options override it.")
@click.option("--align", metavar="HOW", help="Depth: least_squares, ransac, median, none.")
@click.option("--space", metavar="SPACE", help="Where depth is aligned: depth or disparity.")
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
@click.option("--per-image", is_flag=True, help="Add the figures of each image.")
@click.option("--details", is_flag=True, help="Add what there is besides: per class, per category, recall.")
@debuggable
def score(ignore_index: tuple[int, ...], **options: Any) -> int:
    """Score predictions of TASK in files or folders against ground truth: JSON on stdout.

    TASK: depth, disparity, normals, segmentation, dis, matting (npy, npz, png), anomaly (the same, in folders as MVTec
    AD's) or pose (COCO's JSON files).
    """
    from genpercept import score as module

    return module.main(**options, ignore_index=ignore_index or None)


@cli.command()
@click.argument("model")
@click.option("--to", type=click.Choice(_EXPORTS), required=True, help="diffusers: what the family's own code loads.")
@click.option(
    "--out",
    type=_PATH,
    required=True,
    metavar="DIR",
    help="A new or empty folder, or an earlier export; FILE.onnx, FILE.xml.",
)
@click.option(
    "--dtype",
    type=click.Choice(["fp32", "fp16", "int8"]),
    metavar="T",
    help="onnx: fp32, fp16; openvino: fp32, fp16, int8.  [default: fp32]",
)
@click.option(
    "--images",
    multiple=True,
    metavar="FILE",
    help="Graphs: check on these, int8: and calibrate. Repeatable.  [drawn ones]",
)
@click.option("--subfolder", metavar="S", help="Where the model lies inside its folder or hub repository.")
@click.option("--base", metavar="B", help="Its base model: of a public checkpoint, and where the layout has its parts.")
@click.option("--family", metavar="F", help="Layout of a public checkpoint, where its files leave it open.")
@click.option("--task", metavar="T", help="Task, where the model does not say.")
@allow_pickle
@debuggable
def export(model: str, **options: Any) -> int:
    """Write MODEL for other programs.

    diffusers: a GenPercept folder (U-Net, DPT head, decoder where trained), or a full Marigold, E2E-FT or Lotus folder, by how
    the model is run. onnx, openvino: one step as a graph, for models of one step, checked against the model on ten images;
    `genpercept predict --model FILE.onnx` runs it. Exit code 0 when it is written, 2 when it cannot hold the model.
    """
    from genpercept import export as module  # pyright: ignore[reportAttributeAccessIssue]

    return module.main(model=model, **options)


@cli.command()
@click.argument("model")
@click.option("--subfolder", metavar="S", help="Where the model lies inside its folder or hub repository.")
@click.option("--base", metavar="B", help="The base that a public checkpoint is to be loaded with.")
@click.option("--family", metavar="F", help="Layout of a public checkpoint, where its files leave it open.")
@click.option("--task", metavar="T", help="Task, where the model does not say.")
@allow_pickle
@click.option("--json", "as_json", is_flag=True, help="All of it as JSON.")
@debuggable
def inspect(model: str, **options: Any) -> int:
    """Tell what MODEL is: family, task, parts, sizes, what is missing, and whether it would load. Reads headers only.

    MODEL: an embedded name, a folder (a predictor, a base, a public checkpoint, an adapter, a training run) or a hub id.
    Exit code 0 when it is whole, 1 when it has problems, 2 when it is no model.
    """
    from genpercept import inspect as module  # pyright: ignore[reportAttributeAccessIssue]

    return module.main(model=model, **options)


@cli.command()
@click.option(
    "--out", type=_PATH, default=Path("demo"), show_default=True, metavar="DIR", help="Folder of report.html."
)
@click.option("--model-depth", default="mini/depth", show_default=True, metavar="M", help="The depth model.")
@click.option("--model-normals", default="mini/normals", show_default=True, metavar="M", help="The normals model.")
@click.option("--device", default="auto", show_default=True, metavar="D", help="auto, cpu, cuda, mps.")
@debuggable
def demo(out: Path, model_depth: str, model_normals: str, device: str) -> int:
    """Show the embedded models on real photographs and on scenes with known answers: DIR/report.html."""
    from genpercept import demo as module  # pyright: ignore[reportAttributeAccessIssue]

    return module.main(out=out, model_depth=model_depth, model_normals=model_normals, device=device)


@cli.command()
@click.option("--device", default="auto", show_default=True, metavar="D", help="auto, cpu, cuda, mps.")
@debuggable
def doctor(device: str) -> int:
    """Check the installation: versions, the device that works, memory, where models would come from.

    Exit code 0 when predicting would work here, 1 when something it needs is missing or broken.
    """
    from genpercept import doctor as module

    return module.main(device=device)


cli.add_command(debuggable(bench.command), "bench")
