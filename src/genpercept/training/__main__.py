"""`python -m genpercept.training RECIPE OUT [--resume] [key=value ...]`: one process of several that train together.

`launch` starts it on one machine, accelerate's or torch's launcher on several. A user's mistake is one line, said once.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from genpercept.core.interrupts import leave_at_second
from genpercept.core.texts import one_line
from genpercept.training.loop import main


def run(recipe: str, out: str, *rest: str) -> int:
    overrides = [text for text in rest if text != "--resume"]
    try:
        return main(recipe, overrides, Path(out), resume="--resume" in rest)
    except (ValueError, OSError) as error:
        if os.environ.get("RANK", "0") == "0":
            print(f"error: {one_line(error)}", file=sys.stderr, flush=True)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    leave_at_second()
    code = run(*sys.argv[1:])
    sys.stdout.flush()
    os._exit(code)  # the other processes may be gone: waiting for them in exit handlers would hang
