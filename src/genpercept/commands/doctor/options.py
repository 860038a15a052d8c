"""The options of `genpercept doctor`; the work is done by `run.py`, imported when the command runs."""

from __future__ import annotations

import rich_click as click

from genpercept.commands import shared_options as shared


@click.command(epilog=shared.examples("genpercept doctor", "genpercept doctor --json"))
@shared.device()
@shared.debuggable
def doctor(device: str) -> int:
    """Check the installation: versions, the device that works, memory, where models would come from.

    Exit code 0 when predicting would work here, 1 when something it needs is missing or broken.
    """
    from genpercept.commands.doctor.run import main

    return main(device=device)
