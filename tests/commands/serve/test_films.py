"""Films over HTTP: what comes back, how far it is, how each is refused, and that nothing of one stays when it should not."""

from __future__ import annotations

import io
import json
import os
import signal
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from genpercept.commands.predict.request import Machine, Request
from genpercept.commands.serve.engine import Engine, ModelSpec
from genpercept.commands.serve.film_jobs import DONE, IN_HAND, Films, Job
from genpercept.commands.serve.limits import Busy, Ending, Limits
from genpercept.commands.serve.options import limits_of, serve
from tests.support.asking import ask
from tests.support.commands import Call
from tests.support.films import decoded, film, panned, shortened, textured
from tools.campaigns._serving import Reply, Server, scratch

Talk = Callable[..., httpx.Response]
KEY = "k" * 16
SIZE = (48, 64)
POST = "/v1/films/predict/depth"
LIMITS = Limits(decoders=1, film_body=2**20, film_pixels=100_000, film_frames=200, film_queue=2, film_disk=2**21)
PATIENCE = 300.0  # seconds, of a machine that does other things, too


def clip(path: Path, frames: int = 6, **how: Any) -> Path:
    return film(path, panned(textured(0, (SIZE[0], SIZE[1] + 4 * frames)), frames, SIZE), **how)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    models = [ModelSpec("far", "mini/depth"), ModelSpec("dis", "mini/dis"), ModelSpec("pose", "mini/pose")]
    engine = Engine(models, LIMITS, device="cpu", batch_size=1)
    engine.load()
    yield engine
    engine.close()


@pytest.fixture
def talk(engine: Engine) -> Iterator[Talk]:
    """One request; options of make_app as `app=`. Afterwards no film is left."""

    yield partial(ask, engine)
    for job in list(engine.films._jobs.values()):
        engine.films.remove(job)
    assert engine.in_hand == 0 and engine.films.count(*IN_HAND) == 0


def refused(reply: httpx.Response, status: int) -> str:
    """The line of a refusal."""
    assert reply.status_code == status, reply.text
    line = reply.json()
    assert list(line) == ["error"] and "\n" not in line["error"] and "/tmp" not in line["error"]
    return line["error"]


def until(what: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """What it gives as soon as it gives something."""
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


def is_there(process: int) -> bool:
    return Path(f"/proc/{process}").exists()


def process_of(films: Films, number: str) -> int:
    """That of a job, as soon as it works."""
    until(lambda: films.find(number).process)
    process = films.find(number).process
    assert process is not None and is_there(process.pid)
    return process.pid


def over(talk: Talk, job: str) -> dict[str, Any]:
    """The job at its address, when it is over; progress never goes back."""
    seen: list[float] = []

    def asked() -> dict[str, Any] | None:
        told = talk("GET", job).json()
        seen.append(told["progress"] or 0)
        return told if told["state"] not in ("queued", "running") else None

    told = until(asked)
    assert seen == sorted(seen)
    return told


# ---- what comes back -------------------------------------------------------------------------------------------------


def test_a_film_comes_back_as_the_command_makes_it(talk: Talk, engine: Engine, tmp_path: Path, call: Call) -> None:
    source = clip(tmp_path / "clip.mp4", sound="aac")
    form = {"files": {"film": ("../../x.exe", source.read_bytes())}, "data": {"smooth": "0.8", "side_by_side": "true"}}
    sent = talk("POST", f"{POST}?format=mp4,png,npz", **form)
    told = sent.json()
    assert sent.status_code == 202 and sent.headers["location"] == f"/v1/films/{told['id']}"
    assert told["state"] in ("queued", "running") and told["frames"] == {"done": 0, "total": 6}
    assert "there is no result" in refused(talk("GET", f"{sent.headers['location']}/result"), 409)
    told = over(talk, sent.headers["location"])
    assert (told["state"], told["progress"], told["frames"]) == ("done", 1.0, {"done": 6, "total": 6}), told
    assert told["formats"] == ["mp4", "zip", "json"] and "error" not in told and "damage" not in told
    assert 3500 < told["kept_seconds"] <= 3600 and engine.films.counts["done"] >= 1

    words = ("--model", "mini/depth", "--device", "cpu", "--smooth=0.8", "--side-by-side", "--format", "mp4,png")
    assert call("predict", source, "--out", tmp_path / "o", *words)[0] == 0
    (tmp_path / "ours.mp4").write_bytes(talk("GET", told["result"]).content)
    (ours, times, samples), theirs = (decoded(p) for p in (tmp_path / "ours.mp4", tmp_path / "o/clip_depth.mp4"))
    assert len(ours) == 6 and ours[0].shape == (48, 128, 3) and times == theirs[1] and samples == theirs[2] > 0
    assert all(np.array_equal(a, b) for a, b in zip(ours, theirs[0], strict=True))

    with zipfile.ZipFile(io.BytesIO(talk("GET", f"{told['result']}?format=zip").content)) as archive:
        assert archive.namelist()[:3] == ["000001.json", "000001.npz", "000001.png"] and len(archive.namelist()) == 18
        pixels = np.asarray(Image.open(io.BytesIO(archive.read("000003.png"))))
        about = archive.read("000003.json").decode()
        meta = str(np.load(io.BytesIO(archive.read("000003.npz")))["meta"])
    assert np.array_equal(pixels, np.asarray(Image.open(tmp_path / "o/clip_depth/000003.png")))
    whole = talk("GET", told["result"], headers={"Accept": "application/json"})
    assert whole.json()["video"]["frames"] == 6 and whole.json()["meta"]["request"]["model"] == "far"
    for text in (about, meta, whole.text):  # where things lie here is nobody's business
        assert (
            "/tmp" not in text
            and ".genpercept" not in text
            and "mini/depth" not in json.loads(meta)["request"]["model"]
        )
    part = talk("GET", told["result"], headers={"Range": "bytes=4-7"})
    assert part.status_code == 206 and part.content == b"ftyp"
    assert "choose from mp4, zip, json" in refused(talk("GET", f"{told['result']}?format=glb"), 406)
    assert talk("GET", told["result"]).headers["x-genpercept-model"] == "far"

    assert talk("DELETE", sent.headers["location"]).status_code == 204
    assert "no such film" in refused(talk("GET", sent.headers["location"]), 404)
    refused(talk("GET", told["result"]), 404)


def test_a_film_that_is_cut_off_gives_what_it_has_and_expires(
    talk: Talk, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = shortened(clip(tmp_path / "a.mkv", 60), 0.6)
    headers = {"Content-Type": "video/x-matroska"}
    job = talk("POST", "/v1/films/predict/dis", content=cut.read_bytes(), headers=headers).headers["location"]
    told = over(talk, job)
    assert told["state"] == "done" and 2 < told["frames"]["done"] < 60 and told["frames"]["total"] < 60
    assert told["damage"].startswith("the film: damaged or cut off after frame") and "/" not in told["damage"]
    folder = engine.films.find(told["id"]).folder
    assert {path.name for path in folder.rglob("*")} == {"out", "film_dis.mp4", "film_dis.json"}
    assert 0 < engine.films.bytes < 2**20
    with engine.films.reading(engine.films.find(told["id"]), "mp4") as path:  # who fetches it may do so to the end
        monkeypatch.setattr(engine.films, "_clock", lambda: time.monotonic() + 3590)
        assert talk("GET", job).json()["kept_seconds"] <= 10
        monkeypatch.setattr(engine.films, "_clock", lambda: time.monotonic() + 3601)
        assert "its time is over" in refused(talk("GET", job), 404)
        time.sleep(1.5)
        assert path.is_file()
    until(lambda: not folder.exists(), 20)
    assert engine.films.bytes == 0


# ---- cancelled -------------------------------------------------------------------------------------------------------


def test_cancelling_ends_the_process_and_frees_the_queue(talk: Talk, engine: Engine, tmp_path: Path) -> None:
    data = clip(tmp_path / "clip.mp4", 150).read_bytes()
    files = {"files": {"film": data}}
    first, second = (talk("POST", POST, **files).headers["location"] for _ in range(2))
    full = talk("POST", POST, **files)
    assert "2 films are in hand: try again later" in refused(full, 429) and 1 <= int(full.headers["retry-after"]) <= 60
    assert talk("GET", second).json()["films_before"] == 1
    process = process_of(engine.films, first.rpartition("/")[2])
    figures = talk("GET", "/metrics").text
    assert "genpercept_films_in_hand 2.0" in figures
    folders = [engine.films.find(job.rpartition("/")[2]).folder for job in (first, second)]
    for job in (second, first):
        told = talk("DELETE", job)
        assert told.status_code == 200 and told.json()["state"] == "cancelled"
    assert not is_there(process)
    assert talk("GET", first).json()["state"] == "cancelled"
    assert "the film is cancelled" in refused(talk("GET", f"{first}/result"), 409)
    until(lambda: not any(folder.exists() for folder in folders), 20)
    assert engine.films.bytes == 0 and engine.films.count(*IN_HAND) == 0
    assert talk("DELETE", first).status_code == 204
    assert 'genpercept_requests_total{route="films/predict/depth",status="202"}' not in figures  # of another app
    assert 'genpercept_films_total{state="cancelled"}' in figures


# ---- refused ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/v1/films/predict/dsi", 404, "did you mean 'dis'?"),
        (f"{POST}?model=dis", 404, "no model 'dis' for depth"),
        (f"{POST}?format=gif", 406, "unknown output format 'gif'"),
        (f"{POST}?format=mask", 406, "mask cannot hold depth"),
        ("/v1/films/predict/pose?format=png", 406, "choose from"),
        (f"{POST}?smooth=1", 422, "from 0 to below 1"),
        (f"{POST}?smooth=nan", 422, "from 0 to below 1"),
        (f"{POST}?side_by_side=1&format=png", 422, "leave it out"),
        (f"{POST}?threshold=1", 422, "there are model, processing_resolution"),
        (f"{POST}?ensemble_size=3", 422, "deterministic"),
        (f"{POST}?seed=x", 422, "seed='x'"),
    ],
)
def test_what_is_wrong_is_said_before_the_film_is_read(talk: Talk, path: str, status: int, words: str) -> None:
    async def never() -> Any:
        raise AssertionError("the body was read")
        yield b""

    assert words in refused(talk("POST", path, content=never(), headers={"Expect": "100-continue"}), status)


def test_what_is_no_film_or_too_much_of_one(talk: Talk, engine: Engine, tmp_path: Path) -> None:
    secret = clip(tmp_path / "secret.mp4", 2)
    listed = f"ffconcat version 1.0\nfile {secret}\n".encode()
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{secret}\n#EXT-X-ENDLIST\n".encode()
    for data in (b"", b"no film" * 100, listed, playlist, secret.read_bytes()[:300]):
        assert refused(talk("POST", POST, content=data), 400).startswith("the film: ")
    long = clip(tmp_path / "long.mp4", 201).read_bytes()
    assert "201 frames: at most 200" in refused(talk("POST", POST, content=long), 413)
    large = film(tmp_path / "large.mp4", [np.zeros((320, 320, 3), np.uint8)] * 2).read_bytes()
    assert refused(talk("POST", POST, content=large), 413).endswith("320 x 320 pixels, more than the limit of 100,000")
    assert "1,048,577 bytes: at most 1,048,576" in refused(talk("POST", POST, content=bytes(2**20 + 1)), 413)
    form = {"files": [("film", long), ("film", long)]}
    assert "2 films: send one" in refused(talk("POST", POST, **form), 400)
    assert "0 films" in refused(talk("POST", POST, files={"seed": (None, "1")}), 400)
    assert "no such option" in refused(talk("POST", POST, files={"film": long}, data={"url": "http://a"}), 422)
    assert "no address is fetched" in refused(talk("POST", POST, json={"url": "http://a"}), 415)
    refused(talk("POST", POST, content=b"", headers={"Content-Type": "image/png"}), 415)
    assert engine.films.bytes == 0 and engine.films.count(*IN_HAND) == 0


def test_a_film_needs_the_key_too_and_is_documented(talk: Talk) -> None:
    for method, path in (
        ("POST", POST),
        ("GET", "/v1/films/x"),
        ("GET", "/v1/films/x/result"),
        ("DELETE", "/v1/films/x"),
    ):
        assert "API key" in refused(talk(method, path, {"key": KEY}), 401)
        if method != "POST":
            assert "no such film" in refused(talk(method, path), 404)
    paths = talk("GET", "/openapi.json").json()["paths"]
    sent = paths["/v1/films/predict/{task}"]["post"]
    assert {"202", "400", "401", "404", "406", "413", "415", "422", "429", "503"} <= set(sent["responses"])
    form = sent["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
    assert {"film", "smooth", "side_by_side", "format", "tiles"} <= set(form) and "known" not in form
    assert {"get", "delete"} <= set(paths["/v1/films/{id}"]) and "409" in paths["/v1/films/{id}/result"]["get"][
        "responses"
    ]
    assert talk("GET", "/v1/models").json()["limits"]["film_frames"] == 200


# ---- the queue by itself ---------------------------------------------------------------------------------------------


@pytest.fixture
def make() -> Iterator[Callable[..., Films]]:
    made: list[Films] = []

    def films(**limits: Any) -> Films:
        made.append(Films(Limits(**limits)))
        return made[-1]

    yield films
    for each in made:
        each.close()


def begun(films: Films, source: Path) -> Job:
    order = {"request": asdict(Request(model="mini/depth")), "machine": asdict(Machine("cpu")), "name": "far"}
    with films.arriving(source=source) as job:
        job.task = "depth"
        films.submit(job, order | {"smooth": 0.0, "side_by_side": False, "formats": ["mp4"]})
        return job


def test_a_process_that_takes_too_long_or_is_killed_fails_its_film_alone(
    make: Callable[..., Films], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = clip(tmp_path / "clip.mp4", 2)
    slow = make(film_seconds=0.5)
    job = begun(slow, source)
    process = process_of(slow, job.id)
    until(lambda: job.over)
    assert job.state == "failed" and "takes more than 0.5 seconds" in job.error and not is_there(process)
    films = make()
    job = begun(films, source)
    os.kill(process_of(films, job.id), signal.SIGKILL)
    until(lambda: job.over)
    assert job.state == "failed" and "ended by SIGKILL" in job.error and "ended by SIGKILL" in capfd.readouterr().err
    assert source.is_file()  # which is not the queue's


def test_where_room_is_short_the_oldest_results_go(make: Callable[..., Films]) -> None:
    films = make(film_disk=3000, film_body=2000)
    with films.arriving(1000) as old, films.arriving(1000) as new:
        films._end(old, DONE)
        films._end(new, DONE)
    with films.arriving(1500) as coming:
        assert films.find(new.id) is new and old.id not in films._jobs
        with pytest.raises(Busy, match="of films are in hand"):
            films.hold(coming, 3001)
    assert coming.id not in films._jobs


def test_the_end_takes_everything_along(make: Callable[..., Films], tmp_path: Path) -> None:
    films = make()
    job = begun(films, clip(tmp_path / "clip.mp4", 100))
    process, folder = process_of(films, job.id), films._folder
    assert folder is not None and folder.is_dir() and folder.stat().st_mode & 0o077 == 0
    films.stop()
    assert not is_there(process) and films.find(job.id).state == "cancelled"
    with pytest.raises(Ending), films.arriving():
        pass
    films.close()
    assert not folder.exists()


def test_every_limit_is_an_option_with_the_same_default() -> None:
    assert limits_of({param.name or "": param.default for param in serve.params}) == Limits()
    with pytest.raises(ValueError, match="hold no upload"):
        Limits(film_disk=2**20)
    with pytest.raises(ValueError, match="more than 0"):
        Limits(film_queue=0)


# ---- a real server ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_the_servers_end_ends_the_films_process(how: signal.Signals, tmp_path: Path) -> None:
    data = clip(tmp_path / "clip.mp4", 150).read_bytes()
    words = ("--model", "mini/depth", "--device", "cpu", "--decoders", 1)
    with Server(*words, environment={"GENPERCEPT_API_KEY": ""}, ready=PATIENCE) as server:
        before = set(server.children())
        sent = server.ask("POST", POST, data, {"Content-Type": "video/mp4"})
        assert sent.status == 202, sent.body
        path = json.loads(sent.body)["id"]

        def asked() -> Reply | None:
            reply = server.ask("GET", f"/v1/films/{path}")
            return reply if json.loads(reply.body)["state"] == "running" else None

        until(asked)
        family = until(lambda: set(server.children()) - before)
        server.process.send_signal(how)
        assert server.process.wait(60) == (0 if how == signal.SIGTERM else -9)
        until(lambda: not any(is_there(child) for child in family), 20)
        if how == signal.SIGTERM:
            assert not [path for path in scratch() if f"-{server.process.pid}-" in path]
            assert "Traceback" not in server.said()
