"""Options that several commands have, each declared once.

`@shared.device()` adds --device to a command. What differs in a command is given in the call: another help, `required=True`,
or, first, the name of the parameter that the value goes to.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])
PATH = click.Path(path_type=Path)
MAX_PIXELS_VARIABLE = (
    "GENPERCEPT_MAX_PIXELS"  # of imaging.decode, which brings numpy and Pillow: no help should wait for them
)


def _shared(*names: str, **usual: Any) -> Callable[..., Callable[[F], F]]:
    """What adds the option `names` to a command; `usual` as click.option takes it, overridden by what the call gives."""

    def option(*parameter: str, **here: Any) -> Callable[[F], F]:
        return click.option(*names, *parameter, **{**usual, **here})

    return option


def together(*options: Callable[[Any], Any]) -> Callable[[F], F]:
    """What adds several options to a command; its help shows them in this order."""

    def add(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def debuggable(command: F) -> F:
    """Adds --debug: a traceback in place of the one line. `main` looks for it, since commands need not know."""
    return click.option("--debug", is_flag=True, expose_value=False, help="Show a traceback on errors.")(command)


# The model ----------------------------------------------------------------------------------------------------------------

model = _shared("--model", metavar="M")
_subfolder = _shared("--subfolder", metavar="S", help="Where the model lies inside its folder or hub repository.")
_revision = _shared("--revision", metavar="R", help="Branch, tag or commit of a hub repository.  [default: main]")
_variant = _shared(
    "--variant",
    metavar="V",
    help="Which weights, where parts have several: fp16, bf16, ema, ...  [default: the plain ones, or the only]",
)
_base = _shared("--base", metavar="B")
_family = _shared("--family", metavar="F")
task = _shared("--task", metavar="T")
_task = task  # of a model; the argument below is its help
_allow_pickle = _shared(
    "--allow-pickle", is_flag=True, help="Read .bin and .ckpt weights too; nothing but tensors is read from them."
)


def model_source(
    base: str = "The base model that a public checkpoint was fine-tuned from.",
    family: str = "Layout of a public checkpoint, such as genpercept.",
    task: str = "Task, where the model does not say; alone: the embedded mini/T.",
) -> Callable[[F], F]:
    """--subfolder, --revision, --variant, --base, --family, --task, --allow-pickle: how a model is read.

    The arguments are the helps of theirs.
    """
    where = (_subfolder(), _revision(), _variant())
    return together(*where, _base(help=base), _family(help=family), _task(help=task), _allow_pickle())


# How it is run ------------------------------------------------------------------------------------------------------------

processing_resolution = _shared(
    "--processing-resolution",
    type=click.IntRange(min=0),
    metavar="N",
    help="Longest edge the network sees; 0: the image's own.  [default: the model's]",
)
steps = _shared("--steps", type=click.IntRange(min=1), metavar="N", help="Steps, for models that take several.")
ensemble_size = _shared("--ensemble-size", type=click.IntRange(min=1), default=1, metavar="N", help="Runs to merge.")
seed = _shared(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the noise, where there is any."
)
flip_test = _shared(
    "--flip-test", is_flag=True, help="Mean of the image's and its mirror image's answer; twice the time."
)
specialised = _shared("--specialised/--no-specialised", default=None)
strips = _shared("--strips", is_flag=True)
vae_tiling = _shared("--vae-tiling", is_flag=True, help="Encode and decode in tiles: less memory for large images.")

device = _shared("--device", default="auto", show_default=True, metavar="D", help="auto, cpu, cuda, cuda:1, mps.")
dtype = _shared(
    "--dtype",
    type=click.Choice(["fp32", "bf16", "fp16"]),
    default="fp32",
    show_default=True,
    help="Of the network's weights.",
)
batch_size = _shared("--batch-size", type=click.IntRange(min=1), default=1, show_default=True, help="Images at once.")


def _set_max_pixels(ctx: click.Context, _: click.Parameter, value: int | None) -> None:
    """For this process and those that it starts, as the variable does; a caller within Python gets its own one back."""
    if value is not None:
        before = os.environ.get(MAX_PIXELS_VARIABLE)
        os.environ[MAX_PIXELS_VARIABLE] = str(value)
        restore = os.environ.pop if before is None else os.environ.__setitem__
        ctx.call_on_close(lambda: restore(MAX_PIXELS_VARIABLE, before))  # type: ignore[arg-type]


max_pixels = _shared(
    "--max-pixels",
    type=click.IntRange(min=1),
    metavar="N",
    callback=_set_max_pixels,
    expose_value=False,
    help=f"Refuse larger images unread: N pixels of 8 bytes.  [default: {MAX_PIXELS_VARIABLE}, or 178,956,970]",
)

# Servers ------------------------------------------------------------------------------------------------------------------

host = _shared(
    "--host", default="127.0.0.1", show_default=True, help="Address to listen on; see above for others' reach."
)
port = _shared("--port", type=click.IntRange(0, 65535), show_default=True, help="0: any that is free.")

# Data sets ----------------------------------------------------------------------------------------------------------------

root = _shared("--root", metavar="R")
split = _shared("--split", metavar="S")
dataset_option = _shared("--option", multiple=True, metavar="K=V")
count = _shared("--count", type=click.IntRange(min=1))
skip_bad = _shared("--skip-bad", is_flag=True)
protocol = _shared("--protocol")

# What is read, done and written -------------------------------------------------------------------------------------------

override = _shared("--set", "overrides", multiple=True, metavar="K=V")
out = _shared("--out", type=PATH, metavar="DIR")
resume = _shared("--resume", is_flag=True)
dry_run = _shared("--dry-run", is_flag=True)
as_json = _shared("--json", "as_json", is_flag=True)
