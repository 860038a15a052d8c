"""Blocks of Python, one after another in one interpreter: JSON {"code", "page", "line"} in, {"error"} out, a line each."""

from __future__ import annotations

import json
import os
import sys
import traceback

replies = os.fdopen(os.dup(1), "w")  # what blocks print goes elsewhere
os.dup2(2, 1)
names: dict[str, object] = {"__name__": "__main__"}
for line in sys.stdin:
    given = json.loads(line)
    error = ""
    try:
        # lines are counted as on the page
        exec(compile("\n" * (given["line"] - 1) + given["code"], given["page"], "exec"), names)
    except BaseException as fault:  # noqa: BLE001 - whatever a block does, the next ones are tried
        last = traceback.extract_tb(fault.__traceback__)
        own = [frame.lineno for frame in last if frame.filename == given["page"]]
        error = f"line {own[-1] if own else '?'}: {type(fault).__name__}: {' '.join(str(fault).split())}"
    replies.write(json.dumps({"error": error}) + "\n")
    replies.flush()
