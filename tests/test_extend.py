"""docs/extend.md word for word: a stranger's package is installed beside ours, and its task does all that ours do.

The package is put on the path as pip leaves it, and every command of the page runs in a process that nobody has prepared
otherwise. What the page shows is what came out, but for numbers.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import genpercept

ROOT = next(folder for folder in Path(__file__).parents if (folder / "pyproject.toml").is_file())
SOURCE = Path(genpercept.__file__).parent
PAGE = (ROOT / "docs" / "extend.md").read_text(encoding="utf-8")
PACKAGE = ROOT / "docs" / "extend" / "albedo"
FENCE = re.compile(r"^```(\w+)(?: ([\w./]+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)

DRIVER = """
import contextlib, io, json, runpy, sys
from pathlib import Path

def said(run, *arguments):
    sys.argv, out = list(arguments), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            run()
            code = 0
        except SystemExit as error:
            code = error.code or 0
    return code, out.getvalue()

if __name__ == "__main__":  # evaluate's workers import this file
    from genpercept.commands.cli import main

    found, (jobs, answers) = [], map(Path, sys.argv[1:])
    for program, *rest in json.loads(jobs.read_text()):
        if program == "python":
            found.append(said(lambda: runpy.run_path(rest[0], run_name="__main__"), *rest))
        else:
            found.append(said(main, program, *rest))
    answers.write_text(json.dumps(found))
"""


@dataclass(frozen=True)
class Command:
    """A command of the page, what the page says that it prints, and what it did."""

    words: tuple[str, ...]
    shown: tuple[str, ...]
    code: int = 0
    said: str = ""


def commands() -> Iterator[Command]:
    for language, _, text in FENCE.findall(PAGE):
        for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:] if language == "console" else ():
            line, *shown = part.replace("\\\n", " ").splitlines()
            yield Command(tuple(shlex.split(line)), tuple(shown))


def install(package: Path, site: Path) -> None:
    """As pip leaves it: the modules, and beside them what the package says of itself."""
    project = tomllib.loads((package / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    name, version = project["name"].replace("-", "_"), project["version"]
    shutil.copytree(package / name, site / name, ignore=shutil.ignore_patterns("__pycache__"))
    about = site / f"{name}-{version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {version}\n")
    lines = []
    for group, entries in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{key} = {value}" for key, value in entries.items())]
    (about / "entry_points.txt").write_text("\n".join(lines) + "\n")


def hashes(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@dataclass(frozen=True)
class Home:
    """Where the stranger works: `folder`, a copy of the package, beside which it is installed in `site`."""

    folder: Path
    site: Path

    def run(self, *words: tuple[str, ...], packages: bool = True) -> list[tuple[int, str]]:
        """Commands in one process, which is quicker than one each: exit code and all that was printed."""
        jobs, answers, driver = (self.site.parent / name for name in ("jobs.json", "answers.json", "driver.py"))
        driver.write_text(DRIVER)
        jobs.write_text(json.dumps(words))
        self.python(str(driver), str(jobs), str(answers), packages=packages)
        return [(code, text) for code, text in json.loads(answers.read_text())]

    def python(self, *arguments: str, packages: bool = True) -> str:
        path = os.pathsep.join([*([str(self.site)] if packages else []), str(SOURCE.parent)])
        env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            [sys.executable, *arguments], cwd=self.folder, env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    root = tmp_path_factory.mktemp("stranger")
    made = Home(root / "albedo", root / "site")
    shutil.copytree(PACKAGE, made.folder)
    install(PACKAGE, made.site)
    return made


@pytest.fixture(scope="module")
def walk(home: Home) -> list[Command]:
    """All commands of the page, in its order; ours must be untouched by them."""
    before = hashes(SOURCE)
    page = [command for command in commands() if command.words[0] != "pip"]
    found = home.run(*(command.words for command in page))
    assert hashes(SOURCE) == before
    return [Command(c.words, c.shown, code, said) for c, (code, said) in zip(page, found, strict=True)]


# ---- the page ------------------------------------------------------------------------------------------------------------


def test_code_on_the_page_is_the_code_of_the_package() -> None:
    blocks = [(name, text) for _, name, text in FENCE.findall(PAGE) if name]
    for name, text in blocks:
        assert text in (PACKAGE / name).read_text(encoding="utf-8"), name
    whole = {path.relative_to(PACKAGE).as_posix() for path in (PACKAGE / "albedo_task").glob("[!_]*.py")} | {
        "albedo.toml"
    }
    assert {name for name, text in blocks if text == (PACKAGE / name).read_text(encoding="utf-8")} == whole


def test_the_page_shows_what_its_commands_print(walk: list[Command]) -> None:
    assert len(walk) > 12
    for command in walk:
        assert command.code == 0, (command.words, command.said)
        shown, said = (lines_of(text) for text in ("\n".join(command.shown), command.said))
        pattern = "\n".join(".*" if line == "..." else re.escape(line) for line in shown)
        assert re.fullmatch(pattern, "\n".join(said), re.DOTALL), (command.words, shown, said)


def lines_of(text: str) -> list[str]:
    """Lines without what differs from run to run: numbers, widths of columns, and all that is said of speed."""
    plain = (re.sub(r"-?\d[\d.,]*(e[+-]?\d+)?", "#", line) for line in text.splitlines() if "images/s" not in line)
    squeezed = (re.sub(r"─+", "─", " ".join(line.split())) for line in plain)
    return [line for line in squeezed if line]
