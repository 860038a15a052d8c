"""Options that several commands have, each declared once.

`@shared.device()` adds --device to a command. What differs in a command is given in the call: another help, `required=True`,
or, first, the name of the parameter that the value goes to.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stdout
from functools import wraps
from pathlib import Path
from typing import Any, Literal, TypeVar

import rich_click as click
from click import get_current_context
from click.shell_completion import CompletionItem

from genpercept.core import said
from genpercept.core.options import RESIZE_MODES

# Headings of a command's help; an option without one stands under "Options"
FILES, MODEL, HOW, MACHINE, MESSAGES = "Files", "Model", "How it is run", "Machine", "Messages"
SERVER, LIMITS, DATA, TRAINING = "Server", "Limits", "Data", "Training"
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


def examples(*lines: str) -> str:
    """The end of a command's help: commands as one types them."""
    return "\n\n".join(("Examples:", *lines))


def debuggable(command: F) -> F:
    """Adds what every command has: --json, --quiet, --verbose (core.said) and --debug, a traceback in place of the one line.

    The command need not know of them: its text on stdout gives way to a document, and `main` looks for --debug.
    """
    debug = click.option(
        "--debug", panel=MESSAGES, is_flag=True, expose_value=False, help="Show a traceback on errors."
    )
    return together(_json, _quiet, _verbose, debug)(_documented(command))


def _documented(command: F) -> F:
    """The command, which prints one JSON document under --json: its result, or its lines, what it wrote and its exit code."""

    @wraps(command)
    def run(*args: Any, **options: Any) -> Any:
        context = get_current_context()
        said.told.__init__()
        if not context.meta.get(_JSON) or isinstance(context.command, click.Group):
            return command(*args, **options)
        text = io.StringIO()
        with redirect_stdout(text):
            code = command(*args, **options)
        told = said.told
        usual = {"lines": text.getvalue().splitlines(), "written": told.written, "exit_code": code}
        found = told.result() if callable(told.result) else told.result
        document = usual if found is None else found
        click.echo(json.dumps(document, indent=2, default=str, ensure_ascii=False))
        return code

    return run  # type: ignore[return-value]


def _note_json(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        ctx.meta[_JSON] = True


def _set_said(how: str) -> Callable[[click.Context, click.Parameter, bool], None]:
    def set_it(ctx: click.Context, _: click.Parameter, value: bool) -> None:
        if value:
            _export(ctx, said.VARIABLE, how)

    return set_it


def _export(ctx: click.Context, name: str, value: str) -> None:
    """Set a variable for this process and those that it starts; a caller within Python gets its own one back."""
    before = os.environ.get(name)
    os.environ[name] = value
    restore = os.environ.pop if before is None else os.environ.__setitem__
    ctx.call_on_close(lambda: restore(name, before))  # type: ignore[arg-type]


_JSON = "genpercept.json"  # of a context's meta
_hidden: dict[str, Any] = {"is_flag": True, "expose_value": False, "panel": MESSAGES}
_json = click.option("--json", callback=_note_json, help="The result as one JSON document on stdout.", **_hidden)
_quiet = click.option(
    "--quiet", "-q", callback=_set_said(said.QUIET), help="No notes and no progress; errors still.", **_hidden
)
_verbose = click.option("--verbose", "-v", callback=_set_said(said.VERBOSE), help="More notes.", **_hidden)


def print_list(rows: Sequence[tuple[str, str]]) -> None:
    """Names on stdout, each with a line about it that fits the terminal; whole where stdout is none."""
    from rich.console import Console
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, overflow="ellipsis")
    for row in rows:
        table.add_row(*row)
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = 1000
    with console.capture() as captured:
        console.print(table)
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


# What a shell completes: it asks for a moment's patience, no more ----------------------------------------------------------


def _starting(names: Iterable[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def complete_model(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Embedded models, and folders."""
    from genpercept.checkpoints import hub

    return [*_starting(hub.embedded_names(), incomplete), CompletionItem(incomplete, type="dir")]


def complete_task(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from genpercept.tasks import TASKS

    return _starting(TASKS.names(), incomplete)


def complete_formats(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The last of a list with commas."""
    from genpercept.imaging.write import FORMATS

    begun, comma, last = incomplete.rpartition(",")
    return [CompletionItem(begun + comma + name) for name in FORMATS if name.startswith(last)]


# The model ----------------------------------------------------------------------------------------------------------------

model = _shared("--model", "-m", panel=MODEL, metavar="M", shell_complete=complete_model)
_subfolder = _shared(
    "--subfolder", panel=MODEL, metavar="S", help="Where the model lies inside its folder or hub repository."
)
_revision = _shared(
    "--revision", panel=MODEL, metavar="R", help="Branch, tag or commit of a hub repository.  [default: main]"
)
_variant = _shared(
    "--variant",
    panel=MODEL,
    metavar="V",
    help="Which weights, where parts have several: fp16, bf16, ema, ...  [default: the plain ones, or the only]",
)
_base = _shared("--base", panel=MODEL, metavar="B")
decoder = _shared("--decoder", panel=MODEL)
_family = _shared("--family", panel=MODEL, metavar="F")
task = _shared("--task", "-t", panel=MODEL, metavar="T", shell_complete=complete_task)
_task = task  # of a model; the argument below is its help
_allow_pickle = _shared(
    "--allow-pickle",
    panel=MODEL,
    is_flag=True,
    help="Read .bin and .ckpt weights too; nothing but tensors is read from them.",
)


def model_source(
    base: str = "The base model that a public checkpoint was fine-tuned from.",
    family: str = "Layout of a public checkpoint, such as genpercept; its choices: NAME,K=V.",
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
    panel=HOW,
    type=click.IntRange(min=0),
    metavar="N",
    help="Longest edge the network sees; 0: the image's own.  [default: the model's]",
)
resize_mode = _shared(
    "--resize-mode",
    panel=HOW,
    type=click.Choice(RESIZE_MODES),
    help="What that resolution means: fit: the longest edge; area: as many pixels as a 4:3 image of that edge has; official: "
    "as the public code of the model's family.  [default: the model's]",
)
steps = _shared(
    "--steps", panel=HOW, type=click.IntRange(min=1), metavar="N", help="Steps, for models that take several."
)
ensemble_size = _shared(
    "--ensemble-size", panel=HOW, type=click.IntRange(min=1), default=1, metavar="N", help="Runs to merge."
)
seed = _shared(
    "--seed",
    panel=HOW,
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Of the noise, where there is any.",
)
flip_test = _shared(
    "--flip-test", panel=HOW, is_flag=True, help="Mean of the image's and its mirror image's answer; twice the time."
)
specialised = _shared("--specialised/--no-specialised", panel=HOW, default=None)
strips = _shared("--strips", panel=MACHINE, is_flag=True)
vae_tiling = _shared(
    "--vae-tiling", panel=MACHINE, is_flag=True, help="Encode and decode in tiles: less memory for large images."
)

device = _shared(
    "--device", panel=MACHINE, default="auto", show_default=True, metavar="D", help="auto, cpu, cuda, cuda:1, mps."
)
dtype = _shared(
    "--dtype",
    panel=MACHINE,
    type=click.Choice(["fp32", "bf16", "fp16"]),
    default="fp32",
    show_default=True,
    help="Of the network's weights.",
)

tf32 = _shared(
    "--tf32",
    panel=MACHINE,
    is_flag=True,
    help="NVIDIA GPUs: quicker float32, of which 10 bits of mantissa count in products.",
)


class BatchSize(click.ParamType):
    """A number from 1 on, or auto."""

    name = "n|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | Literal["auto"]:
        return "auto" if value == "auto" else click.IntRange(min=1).convert(value, param, ctx)


batch_size = _shared(
    "--batch-size", panel=MACHINE, type=click.IntRange(min=1), default=1, show_default=True, help="Images at once."
)


def _set_max_pixels(ctx: click.Context, _: click.Parameter, value: int | None) -> None:
    """For this process and those that it starts, as the variable does; a caller within Python gets its own one back."""
    if value is not None:
        _export(ctx, MAX_PIXELS_VARIABLE, str(value))


max_pixels = _shared(
    "--max-pixels",
    panel=MACHINE,
    type=click.IntRange(min=1),
    metavar="N",
    callback=_set_max_pixels,
    expose_value=False,
    help=f"Refuse larger images unread: N pixels of 8 bytes.  [default: {MAX_PIXELS_VARIABLE}, or 178,956,970]",
)

# Recipes ------------------------------------------------------------------------------------------------------------------


def complete_recipe(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The package's recipes, and files."""
    from genpercept.training import recipe_names

    return [*_starting(recipe_names.names(), incomplete), CompletionItem(incomplete, type="file")]


list_them = _shared("--list", "listed", is_flag=True)
show = _shared("--show", is_flag=True)

# Servers ------------------------------------------------------------------------------------------------------------------

host = _shared(
    "--host",
    panel=SERVER,
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on; see above for others' reach.",
)
port = _shared("--port", panel=SERVER, type=click.IntRange(0, 65535), show_default=True, help="0: any that is free.")


def service(at: int, default: str) -> Callable[[F], F]:
    """What is served, and where: --model and how it is read, --host, --port (default: `at`), --device, --dtype, --tf32,
    --specialised.

    default: what the first model of a task is.
    """
    where = "mini/depth, a folder, a hub id, or NAME=one of these; may be repeated; the first of a task is "
    return together(
        model("models", multiple=True, help=f"{where}{default}.  [default: all embedded models]"),
        model_source(),
        host(),
        port(default=at),
        device(),
        dtype(),
        tf32(),
        specialised(help="Fold what is constant in one step: quicker.  [default: as the models were saved]"),
    )


# Data sets ----------------------------------------------------------------------------------------------------------------

root = _shared("--root", metavar="R")
split = _shared("--split", metavar="S")
dataset_option = _shared("--option", multiple=True, metavar="K=V")
count = _shared("--count", type=click.IntRange(min=1))
skip_bad = _shared("--skip-bad", is_flag=True)
protocol = _shared("--protocol")

# What is read, done and written -------------------------------------------------------------------------------------------

override = _shared("--set", "overrides", multiple=True, metavar="K=V")
out = _shared("--out", "-o", panel=FILES, type=PATH, metavar="DIR")
resume = _shared("--resume", panel=FILES, is_flag=True)
dry_run = _shared("--dry-run", is_flag=True)
