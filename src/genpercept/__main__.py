"""`genpercept` and `python -m genpercept`: the program, whose imports wait; to import the package changes nobody's imports."""

from __future__ import annotations

from typing import NoReturn

from genpercept.core import later


def start() -> None:
    """From now on what our modules and diffusers' import is imported when it is used, in this process (`core.later`)."""
    later.wait(  # modules that bring torch or diffusers, for those that name them and may not use them
        "genpercept.commands.inspect.facts",
        "genpercept.pipeline.base_model",
        "genpercept.pipeline.families._from_base",
        "genpercept.pipeline.pipeline",
        "genpercept.pipeline.quantised",
        "genpercept.pipeline.specialise.pipeline",
    )


def main() -> NoReturn:
    """Entry point."""
    start()
    from genpercept.commands import cli

    cli.main()


if __name__ == "__main__":
    main()
