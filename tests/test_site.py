"""The documentation site: `make docs` builds without a warning, needs no other server, and has every public name."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest

import genpercept
from genpercept import metrics
from genpercept.core.registry import Registry, Table
from tests.support.paths import ROOT

# A registry or table says its group of entry points where it is made.
MADE = re.compile(
    r"^[A-Z]+(?:: [\w\[\]]+)? = (?:Registry|Table|_Metrics)\b[^\n]*?\(\s*[^)]*?\"genpercept\.(\w+)\"", re.MULTILINE
)
LOADED = re.compile(
    r"<(?:script|img|iframe|source)\b[^>]*\bsrc=\"?(https?:[^\"\s>]+)|<link\b[^>]*\bhref=\"?(https?:[^\"\s>]+)"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `make docs` builds it."""
    out = tmp_path_factory.mktemp("site")
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src"), "NO_MKDOCS_2_WARNING": "1", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert [line for line in done.stderr.splitlines() if not line.startswith("INFO")] == []
    assert time.monotonic() - start < 120
    return out


def test_nothing_is_loaded_from_another_server(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 60
    found = {url for page in pages for pair in LOADED.findall(page.read_text(encoding="utf-8")) for url in pair if url}
    assert found == set()
    for style in site.rglob("*.css"):
        assert re.findall(r"url\([\"']?https?:|@import", style.read_text(encoding="utf-8")) == [], style


def test_search_works_from_the_disk(site: Path) -> None:
    """A script with the index, and the page that loads it by a path."""
    assert (site / "search/search_index.js").read_text(encoding="utf-8").startswith("var __index = {")
    home = (site / "index.html").read_text(encoding="utf-8")
    assert "javascripts/iframe-worker.js" in home
    assert not re.search(r'href="/', home)


def test_every_public_name_is_in_the_reference(site: Path) -> None:
    anchors = _anchors(site)
    public = {f"genpercept.{name}" for name in genpercept.__all__} | {
        f"genpercept.metrics.{name}" for name in metrics.__all__
    }
    assert sorted(name for name in public if name not in anchors) == []


def test_every_extension_point_is_in_the_reference(site: Path) -> None:
    anchors = _anchors(site)
    page = (ROOT / "docs/reference/extension.md").read_text(encoding="utf-8")
    found, missing = set(), []
    for path in sorted((ROOT / "src").rglob("*.py")):
        for group in MADE.findall(path.read_text(encoding="utf-8")):
            module = ".".join(path.relative_to(ROOT / "src").with_suffix("").parts).removesuffix(".__init__")
            members = [x for _, x in inspect.getmembers(import_module(module)) if isinstance(x, Registry | Table)]
            table = next(x for x in members if x.group == f"genpercept.{group}")
            plugin = table.protocol if isinstance(table, Registry) else type(next(iter(table.values())))
            missing += [plugin.__name__] if f"{module}.{plugin.__name__}" not in anchors else []
            missing += [group] if f"`genpercept.{group}`" not in page else []
            found.add(group)
    assert len(found) == 13
    assert missing == []


def test_marks_are_replaced(site: Path) -> None:
    """No mark of a generated part is left, and each gave a table."""
    for page in (ROOT / "docs").rglob("*.md"):
        built = site / page.relative_to(ROOT / "docs").with_suffix(".html")
        marks = re.findall(r"^<!-- made: ", page.read_text(encoding="utf-8"), re.MULTILINE)
        if marks:
            text = built.read_text(encoding="utf-8")
            assert "made: " not in text, page
            assert text.count("<table") >= len(marks), page


def _anchors(site: Path) -> set[str]:
    pages = (site / "reference").glob("*.html")
    return {
        found for page in pages for found in re.findall(r'id="(genpercept[\w.]*)"', page.read_text(encoding="utf-8"))
    }
