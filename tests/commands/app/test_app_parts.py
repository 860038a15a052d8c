"""What the page is made of, without a browser: answers, the boxes that repeat them, what is kept, and what is let through."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import httpx
import numpy as np
import pytest
import trimesh
from fastapi import FastAPI
from PIL import Image
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from genpercept.checkpoints import hub
from genpercept.commands.app import files, pictures, same, space
from genpercept.commands.app.desk import OWN, Desk, guarded, resolutions
from genpercept.commands.app.examples import examples
from genpercept.commands.app.gate import Gate, Login, allowed, names_else
from genpercept.commands.app.space import Space
from genpercept.commands.app.store import Answer, Photograph, Store
from genpercept.commands.serve.engine import Engine, ModelInfo, ModelSpec
from genpercept.commands.serve.limits import Broken, Limits
from genpercept.imaging.kinds import KINDS, Kind
from genpercept.imaging.prediction import Prediction
from genpercept.tasks import TASKS
from tests.support.commands import Call
from tests.support.noisy import noisy_depth
from tests.support.strangers import Install


def desk_of(specs: list[ModelSpec]) -> Iterator[Desk]:
    engine = Engine(specs, Limits(decoders=1), batch_size=1)
    engine.load()
    yield Desk(engine, Store(), {spec.name: spec for spec in specs})
    engine.close()


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """An embedded model, and one whose runs start from noise."""
    noisy = noisy_depth(tmp_path_factory.mktemp("models") / "noisy", 32)
    yield from desk_of([ModelSpec("mini/matting", "mini/matting"), ModelSpec("noisy", str(noisy))])


@pytest.fixture(scope="module")
def embedded() -> Iterator[Desk]:
    yield from desk_of(
        [ModelSpec(name, name) for name in hub.embedded_names() if name.partition("/")[2] in TASKS.names()]
    )


def photograph(desk: Desk, path: Path) -> Photograph:
    """A file as a visitor would drop it."""
    data = path.read_bytes()
    image = asyncio.run(desk.decode(data))
    return Photograph(path.name, data, image, pictures.preview(image))


@pytest.fixture
def dropped(desk: Desk, tmp_path: Path) -> Photograph:
    path = tmp_path / "it's a photo.jpg"
    Image.fromarray(np.asarray(examples()[1].photograph.image)[:300:4, :400:4]).save(path)
    return photograph(desk, path)


# ---- the same by command, and in Python ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "model", "resolution", "runs"), [("depth", "noisy", OWN, 3), ("matting", "mini/matting", "0", 1)]
)
def test_the_boxes_give_what_the_click_gave(
    desk: Desk, dropped: Photograph, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch,
    task: str, model: str, resolution: str, runs: int,
) -> None:  # fmt: skip
    repeat(desk, dropped, (task, model, resolution, runs), tmp_path, call, monkeypatch)


@pytest.mark.slow
def test_the_boxes_of_every_embedded_model(
    embedded: Desk, dropped: Photograph, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(embedded.tasks) >= 8
    for task in embedded.tasks:
        for size in (OWN, "256"):
            folder = tmp_path / f"{task} {size}"
            folder.mkdir()
            os.link(tmp_path / dropped.name, folder / dropped.name)
            repeat(embedded, dropped, (task, f"mini/{task}", size, 1), folder, call, monkeypatch)


def repeat(
    desk: Desk,
    dropped: Photograph,
    asked: tuple[str, str, str, int],
    folder: Path,
    call: Call,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both boxes are run in `folder`, where the photograph lies, and give the answer of the click."""
    told = desk.call(*asked)
    answer, seconds = asyncio.run(desk.ask(dropped, asked[1], told))
    assert seconds > 0 and (answer.prediction.uncertainty is not None) == (asked[3] > 1)
    monkeypatch.chdir(folder)
    words = shlex.split(same.command(told, dropped).replace("\\\n", ""))
    assert words[0] == "genpercept" and call(*words[1:])[0] == 0
    check(answer, folder / "results")
    (folder / "python").mkdir()
    monkeypatch.chdir(folder / "python")
    os.link(folder / dropped.name, folder / "python" / dropped.name)
    exec(same.python(told, dropped), {})
    check(answer, folder / "python")


def check(answer: Answer, folder: Path) -> None:
    """The files in the folder hold the answer: arrays to the bit, pictures to the byte."""
    stem = f"it's a photo_{answer.task}"
    names = {path.name for path in folder.iterdir()} - {answer.photograph.name}
    assert f"{stem}.npz" in names
    for name in same.formats_of(answer.prediction.kind):
        filename, content = files.made(answer, name)
        names.discard(filename)
        if name == "npz":
            found = Prediction.load(folder / filename)
            for field in ("values", "valid", "uncertainty", "raw"):
                np.testing.assert_array_equal(getattr(found, field), getattr(answer.prediction, field), err_msg=field)
        else:
            assert (folder / filename).read_bytes() == content, name
    assert names == {f"{stem}.json"}


def test_the_boxes_of_a_sharper_answer(
    desk: Desk, dropped: Photograph, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In tiles and refined, by both boxes as by the click; and it is another answer."""
    plain, _ = asyncio.run(desk.ask(dropped, "noisy", desk.call("depth", "noisy", OWN)))
    asked = desk.call("depth", "noisy", OWN, 1, True, True)
    answer, _ = asyncio.run(desk.ask(dropped, "noisy", asked))
    assert answer.prediction.meta["tiles"] and not np.array_equal(answer.prediction.values, plain.prediction.values)
    monkeypatch.chdir(tmp_path)
    words = shlex.split(same.command(asked, dropped).replace("\\\n", ""))
    assert call(*words[1:])[0] == 0
    check(answer, tmp_path / "results")
    (tmp_path / "python").mkdir()
    monkeypatch.chdir(tmp_path / "python")
    os.link(tmp_path / dropped.name, tmp_path / "python" / dropped.name)
    exec(same.python(asked, dropped), {})
    check(answer, tmp_path / "python")


def test_an_example_needs_no_file_of_the_visitor(
    desk: Desk, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = examples()[2].photograph
    asked = desk.call("depth", "noisy", OWN)
    answer, _ = asyncio.run(desk.ask(chosen, "noisy", asked))
    monkeypatch.chdir(tmp_path)
    first, _, rest = same.command(asked, chosen).partition("\n")
    python, flag, code = shlex.split(first)
    assert (python, flag) == ("python", "-c")
    exec(code, {})
    assert call(*shlex.split(rest.replace("\\\n", ""))[1:])[0] == 0
    exec(same.python(asked, chosen), {})
    for path in (tmp_path / "results" / "coffee_depth.npz", tmp_path / "coffee_depth.npz"):
        np.testing.assert_array_equal(Prediction.load(path).values, answer.prediction.values)


def test_what_the_app_was_started_with_is_in_the_boxes(dropped: Photograph) -> None:
    options = {"base": "my base", "specialised": False, "dtype": "bf16", "allow_pickle": True}
    asked = same.Call("owner/m", "depth", "depth_affine", 512, 4, options=options)
    dashed = Photograph("-x.jpg", b"", dropped.image, dropped.preview)
    line = same.command(asked, dashed).replace(" \\\n ", "")
    assert line == (
        "genpercept predict ./-x.jpg --model owner/m --base 'my base' --no-specialised --dtype bf16 --allow-pickle "
        "--processing-resolution 512 --ensemble-size 4 --format png,color,npz --out results"
    )
    code = same.python(asked, dropped)
    compile(code, "box", "exec")
    assert "base='my base', specialised=False, torch_dtype=torch.bfloat16, allow_pickle=True" in code
    assert code.startswith("import torch\n") and "processing_resolution=512, ensemble_size=4" in code


@pytest.mark.parametrize("tf32", [True, False])
def test_the_boxes_of_an_app_on_a_gpu_compute_as_it_does(dropped: Photograph, tf32: bool) -> None:
    """TF32 is of a process: commands have it off without their flag, Python's half on without a call."""
    asked = same.Call("mini/depth", "depth", "depth_affine", options={"device": "cuda", "tf32": tf32})
    assert ("--tf32" in same.command(asked, dropped)) is tf32 and "no-tf32" not in same.command(asked, dropped)
    code = same.python(asked, dropped)
    compile(code, "box", "exec")
    assert f"\nallow_tf32({tf32})\npipe = genpercept.load('mini/depth', device='cuda')" in code
    assert "from genpercept.core.devices import allow_tf32\n" in code


# ---- answers and pictures --------------------------------------------------------------------------------------------


def test_every_file_of_an_answer_can_be_had(desk: Desk, dropped: Photograph) -> None:
    """Over the route that the page's links name; a token that is forgotten is one line."""
    store, app = Store(), FastAPI()
    files.serve(app, store)
    answer, _ = asyncio.run(desk.ask(dropped, "mini/matting", desk.call("matting", "mini/matting", OWN)))
    store.choose("page", dropped)
    store.keep("page", "matting", answer)

    async def got(path: str) -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as client:
            return await client.get(path)

    links = [part.split('"')[1] for part in files.links(answer).split("<a ")[1:]]
    assert {link.rpartition("/")[2] for link in links} >= {"png", "color", "npz", "mask", "cutout", "json"}
    for link in links:
        found = asyncio.run(got(f"/{link}"))
        assert found.status_code == 200 and found.content == files.made(answer, link.rpartition("/")[2])[1]
        assert found.headers["content-disposition"].startswith(
            "attachment; filename*=UTF-8''it%27s%20a%20photo_matting"
        )
    store.forget("page")
    gone = asyncio.run(got(f"/{links[0]}"))
    assert gone.status_code == 404 and gone.text.count("\n") == 1 and "press Predict again" in gone.text


def test_a_cut_out_on_each_background() -> None:
    foreground = Image.fromarray(np.array([[[200, 0, 0, 255], [200, 0, 0, 0]]], np.uint8))
    assert pictures.behind(foreground, None) is foreground
    coloured = np.asarray(pictures.behind(foreground, "#2458c5"))
    assert coloured.tolist() == [[[200, 0, 0], [0x24, 0x58, 0xC5]]]
    other = Image.new("RGB", (40, 20), (1, 2, 3))
    assert np.asarray(pictures.behind(foreground, other)).tolist() == [[[200, 0, 0], [1, 2, 3]]]
    assert pictures.colour("rgba(36.2, 88, 197.4, 1)") == pictures.colour("#2458c5") == (36, 88, 197)


def test_runs_that_differ_are_painted(desk: Desk, dropped: Photograph) -> None:
    answer, _ = asyncio.run(desk.ask(dropped, "noisy", desk.call("depth", "noisy", OWN, 3)))
    doubt = pictures.doubt(answer)
    assert doubt is not None and doubt.size == dropped.preview.size and np.asarray(doubt).std() > 1
    assert desk.call("matting", "mini/matting", OWN, 3).runs == 1  # the same every time: one run is all


def test_the_legend_names_what_is_there() -> None:
    values = np.zeros((10, 10), np.int32)
    values[:2] = 2
    meta = {"classes": ["wall", "floor", "<b>"], "colours": [[1, 2, 3], [4, 5, 6], [7, 8, 9]]}
    shown = pictures.legend(Prediction(values, "class_ids", meta=meta))
    assert "wall 80 %" in shown and "&lt;b&gt; 20 %" in shown and "floor" not in shown and "rgb(7, 8, 9)" in shown


def test_every_kind_says_what_its_colours_mean() -> None:
    for kind in KINDS.values():
        assert (pictures.lead(kind).endswith(".") and "meta[" not in pictures.lead(kind)) or kind.layout == "stack"


# ---- tabs ------------------------------------------------------------------------------------------------------------


def tabs_of(page: Any) -> list[str]:
    config = page.blocks.get_config_file()
    return [part["props"]["label"] for part in config["components"] if part["type"] == "tabitem"]


def test_a_task_of_another_package_has_its_tab(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    from genpercept.commands.app import page

    depth = TASKS.find("depth")
    albedo = SimpleNamespace(**{name: getattr(depth, name) for name in dir(depth) if not name.startswith("_")})
    albedo.name = albedo.kind = "albedo"
    row = Kind("albedo", "share of the light that a surface reflects", axes=(None, None, 3), limits=(0, 1))
    install({"genpercept.tasks": {"albedo": albedo}, "genpercept.kinds": {"albedo": row}})
    monkeypatch.setattr(page, "examples", list)
    infos = [
        ModelInfo(f"m/{task}", task, TASKS.find(task).kind, 96, (), False, None) for task in ("albedo", "dis", "depth")
    ]
    engine: Any = SimpleNamespace(models={info.name: info for info in infos})
    built = page.Page(Desk(engine, Store(), {}))
    assert tabs_of(built) == ["Depth", "Dichotomous segmentation", "Albedo", "Compare", "Film"]


def test_resolutions_begin_with_the_models_own() -> None:
    assert resolutions(96)[0] == ("96 pixels (own)", OWN) and resolutions(0)[0] == ("The model's own", OWN)
    assert [value for _, value in resolutions(512)] == [OWN, "256", "384", "768", "1024", "0"]


# ---- errors ----------------------------------------------------------------------------------------------------------


def test_what_goes_wrong_is_one_line(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    async def refused() -> list[Any]:
        await desk.decode(b"no image <script>")
        return []

    async def broken() -> list[Any]:
        raise KeyError("/secret/path")

    line, *rest = asyncio.run(guarded(2, refused)())
    assert 'role="alert"' in line and "<script>" not in line and "\n" not in line and len(rest) == 2
    line, kept = asyncio.run(guarded(1, broken, [None])())
    assert "secret" not in line and "inside the program" in line and kept is None
    assert "/secret/path" in caplog.text  # the log says it
    with pytest.raises(Broken):
        asyncio.run(refused())


def test_without_a_photograph_the_page_says_so(desk: Desk) -> None:
    with pytest.raises(ValueError, match="choose a photograph first"):
        asyncio.run(desk.photograph("nobody's page"))
    with pytest.raises(ValueError, match="no model 'mini/nonsense'"):
        desk.call("depth", "mini/nonsense", OWN)


def test_a_click_waits_for_the_photograph_that_is_on_its_way(desk: Desk, dropped: Photograph) -> None:
    async def early() -> Photograph:
        with desk.arrival("page"):
            asking = asyncio.create_task(desk.photograph("page"))
            await asyncio.sleep(0.05)
            desk.store.choose("page", dropped)
        return await asking

    assert asyncio.run(early()) is dropped
    desk.store.forget("page")


# ---- what is kept ----------------------------------------------------------------------------------------------------


def one(name: str, size: int = 1000) -> Photograph:
    return Photograph(name, bytes(size), np.zeros((1, 1, 3), np.uint8), Image.new("RGB", (1, 1)))


def said(photo: Photograph) -> Answer:
    return Answer(photo, Prediction(np.zeros((1, 1), np.float32), "mask"), "dis")


def test_pages_that_are_not_used_are_forgotten() -> None:
    now = [0.0]
    store = Store(seconds=10, most=2500, clock=lambda: now[0])
    first = one("a.png")
    store.choose("a", first)
    answer = said(first)
    store.keep("a", "dis", answer)
    now[0] = 9
    assert store.photograph("a") is first and store.by_token(answer.token) is answer
    now[0] = 18
    assert store.answer("a", "dis") is answer  # used since
    now[0] = 29
    store.expire()
    assert len(store) == 0 and store.by_token(answer.token) is None
    for name in "bcd":  # three of a kilobyte are too many
        store.choose(name, one(name))
    assert [store.photograph(name) is not None for name in "bcd"] == [False, True, True]


def test_an_answer_to_the_photograph_before_is_not_kept() -> None:
    store, first, second = Store(), one("a"), one("b")
    store.choose("page", first)
    late = said(first)
    store.choose("page", second)
    store.keep("page", "dis", late)
    assert store.answer("page", "dis") is None and store.by_token(late.token) is None
    store.choose("page", None)
    assert store.photograph("page") is None


@pytest.mark.parametrize("end", ["close", "kill"])
def test_the_folder_does_not_outlive_its_process(end: str) -> None:
    code = (
        "from genpercept.commands.app.store import Folder; f = Folder(); (f.path / 'a').write_text('x'); print(f.path)"
    )
    code += "; import sys; sys.stdout.flush(); sys.stdin.readline(); f.close(); print('closed')"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], text=True, **pipes) as process:  # type: ignore[call-overload]
        path = Path(process.stdout.readline().strip())
        assert (path / "a").is_file()
        if end == "kill":
            process.send_signal(signal.SIGKILL)
        else:
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.stdout.readline() == "closed\n" and not path.exists()
        process.wait(10)
        until = time.monotonic() + 10
        while path.exists() and time.monotonic() < until:
            time.sleep(0.05)
        assert not path.exists()


# ---- what is let through ---------------------------------------------------------------------------------------------


def test_the_page_has_its_paths_and_no_others() -> None:
    for path in ("", "config", "assets/index.js", "theme.css", "gradio_api/upload", "gradio_api/queue/data"):
        assert allowed(path), path
    assert allowed("gradio_api/heartbeat/abc") and allowed("gradio_api/file=/tmp/x/image.png")
    for path in (
        "monitoring",
        "gradio_api/proxy=http://a",
        "gradio_api/vibe-edit",
        "gradio_api/run/predict",
        "dev/reload",
    ):
        assert not allowed(path), path
    assert not allowed("gradio_api/file=http://example.org/a.png") and not allowed("gradio_api/file=HTTPS:/a")


@pytest.mark.parametrize(
    ("data", "refused"),
    [
        (["mini/depth", "own", 1], False),
        ([{"path": "FOLDER/hash/a.png", "meta": {"_type": "gradio.FileData"}}], False),
        ([{"path": "FOLDER/../a.png"}], True),
        ([{"path": "/etc/passwd"}], True),
        ([{"path": "http://10.0.0.1/a.png", "meta": {"_type": "gradio.FileData"}}], True),
        ([[{"a": {"path": "HTTPS://x"}}]], True),
        ([{"path": "a\0b"}], True),
    ],
)
def test_a_question_names_uploads_alone(data: Any, refused: bool, tmp_path: Path) -> None:
    body = json.dumps({"data": data, "fn_index": 1}).replace("FOLDER", str(tmp_path)).encode()
    assert names_else(body, tmp_path) == refused
    assert names_else(b"{", tmp_path) and names_else(b"[" * 100_000, tmp_path)

    async def echo(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse((await receive())["body"])(scope, receive, send)

    async def post() -> httpx.Response:
        gate = Gate(echo, tmp_path, lambda: False)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(gate), base_url="http://here") as client:
            return await client.post("/gradio_api/queue/join", content=body)

    answer = asyncio.run(post())
    assert answer.status_code == (400 if refused else 200)
    if not refused:
        assert answer.content == body and "default-src 'self'" in answer.headers["content-security-policy"]


def test_what_an_open_page_listens_to_ends_with_the_server(tmp_path: Path) -> None:
    begun = asyncio.Event()

    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        begun.set()
        await asyncio.sleep(60)

    async def get() -> httpx.Response:
        gate = Gate(endless, tmp_path, begun.is_set)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(gate), base_url="http://here") as client:
            return await client.get("/gradio_api/heartbeat/x")

    assert asyncio.run(asyncio.wait_for(get(), 10)).content == b"a"


def test_a_browsers_password_is_the_servers_key() -> None:
    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        given = dict(scope["headers"]).get(b"authorization", b"")
        right = given == b"Bearer secret"
        headers = {} if right else {"www-authenticate": "Bearer"}
        await PlainTextResponse("in" if right else "out", 200 if right else 401, headers)(scope, receive, send)

    async def get(**options: Any) -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(Login(inner)), base_url="http://here") as client:
            return await client.get("/", **options)

    asked = asyncio.run(get())
    assert asked.status_code == 401 and asked.headers.get_list("www-authenticate") == ['Basic realm="GenPercept"']
    assert asyncio.run(get(auth=("anybody", "secret"))).text == "in"
    assert asyncio.run(get(headers={"authorization": "Bearer secret"})).text == "in"
    assert asyncio.run(get(auth=("anybody", "wrong"))).status_code == 401
    assert asyncio.run(get(headers={"authorization": "Basic !!"})).status_code == 401


# ---- the command -----------------------------------------------------------------------------------------------------


def test_help_imports_neither_gradio_nor_torch() -> None:
    code = "import sys\nfrom genpercept.commands.cli import cli\n"
    code += (
        "cli.main(['app', '--help'], standalone_mode=False)\nprint({'gradio', 'torch', 'fastapi'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--open" in done.stdout and done.stdout.splitlines()[-1] == "set()"


def test_without_the_extra_one_line_says_what_to_install(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in sys.modules if n == "gradio" or n.startswith("genpercept.commands.app.run")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "gradio", None)
    code, _, err = call("app")
    assert code == 2 and err.count("\n") == 1 and "pip install 'genpercept[app]'" in err


def test_others_reach_the_page_with_a_key_only(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GENPERCEPT_API_KEY", raising=False)
    code, _, err = call("app", "--host", "0.0.0.0")
    assert code == 2 and err.count("\n") == 1 and "GENPERCEPT_API_KEY" in err


# ---- in space --------------------------------------------------------------------------------------------------------


def in_space(desk: Desk, dropped: Photograph) -> tuple[Space, Answer]:
    """The panel of a tab, and an answer that is kept as the visitor's."""
    with gr.Blocks():
        panel = Space(desk, "depth")
    answer, _ = asyncio.run(desk.ask(dropped, "noisy", desk.call("depth", "noisy", OWN)))
    desk.store.choose("page", dropped)
    desk.store.keep("page", "depth", answer)
    return panel, answer


def test_a_mesh_to_look_at(desk: Desk, dropped: Photograph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "files"))
    panel, answer = in_space(desk, dropped)
    visit: Any = SimpleNamespace(session_hash="page")
    shown, facts, links = asyncio.run(panel.show(50, "", visit))
    assert shown["visible"] and "no metres" in facts
    assert re.findall(r"/(\w+)\" download", links) == ["ply", "points", "mesh", "glb"]
    (model,) = asyncio.run(panel.mesh(visit))
    path = Path(model["value"])
    assert path.parent == tmp_path / "files"  # where gradio's own files are, which go with them
    mesh = trimesh.load(path, force="mesh")
    assert len(mesh.faces) > 500 and abs(np.asarray(mesh.vertices)[:, 2]).min() > 0
    (alpha, beta), radius = np.radians(model["camera_position"][:2]), model["camera_position"][2]
    way = np.array([np.cos(alpha) * np.sin(beta), np.cos(beta), np.sin(alpha) * np.sin(beta)])  # as Babylon has it
    stands = mesh.bounds.mean(0) + radius * way
    assert stands == pytest.approx([0, 0, -0.15 * np.median(mesh.vertices[:, 2])], abs=0.05)
    wide = asyncio.run(panel.show(100, "", visit))
    other = trimesh.load(asyncio.run(panel.mesh(visit))[0]["value"], force="mesh")
    assert wide[0]["visible"] and np.ptp(other.vertices[:, 0]) > 2 * np.ptp(mesh.vertices[:, 0])
    assert desk.store.answer("page", "depth") is answer  # the tab's own stays as it was


def test_a_mesh_in_metres(desk: Desk, dropped: Photograph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    panel, answer = in_space(desk, dropped)
    visit: Any = SimpleNamespace(session_hash="page")
    rows, columns = (np.array([5, 30, 60, 70]), np.array([4, 90, 20, 50]))
    metres = 2 + 3 * answer.prediction.values[rows, columns]
    text = "\n".join(f"{x + 0.5}, {y + 0.5}, {z}" for x, y, z in zip(columns, rows, metres, strict=True))
    _, facts, links = asyncio.run(panel.show(60, text, visit))
    assert "4 of 4 known points agree" in facts and "/npz" in links
    fitted = desk.store.answer("page", "depth in space")
    assert fitted is not None and fitted.prediction.kind == "depth_metric" and fitted.token != answer.token
    np.testing.assert_allclose(fitted.prediction.values, 2 + 3 * answer.prediction.values, rtol=1e-3)
    for wrong, words in (("1, 2", "known distances, line 1"), ("1, 1, 2\n9999, 1, 3", "outside the image")):
        with pytest.raises(ValueError, match=words):
            asyncio.run(panel.show(60, wrong, visit))
    with pytest.raises(ValueError, match="press Predict first"):
        asyncio.run(panel.show(60, "", SimpleNamespace(session_hash="nobody")))  # type: ignore[arg-type]


def test_the_field_of_view_begins_with_the_photographs(desk: Desk, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA405] = 24  # FocalLengthIn35mmFilm
    path = tmp_path / "wide.jpg"
    Image.fromarray(examples()[1].photograph.image[:200, :300]).save(path, exif=exif)
    panel, answer = in_space(desk, photograph(desk, path))
    hidden, fov = asyncio.run(panel.begin(SimpleNamespace(session_hash="page")))  # type: ignore[arg-type]
    half = 300 / np.hypot(200, 300) * np.hypot(36, 24) / 2
    assert not hidden["visible"] and fov["value"] == round(2 * np.degrees(np.arctan(half / 24)))
    assert answer.prediction.meta["camera"]["source"] == "EXIF"


def test_what_lies_nowhere_is_not_shown_in_space() -> None:
    assert [name for name in KINDS if space.can_show(KINDS[name])] == [
        "depth_affine",
        "disparity_affine",
        "depth_metric",
        "root_disparity_affine",
    ]
