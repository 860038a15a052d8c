"""A process that looks at somebody else's film and can do nothing else: how large and long it is, and whether it decodes.

    python -m genpercept.commands.serve.film_look FILE BYTES SECONDS

BYTES of addresses and SECONDS of the processor's time are all that it has. Writes an empty line to stdout, a pipe, when it is
ready; then a line of JSON, {"size": [H, W], "frames": as the file says, or null}, or {"error": line, "large": whether its
frames have too many pixels}. The first frame is decoded: what cannot be is no film.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

from genpercept.commands.serve.inherited import allow, confine, own_streams
from genpercept.core.texts import one_line
from genpercept.imaging.pixels import TooManyPixels
from genpercept.imaging.video import Film, av


def main(words: list[str]) -> None:
    path, memory, seconds = Path(words[0]), int(words[1]), int(words[2])
    sink = os.fdopen(own_streams()[1], "w")
    warnings.simplefilter("ignore")
    av()  # its libraries are files, which are read now or never
    confine(memory, 0)
    allow(seconds)
    print(file=sink, flush=True)
    print(json.dumps(_found(path)), file=sink, flush=True)


def _found(path: Path) -> dict[str, Any]:
    try:
        film = Film(path)
        next(film.frames())
    except (ValueError, OSError, MemoryError) as error:
        line = one_line(error, 300).replace(str(path), "the film")
        return {"error": line or "the film: not enough memory to decode it", "large": isinstance(error, TooManyPixels)}
    return {"size": film.size, "frames": film.count}


if __name__ == "__main__":
    main(sys.argv[1:])
