"""The pictures of docs/app.md's mesh and film, made of the real app in a real browser: `python tools/site/app_pictures.py`.

Needs the extras app, demo, mesh and video, playwright, and chromium. The models are the embedded ones, the photographs the
app's own examples. Without a graphics card the browser draws the mesh by the processor: a minute on idle cores.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import sync_playwright
from sklearn.datasets import load_sample_image

sys.path.insert(0, str(Path(__file__).parents[2]))  # where `benchmarks` lies
from benchmarks.speed.app import launched, started
from genpercept.imaging.video import Writer

ROOT = Path(__file__).resolve().parents[2]
PHOTOGRAPH = "china"  # of the examples
WIDTH = 860  # of a picture, in pixels
COLOURS = 128  # of a picture's palette
_FEWEST = 1000  # colours of a canvas on which a photograph is drawn
_PATIENCE = 1800.0  # seconds
_FRAMES, _RATE = 24, 12


def main() -> None:
    """Write what `--only` names, or all."""
    pictures: dict[str, Callable[[Any], Image.Image]] = {"app_space": space, "app_film": film}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "docs/images")
    parser.add_argument("--only", nargs="*", choices=pictures, default=[])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, started(Path(scratch), ("depth",)) as url, sync_playwright() as play:
        browser = launched(play)
        for name in args.only or pictures:
            page = browser.new_page(viewport={"width": 1100, "height": 1900})
            page.set_default_timeout(_PATIENCE * 1e3)
            page.goto(url)
            page.locator("#photograph img").wait_for()
            path = args.out / f"{name}.png"
            small(pictures[name](page)).save(path, optimize=True)
            print(f"{path}: {path.stat().st_size / 1e3:.0f} kB", flush=True)
            page.close()
        browser.close()


def space(page: Any) -> Image.Image:
    """Depth in space: as it comes, and beside it turned by the pointer."""
    page.locator("#examples").get_by_text(PHOTOGRAPH).click()
    page.wait_for_function("document.querySelector('#photograph img').naturalWidth == 640")
    page.locator("#predict-depth").click()
    page.locator("#slider-depth img").first.wait_for()
    page.locator("#space-depth").click()
    canvas = page.locator("#model-depth canvas")
    canvas.wait_for()
    part = _around(page, "#fov-depth", "#model-depth")
    first = drawn(page, canvas, part)
    box = canvas.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 20, y - 4, steps=4)
    page.mouse.up()
    page.mouse.move(x, part["y"] - 20)
    page.wait_for_timeout(5000)  # it goes on turning for a moment
    return beside(first, drawn(page, canvas, part))


def film(page: Any) -> Image.Image:
    """The tab of films with a film and its answer."""
    photo = np.asarray(load_sample_image(f"{PHOTOGRAPH}.jpg"))
    with tempfile.TemporaryDirectory() as scratch:
        clip = Path(scratch) / "clip.mp4"
        with Writer(clip, rate=Fraction(_RATE), tick=Fraction(1, _RATE)) as writer:
            for i in range(_FRAMES):
                writer.write(np.ascontiguousarray(photo[80:368, 8 * i : 8 * i + 384]), time=Fraction(i, _RATE))
        page.get_by_role("tab", name="Film", exact=True).click()
        page.locator("#film input[type=file]").first.set_input_files(clip)
        page.locator("#film video").wait_for()
    page.get_by_label("Side by side").check()
    page.locator("#predict-film").click()
    page.locator("#film-answer video").wait_for()
    for video in ("#film video", "#film-answer video"):
        page.wait_for_function(_SOUGHT, arg=[video, _FRAMES / _RATE / 2])
    return taken(page, _around(page, "#tab-film", "#film-answer"))


_SOUGHT = """([selector, time]) => {
    const video = document.querySelector(selector)
    if (video.readyState >= 2 && video.currentTime != time && !video.seeking) { video.pause(); video.currentTime = time }
    return video.readyState >= 2 && video.currentTime == time && !video.seeking
}"""


def drawn(page: Any, canvas: Any, part: dict[str, float]) -> Image.Image:
    """The part of the page, once there is a photograph on the canvas. TimeoutError where none comes."""
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until:
        pixels = np.asarray(taken(page, canvas.bounding_box()))
        if len(np.unique(pixels.reshape(-1, 3), axis=0)) > _FEWEST:
            return taken(page, part)
        page.wait_for_timeout(2000)
    raise TimeoutError("the mesh is not drawn")


def taken(page: Any, part: dict[str, float]) -> Image.Image:
    """What the window shows there. (The element's own screenshot waits until nothing moves, which a canvas always does.)"""
    return Image.open(io.BytesIO(page.screenshot(clip=part, timeout=_PATIENCE * 1e3))).convert("RGB")


def _around(page: Any, *selectors: str) -> dict[str, float]:
    """The rectangle that holds all of them, and a margin."""
    page.evaluate("window.scrollTo(0, 0)")
    boxes = [page.locator(selector).bounding_box() for selector in selectors]
    left, top = (min(box[key] for box in boxes) - 12 for key in ("x", "y"))
    right = max(box["x"] + box["width"] for box in boxes) + 12
    bottom = max(box["y"] + box["height"] for box in boxes) + 12
    return {"x": left, "y": top, "width": right - left, "height": bottom - top}


def beside(*pictures: Image.Image) -> Image.Image:
    """Pictures of one height, from left to right."""
    out = Image.new("RGB", (sum(p.width for p in pictures), pictures[0].height))
    x = 0
    for picture in pictures:
        out.paste(picture, (x, 0))
        x += picture.width
    return out


def small(picture: Image.Image) -> Image.Image:
    """At most WIDTH wide, of a palette: a fraction of the bytes."""
    if picture.width > WIDTH:
        size = (WIDTH, round(picture.height * WIDTH / picture.width))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    return picture.quantize(COLOURS, dither=Image.Dither.FLOYDSTEINBERG)


if __name__ == "__main__":
    main()
