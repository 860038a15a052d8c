"""The command line: gathers the commands, and says what went wrong in one line. Their options: commands/NAME/options.py."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from typing import Any, NoReturn

import rich_click as click

from genpercept.commands.app.options import app
from genpercept.commands.bench.options import bench
from genpercept.commands.data.options import data
from genpercept.commands.demo.options import demo
from genpercept.commands.doctor.options import doctor
from genpercept.commands.evaluate.options import evaluate
from genpercept.commands.export.options import export
from genpercept.commands.fit.options import fit
from genpercept.commands.inspect.options import inspect
from genpercept.commands.predict.options import predict
from genpercept.commands.score.options import score
from genpercept.commands.serve.options import serve
from genpercept.commands.shared_options import debuggable
from genpercept.commands.study.options import study
from genpercept.commands.train.options import train
from genpercept.core import extras
from genpercept.core.interrupts import leave_at_second
from genpercept.core.version import __version__

_COMPLETION = (
    "Completion of commands, options, tasks, models, recipes and formats: put "
    'eval "$(_GENPERCEPT_COMPLETE=bash_source genpercept)" into ~/.bashrc (zsh_source for zsh, fish_source for fish).'
)


def main() -> NoReturn:
    """Entry point. Exit codes: 0 done, 1 partly done, 2 nothing could be done or wrong usage, 130 interrupted."""
    signal.signal(signal.SIGTERM, _terminated)
    leave_at_second()
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
    except (ValueError, OSError, ImportError) as error:
        if "--debug" in sys.argv:
            raise
        _fail(_message(error))
    sys.exit(code if isinstance(code, int) else 0)


def _terminated(number: int, frame: Any) -> NoReturn:
    sys.exit(128 + number)  # as an exception, so that temporary files are removed on the way out


def _message(error: Exception) -> str:
    """A user's mistake on one line; what is a mistake of ours keeps its traceback."""
    if isinstance(error, ImportError):
        if (said := extras.explain(error)) is None:
            raise error
        return said
    return str(error) or type(error).__name__


def _fail(message: str) -> NoReturn:
    print(f"genpercept: error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}, epilog=_COMPLETION)
@click.rich_config({"max_width": 100})
@click.version_option(__version__, prog_name="genpercept")
@debuggable
def cli() -> None:
    """Depth, normals and other dense predictions from one-step diffusion models: run, train, compare.

    Start with `genpercept demo`, or `genpercept predict photo.jpg --out results`. Models: an embedded name such as
    mini/depth, a folder, or a hub id.
    """


for _command in (app, bench, data, demo, doctor, evaluate, export, fit, inspect, predict, score, serve, study, train):
    cli.add_command(_command)
