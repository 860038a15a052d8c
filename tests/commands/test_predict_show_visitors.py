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

        self.shape: dict[str, Any] | None = None
        self.arrays: list[bytes] = []  # of the shape
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
            if message.get("name") == "/shape" and "props" in message:
                self.shape, self.arrays = message, arrays
            elif message.get("name") == "/shape" and kind == "RemoveSceneNodeMessage":
                self.shape = None
            elif kind == "GuiDropdownMessage":
                self.lists[message["props"]["label"]] = message
            elif kind.startswith("SetCamera") and not message["initial"]:
                self.camera |= message

    def array(self, key: str) -> np.ndarray:
        """Of the shape's points."""
        assert self.shape is not None
        place = self.shape["props"][key]
        return np.frombuffer(self.arrays[place["__binary_index"]], place["dtype"]).reshape(-1, 3)

    def draws(self, kind: str, count: int = 0) -> bool:
        """Whether it is of that kind, and, of points, so many."""
        if self.shape is None or self.shape["type"] != kind:
            return False
        return not count or len(self.array("points")) == count

    def close(self) -> None:
        self._socket.close()


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
    assert one.array("points").dtype == np.float32 and (one.array("points") == blue.mesh.vertices).all()
    assert (one.array("colors") == BLUE).all() and not one.camera

    one.choose("image", "green")
    one.hear(lambda v: v.draws("PointCloudMessage", len(green.mesh.vertices)) and "position" in v.camera)
    assert (one.array("colors") == GREEN).all()
    assert one.camera["position"] == pytest.approx((0, 0, 0.15 * green.middle), rel=1e-5)
    one.hear(lambda v: "fov" in v.camera)
    assert one.camera["fov"] == pytest.approx(2 * np.arctan(np.tan(np.pi / 6) * 24 / 32))  # 60 degrees, assumed

    one.choose("as", "mesh")
    one.hear(lambda v: v.draws("GlbMessage"))
    assert one.shape is not None
    drawn = trimesh.load(io.BytesIO(one.shape["props"]["glb_data"]), file_type="glb", force="mesh")
    assert len(drawn.vertices) == len(green.mesh.vertices)

    for value in ("points", "mesh") * 5 + ("points",):  # quicker than it is drawn: what was chosen last is what remains
        one.choose("as", value)
    one.choose("image", "blue")
    one.hear(lambda v: v.draws("PointCloudMessage", len(blue.mesh.vertices)))
    late = Visitor(address).hear(lambda v: v.shape is not None and {"image", "as"} <= set(v.lists))
    assert late.draws("PointCloudMessage", len(blue.mesh.vertices))
    one.close()
    late.close()


@pytest.mark.slow
@pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="no chromium on this machine")
def test_a_browser_draws_what_is_chosen(address: str) -> None:
    """A mesh is whole. The far points of a slanted wall leave gaps, through which the white behind is seen."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install playwright")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=_WAIT)
        page = browser.new_page(viewport={"width": 640, "height": 400})
        page.set_default_timeout(_WAIT)
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        whole = settled(page, 2)
        assert whole > 0.3
        pick(page, "mesh", "points")
        holes = settled(page, 2, other_than=whole)
        assert 0.3 * whole < holes < 0.95 * whole
        pick(page, "points", "mesh")
        assert settled(page, 2, other_than=holes) == pytest.approx(whole, rel=0.02)
        pick(page, "blue", "green")
        assert settled(page, 1) > 0.3 and share(page, 2) < 0.01
        browser.close()
    local = (address, address.replace("http", "ws", 1), "data:", "blob:")
    assert all(url.startswith(local) for url in asked)


_WAIT = 240_000  # milliseconds, of a machine that draws by its processor and does other things, too


def pick(page: Any, now: str, value: str) -> None:
    """Choose of the list whose value is `now`."""
    page.locator(f"input[value='{now}']").click()
    page.get_by_role("option", name=value, exact=True).click()
    page.locator(f"input[value='{value}']").wait_for()


def share(page: Any, channel: int) -> float:
    """Of the window's left part, beside the lists: pixels in which a colour stands out."""
    data = page.screenshot(clip={"x": 0, "y": 0, "width": 320, "height": 400}, timeout=_WAIT)
    image = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    others = np.delete(image, channel, axis=-1).max(-1)
    return float((image[..., channel] > others + 40).mean())


def settled(page: Any, channel: int, other_than: float = 0.0) -> float:
    """`share`, once it is another one, and stays."""
    end, before = time.monotonic() + _WAIT / 1000, other_than
    while time.monotonic() < end:
        page.wait_for_timeout(500)
        now = share(page, channel)
        if abs(now - other_than) > 0.02 and abs(now - before) < 0.002:
            return now
        before = now
    raise AssertionError(f"{before:.3f} of the window, as before")
