"""Paths in the documentation lead somewhere, the site's navigation has every page, the index of the benchmarks every script."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

import pytest

from tests.support.paths import ROOT

PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/**/*.md", "benchmarks/**/*.md")
    for path in ROOT.glob(pattern)
)
SOURCES = (
    "src/**/*.py",
    "benchmarks/**/*.py",
    "benchmarks/**/*.sh",
    "src/genpercept/training/recipes/**/*.toml",
    "tools/**/*.py",
    "tools/*.sh",
)
LINK = re.compile(r"\]\(([^)#\s]*)(?:#[^)\s]*)?\)")
NAMED = re.compile(r"(?<![\w./-])(?:\.ci|benchmarks|docs|src|tests|tools)/[\w./*{},$-]+")


def named(text: str) -> Iterator[str]:
    """Paths below the repository's root that a text names; `{a,b}` is each of them, `$task`, NAME and R are any name."""
    for found in NAMED.findall(text):
        parts = re.split(r"\{([^}]*)\}", found.rstrip(".,"))
        for chosen in itertools.product(*(part.split(",") if i % 2 else [part] for i, part in enumerate(parts))):
            path = "".join(chosen)
            yield path if (ROOT / path).exists() else re.sub(r"\$\w+|\b(?:NAME|R)\b", "*", path)


def missing(text: str) -> list[str]:
    return sorted({path for path in named(text) if not any(ROOT.glob(path))})


@pytest.mark.parametrize("page", PAGES)
def test_paths_and_links_of_a_page_exist(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    links = [link for link in LINK.findall(text) if link and "://" not in link]
    assert [link for link in links if not (ROOT / page).parent.joinpath(link).exists()] == []
    assert missing(LINK.sub("", text)) == []


def test_pages_that_sources_name_exist() -> None:
    wrong = {}
    for path in itertools.chain.from_iterable(ROOT.glob(pattern) for pattern in SOURCES):
        pages = [name for name in missing(path.read_text(encoding="utf-8")) if name.endswith(".md")]
        wrong |= {path.relative_to(ROOT).as_posix(): pages} if pages else {}
    assert wrong == {}


def test_indexes_are_whole() -> None:
    listed = set(LINK.findall((ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")))
    scripts = {path.relative_to(ROOT / "benchmarks").as_posix() for path in ROOT.glob("benchmarks/*/*.[ps][yh]")}
    assert scripts - listed == set()
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in ROOT.glob("docs/**/*.md")}
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    assert pages - set(re.findall(r"[\w/-]+\.md", nav)) == set()


def test_the_readme_fits_three_screens() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 120
    assert lines[2].startswith("![")
