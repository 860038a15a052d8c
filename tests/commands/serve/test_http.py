"""The interface without a socket: what is answered, in which format, and how each request is refused."""

from __future__ import annotations

import asyncio
import io
import json
import re
from base64 import b64decode
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any

import httpx
import numpy as np
import pytest
import trimesh
from PIL import Image
from skimage import data

from genpercept.commands.serve.engine import Engine, ModelSpec
from genpercept.commands.serve.http import make_app
from genpercept.commands.serve.limits import Limits
from genpercept.pipeline.loading import load
from tests.support.asking import ask

KEY = "k" * 16
Talk = Callable[..., httpx.Response]


def encoded(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


ASTRONAUT = np.ascontiguousarray(data.astronaut()[::4, ::4])  # (128, 128, 3)
PHOTO = encoded(ASTRONAUT)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    models = [ModelSpec(name, f"mini/{name}") for name in ("dis", "pose", "anomaly")]
    engine = Engine(
        [*models, ModelSpec("other", "mini/dis")], Limits(body=2**20, pixels=10**6), device="cpu", batch_size=1
    )
    engine.load()
    yield engine
    engine.close()


@pytest.fixture
def talk(engine: Engine) -> Talk:
    """One request; options of make_app as `app=`."""

    return partial(ask, engine)


def refused(reply: httpx.Response, status: int) -> str:
    """The line of a refusal."""
    assert reply.status_code == status, reply.text
    line = reply.json()
    assert list(line) == ["error"] and "\n" not in line["error"] and "/dev/" not in line["error"]
    return line["error"]


def test_the_answer_is_what_predict_writes(talk: Talk, engine: Engine) -> None:
    wanted = load("mini/dis", device="cpu")(ASTRONAUT)
    reply = talk("POST", "/v1/predict/dis?format=npz", content=PHOTO)
    with np.load(io.BytesIO(reply.content)) as found:
        assert np.array_equal(found["values"], wanted.values) and str(found["kind"]) == wanted.kind
        meta = json.loads(str(found["meta"]))
    assert meta["model_sha256"] == wanted.meta["model_sha256"] and meta["request"]["model"] == "dis"
    assert engine.in_hand == 0 and engine.bytes == 0


def test_each_format_holds_the_image(talk: Talk) -> None:
    for name, mode in (("png", "I;16"), ("color", "RGB"), ("mask", "L"), ("cutout", "RGBA")):
        reply = talk("POST", f"/v1/predict/dis?format={name}", content=PHOTO)
        with Image.open(io.BytesIO(reply.content)) as image:
            assert reply.headers["content-type"] == "image/png" and (image.size, image.mode) == ((128, 128), mode), name
    assert np.load(io.BytesIO(talk("POST", "/v1/predict/dis?format=npy", content=PHOTO).content)).shape == (128, 128)
    told = talk("POST", "/v1/predict/dis?format=json", content=PHOTO).json()
    assert (told["task"], told["model"], told["height"], told["width"]) == ("dis", "dis", 128, 128)
    same = talk("POST", "/v1/predict/dis", content=PHOTO).content
    assert b64decode(told["png"]) == same and 0 <= told["minimum"] <= told["mean"] <= told["maximum"] <= 1


def test_exr_holds_the_values(talk: Talk, tmp_path: Any) -> None:
    OpenEXR = pytest.importorskip("OpenEXR")
    path = tmp_path / "a.exr"
    path.write_bytes(talk("POST", "/v1/predict/dis", content=PHOTO, headers={"Accept": "image/x-exr"}).content)
    values = np.load(io.BytesIO(talk("POST", "/v1/predict/dis?format=npy", content=PHOTO).content))
    assert np.array_equal(OpenEXR.File(str(path)).channels()["Y"].pixels, values)


@pytest.mark.parametrize(
    ("accept", "media", "name"),
    [
        ("", "image/png", "png"),
        ("*/*", "image/png", "png"),
        ("image/*", "image/png", "png"),
        ("text/html,application/xhtml+xml,image/avif,*/*;q=0.8", "image/png", "png"),
        ("application/json;q=0.5, application/x-npz", "application/x-npz", "npz"),
        ("application/json, image/png;q=0", "application/json", "json"),
    ],
)
def test_accept_chooses(talk: Talk, accept: str, media: str, name: str) -> None:
    reply = talk("POST", "/v1/predict/dis", content=PHOTO, headers={"Accept": accept})
    assert (reply.headers["content-type"], reply.headers["x-genpercept-format"]) == (media, name)


def test_points_and_scores(talk: Talk) -> None:
    told = talk("POST", "/v1/predict/pose", content=PHOTO).json()
    assert len(told["results"]) == 1 and len(told["results"][0]["keypoints"]) == 51
    assert talk("POST", "/v1/predict/pose?format=color", content=PHOTO).headers["content-type"] == "image/png"
    plain = talk("POST", "/v1/predict/anomaly?format=overlay", content=PHOTO).content
    outlined = talk("POST", "/v1/predict/anomaly?format=overlay&threshold=0.01", content=PHOTO).content
    assert plain != outlined


def test_a_threshold_moves_the_mask(talk: Talk) -> None:
    values = np.load(io.BytesIO(talk("POST", "/v1/predict/dis?format=npy", content=PHOTO).content))
    for threshold in (0.2, 0.5):
        mask = talk("POST", f"/v1/predict/dis?format=mask&threshold={threshold}", content=PHOTO).content
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(mask))) == 255, values >= threshold)


def test_a_form_and_its_options(talk: Talk) -> None:
    files, fields = (
        {"image": ("../../etc/passwd", PHOTO, "image/png")},
        {"format": "json", "processing_resolution": "64"},
    )
    told = talk("POST", "/v1/predict/dis", files=files, data=fields).json()
    assert max(told["meta"]["resolution"]) == 64 and "passwd" not in json.dumps(told)
    named = talk("POST", "/v1/predict/dis?model=other", files={"file": PHOTO})
    assert named.headers["x-genpercept-model"] == "other"
    assert "no such option" in refused(talk("POST", "/v1/predict/dis", files=files, data={"url": "http://a"}), 422)
    assert "2 images" in refused(talk("POST", "/v1/predict/dis", files=[("a", PHOTO), ("b", PHOTO)]), 400)
    assert "0 images" in refused(talk("POST", "/v1/predict/dis", files={"seed": (None, "1")}), 400)
    assert "longer than" in refused(
        talk("POST", "/v1/predict/dis", files={"image": PHOTO}, data={"seed": "1" * 999}), 400
    )
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    assert "form" in refused(talk("POST", "/v1/predict/dis", content=b"--y\r\n" + PHOTO, headers=headers), 400)
    assert "boundary" in refused(
        talk("POST", "/v1/predict/dis", content=b"", headers={"Content-Type": "multipart/form-data"}), 415
    )


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/v1/predict/dsi", 404, "did you mean 'dis'?"),
        ("/v1/predict/depth", 404, "choose one of dis, pose, anomaly"),
        ("/v1/predict/dis?model=pose", 404, "no model 'pose' for dis"),
        ("/v1/predict/dis?model=../dis", 404, "no model"),
        ("/v1/predict/dis?format=glb", 406, "choose from png, color, npy"),
        ("/v1/predict/pose?format=cutout", 406, "choose from json"),
        ("/v1/predict/dis?ensemble_size=3", 422, "deterministic"),
        ("/v1/predict/dis?ensemble_size=11", 422, "between 1 and 10"),
        ("/v1/predict/dis?steps=99", 422, "between 1 and 50"),
        ("/v1/predict/dis?processing_resolution=100000", 422, "between 0 and 1024"),
        ("/v1/predict/dis?seed=x", 422, "seed='x'"),
        ("/v1/predict/dis?fov=180", 422, "between 0 and 180"),
        ("/v1/predict/dis?fov=nan", 422, "between 0 and 180"),
        ("/v1/predict/dis?threshold=-1", 422, "threshold"),
        ("/v1/predict/dis?url=http://example.org/a.jpg", 422, "no such option"),
        ("/v1/nothing", 404, "see /docs"),
    ],
)
def test_what_is_wrong_with_a_request_is_said_before_its_body_is_read(
    talk: Talk, path: str, status: int, words: str
) -> None:
    async def never() -> AsyncIterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    assert words in refused(talk("POST", path, content=never(), headers={"Expect": "100-continue"}), status)


def test_bodies_that_are_no_images(talk: Talk) -> None:
    assert "not an image" in refused(talk("POST", "/v1/predict/dis", content=b"hello"), 400)
    assert "empty" in refused(talk("POST", "/v1/predict/dis", content=b""), 400)
    assert "truncated" in refused(talk("POST", "/v1/predict/dis", content=encoded(ASTRONAUT, "JPEG")[:900]), 400)
    json_body = {"json": {"url": "http://example.org/photo.jpg"}}
    assert "no address is fetched" in refused(talk("POST", "/v1/predict/dis", **json_body), 415)
    zipped = {"Content-Encoding": "gzip"}
    assert "compressed" in refused(talk("POST", "/v1/predict/dis", content=PHOTO, headers=zipped), 415)


def test_too_many_bytes_and_pixels(talk: Talk) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield bytes(2**16)

    assert "at most 1,048,576" in refused(talk("POST", "/v1/predict/dis", content=bytes(2**20 + 1)), 413)
    assert "more than 1,048,576" in refused(talk("POST", "/v1/predict/dis", content=endless()), 413)
    wide = encoded(np.zeros((1, 1_000_001, 3), np.uint8))
    line = refused(talk("POST", "/v1/predict/dis", content=wide), 413)
    assert "1000001 x 1 pixels, over the limit of 1,000,000" in line and "max-pixels" not in line
    large = encoded(np.zeros((30, 1100, 3), np.uint8))
    assert "at most 1024" in refused(talk("POST", "/v1/predict/dis?processing_resolution=0", content=large), 413)


def test_a_key(talk: Talk) -> None:
    app = {"key": KEY}
    assert "API key" in refused(talk("POST", "/v1/predict/dis", app, content=PHOTO), 401)
    for wrong in ("Bearer nothing", f"Basic {KEY}", "Bearer", f"Bearer {KEY}k", ""):
        refused(talk("GET", "/v1/models", app, headers={"Authorization": wrong}), 401)
    assert talk("GET", "/v1/models", app, headers={"Authorization": f"Bearer {KEY}"}).status_code == 200
    assert talk("GET", "/metrics", app, headers={"X-API-Key": KEY}).status_code == 200
    for path in ("/healthz", "/readyz", "/openapi.json"):
        assert talk("GET", path, app).status_code == 200


def test_the_documentation_needs_no_other_host_and_no_key(talk: Talk) -> None:
    page = talk("GET", "/docs", {"key": KEY})
    assert page.status_code == 200
    sources = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(sources) >= 3 and "https:" not in page.text
    for source in sources:
        part = talk("GET", source, {"key": KEY})
        assert part.status_code == 200 and len(part.content) > 1000, source
    assert talk("GET", "/static-docs/redoc.standalone.js", {"key": KEY}).status_code == 401


def test_pages_of_an_allowed_origin_may_read(talk: Talk) -> None:
    asks = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    allowed = {"origins": ("https://a.example",), "key": KEY}  # which a browser does not send before it has asked
    assert (
        talk("OPTIONS", "/v1/predict/dis", allowed, headers=asks).headers["access-control-allow-origin"]
        == asks["Origin"]
    )
    other = talk("OPTIONS", "/v1/predict/dis", {"origins": ("https://b.example",)}, headers=asks)
    assert "access-control-allow-origin" not in other.headers


def test_what_is_served_and_what_was_done(talk: Talk) -> None:
    told = talk("GET", "/v1/models").json()
    assert [model["name"] for model in told["models"]] == ["dis", "pose", "anomaly", "other"]
    assert told["models"][0]["formats"][0] == "png" and "glb" not in told["models"][0]["formats"]
    assert told["limits"]["bytes"] == 2**20
    figures = talk("GET", "/metrics").text
    assert "genpercept_queue_requests 0.0" in figures and "genpercept_decoders 2.0" in figures
    described = talk("GET", "/openapi.json").json()["paths"]["/v1/predict/{task}"]["post"]
    assert {"200", "400", "404", "406", "408", "413", "415", "422", "429", "503"} <= set(described["responses"])
    assert {"multipart/form-data", "image/jpeg"} <= set(described["requestBody"]["content"])


def test_the_app_may_be_asked_before_its_models_are_loaded() -> None:
    engine = Engine([ModelSpec("dis", "mini/dis")], Limits(decoders=1), device="cpu")
    try:
        app = make_app(engine)

        async def asked(method: str, path: str) -> httpx.Response:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
                return await client.request(method, path)

        for method, path in (("GET", "/readyz"), ("GET", "/v1/models"), ("POST", "/v1/predict/dis")):
            reply = asyncio.run(asked(method, path))
            assert refused(reply, 503) and int(reply.headers["retry-after"]) >= 1
        assert asyncio.run(asked("GET", "/healthz")).status_code == 200
    finally:
        engine.close()


# ---- in space --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def depth() -> Iterator[Engine]:
    engine = Engine([ModelSpec("depth", "mini/depth"), ModelSpec("dis", "mini/dis")], device="cpu", batch_size=1)
    engine.load()
    yield engine
    engine.close()


def test_known_distances_make_metres(depth: Engine) -> None:
    """As text in the form, and as a file of it; wrong ones are refused in a line."""
    values = load("mini/depth", device="cpu")(ASTRONAUT).values
    places = [(10, 20), (100, 64), (60, 120), (120, 5)]  # x, y
    known = "x,y,metres\n" + "\n".join(f"{x + 0.5},{y + 0.5},{1 + 2 * values[y, x]}" for x, y in places)

    def ask(task: str = "depth", **form: Any) -> httpx.Response:
        async def asked() -> httpx.Response:
            transport = httpx.ASGITransport(make_app(depth))
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return await client.post(f"/v1/predict/{task}", **form)

        return asyncio.run(asked())

    for form in (
        {"files": {"image": PHOTO}, "data": {"known": known}},
        {"files": {"image": PHOTO, "known": ("points.csv", known.encode(), "text/csv")}},
    ):
        told = ask(params={"format": "json"}, **form).json()
        assert told["kind"] == "depth_metric" and told["meta"]["fit"]["inliers"] == 4
        assert told["minimum"] == pytest.approx(1 + 2 * float(values.min()), rel=1e-2)
    assert "known, line 2: x = 500" in refused(ask(files={"image": PHOTO}, data={"known": "1,1,2\n500,1,3"}), 422)
    assert "tell no distance" in refused(ask("dis", files={"image": PHOTO}, data={"known": known}), 422)
    assert "longer than 65536" in refused(ask(files={"image": PHOTO}, data={"known": "1,1,2\n" * 20000}), 400)


def test_a_mesh_by_the_photographs_camera(depth: Engine) -> None:
    """EXIF is read where the image is decoded; `fov` comes before it."""
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA405] = 50  # FocalLengthIn35mmFilm
    buffer = io.BytesIO()
    Image.fromarray(ASTRONAUT).save(buffer, "JPEG", exif=exif)
    image = buffer.getvalue()

    def camera(query: str) -> tuple[dict[str, Any], trimesh.Trimesh]:
        async def asked() -> list[httpx.Response]:
            transport = httpx.ASGITransport(make_app(depth))
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                ways = [f"/v1/predict/depth?format={name}{query}" for name in ("json", "glb")]
                return [await client.post(way, content=image) for way in ways]

        told, glb = asyncio.run(asked())
        assert glb.headers["content-type"] == "model/gltf-binary"
        return told.json()["meta"]["camera"], trimesh.load(io.BytesIO(glb.content), "glb", force="mesh")  # type: ignore[return-value]

    by_exif, narrow = camera("")
    assert by_exif["source"] == "EXIF" and by_exif["fov"] == pytest.approx(34.01, abs=0.05)
    given, wide = camera("&fov=90")
    assert given["source"] == "option" and given["fov"] == 90
    assert np.ptp(wide.vertices[:, 0]) > 2.5 * np.ptp(narrow.vertices[:, 0])


def test_tiles_and_refined_edges(depth: Engine) -> None:
    """As predict gives them; more tiles than are allowed, and what a task cannot do, are refused before the network runs."""
    large = np.ascontiguousarray(data.astronaut()[:240, :320])

    def ask(query: str, task: str = "depth", image: bytes = encoded(large)) -> httpx.Response:
        async def asked() -> httpx.Response:
            transport = httpx.ASGITransport(make_app(depth))
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return await client.post(f"/v1/predict/{task}?{query}", content=image)

        return asyncio.run(asked())

    pipe = load("mini/depth", device="cpu")
    for query, options in (
        ("tiles=auto", {"tiles": "auto"}),
        ("tiles=128&overlap=0.5&refine=true", {"tiles": 128, "overlap": 0.5, "refine": True}),
    ):
        with np.load(io.BytesIO(ask(f"format=npz&{query}").content)) as found:
            np.testing.assert_array_equal(found["values"], pipe(large, **options).values)
    assert "tiles of 320 x 240 pixels: at most 64" in refused(ask("tiles=16"), 422)
    assert "must be at least 0 and below" in refused(ask("tiles=128&overlap=1"), 422)
    assert refused(ask("tiles=many"), 422).startswith("tiles='many': ")
