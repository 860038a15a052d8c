"""Commands that click reads but nobody runs: JSON [{"words", "whole"}, ...] in, a list of what is wrong with each out.

whole: False for a command out of a line of text, which may leave out what it must have, but not name what there is not.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from genpercept.commands.cli import cli


def wrong(words: list[str], whole: bool) -> str:
    """What click says to these words; "" where it takes them."""
    command: Any = cli
    try:
        while isinstance(command, click.Group):
            name = words[0] if words else ""
            if not name or name.startswith("-"):
                break
            if name not in command.commands:
                return f"there is no command {name!r}"
            command, words = command.commands[name], words[1:]
        with command.make_context(str(command.name), list(words)):
            return ""
    except click.exceptions.Exit:  # --help
        return ""
    except (click.NoSuchOption, click.BadOptionUsage) as error:
        return error.format_message()
    except click.ClickException as error:
        return error.format_message() if whole else ""


if __name__ == "__main__":
    json.dump([wrong(one["words"], one["whole"]) for one in json.load(sys.stdin)], sys.stdout)
