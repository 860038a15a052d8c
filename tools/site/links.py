"""Links of a page as the site has them. In the repository they are paths, so that they work there as well.

What lies in docs/, the measurements' pages, CONTRIBUTING and CHANGELOG are pages of the site. What is no page, such as source
code, is named there instead of linked.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FENCED = re.compile(r"(^(?:```|~~~).*?^(?:```|~~~)[ \t]*$)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
BESIDE = ("CONTRIBUTING.md", "CHANGELOG.md")  # pages outside of docs/ and benchmarks/


def beside() -> list[str]:
    """Paths of the pages and pictures that lie outside of docs/, relative to the repository's root."""
    measured = [path for suffix in ("md", "png") for path in ROOT.glob(f"benchmarks/**/*.{suffix}")]
    return [*BESIDE, *sorted(path.relative_to(ROOT).as_posix() for path in measured)]


def of_repository(page: str) -> str:
    """The path in the repository of a page of the site."""
    return page if page in BESIDE or page.startswith("benchmarks/") else f"docs/{page}"


def of_site(path: str) -> str | None:
    """The page or file of the site that a path in the repository is; None where it is none."""
    if path in ("README.md", "docs"):
        return "index.md"
    if path in BESIDE or (path.startswith("benchmarks/") and path.endswith((".md", ".png"))):
        return path
    if path.startswith("docs/") and not (ROOT / path).is_dir():
        return path.removeprefix("docs/")
    return None


def rewritten(markdown: str, page: str) -> str:
    """The text of `page` with links as the site has them; code in fences stays as it is."""
    parts = FENCED.split(markdown)
    return "".join(part if i % 2 else LINK.sub(lambda m: _link(m, page), part) for i, part in enumerate(parts))


def _link(found: re.Match[str], page: str) -> str:
    mark, text, target = found.groups()
    path, _, anchor = target.partition("#")
    if not path or ":" in path:
        return found.group()
    there = posixpath.normpath(posixpath.join(posixpath.dirname(of_repository(page)), path))
    site = of_site(there)
    if site is None:
        return text if text.strip("`") in there else f"{text} (`{there}`)"
    relative = posixpath.relpath(site, posixpath.dirname(page) or ".")
    return f"{mark}[{text}]({relative}{'#' + anchor if anchor else ''})"
