"""Pages tried in a reader's folder, command by command."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.printed.judged import SERVERS, Trial, trial
from tools.printed.newcomer import Machine
from tools.printed.pages import Printed, calls, program

_HERE = Path(__file__).parent
_LACKING = 3  # exit code of a dry run that would go, but for what this machine lacks
_REAL = re.compile(  # of what it says, what only the reader can have
    r"not on this machine: .*(?:for data set|stable-diffusion|no folder (?!runs/)[\w-]+/[\w.-]+, and no such model|needs )"
)
_EXTRA = re.compile(r"pip install '?genpercept\[")


@dataclass(frozen=True)
class Result:
    """What became of a command. state: run, short, read, extra (a line says which extra it needs), failed."""

    one: Printed
    state: str
    said: str = ""
    seconds: float = 0.0


@dataclass
class Reader:
    """Somebody at a machine who types what the pages of `root` say. limit: seconds of a command."""

    machine: Machine
    root: Path
    limit: float = 600.0
    servers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def page(self, found: Sequence[Printed]) -> Iterator[Result]:
        """Each of a page's commands in its order, in one folder; what it leaves, the next one finds."""
        place = self.machine.folder(found[0].page)
        trials = [trial(one, self.root) for one in found]
        unread = iter(self._parsed([one for one, t in zip(found, trials, strict=True) if _clicks(one, t)]))
        with self._cells(place) as cells:
            for one, how in zip(found, trials, strict=True):
                start = time.monotonic()
                if how.how == "read":
                    said = next(unread) if _clicks(one, how) else self._read(one)
                    yield Result(one, "failed" if said else "read", said or how.why)
                    continue
                state, said = self._tried(one, how, place, cells)
                yield Result(one, state, said, time.monotonic() - start)
        self._stop()

    def _tried(self, one: Printed, how: Trial, place: Path, cells: Any) -> tuple[str, str]:
        if one.kind == "file":
            (place / one.title).parent.mkdir(parents=True, exist_ok=True)
            (place / one.title).write_text(one.text)
            return "run", ""
        if one.kind == "python":
            return _state(cells(one), "run")
        if how.how == "serve":
            return _state(self._serve(one, place), "run")
        code, last, output = self._bash(one.text, place, how.more)
        if code == 0:
            return ("short", f"with {' '.join(how.more)}") if how.more else ("run", "")
        if code == _LACKING and _REAL.search(output):
            return "read", "dry run: needs data or weights of the reader's"
        if how.how == "short" and calls(one.text)[0][0] == "train":  # what it needs, its dry run says
            dry, _, said = self._bash(one.text, place, (*how.more, "--dry-run"))
            if dry == _LACKING and _REAL.search(said):
                return "read", "dry run: needs data or weights of the reader's"
        return ("extra" if _EXTRA.search(last) else "failed"), last or f"exit code {code}"

    def _bash(self, text: str, place: Path, more: Sequence[str]) -> tuple[int, str, str]:
        """Exit code, last line on stderr, and all that was said."""
        environment = self.machine.environment() | {"MORE": " ".join(more)}
        with subprocess.Popen(
            ["bash", "-c", text],
            cwd=place,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            text=True,
            errors="replace",
        ) as process:
            try:
                out, err = process.communicate(timeout=self.limit)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                out, err = process.communicate()
                err += f"\nlonger than {self.limit:.0f} s"
        lines = [line for line in err.splitlines() if line.strip()]
        return process.returncode, lines[-1] if lines else "", out + err

    def _serve(self, one: Printed, place: Path) -> str:
        """Start a server, which stays until the page ends. "" once it takes requests, else what is wrong."""
        words = calls(one.text)[0]
        port = int(words[words.index("--port") + 1]) if "--port" in words else {"serve": 8000, "app": 7860}[words[0]]
        log = place / f"{words[0]}.log"
        self._stop(SERVERS)
        with log.open("wb") as file:
            command = ["bash", "-c", f"exec {one.text.strip()}"]
            environment = self.machine.environment() | {"MORE": ""}
            self.servers.append(
                subprocess.Popen(command, cwd=place, env=environment, stdout=file, stderr=file, start_new_session=True)
            )
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline and self.servers[-1].poll() is None:
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1):
                return ""  # 503, an HTTPError, while models are loaded
            time.sleep(0.5)
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1] if lines else f"is not ready on port {port}"

    def _stop(self, names: Sequence[str] = ()) -> None:
        for process in self.servers:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self.servers.clear()

    @contextmanager
    def _cells(self, place: Path) -> Iterator[Any]:
        """What runs a block of Python and gives its error, "" if none; blocks of a page share their names."""
        started: list[subprocess.Popen[str]] = []

        def run(one: Printed) -> str:
            if not started or started[0].poll() is not None:
                words = [str(self.machine.bin / "python"), str(_HERE / "cells.py")]
                pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
                environment = self.machine.environment()
                started[:] = [
                    subprocess.Popen(words, cwd=place, env=environment, text=True, start_new_session=True, **pipes)
                ]
            process = started[0]
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(json.dumps({"code": one.text, "page": one.page, "line": one.line}) + "\n")
            process.stdin.flush()
            reply = process.stdout.readline()
            return json.loads(reply)["error"] if reply else "the interpreter ended"

        try:
            yield run
        finally:
            for process in started:
                assert process.stdin is not None
                process.stdin.close()
                process.wait(30)

    def _parsed(self, found: Sequence[Printed]) -> list[str]:
        """What click says to each command that is not run; "" where it takes it."""
        asked = [{"words": words, "whole": one.kind == "shell"} for one in found for words in calls(one.text)]
        if not asked:
            return []
        done = subprocess.run(
            [str(self.machine.bin / "python"), str(_HERE / "parsing.py")],
            input=json.dumps(asked),
            capture_output=True,
            text=True,
            env=self.machine.environment(),
            cwd=self.machine.work,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"{self.machine.kind}: the command line cannot be imported:\n{done.stderr[-2000:]}")
        answers = iter(json.loads(done.stdout))
        return ["; ".join(filter(None, [next(answers) for _ in calls(one.text)])) for one in found]

    def _read(self, one: Printed) -> str:
        """What is wrong with what is neither run nor read by click: Python's grammar, a script or target that there is not."""
        if one.kind == "python":
            try:
                compile(one.text, one.page, "exec")
            except SyntaxError as error:
                return f"line {one.line + (error.lineno or 1) - 1}: {error.msg}"
        first = program(one.text)
        if first == "make":
            targets = re.findall(r"^([\w-]+):", (self.root / "Makefile").read_text(), re.M)
            asked = one.text.split("#")[0].split()[1:]
            return "".join(f"no target {name}" for name in asked if "=" not in name and name not in targets)
        if first.startswith("python") and (script := re.search(r"\b((?:tools|benchmarks)/[\w/.]+\.py)", one.text)):
            path = self.root / script[1]
            if not path.is_file():
                return f"{script[1]}: no such file"
            code = "".join(p.read_text() for p in (path, *path.with_suffix("").glob("*.py")))
            options = re.findall(r" (--[a-z-]+)", one.text)
            return " ".join(f"{script[1]} has no option {name}" for name in options if f'"{name}"' not in code)
        return ""


def _clicks(one: Printed, how: Trial) -> bool:
    """Whether click is to read it."""
    return how.how == "read" and one.kind in ("shell", "inline") and bool(calls(one.text)) and "for " not in one.text


def _state(error: str, state: str) -> tuple[str, str]:
    if not error:
        return state, ""
    return ("extra" if _EXTRA.search(error) else "failed"), error
