"""What visitors of `predict --show` see: by the words of viser's WebSocket, and in a real browser where there is one."""

from __future__ import annotations

import io
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from genpercept.imaging.prediction import Prediction

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"


class Visitor:
    """What a browser hears of viser over its WebSocket, and says: the shape that is drawn, the lists, its camera."""

    def __init__(self, address: str) -> None:
        import viser
        from websockets.sync.client import connect

        self.shapes: dict[str, tuple[dict[str, Any], list[bytes]]] = {}  # by name: what was said, and its arrays
        self.lists: dict[str, dict[str, Any]] = {}  # by their labels
        self.camera: dict[str, Any] = {}  # where it was told to go, once it was there
        self._socket = connect(
            address.replace("http", "ws", 1),
            subprotocols=[f"viser-v{viser.__version__}"],
            max_size=None,
            compression=None,
        )
        pose = {"wxyz": (1, 0, 0, 0), "position": (3, 3, 3), "look_at": (0, 0, 0), "up_direction": (0, 1, 0)}
        self._send("ViewerCameraMessage", **pose, fov=1.0, near=0.1, far=9.0, image_height=60, image_width=80)

    def _send(self, kind: str, **fields: Any) -> None:
        import msgspec

        self._socket.send(msgspec.msgpack.encode({"type": kind, **fields}))

    def choose(self, label: str, value: str) -> None:
        self._send("GuiUpdateMessage", uuid=self.lists[label]["uuid"], updates={"value": value})

    def hear(self, until: Callable[[Visitor], bool], patience: float = 120) -> Visitor:
        """All that is said until `until`. TimeoutError where nothing comes."""
        while not until(self):
            self._take(self._socket.recv(timeout=patience))
        return self

    def _take(self, data: bytes) -> None:
        import msgspec
        import zstandard

        at = 16 + int.from_bytes(data[8:16], "little")
        told = msgspec.msgpack.decode(zstandard.ZstdDecompressor().decompress(data[16:at]))
        arrays = []
        for length in told["binaryBufferLengths"]:
            at += -at % 8
            arrays.append(data[at : at + length])
            at += length
        for message in told["messages"]:
            kind = message["type"]
            name = message.get("name", "")
            if name.startswith("/shape") and kind in (
                "RemoveSceneNodeMessage",
                "FrameMessage",
            ):  # which takes its place
                self.shapes.pop(name, None)
            elif name.startswith("/shape") and kind in ("GlbMessage", "PointCloudMessage"):
                self.shapes[name] = message, arrays
            elif kind == "GuiDropdownMessage":
                self.lists[message["props"]["label"]] = message
            elif kind.startswith("SetCamera") and not message["initial"]:
                self.camera |= message

    def points(self) -> np.ndarray:
        """(N, 6) of all clouds: places and colours, in an order of their own."""
        found = []
        for message, arrays in self.shapes.values():
            places, colours = (message["props"][key] for key in ("points", "colors"))
            assert places["dtype"] == "<f4"
            both = [np.frombuffer(arrays[p["__binary_index"]], p["dtype"]).reshape(-1, 3) for p in (places, colours)]
            found.append(np.concatenate(both, -1))
        return ordered(np.concatenate(found))

    def draws(self, kind: str, count: int = 0) -> bool:
        """Whether all is of that kind, and, of points, there are so many."""
        if not self.shapes or any(message["type"] != kind for message, _ in self.shapes.values()):
            return False
        return not count or len(self.points()) == count

    @property
    def glb(self) -> bytes:
        return self.shapes["/shape"][0]["props"]["glb_data"]

    def close(self) -> None:
        self._socket.close()


def ordered(rows: np.ndarray) -> np.ndarray:
    return rows[np.lexsort(rows.T)]


def points_of(one: Any) -> np.ndarray:
    """As `Visitor.points` has them."""
    return ordered(np.concatenate([one.mesh.vertices, one.colours], -1))


GREEN, BLUE = (20, 160, 40), (30, 40, 200)


@pytest.fixture
def gallery() -> Any:
    """Two images of one colour each, the second smaller: walls that go from 2 to nearly 8 m, from left to right."""
    pytest.importorskip("viser")
    pytest.importorskip("trimesh")
    from genpercept.commands.predict.show import Gallery

    found = Gallery()
    for name, colour, shape in (("green", GREEN, (24, 32)), ("blue", BLUE, (18, 24))):
        z = np.broadcast_to(np.linspace(2, 7.6, shape[1], dtype=np.float32), shape)
        found.add(name, Prediction(z.copy(), "depth_metric"), np.full((*shape, 3), colour, np.uint8))
    return found


@pytest.fixture
def address(gallery: Any, capsys: pytest.CaptureFixture[str]) -> Iterator[str]:
    """Where they are shown."""
    from genpercept.commands.predict.show import serve

    stop = threading.Event()
    thread = threading.Thread(target=serve, args=(gallery, stop))
    thread.start()
    text, end = "", time.monotonic() + 120
    while not (found := re.search(r"in space at (http://[\d.:]+)", text)):
        assert thread.is_alive() and time.monotonic() < end, text
        time.sleep(0.05)
        text += capsys.readouterr().err
    yield found[1]
    stop.set()
    thread.join(30)
    assert not thread.is_alive()


def test_a_visitor_switches_between_mesh_and_points_and_images(gallery: Any, address: str) -> None:
    import trimesh

    blue, green = gallery.shown["blue"], gallery.shown["green"]
    one = Visitor(address).hear(lambda v: v.draws("GlbMessage") and {"image", "as"} <= set(v.lists))
    assert one.lists["image"]["props"]["options"] == ["blue", "green"] and one.lists["image"]["value"] == "blue"
    assert one.lists["as"]["props"]["options"] == ["mesh", "points"] and one.lists["as"]["value"] == "mesh"

    one.choose("as", "points")
    one.hear(lambda v: v.draws("PointCloudMessage", len(blue.mesh.vertices)))
    assert len(one.shapes) == 2 and (one.points() == points_of(blue)).all()  # 2 to 4 m, and to 8 m
    assert not one.camera

    one.choose("image", "green")
    one.hear(lambda v: v.draws("PointCloudMessage", len(green.mesh.vertices)) and "position" in v.camera)
    assert (one.points() == points_of(green)).all()
    assert one.camera["position"] == pytest.approx((0, 0, 0.15 * green.middle), rel=1e-5)
    one.hear(lambda v: "fov" in v.camera)
    assert one.camera["fov"] == pytest.approx(2 * np.arctan(np.tan(np.pi / 6) * 24 / 32))  # 60 degrees, assumed

    one.choose("as", "mesh")
    one.hear(lambda v: v.draws("GlbMessage"))
    drawn = trimesh.load(io.BytesIO(one.glb), file_type="glb", force="mesh")
    assert len(drawn.vertices) == len(green.mesh.vertices)

    for value in ("points", "mesh") * 5 + ("points",):  # quicker than it is drawn: what was chosen last is what remains
        one.choose("as", value)
    one.choose("image", "blue")
    one.hear(lambda v: v.draws("PointCloudMessage", len(blue.mesh.vertices)))
    late = Visitor(address).hear(
        lambda v: v.draws("PointCloudMessage", len(blue.mesh.vertices)) and {"image", "as"} <= set(v.lists)
    )
    assert (late.points() == points_of(blue)).all()
    one.close()
    late.close()


@pytest.mark.slow
@pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="no chromium on this machine")
def test_a_browser_draws_what_is_chosen(address: str) -> None:
    """A mesh of one colour is even. Points are not: viser shades each of them."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install playwright")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=_WAIT)
        page = browser.new_page(viewport={"width": 640, "height": 400})
        page.set_default_timeout(_WAIT)
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        becomes(page, BLUE, even=True)
        pick(page, "as", "points")
        becomes(page, BLUE, even=False)
        pick(page, "as", "mesh")
        becomes(page, BLUE, even=True)
        pick(page, "image", "green")
        becomes(page, GREEN, even=True)
        pick(page, "as", "points")
        becomes(page, GREEN, even=False)
        browser.close()
    local = (address, address.replace("http", "ws", 1), "data:", "blob:")
    assert all(url.startswith(local) for url in asked)


_WAIT = 240_000  # milliseconds, of a machine that draws by its processor and does other things, too


def pick(page: Any, label: str, value: str) -> None:
    """Choose of a list."""
    page.get_by_role("combobox", name=label, exact=True).click()
    page.get_by_role("option", name=value, exact=True).click()


def becomes(page: Any, colour: tuple[int, int, int], even: bool) -> None:
    """Wait until what is drawn in the middle, below viser's own windows, is of that hue, evenly or not."""
    channel = int(np.argmax(colour))
    end, found = time.monotonic() + _WAIT / 1000, (0.0, 0.0)
    while time.monotonic() < end:
        data = page.screenshot(clip={"x": 160, "y": 200, "width": 240, "height": 120}, timeout=_WAIT)
        image = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
        there = image[..., channel] > np.delete(image, channel, axis=-1).max(-1) + 40
        spread = float(image[there].std(0).max()) if there.any() else 0.0
        found = float(there.mean()), spread
        if found[0] > 0.95 and (spread < 1 if even else spread > 3):
            return
        page.wait_for_timeout(500)
    raise AssertionError(f"{found[0]:.0%} of the window, with a spread of {found[1]:.1f}")
