"""From the click to the answer in the browser app, tab by tab, in a real browser on this machine.

    python benchmarks/speed/app.py                    # app.md beside it; needs the extra app, playwright and chromium

The models of the package at their own resolution, a photograph of 640 x 480 pixels. A click on "Predict" starts the clock, the
new picture's being drawn in the slider stops it. A first click in each tab is not counted: it loads the model. Browser and
server share the machine. Of that, the server: what the line under the picture says.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright
from skimage import data

sys.path.insert(0, str(Path(__file__).parents[2]))  # where `benchmarks` lies
from benchmarks._page import made, show
from genpercept.tasks import title_of

TABS = ("depth", "normals", "disparity", "segmentation", "dis", "matting", "pose", "anomaly")
_READY = 1800.0  # seconds, of a machine that does other things, too
_DRAWN = """([selector, before]) => {
    const image = [...document.querySelectorAll(selector)].at(-1)
    return image && image.src !== before && image.complete && image.naturalWidth > 0
}"""


def main() -> None:
    """Click, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clicks", type=int, default=9, help="in each tab")
    parser.add_argument("--tabs", nargs="+", choices=TABS, default=TABS)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, started(Path(scratch), args.tabs) as url, sync_playwright() as play:
        browser = launched(play)
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.set_default_timeout(_READY * 1e3)
        page.goto(url)
        page.locator("#photograph img").wait_for()
        found = {tab: clicks(page, tab, args.clicks) for tab in args.tabs}
        browser.close()
    show(lines(found, args.clicks), args.out)


def launched(play: Any) -> Any:
    """Chromium, which is on this machine."""
    chromium = shutil.which("chromium") or "/usr/bin/chromium"
    return play.chromium.launch(executable_path=chromium, args=["--no-sandbox"], timeout=_READY * 1e3)


@contextmanager
def started(scratch: Path, tabs: tuple[str, ...]) -> Iterator[str]:
    """`genpercept app` in a process of its own, which is ended; its address. SystemExit where it is not ready in time."""
    command = [sys.executable, "-m", "genpercept", "app", "--port", "0", "--device", "cpu"]
    command += [word for tab in tabs for word in ("--model", f"mini/{tab}")]
    log = scratch / "log.txt"
    with log.open("w") as file:
        process = subprocess.Popen(command, stderr=file, cwd=scratch, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    until = time.monotonic() + _READY
    try:
        while not (found := re.search(r"open (http://\S+)", log.read_text())):
            if process.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"genpercept app: not ready after {_READY:.0f} s: {log.read_text()}")
            time.sleep(0.2)
        yield found[1]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def give(page: Any, number: int) -> None:
    """Drop a photograph, every other time mirrored, so that the answer is another one, and wait until it is shown."""
    image = Image.fromarray(data.astronaut()).resize((640, 480))
    image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if number % 2 else image
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=90)
    photograph = {"name": f"photo{number % 2}.jpg", "mimeType": "image/jpeg", "buffer": buffer.getvalue()}
    before = page.locator("#photograph img").last.get_attribute("src")
    page.locator("#photograph input[type=file]").first.set_input_files(photograph)
    page.wait_for_function(_DRAWN, arg=["#photograph img", before])


def clicks(page: Any, tab: str, count: int) -> list[tuple[float, float]]:
    """Of each click: seconds to the answer, and of these the server's."""
    page.get_by_role("tab", name=title_of(tab), exact=True).click()
    found = []
    for number in range(count + 1):
        give(page, number)
        picture = page.locator(f"#slider-{tab} img").last
        before = picture.get_attribute("src") if number else ""
        page.wait_for_timeout(300)  # what a click before has left to do
        start = time.perf_counter()
        page.locator(f"#predict-{tab}").click()
        page.wait_for_function(_DRAWN, arg=[f"#slider-{tab} img", before])
        taken = time.perf_counter() - start
        said = re.search(r"([\d.]+) s\b", page.locator(f"#tab-{tab} .facts").inner_text())
        found.append((taken, float(said[1]) if said else math.nan))
    return found[1:]


def lines(found: dict[str, list[tuple[float, float]]], count: int) -> Iterator[str]:
    """The page."""
    load = os.getloadavg()[1]
    yield "# The browser app: from the click to the answer\n"
    machine = f"{made(__file__)}; load {load:.1f}, browser and server included"
    yield f"{machine}. A photograph of 640 x 480; {count} clicks in each tab.\n"
    yield "| task | click to answer, median | least to most | of that, the server |"
    yield "| --- | ---: | ---: | ---: |"
    for tab, runs in found.items():
        whole, server = zip(*runs, strict=True)
        spread = f"{min(whole):.2f} to {max(whole):.2f} s"
        yield f"| {title_of(tab).lower()} | {statistics.median(whole):.2f} s | {spread} | {statistics.median(server):.2f} s |"


if __name__ == "__main__":
    main()
