"""The options of `genpercept app`; the work is done by `run.py`, imported when the command runs."""

from __future__ import annotations

from typing import Any

import rich_click as click

from genpercept.commands import shared_options as shared


@click.command(
    epilog=shared.examples(
        "genpercept app --open",
        "genpercept app --model mini/depth --model mine=MY_MODEL",
    )
)
@shared.service(7860, "chosen when the page opens")
@click.option("--open", "browser", panel=shared.SERVER, is_flag=True, help="Open the page in this machine's browser.")
@shared.debuggable
def app(
    models: tuple[str, ...],
    host: str,
    port: int,
    browser: bool,
    device: str,
    dtype: str,
    tf32: bool,
    specialised: bool | None,
    **source: Any,
) -> int:
    """Every task on one photograph, in a browser: depth, normals, cut-outs, poses, ...

    The API of `genpercept serve` is beside it. Nothing leaves this machine. Any other --host than its own (127.0.0.1) needs a
    key in the environment, GENPERCEPT_API_KEY, which the browser then asks for as a password. Ctrl-C ends the page and deletes
    what it kept.
    """
    from genpercept.commands.app.run import run

    given = {name: value for name, value in source.items() if value}
    how = {"device": device, "dtype": dtype, "tf32": tf32, "specialised": specialised}
    return run(models, host, port, **how, source=given, browser=browser)
