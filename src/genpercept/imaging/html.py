"""One self-contained HTML page: pictures inside it, no scripts, no fonts or styles from elsewhere."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from genpercept.core import files

_MAX_EDGE = 640  # pixels; a page of a hundred pictures stays under 5 MB

_CSS = """
:root { color-scheme: light dark; --paper: #fbfbfa; --card: #fff; --ink: #1c1e21; --soft: #646a73; --line: #e3e4e6;
        --accent: #2458c5; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #15171a; --card: #1e2125; --ink: #e8e9ea; --soft: #9aa1ab; --line: #31353b; --accent: #8ab0ff; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1240px; padding: 2.5rem clamp(1rem, 3vw, 2.5rem); background: var(--paper);
       color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .4rem; letter-spacing: -.01em; }
h2 { font-size: 1.25rem; margin: 2.8rem 0 .3rem; }
h3 { font-size: 1rem; margin: 0; }
p { margin: .4rem 0; max-width: 75ch; }
a { color: var(--accent); }
.soft, figcaption, .row small { color: var(--soft); }
.row { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 1rem; margin: 1rem 0; }
.head { display: flex; flex-wrap: wrap; justify-content: space-between; gap: .2rem 1.5rem; margin-bottom: .7rem; }
.cells { display: grid; gap: .8rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, var(--cell)), 1fr)); }
figure { margin: 0; min-width: 0; }
img { display: block; width: 100%; height: auto; border-radius: 6px; background: var(--line); }
figcaption { font-size: .84rem; padding-top: .35rem; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: .8rem 0; font-variant-numeric: tabular-nums; font-size: .93rem; }
th, td { text-align: right; padding: .4rem .9rem; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
th { color: var(--soft); font-weight: 600; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.2rem; font-size: .93rem; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
pre { white-space: pre-wrap; font-size: .85rem; background: var(--card); border: 1px solid var(--line);
      border-radius: 10px; padding: 1rem; }
"""


@dataclass(frozen=True)
class Cell:
    """A picture (PIL, or uint8 (H, W, 3)) and the words under it."""

    picture: Image.Image | np.ndarray
    caption: str


def page(title: str, lead: str, sections: Iterable[str]) -> str:
    """The whole document. `sections` are HTML, as the functions below give it; `title` and `lead` are plain text."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_CSS}</style></head>\n<body>\n"
        f'<h1>{html.escape(title)}</h1>\n<p class="soft">{html.escape(lead)}</p>\n'
        + "\n".join(sections)
        + "\n</body></html>\n"
    )


def section(title: str, text: str, *parts: str) -> str:
    """A heading, a paragraph of plain text and HTML parts."""
    words = f'<p class="soft">{html.escape(text)}</p>' if text else ""
    return f"<section><h2>{html.escape(title)}</h2>{words}" + "\n".join(parts) + "</section>"


def row(title: str, note: str, cells: Sequence[Cell], min_width: int = 220) -> str:
    """Pictures side by side, wrapping below `min_width` CSS pixels each."""
    figures = "".join(_figure(title, cell) for cell in cells)
    return (
        f'<div class="row"><div class="head"><h3>{html.escape(title)}</h3><small>{html.escape(note)}</small></div>'
        f'<div class="cells" style="--cell:{min_width}px">{figures}</div></div>'
    )


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; the first column is text, the others figures."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in header)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in cells) + "</tr>" for cells in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def facts(pairs: Mapping[str, object]) -> str:
    """Name and value, one per line."""
    items = "".join(f"<dt>{html.escape(k)}</dt><dd>{html.escape(str(v))}</dd>" for k, v in pairs.items())
    return f"<dl>{items}</dl>"


def preformatted(text: str) -> str:
    """Plain text with its line breaks."""
    return f"<pre>{html.escape(text)}</pre>"


def data_uri(picture: Image.Image | np.ndarray, max_edge: int = _MAX_EDGE) -> str:
    """The picture as WebP in a `data:` address, shrunk to `max_edge` pixels."""
    image = (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).convert("RGB")
    if max(image.size) > max_edge:
        image.thumbnail((max_edge, max_edge), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.save(stream, "WEBP", quality=88)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode()


def _figure(title: str, cell: Cell) -> str:
    width, height = cell.picture.size if isinstance(cell.picture, Image.Image) else cell.picture.shape[1::-1]
    words = html.escape(cell.caption)
    return (
        f'<figure><img src="{data_uri(cell.picture)}" width="{width}" height="{height}" '
        f'alt="{html.escape(title)}: {words}"><figcaption>{words}</figcaption></figure>'
    )


def save(path: Path, document: str) -> None:
    """Write the page, whole or not at all. ValueError when the folder cannot be written to."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_text(path, document)
    except OSError as error:
        raise ValueError(f"{path}: cannot be written: {error}") from None
