"""The page in a real browser, served by a real process on loopback: every tab, mistakes, keyboard, phone, dark, and its end."""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from genpercept.commands.app.examples import examples
from genpercept.imaging.video import Writer
from genpercept.tasks import title_of
from tests.support.noisy import noisy_depth

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install playwright")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="no chromium on this machine"),
]

TABS = ("depth", "normals", "disparity", "segmentation", "dis", "matting", "pose", "anomaly")
_WAIT = 60_000  # milliseconds, of a machine that does other things, too


@dataclass
class Running:
    process: subprocess.Popen[str]
    url: str
    scratch: Path  # where its temporary files go


@contextmanager
def started(scratch: Path, *words: str) -> Iterator[Running]:
    """`genpercept app` in a process of its own, which is ended."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TMPDIR": str(scratch)}
    command = [sys.executable, "-m", "genpercept", "app", "--port", "0", *words]
    log = (scratch / "log.txt").open("w+")
    process = subprocess.Popen(command, stderr=log, text=True, env=env, cwd=scratch)
    try:
        until = time.monotonic() + 180
        while not (found := re.search(r"open (http://\S+)", (scratch / "log.txt").read_text())):
            assert process.poll() is None and time.monotonic() < until, (scratch / "log.txt").read_text()
            time.sleep(0.2)
        yield Running(process, found[1], scratch)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
        log.close()


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """All embedded models, and a second one of depth, whose runs start from noise."""
    noisy = noisy_depth(tmp_path_factory.mktemp("models") / "noisy", 64)
    models = [word for task in TABS for word in ("--model", f"mini/{task}")]
    with started(tmp_path_factory.mktemp("scratch"), *models, "--model", str(noisy)) as running:
        yield running
        log = (running.scratch / "log.txt").read_text()
        assert "Traceback" not in log, log


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        camera = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *camera])
        yield chromium
        chromium.close()


@pytest.fixture
def page(app: Running, browser: Any) -> Iterator[Any]:
    with opened(app, browser) as page:
        yield page


@contextmanager
def opened(app: Running, browser: Any, width: int = 1400, scheme: str = "light") -> Iterator[Any]:
    """The page, loaded; what it asks for comes from this machine alone, and nothing of it fails."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    context.set_default_timeout(_WAIT)
    page = context.new_page()
    asked, failed = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: failed.append(str(error)))
    page.on("response", lambda answer: failed.append(answer.url) if answer.status >= 500 else None)
    page.goto(app.url)
    page.locator("#photograph img").wait_for()
    yield page
    context.close()
    outside = [url for url in asked if not url.startswith((f"{app.url}/", "data:", "blob:"))]
    assert not outside and not failed


def predict(page: Any, tab: str) -> None:
    page.locator(f"#predict-{tab}").click()
    page.locator(f"#slider-{tab} img").first.wait_for()


def pixels(page: Any, selector: str) -> np.ndarray:
    """The picture that the last image of `selector` shows."""
    image = page.locator(f"{selector} img").last
    answer = page.request.get(image.get_attribute("src"))
    return np.asarray(Image.open(io.BytesIO(answer.body())))


def photograph() -> Image.Image:
    return Image.fromarray(examples()[1].photograph.image).resize((320, 240))


def give(page: Any, name: str, content: bytes) -> None:
    page.locator("#photograph input[type=file]").first.set_input_files(
        {"name": name, "mimeType": "image/png", "buffer": content}
    )


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


# ---- every tab -------------------------------------------------------------------------------------------------------


def test_every_tab_answers_on_one_photograph(page: Any) -> None:
    give(page, "mine.png", png(photograph()))
    page.wait_for_function("(document.querySelector('#photograph img') || {}).naturalWidth == 320")
    for tab in TABS:
        page.get_by_role("tab", name=title_of(tab), exact=True).click()
        predict(page, tab)
        assert "320 × 240 pixels" in page.locator(f"#tab-{tab} .facts").inner_text()
        shown = pixels(page, f"#slider-{tab}")
        assert shown.shape == (240, 320, 3) and shown.std() > 0
        page.locator(f"#tab-{tab}").get_by_text("The same by command, and in Python").click()
        code = page.locator(f"#tab-{tab} .cm-content")
        code.first.wait_for()
        assert f"--model mini/{tab}" in code.first.inner_text() and f"load('mini/{tab}')" in code.last.inner_text()


def test_a_cut_out_on_each_background(page: Any) -> None:
    page.get_by_role("tab", name="Matting").click()
    predict(page, "matting")
    page.locator("#cutout-matting img").wait_for()
    transparent = pixels(page, "#cutout-matting")
    assert transparent.shape[-1] == 4 and transparent[..., 3].min() == 0
    gone = transparent[..., 3] == 0
    before = page.locator("#cutout-matting img").get_attribute("src")
    page.get_by_label("A colour").locator("visible=true").check()
    page.wait_for_function(f"document.querySelector('#cutout-matting img').src != '{before}'")
    coloured = pixels(page, "#cutout-matting")
    assert coloured.shape[-1] == 3 and (coloured[gone] == (0x24, 0x58, 0xC5)).all()
    before = page.locator("#cutout-matting img").get_attribute("src")
    page.get_by_label("Another photograph").locator("visible=true").check()
    red = {"name": "red.png", "mimeType": "image/png", "buffer": png(Image.new("RGB", (64, 64), (250, 10, 20)))}
    page.locator("#other-matting input[type=file]").first.set_input_files(red)
    page.wait_for_function(
        f"!['{before}', '{transparent.shape}'].includes(document.querySelector('#cutout-matting img').src)"
    )
    page.wait_for_timeout(1500)
    assert (pixels(page, "#cutout-matting")[gone] == (250, 10, 20)).all()


def choose(page: Any, label: str, value: str, tab: str) -> None:
    page.locator(f"#tab-{tab}").get_by_label(label, exact=True).click()
    page.get_by_role("option", name=value, exact=True).click()


def test_runs_that_differ_are_shown(page: Any) -> None:
    choose(page, "Model", "noisy", "depth")
    runs = page.locator("#tab-depth").get_by_label("number input for Runs")
    runs.fill("3")
    runs.press("Tab")
    predict(page, "depth")
    page.get_by_text("Where the runs disagree").wait_for()
    page.get_by_text("The same by command, and in Python").locator("visible=true").click()
    code = page.locator("#tab-depth .cm-content").first
    code.wait_for()
    assert "--ensemble-size 3" in code.inner_text()


def test_two_models_side_by_side(page: Any) -> None:
    page.get_by_role("tab", name="Compare").click()
    predict(page, "compare")
    words = page.locator("#tab-compare .facts").all_inner_texts()
    assert len(words) == 2 and "Left: mini/depth" in words[0] and "Right: noisy" in words[1]
    choose(page, "Task", "Normals", "compare")
    page.wait_for_timeout(1000)
    page.locator("#predict-compare").click()
    page.get_by_text("Right: mini/normals").wait_for()
    assert "saw 256 × " in page.locator("#tab-compare .facts").last.inner_text()


def test_a_download_is_what_predict_writes(page: Any, tmp_path: Path) -> None:
    (tmp_path / "mine.png").write_bytes(png(photograph()))
    give(page, "mine.png", (tmp_path / "mine.png").read_bytes())
    page.wait_for_function("(document.querySelector('#photograph img') || {}).naturalWidth == 320")
    predict(page, "depth")
    with page.expect_download() as got:
        page.locator("#tab-depth").get_by_text("PNG, 16 bits").click()
    command = [sys.executable, "-m", "genpercept", "predict", "mine.png", "--model", "mini/depth", "--out", "results"]
    subprocess.run(command, cwd=tmp_path, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True)
    assert got.value.suggested_filename == "mine_depth.png"
    assert Path(got.value.path()).read_bytes() == (tmp_path / "results" / "mine_depth.png").read_bytes()


def test_a_picture_by_the_camera(page: Any) -> None:
    page.get_by_label("Capture from camera").click()
    page.locator("#photograph").get_by_text("Click to Access Webcam").click()  # the example is gone by itself
    page.locator("#photograph video").wait_for()
    page.wait_for_function("document.querySelector('#photograph video').readyState == 4")
    page.wait_for_timeout(1000)
    page.locator("#photograph").get_by_label("capture photo").click()
    page.locator("#photograph img").wait_for()
    predict(page, "depth")
    assert re.search(r"\d{3,4} × \d{3,4} pixels", page.locator("#tab-depth .facts").inner_text())


def test_a_photograph_can_be_taken_away(page: Any) -> None:
    predict(page, "depth")
    page.locator("#photograph").get_by_label("Remove Image").click()
    page.locator("#photograph img").wait_for(state="detached")
    page.locator("#slider-depth").wait_for(state="hidden")
    page.locator("#predict-depth").click()
    page.get_by_text("Choose a photograph first").wait_for()


# ---- mistakes --------------------------------------------------------------------------------------------------------


def one_line(page: Any) -> str:
    alert = page.locator(".wrong").first
    alert.wait_for()
    text = alert.inner_text().strip()
    assert "\n" not in text and "Traceback" not in text and "/tmp" not in text
    return text


@pytest.mark.parametrize("content", [b"\xff\xd8\xff\xe0" + bytes(3000), b"hello", b""], ids=["broken", "text", "empty"])
def test_a_broken_file_is_one_line(page: Any, content: bytes) -> None:
    predict(page, "depth")
    give(page, "broken.png", content)
    assert one_line(page).startswith("The image")
    assert page.locator("#slider-depth").is_hidden() and page.locator("#photograph img").count() == 0
    page.locator("#predict-depth").click()
    page.get_by_text("Choose a photograph first").wait_for()
    give(page, "good.png", png(photograph()))
    page.locator("#photograph img").wait_for()
    page.locator(".wrong").first.wait_for(state="hidden")
    predict(page, "depth")


def test_an_oversized_file_and_no_image_are_one_line(page: Any, app: Running, tmp_path: Path) -> None:
    big = tmp_path / "big.png"
    big.write_bytes(bytes(33 * 2**20))
    page.locator("#photograph input[type=file]").first.set_input_files(big)
    page.get_by_text("exceed the maximum allowed size of 32").wait_for()
    page.locator("#photograph input[type=file]").first.set_input_files(
        {"name": "a.txt", "mimeType": "text/plain", "buffer": b"x"}
    )
    page.get_by_text("Only image/* allowed").wait_for()
    with big.open("rb") as file:  # past the page, too
        answer = httpx.post(f"{app.url}/gradio_api/upload", files={"files": ("big.png", file)}, timeout=60)
    assert answer.status_code == 413 and len(answer.text) < 200 and "/tmp" not in answer.text
    wide = io.BytesIO()
    Image.new("1", (60_000, 1000)).save(wide, "PNG")
    give(page, "wide.png", wide.getvalue())
    assert "60,000,000" in one_line(page) or "pixels" in one_line(page)


# ---- keyboard, phone, dark -------------------------------------------------------------------------------------------

_FOCUS = """() => { const e = document.activeElement, s = getComputedStyle(e);
  return [e.getAttribute('aria-label') || e.innerText || '', e.type || '', s.outlineStyle, e.id] }"""


def press_until(page: Any, wanted: str, most: int = 60) -> list[str]:
    """Tab until the focus is on what is labelled so; all that has the focus on the way shows it."""
    seen = []
    for _ in range(most):
        page.keyboard.press("Tab")
        label, kind, outline, _ = page.evaluate(_FOCUS)
        assert outline == "solid", label
        seen.append(f"{label.strip()} {kind}".strip())
        if wanted in seen[-1]:
            return seen
    raise AssertionError(f"{wanted}: not in {seen}")


def test_everything_by_keyboard(page: Any) -> None:
    seen = press_until(page, "Thumbnail 2 of 7")
    assert any("Upload file" in label for label in seen) and any("camera" in label for label in seen)
    page.keyboard.press("Enter")
    page.wait_for_function("(document.querySelector('#photograph img') || {}).naturalWidth == 512")
    press_until(page, "Normals")
    page.keyboard.press("Enter")
    press_until(page, "Model")
    press_until(page, "Predict")
    page.keyboard.press("Enter")
    page.locator("#slider-normals img").first.wait_for()
    press_until(page, "range slider for Divide at")
    before = page.locator("#slider-normals img").last.get_attribute("style")
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    page.wait_for_function(
        f"[...document.querySelectorAll('#slider-normals img')].pop().getAttribute('style') != {before!r}"
    )
    style = page.locator("#slider-normals img").last.get_attribute("style")
    assert float(re.search(r"inset\(0px 0px 0px ([\d.]+)%", style)[1]) == pytest.approx(60, abs=0.5)
    press_until(page, "PNG, 16 bits")
    with page.expect_download():
        page.keyboard.press("Enter")
    press_until(page, "The same by command")
    page.keyboard.press("Enter")
    page.locator("#tab-normals .cm-content").last.wait_for()
    press_until(page, "Copy")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_scrolls_one_way_and_the_page_is_as_dark_as_the_system(app: Running, browser: Any, scheme: str) -> None:
    with opened(app, browser, 400, scheme) as page:
        for tab in (*TABS, "compare"):
            page.locator(f"#tab-{tab}-button").click()
            predict(page, tab)
            page.wait_for_timeout(300)
            assert page.evaluate("document.documentElement.scrollWidth") <= 400, tab
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        brightness = np.mean([float(x) for x in re.findall(r"[\d.]+", colour)[:3]])
        assert brightness < 60 if scheme == "dark" else brightness > 200


# ---- what is kept, and who may ask -----------------------------------------------------------------------------------


def test_the_api_is_beside_the_page_and_gradios_other_doors_are_shut(app: Running) -> None:
    with httpx.Client(base_url=app.url, timeout=60) as client:
        assert len(client.get("/v1/models").json()["models"]) == 9
        answer = client.post("/v1/predict/depth", content=png(photograph()), headers={"content-type": "image/png"})
        assert answer.status_code == 200 and answer.headers["content-type"] == "image/png"
        for path in ("/monitoring", "/gradio_api/file=http://127.0.0.1:1/x", "/gradio_api/proxy=http://127.0.0.1:1/x"):
            assert client.get(path).status_code == 404
        page = client.get("/")
        assert "default-src 'self'" in page.headers["content-security-policy"]
        secret = app.scratch / "secret.txt"
        secret.write_text("a file of this machine's")
        config = client.get("/config").json()
        given = next(d["id"] for d in config["dependencies"] if d["api_name"] == "given")
        for path in (str(secret), "/etc/hostname"):  # neither may be read, and none is copied to where pages may look
            data = [{"path": path, "meta": {"_type": "gradio.FileData"}}]
            asked = {"data": data, "fn_index": given, "session_hash": "somebody"}
            refused = client.post("/gradio_api/queue/join", json=asked)
            assert refused.status_code == 400 and "/" not in refused.text
        folder = next(app.scratch.glob("genpercept-app-*"))
        assert not [p for p in folder.rglob("*") if p.is_file() and p.read_bytes() == secret.read_bytes()]


def test_a_visitors_file_is_deleted_soon(page: Any, app: Running) -> None:
    content = png(photograph().rotate(7))
    give(page, "private.png", content)
    page.wait_for_function("(document.querySelector('#photograph img') || {}).naturalWidth == 320")
    folder = next(app.scratch.glob("genpercept-app-*"))
    until = time.monotonic() + 40
    while any(path.name == "private.png" for path in folder.rglob("*")):
        assert time.monotonic() < until
        time.sleep(0.5)
    predict(page, "depth")  # from memory


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_outlives_the_process(browser: Any, tmp_path: Path, number: signal.Signals) -> None:
    with started(tmp_path, "--model", "mini/depth") as running:
        with opened(running, browser) as page:
            predict(page, "depth")
            folder = next(tmp_path.glob("genpercept-app-*"))
            assert any(folder.rglob("*.png"))
            running.process.send_signal(number)
            code = running.process.wait(30)  # though the page is open
        assert code == (0 if number == signal.SIGTERM else -9)
        until = time.monotonic() + 10
        while folder.exists() and time.monotonic() < until:
            time.sleep(0.1)
        assert not list(tmp_path.glob("genpercept-app-*"))
        log = (tmp_path / "log.txt").read_text()
        assert "Traceback" not in log, log


def test_others_need_the_key(browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = "0123456789abcdef"
    monkeypatch.setenv("GENPERCEPT_API_KEY", key)
    with started(tmp_path, "--model", "mini/depth") as running:
        assert httpx.get(running.url).status_code == 401
        context = browser.new_context(http_credentials={"username": "any", "password": key})
        context.set_default_timeout(_WAIT)
        page = context.new_page()
        page.goto(running.url)
        page.locator("#photograph img").wait_for()
        predict(page, "depth")
        with page.expect_download():
            page.locator("#tab-depth").get_by_text("Colours").click()
        context.close()


def test_a_mesh_turns(page: Any) -> None:
    """Drawn with the photograph on it, of another look once it is dragged; known distances give metres."""
    page.locator("#predict-depth").click()
    page.locator("#slider-depth img").first.wait_for()
    page.locator("#space-depth").click()
    page.locator("#model-depth canvas").wait_for()
    page.evaluate("document.querySelector('#model-depth').scrollIntoView({block: 'center'})")
    page.wait_for_timeout(8000)  # it draws when it has read the mesh, and says so nowhere
    box = page.locator("#model-depth canvas").bounding_box()
    first = seen(page, box)
    assert len(np.unique(first.reshape(-1, 3), axis=0)) > 1000
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 120, y + 20, steps=6)
    page.mouse.up()
    page.wait_for_timeout(3000)
    assert np.abs(seen(page, box).astype(float) - first).mean() > 2
    page.locator("#known-depth textarea").fill("20, 20, 3\n9999, 1, 2")
    page.locator("#space-depth").click()
    wrong = page.locator("#tab-depth .wrong")
    wrong.wait_for()
    assert "line 2: x = 9999" in wrong.inner_text()


def seen(page: Any, box: dict[str, float]) -> np.ndarray:
    """What the window shows there. (The element's own screenshot waits until nothing moves, which it always does.)"""
    return np.asarray(Image.open(io.BytesIO(page.screenshot(clip=box))).convert("RGB"))


def test_a_film_comes_back_as_one(page: Any, tmp_path: Path) -> None:
    photo = np.asarray(examples()[1].photograph.image)
    with Writer(tmp_path / "clip.mp4", rate=Fraction(12), tick=Fraction(1, 12)) as film:
        for i in range(8):
            film.write(np.ascontiguousarray(photo[40:136, 4 * i : 4 * i + 128]), time=Fraction(i, 12))
    page.get_by_role("tab", name="Film", exact=True).click()
    page.locator("#film input[type=file]").first.set_input_files(tmp_path / "clip.mp4")
    page.locator("#film video").wait_for()
    page.locator("#predict-film").click()
    answer = page.locator("#film-answer video")
    answer.wait_for()
    page.wait_for_function("document.querySelector('#film-answer video').videoWidth > 0")
    seen = answer.evaluate("video => [video.videoWidth, video.videoHeight, Math.round(12 * video.duration)]")
    assert seen == [128, 96, 8]
