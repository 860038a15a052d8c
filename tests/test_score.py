"""`genpercept score`: files and folders in, JSON out, and one line for every mistake."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from genpercept import score
from genpercept.metrics import score as score_arrays
from genpercept.prediction import Prediction

RNG = np.random.default_rng(5)
TRUTH = RNG.uniform(0.8, 9, (3, 20, 26)).astype(np.float32)
PRED = (TRUTH / 11 + RNG.normal(0, 0.01, TRUTH.shape)).astype(np.float32)


def run(capsys: pytest.CaptureFixture[str], *args: Any, **options: Any) -> dict[str, Any]:
    assert score.main(*args, **options) == 0
    out = capsys.readouterr()
    assert out.err == ""
    return json.loads(out.out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    pred, gt = tmp_path / "pred", tmp_path / "gt"
    pred.mkdir(), gt.mkdir()
    for i in range(3):
        np.save(pred / f"img.{i}_depth.npy", PRED[i])
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(pred / f"img.{i}_depth_color.png")
        np.save(gt / f"img.{i}.npy", TRUTH[i])
    (pred / "notes.json").write_text("{}")
    return pred, gt


def test_folders_matched_by_stem_give_what_arrays_give(folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]):
    got = run(capsys, "depth", *folders, per_image=True)
    expected = score_arrays("depth", list(PRED), list(TRUTH))
    assert {k: got[k] for k in expected} == pytest.approx(expected)
    assert got["images"] == 3 and got["task"] == "depth" and got["empty"] == []
    assert list(got["per_image"]) == ["img.0", "img.1", "img.2"]


def test_one_file_each_under_a_protocol_with_an_option(folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]):
    pred, gt = folders
    files = pred / "img.0_depth.npy", gt / "img.1.npy"
    got = run(capsys, "depth", *files, protocol="scannet", align="median", crop=None)
    assert got["rmse"] == pytest.approx(score_arrays("depth", PRED[0], TRUTH[1], align="median", max_depth=10)["rmse"])
    assert got["protocol"] == "scannet" and got["options"] == {"align": "median"}


def test_png_depth_in_sixteen_bits_masks_and_npz(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    Image.fromarray((PRED[0] * 65535).clip(0, 65535).astype(np.uint16)).save(tmp_path / "p.png")
    Image.fromarray((TRUTH[0] * 1000).astype(np.uint16)).save(tmp_path / "g.png")
    valid = np.zeros(TRUTH[0].shape, np.uint8)
    valid[:, 3:] = 255
    Image.fromarray(valid).save(tmp_path / "v.png")
    expected = score_arrays("depth", PRED[0], TRUTH[0], valid > 0)["abs_rel"]
    got = run(capsys, "depth", tmp_path / "p.png", tmp_path / "g.png", tmp_path / "v.png", gt_scale=1000)
    assert got["abs_rel"] == pytest.approx(expected, rel=0.01)
    np.savez(tmp_path / "p.npz", values=PRED[0], raw=PRED[1])
    np.savez(tmp_path / "g.npz", TRUTH[0])
    got = run(capsys, "depth", tmp_path / "p.npz", tmp_path / "g.npz", tmp_path / "v.png")
    assert got["abs_rel"] == pytest.approx(expected)


def test_png_normals_mask_is_taken_before_decoding(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    normals = RNG.normal(size=(16, 17, 3)) + np.array((0, 0, 3))
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    coded = np.rint((normals + 1) / 2 * 255).astype(np.uint8)
    np.save(tmp_path / "p.npy", normals)
    coded[:5] = 0
    Image.fromarray(coded).save(tmp_path / "g.png")
    got = run(capsys, "normals", tmp_path / "p.npy", tmp_path / "g.png")
    assert got["mean"] < 0.4 and got["a5"] == 100


def test_png_normals_of_sixteen_bits_are_not_biased(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    normals = RNG.normal(size=(30, 31, 3))
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    Prediction(normals, "normals").save(tmp_path / "p.png", ["png"])
    np.save(tmp_path / "g.npy", normals)
    assert run(capsys, "normals", tmp_path / "p.png", tmp_path / "g.npy")["mean"] < 0.2  # what eight bits allow


def test_saved_predictions_say_what_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    near_is_large = 0.7 / TRUTH[0]
    Prediction(near_is_large, "disparity_affine").save(tmp_path / "p_disparity.png")
    np.save(tmp_path / "g.npy", TRUTH[0])
    for name in ("p_disparity.png", "p_disparity.npz"):
        got = run(capsys, "depth", tmp_path / name, tmp_path / "g.npy")
        assert got["abs_rel"] < 1e-3 and got["options"] == {"space": "disparity"}, name
        with pytest.raises(ValueError, match="kind 'disparity_affine' cannot be scored as 'normals'"):
            score.main("normals", tmp_path / name, tmp_path / "g.npy")


def test_no_valid_pixel_is_null(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    np.save(tmp_path / "p.npy", PRED[0])
    np.save(tmp_path / "g.npy", TRUTH[0] * 0)
    got = run(capsys, "depth", tmp_path / "p.npy", tmp_path / "g.npy")
    assert got["abs_rel"] is None and got["empty"] == ["p"]


def test_missing_partners_and_wrong_paths(folders: tuple[Path, Path], tmp_path: Path):
    pred, gt = folders
    (tmp_path / "empty").mkdir()
    mistakes = [
        ((pred, tmp_path / "none"), "none: no such ground truth file or folder"),
        ((pred / "img.0_depth.npy", gt), "give files or folders, not both"),
        ((tmp_path / "empty", gt), "empty: no .npy, .npz, .png files in it"),
        ((pred, gt, tmp_path / "empty"), "empty: no .npy, .npz, .png files in it"),
    ]
    for paths, message in mistakes:
        with pytest.raises(ValueError, match=message) as error:
            score.main("depth", *paths)
        assert "\n" not in str(error.value)
    (gt / "img.2.npy").rename(gt / "other.npy")
    with pytest.raises(ValueError, match=r"prediction without a partner of the same stem in .*gt: img.2_depth.npy"):
        score.main("depth", pred, gt)
    (pred / "img.2_depth.npy").unlink()
    with pytest.raises(ValueError, match=r"ground truth without a partner of the same stem in .*pred: other.npy"):
        score.main("depth", pred, gt)
    np.save(gt / "other_gt.npy", TRUTH[0])
    with pytest.raises(ValueError, match=r"other.npy and other_gt.npy are both sample 'other'"):
        score.main("depth", pred, gt)


def test_unreadable_and_unusable_files(tmp_path: Path):
    good = tmp_path / "good.npy"
    np.save(good, TRUTH[0])
    Image.fromarray((TRUTH[0] * 1000).astype(np.uint16)).save(tmp_path / "mm.png")
    Image.fromarray(np.zeros((20, 26, 3), np.uint8)).save(tmp_path / "rgb.png")
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "short.npy").write_bytes(good.read_bytes()[:300])
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 and no more")
    np.save(tmp_path / "words.npy", np.array([["a"]]))
    np.savez(tmp_path / "two.npz", a=TRUTH[0], b=TRUTH[1])
    np.save(tmp_path / "small.npy", TRUTH[0][:4])
    for name, message in {
        "mm.png": "say with --gt-scale how many make a metre",
        "rgb.png": "has 3 channels: expected a single-channel map",
        "text.png": "not an image",
        "short.npy": "cannot be read",
        "broken.npz": "cannot be read",
        "words.npy": "expected numbers",
        "two.npz": "holds a, b: expected one array, or one called 'values'",
        "small.npy": r"sample 'good': prediction has shape \(20, 26\), ground truth \(4, 26\)",
    }.items():
        with pytest.raises(ValueError, match=message) as error:
            score.main("depth", good, tmp_path / name)
        assert "\n" not in str(error.value), name


def test_unknown_names_are_refused_before_any_file_is_read(tmp_path: Path):
    for options, message in (
        ({"protocol": "nyuv2"}, "unknown protocol 'nyuv2'"),
        ({"alignment": "median"}, "unknown option 'alignment'"),
        ({"align": "mean"}, "unknown alignment 'mean'"),
    ):
        with pytest.raises(ValueError, match=message):
            score.main("depth", tmp_path / "a", tmp_path / "b", **options)
    with pytest.raises(ValueError, match="unknown metric 'deep'"):
        score.main("deep", tmp_path / "a", tmp_path / "b")
