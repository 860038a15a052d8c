"""`genpercept predict --tiles --overlap --refine`: they reach the model, are kept in the sidecar, and are refused in a line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from genpercept.commands.predict.model import Model
from genpercept.commands.predict.request import Machine, Request, check
from genpercept.commands.predict.run import run
from genpercept.imaging.prediction import Prediction
from tests.support.commands import Call
from tests.support.pictures import picture


class Sharp:
    """Depth that is the red channel, with what it was asked for."""

    task, stride, resolution = "depth", 8, 96

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.checked: tuple[Any, ...] = ()

    def check_request(self, *request: Any) -> None: ...

    def check_sharpness(self, *request: Any) -> None:
        self.checked = request

    def __call__(self, image: Any, **options: Any) -> list[Prediction]:
        self.asked.append(options)
        return [Prediction(one[..., 0] / 255, "depth_affine") for one in image]

    def load(self, model: str, **options: Any) -> Sharp:
        return self


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "in" / "photo.png"
    path.parent.mkdir()
    Image.fromarray(picture((150, 200))).save(path)
    return path


def test_they_reach_the_model_and_the_sidecar(photo: Path, tmp_path: Path) -> None:
    sharp = Sharp()
    request = Request(tiles=96, overlap=0.5, refine=True)
    assert run([photo], tmp_path / "out", request, formats=["npy"], load=sharp.load) == 0
    (asked,) = sharp.asked
    assert (asked["tiles"], asked["overlap"], asked["refine"]) == (96, 0.5, True)
    assert sharp.checked == (96, 0.5, True)
    kept = json.loads((tmp_path / "out" / "photo_depth.json").read_text())["meta"]["request"]
    assert (kept["tiles"], kept["overlap"], kept["refine"]) == (96, 0.5, True)


def test_nothing_changes_for_those_who_do_not_ask(photo: Path, tmp_path: Path) -> None:
    sharp = Sharp()
    assert run([photo], tmp_path / "out", formats=["npy"], load=sharp.load) == 0
    assert not {"tiles", "overlap", "refine"} & (sharp.asked[0].keys() | Request().record().keys())
    assert sharp.checked == ()


def test_resuming_compares_them(photo: Path, tmp_path: Path) -> None:
    sharp = Sharp()
    for request, runs in ((Request(tiles=96), 1), (Request(tiles=96), 1), (Request(tiles=120), 2), (Request(), 3)):
        assert run([photo], tmp_path / "out", request, formats=["npy"], load=sharp.load, resume=True) == 0
        assert len(sharp.asked) == runs


def test_what_the_network_sees_of_an_image_is_a_tile() -> None:
    """By which batches are made, and memory is reckoned."""
    sharp = Sharp()
    model = Model(Request(tiles=96), Machine("cpu"), sharp.load)
    assert model.padded((1500, 2000)) == (96, 96) and model.several
    assert model.padded((60, 80)) == (72, 96)  # one tile covers it
    assert not Model(Request(), Machine("cpu"), sharp.load).several


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        (Request(tiles=0), "tiles=0"),
        (Request(tiles=96, overlap=0.95), r"overlap=0\.95 of tiles: must be at least 0 and below 0\.9"),
        (Request(overlap=0.5), "--overlap: is of tiles, and there are none: add --tiles"),
    ],
)
def test_refused_before_anything_is_read(request_: Request, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        check(request_, Machine(), None)


def test_on_the_command_line(photo: Path, tmp_path: Path, call: Call) -> None:
    out = tmp_path / "out"
    code, _, err = call("predict", photo, "-o", out, "--tiles", 100, "--overlap", 0.3, "--refine", "--device", "cpu")
    assert code == 0, err
    meta = json.loads((out / "photo_depth.json").read_text())["meta"]
    assert meta["tiles"]["grid"] == [2, 3] and meta["tiles"]["overlap"] == 0.3 and meta["refined"] == "edges"
    assert meta["tiles"]["seam_error"] is None or meta["tiles"]["seam_error"] > 0
    assert np.asarray(Image.open(out / "photo_depth.png")).shape == (150, 200)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--tiles", "3"), "tiles=3: smaller than the network's stride of"),
        (("--tiles", "96", "--overlap", "1"), "overlap=1 of tiles"),
        (("--tiles", "0"), "0 is not in the range x>=1"),
        (("--tiles", "some"), "'some' is not a valid integer"),
        (("--tiles", "96", "-t", "pose"), "tiles: task 'pose' looks at parts of an image already"),
        (
            ("--refine", "-t", "segmentation"),
            "refine: task 'segmentation' gives class_ids, of which nothing is refined",
        ),
    ],
)
def test_refused_in_one_line(words: tuple[str, ...], says: str, photo: Path, tmp_path: Path, call: Call) -> None:
    code, _, err = call("predict", photo, "-o", tmp_path / "out", "--device", "cpu", *words)
    lines = [line for line in err.splitlines() if "error" in line.lower()]
    assert code == 2 and len(lines) == 1 and says in lines[0], err


def test_a_flag_without_a_number_is_auto(photo: Path, tmp_path: Path, call: Call) -> None:
    code, _, err = call("predict", photo, "-o", tmp_path / "out", "--device", "cpu", "--tiles")
    assert code == 0, err
    assert json.loads((tmp_path / "out" / "photo_depth.json").read_text())["meta"]["request"]["tiles"] == "auto"
