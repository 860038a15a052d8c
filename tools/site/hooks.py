"""What mkdocs runs while it builds the site: pages that lie outside of docs/, links, and the parts made from the code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import links
import tables
from mkdocs.structure.files import File, Files

# `<!-- made: formats depth -->` is replaced by what the function `formats` of tables.py says of depth.
MADE = re.compile(r"^<!-- made: (\w+)((?: [\w/-]+)*) -->$", re.MULTILINE)
# A file's name behind the language of a code block is its title: ```python package/module.py
NAMED = re.compile(r"^(```\w+) ([\w./-]+)$", re.MULTILINE)
COMMENT = re.compile(r"^<!-- needs: [\w ]+ -->\n?", re.MULTILINE)


def on_files(files: Files, config: Any) -> Files:
    """Measurements, CONTRIBUTING and CHANGELOG become pages, too."""
    for path in links.beside():
        files.append(File.generated(config, path, abs_src_path=str(links.ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Generated parts in place of their marks, links as the site has them."""
    markdown = NAMED.sub(r'\1 title="\2"', markdown)
    markdown = MADE.sub(lambda found: getattr(tables, found[1])(*found[2].split()), markdown)
    return links.rewritten(COMMENT.sub("", markdown), page.file.src_uri)


def on_post_build(config: Any) -> None:
    """Search's index is a script beside it; the sitemap needs an address, which nobody has given."""
    for name in ("sitemap.xml", "sitemap.xml.gz"):
        Path(config["site_dir"], name).unlink(missing_ok=True)
