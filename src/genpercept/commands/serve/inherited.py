"""What child processes get of the server's environment, and the limits that they set themselves."""

from __future__ import annotations

import ctypes
import math
import os
import resource
import signal
import sys
from contextlib import suppress

KEY = "GENPERCEPT_API_KEY"
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "SYSTEMROOT")  # of the environment: nothing secret
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38

# ---- in the server


def command(module: str, *words: object) -> list[str]:
    """`python -m genpercept.commands.serve.MODULE WORD...`, by this Python."""
    return [sys.executable, "-P", "-m", f"genpercept.commands.serve.{module}", *map(str, words)]


def bare() -> dict[str, str]:
    """The environment of a child that decodes."""
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return environment | _imports() | dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


def but_the_key() -> dict[str, str]:
    """The environment of a child that runs a model, which may need all but the key."""
    return {name: value for name, value in os.environ.items() if name != KEY} | _imports()


def _imports() -> dict[str, str]:
    return {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONDONTWRITEBYTECODE": "1"}


# ---- in the child


def confine(memory: int, largest: int) -> None:
    """Limits that nothing in this process can raise again, but that of time. largest: bytes of a file that it writes."""
    for what, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, largest),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 32),
    ):
        with suppress(ValueError, OSError):  # not every system has every one of them
            resource.setrlimit(what, (most, most))
    end_with_parent()


def end_with_parent() -> None:
    """The system ends this process with the thread that has started it; Ctrl-C is for the server, which ends its children."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        library.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def allow(seconds: int) -> None:
    """So much more of the processor's time, after which the system ends this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    with suppress(ValueError, OSError):
        soft = math.ceil(used.ru_utime + used.ru_stime) + seconds
        resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def own_streams() -> tuple[int, int]:
    """(what was stdin, what was stdout); what a library says goes nowhere in place of them, nor to stderr."""
    source, sink = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    return source, sink
