"""`predict --specialised --encoder --decoder`, and the same arguments of `genpercept.load`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

import genpercept
from genpercept import GenPerceptPipeline
from genpercept.commands.predict.model import Model
from genpercept.commands.predict.request import Machine, Request
from genpercept.models.codecs import CODECS
from genpercept.pipeline import codec_swap
from genpercept.pipeline.specialise import layers
from genpercept.pipeline.specialise.pipeline import SpecialisedPipeline
from tests.support.paths import SD_TINY
from tests.support.tiny_codec import SMALL, tiny


@pytest.fixture(scope="module")
def marked(saved: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, saved as specialised without folding."""
    folder = tmp_path_factory.mktemp("marked") / "m"
    genpercept.specialise(genpercept.load(saved, device="cpu"), fold=False).save_pretrained(folder)
    return folder


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (21, 34, 3), np.uint8)).save(path)
    return path


Predict = Callable[..., tuple[int, str]]


@pytest.fixture
def predict(call: Callable[..., tuple[int, str, str]]) -> Predict:
    """genpercept predict ...: exit code and stderr."""
    return lambda *words: call("predict", *words, "--device", "cpu")[::2]


def written(folder: Path) -> np.ndarray:
    return np.load(folder / "photo_depth.npy")


# ---- specialised -----------------------------------------------------------------------------------------------------


def test_specialised_answers_the_same_and_says_so(saved: Path, photo: Path, tmp_path: Path, predict: Predict) -> None:
    for flag in ("--specialised", "--no-specialised"):
        code, _ = predict(photo, "--model", saved, flag, "--format", "npy", "--out", tmp_path / flag)
        assert code == 0
    a, b = (tmp_path / flag for flag in ("--specialised", "--no-specialised"))
    np.testing.assert_allclose(written(a), written(b), atol=1e-5, rtol=0)
    asked = [json.loads((folder / "photo_depth.json").read_text())["meta"]["request"] for folder in (a, b)]
    assert [request["specialised"] for request in asked] == [True, False]


def test_strips_answer_the_same(
    saved: Path, marked: Path, photo: Path, tmp_path: Path, predict: Predict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Strips of a few rows: of a plain model, and of one that was saved specialised."""
    monkeypatch.setattr(layers, "STRIP", 1000)
    calls = []
    whole = layers.strips
    monkeypatch.setattr(layers, "strips", lambda *a, **k: calls.append(1) or whole(*a, **k))
    for name in (saved, marked):
        folders = [tmp_path / f"{name.name}{number}" for number in range(2)]
        for folder, flags in zip(folders, ([], ["--strips"]), strict=True):
            assert predict(photo, "--model", name, *flags, "--format", "npy", "--out", folder)[0] == 0
            assert bool(calls) == bool(flags)
        np.testing.assert_allclose(written(folders[1]), written(folders[0]), atol=1e-5, rtol=0)
        assert json.loads((folders[1] / "photo_depth.json").read_text())["meta"]["request"]["strips"] is True
        calls.clear()


def test_a_saved_specialised_model_is_so_unless_told_otherwise(marked: Path, tmp_path: Path) -> None:
    kinds = []
    for asked in (None, True, False):
        loader = Model(Request(str(marked), specialised=asked), Machine("cpu"))
        kinds.append(isinstance(loader.load(), SpecialisedPipeline))
        assert loader.streams(2) == (1 if kinds[-1] else 2)
    assert kinds == [True, True, False]


def test_what_cannot_be_specialised_is_said_in_one_line(
    saved: Path, marked: Path, photo: Path, tmp_path: Path, predict: Predict
) -> None:
    stochastic = tmp_path / "s"
    GenPerceptPipeline.from_base(SD_TINY, "depth", paradigm="stochastic_multi_step").save_pretrained(stochastic)
    for name, flags, says in (
        (stochastic, ["--specialised"], "only one step that needs no noise can be specialised"),
        (saved, ["--specialised", "--vae-tiling"], "--vae-tiling: a specialised model cannot do that"),
        (saved, ["--strips", "--vae-tiling"], "leave it out, or --strips"),
        (saved, ["--strips", "--no-specialised"], "--strips: only a specialised model works in strips"),
        (stochastic, ["--strips"], "only one step that needs no noise can be specialised"),
        (marked, ["--vae-tiling"], "is specialised, which cannot do that: add --no-specialised"),
    ):
        code, errors = predict(photo, "--model", name, *flags, "--out", tmp_path / "o")
        assert code == 2 and says in errors and errors.count("genpercept: error:") == 1
        assert not list((tmp_path / "o").glob("*.png"))
    assert predict(photo, "--model", marked, "--vae-tiling", "--no-specialised", "--out", tmp_path / "o")[0] == 0


def test_a_graph_has_no_parts_to_choose(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"")
    for options, says in (
        ({"specialised": False}, "an exported graph is specialised already"),
        ({"specialised": True}, "an exported graph is specialised already"),
        ({"decoder": "x"}, "an exported graph has no codec"),
    ):
        with pytest.raises(ValueError, match=says):
            genpercept.load(tmp_path / "m.onnx", **cast(Any, options))


# ---- other codecs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ends", [("encoder",), ("decoder",), ("encoder", "decoder")])
def test_another_codec_for_one_end_or_both(
    ends: tuple[str, ...], saved: Path, taesd: Path, photo: Path, tmp_path: Path, predict: Predict
) -> None:
    flags = [flag for end in ends for flag in (f"--{end}", taesd)]
    assert predict(photo, "--model", saved, *flags, "--format", "npy", "--out", tmp_path / "o")[0] == 0
    want = genpercept.load(saved, device="cpu").with_codec(**dict.fromkeys(ends, taesd))(str(photo))
    np.testing.assert_array_equal(written(tmp_path / "o"), want.values)
    meta = json.loads((tmp_path / "o" / "photo_depth.json").read_text())["meta"]
    assert meta["replaced"] == dict.fromkeys(ends, str(taesd)) and meta["model"] == str(saved)


def test_a_models_codec_is_taken_from_its_folder(saved: Path, taesd: Path, tmp_path: Path) -> None:
    """One of ours, whose codec may be a pair, or one in diffusers' layout."""
    image = np.random.default_rng(1).integers(0, 256, (16, 24, 3), np.uint8)
    pipe = genpercept.load(saved, device="cpu")
    pipe.with_codec(encoder=taesd).save_pretrained(tmp_path / "pair")
    again = genpercept.load(saved, device="cpu", encoder=tmp_path / "pair", decoder=tmp_path / "pair")
    np.testing.assert_array_equal(again(image).values, pipe.with_codec(encoder=taesd)(image).values)
    own = genpercept.load(tmp_path / "pair", device="cpu", encoder=saved)  # back to what it was
    np.testing.assert_array_equal(own(image).values, pipe(image).values)
    for source in (SD_TINY, SD_TINY / "vae", "mini/depth"):
        name, module = CODECS.find("kl").name, type(pipe.vae).__name__
        found = codec_swap.read_codec(source)
        assert (found[0], type(found[1]).__name__) == (name, module)


def test_a_specialised_model_keeps_its_settings_with_another_codec(marked: Path, taesd: Path) -> None:
    pipe = genpercept.load(marked, device="cpu", decoder=taesd)
    assert isinstance(pipe, SpecialisedPipeline) and not pipe._settings.fold
    assert not isinstance(genpercept.load(marked, device="cpu", decoder=taesd, specialised=False), SpecialisedPipeline)


def test_codecs_of_another_latent_space_are_refused_in_one_line(
    saved: Path, photo: Path, tmp_path: Path, predict: Predict
) -> None:
    wide, coarse, scaled = (tmp_path / name for name in ("wide", "coarse", "scaled"))
    cast(Any, tiny(latent_channels=5)).save_pretrained(wide)
    few: dict[str, Any] = {k: [v[0]] * 3 for k, v in SMALL.items() if k != "_class_name"}
    cast(Any, tiny(**few)).save_pretrained(coarse)
    other: Any = genpercept.load(saved, device="cpu").vae
    other.register_to_config(scaling_factor=0.13025)
    other.save_pretrained(scaled)
    for folder, says in (
        (wide, "latent has channels"),
        (coarse, "latent has stride"),
        (scaled, "its latents have scaling_factor 0.13025, the model's codec has 0.18215"),
        (SD_TINY / "unet", "which is no codec; pass a folder with one of"),
        (tmp_path / "none", "no such folder"),
    ):
        for end in ("--encoder", "--decoder"):
            code, errors = predict(photo, "--model", saved, end, folder, "--out", tmp_path / "o")
            assert code == 2 and says in errors and errors.count("\n") == 1, (folder, errors)
