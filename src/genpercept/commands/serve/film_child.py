"""A process that predicts one film, as `genpercept predict` would, and ends with the server that has started it.

    python -m genpercept.commands.serve.film_child

Reads a JSON object from stdin: "source", "out" (a folder that is there), "request" and "machine" (fields of predict's), "name"
(what the server calls the model), "smooth", "side_by_side", "formats", "server" (its process). Writes OUT/film_TASK.mp4 and
.json, and the files of frames into OUT/film_TASK.zip; then a line of JSON to stdout: {"error": line, "" for none, "damage":
what is wrong with a film of which there is a result all the same, "" for nothing, "frames": of the result}. Tracebacks of our
mistakes go to stderr.
"""

from __future__ import annotations

import json
import os
import sys

from genpercept.commands.serve.inherited import end_with_parent


def main() -> None:
    end_with_parent()
    order = json.load(sys.stdin)
    if os.getppid() != order.pop("server"):  # it has gone before the system was asked to tell
        return
    sink = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no result
    from genpercept.commands.serve.film_work import done  # torch and all: not before the end is arranged

    json.dump(done(order), sink)
    sink.flush()


if __name__ == "__main__":
    main()
