"""The tab of films: what comes back is the command's film, and a visitor who leaves takes the process along."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr
import httpx
import numpy as np
import pytest
import uvicorn

from genpercept.commands.app import films
from genpercept.commands.app.desk import Desk
from genpercept.commands.app.run import with_page
from genpercept.commands.app.store import Store
from genpercept.commands.serve.engine import Engine, ModelSpec
from genpercept.commands.serve.film_jobs import IN_HAND, RUNNING
from genpercept.commands.serve.http import make_app
from genpercept.commands.serve.limits import Limits
from genpercept.commands.serve.run import listen
from genpercept.imaging.video import Film
from tests.support.commands import Call
from tests.support.films import film, panned, shortened, textured


@pytest.fixture(scope="module")
def desk() -> Iterator[Desk]:
    spec = ModelSpec("mini/depth", "mini/depth")
    engine = Engine([spec], Limits(decoders=1), device="cpu", batch_size=1)
    engine.load()
    yield Desk(engine, Store(), {spec.name: spec})
    engine.close()


def clip(path: Path, frames: int = 6, size: tuple[int, int] = (96, 128)) -> Path:
    return film(path, panned(textured(0, (size[0], size[1] + 4 * frames)), frames, size))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where gradio keeps files."""
    folder = tmp_path / "files"
    folder.mkdir()
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(folder))
    return folder


def panel(desk: Desk) -> films.Films:
    with gr.Blocks():
        return films.Films(desk)


def asked(desk: Desk, value: Any, **how: bool) -> list[list[Any]]:
    async def all_of() -> list[list[Any]]:
        steps = panel(desk).predict(value, "depth", how.get("smooth", True), how.get("beside", False))
        return [step async for step in steps]

    return asyncio.run(all_of())


def test_a_film_is_what_the_command_makes(desk: Desk, tmp_path: Path, cache: Path, call: Call) -> None:
    source = clip(tmp_path / "clip.mp4")
    steps = asked(desk, {"video": {"path": str(source)}}, beside=True)
    assert "Begun" in steps[0][1] and not any(step[0] for step in steps) and steps[-1][2]["visible"]
    made = Path(steps[-1][3])
    assert made.parent == cache and [p.name for p in cache.iterdir()] == [made.name] and source.is_file()
    words = ("--model", "mini/depth", "--device", "cpu", "--smooth=0.8", "--side-by-side")
    assert call("predict", str(source), "--out", str(tmp_path / "same.mp4"), *words)[0] == 0
    ours, theirs = ([frame.image for frame in Film(path).frames()] for path in (made, tmp_path / "same.mp4"))
    assert len(ours) == 6 and ours[0].shape == (96, 256, 3)
    assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_a_film_that_is_cut_off_gives_what_it_has_and_a_line(desk: Desk, tmp_path: Path, cache: Path) -> None:
    whole = film(tmp_path / "a.mkv", panned(textured(0, (96, 328)), 50, (96, 128)))
    last = asked(desk, {"path": str(shortened(whole, 0.6))}, smooth=False)[-1]
    assert "cut off after frame" in last[0] and str(tmp_path) not in last[0] and last[2]["visible"]
    assert 2 < len(list(Film(Path(last[3])).frames())) < 50


def test_what_is_no_film_is_one_line(desk: Desk, tmp_path: Path, cache: Path) -> None:
    broken = tmp_path / "clip.mp4"
    broken.write_bytes(b"no film" * 100)
    for value, words in (
        (None, "Choose a film first"),
        ({"path": str(tmp_path / "gone.mp4")}, "no longer there"),
        ({"path": str(broken)}, "The film"),
    ):
        last = asked(desk, value)[-1]
        assert words in last[0] and last[0].count("<p") == 1 and not last[2]["visible"] and last[3] == ""
        assert str(tmp_path) not in last[0]


# ---- a visitor who leaves --------------------------------------------------------------------------------------------


def until(what: Any, seconds: float = 60) -> Any:
    """What it gives as soon as it gives something."""
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


def at_work(desk: Desk) -> int | None:
    """The number of the process that works on a film, when it does."""
    jobs = [job for job in list(desk.engine.films._jobs.values()) if job.state == RUNNING and job.process]
    return jobs[0].process.pid if jobs and jobs[0].process else None


def is_there(process: int) -> bool:
    return Path(f"/proc/{process}").exists()


def test_closing_the_steps_ends_the_process(desk: Desk, tmp_path: Path, cache: Path) -> None:
    source = clip(tmp_path / "clip.mp4", 100)

    async def leave() -> int:
        steps = panel(desk).predict({"path": str(source)}, "depth", True, False)
        while (process := at_work(desk)) is None:
            await anext(steps)
        assert is_there(process)
        await steps.aclose()  # type: ignore[attr-defined]  a generator
        return process

    process = asyncio.run(leave())
    assert not is_there(process) and not desk.engine.films.count(*IN_HAND)
    assert not list(cache.iterdir()) and source.is_file()


@contextmanager
def served(desk: Desk, folder: Path) -> Iterator[str]:
    """The page on a socket of this process; its address."""
    listener = listen("127.0.0.1", 0)
    config = uvicorn.Config(with_page(make_app(desk.engine), desk, folder), log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    try:
        until(lambda: server.started)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = server.force_exit = True
        thread.join(30)


def test_closing_the_page_ends_the_process(desk: Desk, tmp_path: Path, cache: Path) -> None:
    """As a browser does it: the film is uploaded, the button pressed, progress is read, and the connection ends."""
    source, before = clip(tmp_path / "clip.mp4", 100), desk.engine.films.counts["cancelled"]
    with served(desk, cache) as address, httpx.Client(base_url=f"{address}/gradio_api", timeout=60) as browser:
        config = browser.get(f"{address}/config").json()
        button = next(c["id"] for c in config["components"] if c["props"].get("elem_id") == "predict-film")
        click = next(d["id"] for d in config["dependencies"] if [button, "click"] in d["targets"])
        given = browser.post("/upload", files={"files": ("clip.mp4", source.read_bytes())}).json()[0]
        sent = {"path": given, "meta": {"_type": "gradio.FileData"}}
        asks = {
            "data": [sent, "depth", True, False],
            "fn_index": click,
            "session_hash": "visitor",
            "trigger_id": button,
        }
        assert browser.post("/queue/join", json=asks).status_code == 200
        with browser.stream("GET", "/queue/data", params={"session_hash": "visitor"}) as events:
            lines = events.iter_lines()
            assert any(" frames" in line for line in lines)
            process = until(lambda: at_work(desk))
            assert is_there(process)
        until(lambda: not is_there(process), 20)
        until(lambda: not desk.engine.films.count(*IN_HAND), 20)
    assert desk.engine.films.counts["cancelled"] == before + 1
