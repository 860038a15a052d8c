"""How far a printed command can be tried here: run as it is, run shortened, or only read; and why."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tools.printed.pages import Printed, calls, placeholder, program

WALKED = {"docs/extend.md": "tests/commands/test_extend.py walks this page"}
SERVERS = ("serve", "app")
_NETWORK = ("git", "pip", "pipx", "uv", "hf", "docker", "podman", "wget", "gh", "conda")
_HUB = re.compile(
    r"(?:--(?:model|base|detector|encoder|decoder)[ =]|load\(\")(?!mini/|runs/|my[-_/])([\w.-]+/[\w.-]+)(?![\w./])"
)
_ABSOLUTE = re.compile(r"(?<![\w:.\"'/=-])[\"']?(?:[\w.]+=)?(/[a-z][\w.-]*)(?=[/\s\"',]|$)")
_SMALL = (
    *(
        "steps=2",
        "max_minutes=0",
        "data.0.count=24",
        "loader.batch_size=2",
        "validation.count=12",
        "validation.every=2",
    ),
    *("speed.processes=1", "optim.warmup=0", "logging.tensorboard=false"),
)


@dataclass(frozen=True)
class Trial:
    """how: run, short (run with `more` behind it), serve, read. why: of what is only read. more: words."""

    how: str
    why: str = ""
    more: tuple[str, ...] = ()


def trial(one: Printed, root: Path) -> Trial:
    """What can be done with it in a reader's folder. root: the repository that the page is of."""
    if one.kind == "inline":
        return Trial("read", "in a line of text")
    if one.page in WALKED:
        return Trial("read", WALKED[one.page])
    if one.needs:
        return Trial("read", f"needs {one.needs}")
    if one.kind == "python":
        hub = _HUB.search(one.text)
        return Trial("read", f"needs {hub[1]}, of the hub") if hub else Trial("run")
    if one.kind == "file":
        return Trial("run")
    return _shell(one, root)


def _shell(one: Printed, root: Path) -> Trial:
    first = program(one.text)
    if first in _NETWORK or re.search(r"https?://(?!127\.0\.0\.1|localhost)", one.text):
        return Trial("read", "needs the network")
    if first in ("accelerate", "torchrun"):
        return Trial("read", "needs several processes or machines")
    if found := placeholder(one.text):
        return Trial("read", f"needs {found}, which is the reader's")
    if hub := _HUB.search(one.text):
        return Trial("read", f"needs {hub[1]}, of the hub")
    if re.search(r"--device[ =](?:cuda|mps)", one.text):
        return Trial("read", "needs a GPU")
    if absolute := next((p for p in _ABSOLUTE.findall(one.text) if not Path(p).exists()), ""):
        return Trial("read", f"needs {absolute}, which is the reader's")
    if first == "make" or (first.startswith("python") and re.search(r"(?:tools|benchmarks|tests)/", one.text)):
        return Trial("read", "of a checkout, and takes long")
    return _genpercept(one)


def _genpercept(one: Printed) -> Trial:
    """Of `genpercept`, what takes long is shortened by words that follow its own."""
    called = calls(one.text)
    words = called[0] if len(called) == 1 else []
    if not words or {"--help", "--dry-run", "--list", "--show", "--explain"} & set(words):
        return Trial("run")
    name = words[0]
    if name in SERVERS:
        return Trial("serve")
    if name == "train":
        return Trial("short", more=_sets(_SMALL))
    if name == "study":
        return Trial("short", more=("--dry-run",))
    if name == "bench":
        small = [] if "--model" in words else ["--shape", "mini"]
        quick = ("--processing-resolution", "64", "--repeats", "1", "--warmup", "0", "--no-cold")
        return Trial("short", more=(*small, *quick))
    if name == "evaluate" and "--count" not in words:
        return Trial("short", more=("--count", "4"))
    return Trial("run")


def _sets(keys: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(word for key in keys for word in ("--set", key))
