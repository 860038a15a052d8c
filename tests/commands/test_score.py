"""`genpercept score`: files and folders in, JSON out, and one line for every mistake."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image

from genpercept.commands.score.run import main
from genpercept.imaging.prediction import Prediction
from genpercept.metrics import MetricPlugin, PerPixel, down
from genpercept.metrics import score as score_arrays
from genpercept.metrics._files import read_mask
from genpercept.tasks import TASKS
from tests.support.commands import Call
from tests.support.strangers import Install

RNG = np.random.default_rng(5)
TRUTH = RNG.uniform(0.8, 9, (3, 20, 26)).astype(np.float32)
PRED = (TRUTH / 11 + RNG.normal(0, 0.01, TRUTH.shape)).astype(np.float32)


def run(capsys: pytest.CaptureFixture[str], *args: Any, **options: Any) -> dict[str, Any]:
    assert main(*args, **options) == 0
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


def test_folders_of_folders_are_matched_by_path(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Frames of one number in several scenes stay apart."""
    for i, scene in enumerate(("a/cam", "b/cam", "b/left")):
        for kind, array in (("pred", PRED[i]), ("gt", TRUTH[i])):
            (tmp_path / kind / scene).mkdir(parents=True)
            np.save(tmp_path / kind / scene / f"0001{'_depth' * (kind == 'pred')}.npy", array)
    got = run(capsys, "depth", tmp_path / "pred", tmp_path / "gt", per_image=True)
    expected = score_arrays("depth", list(PRED), list(TRUTH))
    assert {k: got[k] for k in expected} == pytest.approx(expected)
    assert list(got["per_image"]) == ["a/cam/0001", "b/cam/0001", "b/left/0001"]
    (tmp_path / "gt/b/left/0001.npy").unlink()
    with pytest.raises(ValueError, match=r"prediction without a partner .*: b/left/0001_depth.npy"):
        main("depth", tmp_path / "pred", tmp_path / "gt")


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
            main("normals", tmp_path / name, tmp_path / "g.npy")


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
        ((tmp_path / "empty", gt), "empty: no .npy, .npz, .exr, .png, .tif, .tiff files in it"),
        ((pred, gt, tmp_path / "empty"), "empty: no .npy, .npz, .exr, .png, .tif, .tiff files in it"),
    ]
    for paths, message in mistakes:
        with pytest.raises(ValueError, match=message) as error:
            main("depth", *paths)
        assert "\n" not in str(error.value)
    (gt / "img.2.npy").rename(gt / "other.npy")
    with pytest.raises(ValueError, match=r"prediction without a partner of the same stem in .*gt: img.2_depth.npy"):
        main("depth", pred, gt)
    (pred / "img.2_depth.npy").unlink()
    with pytest.raises(ValueError, match=r"ground truth without a partner of the same stem in .*pred: other.npy"):
        main("depth", pred, gt)
    np.save(gt / "other_gt.npy", TRUTH[0])
    with pytest.raises(ValueError, match=r"other.npy and other_gt.npy are both sample 'other'"):
        main("depth", pred, gt)


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
        "words.npy": "must hold numbers",
        "two.npz": "holds a, b: expected one array, or one called 'values'",
        "small.npy": r"sample 'good': prediction has shape \(20, 26\), ground truth \(4, 26\)",
    }.items():
        with pytest.raises(ValueError, match=message) as error:
            main("depth", good, tmp_path / name)
        assert "\n" not in str(error.value), name


def test_unknown_names_are_refused_before_any_file_is_read(tmp_path: Path):
    for options, message in (
        ({"protocol": "nyuv2"}, "unknown protocol 'nyuv2'"),
        ({"alignment": "median"}, "unknown option 'alignment'"),
        ({"align": "mean"}, "unknown alignment 'mean'"),
    ):
        with pytest.raises(ValueError, match=message):
            main("depth", tmp_path / "a", tmp_path / "b", **options)
    with pytest.raises(ValueError, match="unknown metric 'deep'"):
        main("deep", tmp_path / "a", tmp_path / "b")


# ---- the other tasks

IDS = RNG.integers(0, 6, (3, 20, 26))
WRONG = np.where(RNG.random(IDS.shape) < 0.3, (IDS + 1) % 6, IDS)


def two_folders(tmp_path: Path) -> tuple[Path, Path]:
    pred, gt = tmp_path / "pred", tmp_path / "gt"
    pred.mkdir(), gt.mkdir()
    return pred, gt


def png(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def test_class_ids_in_every_kind_of_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    pred, gt = two_folders(tmp_path)
    hidden = IDS.copy()
    hidden[:, :4] = 255
    Prediction(WRONG[0], "class_ids").save(pred / "a_segmentation.png", ["png", "color"])
    np.save(pred / "b.npy", WRONG[1])
    np.savez(pred / "c.npz", values=WRONG[2], other=IDS[0])
    coloured = Image.fromarray(hidden[0].astype(np.uint8), "P")
    coloured.putpalette([128, 64, 128, 244, 35, 232] * 128)  # two colours alone: only the indices tell six classes
    coloured.save(gt / "a_gtFine_labelTrainIds.png")
    png(gt / "b.png", hidden[1].astype(np.uint8))
    png(gt / "c.png", hidden[2].astype(np.uint16))
    wanted = score_arrays("segmentation", list(WRONG), list(hidden))
    got = run(capsys, "segmentation", pred, gt, details=True, per_image=True)
    assert {k: got[k] for k in wanted} == pytest.approx(wanted)
    assert len(got["details"]["iou_per_class"]) == 6 and list(got["per_image"]) == ["a", "b", "c"]
    got = run(capsys, "segmentation", pred, gt, num_classes=6, ignore_index=(255, 3))
    wanted = score_arrays("segmentation", list(WRONG), list(hidden), num_classes=6, ignore_index=(255, 3))
    assert {k: got[k] for k in wanted} == pytest.approx(wanted) and got["options"]["num_classes"] == 6


def test_pixels_without_a_class_in_sixteen_bits_are_misses(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    none = WRONG[0].copy()
    none[:, :5] = -1
    Prediction(none, "class_ids").save(tmp_path / "p.png", ["png"])
    got = run(capsys, "segmentation", tmp_path / "p.png", png(tmp_path / "g.png", IDS[0].astype(np.uint8)))
    assert got["miou"] == pytest.approx(score_arrays("segmentation", none, IDS[0])["miou"])


def soft(*shape: int) -> np.ndarray:
    """A blurred disc and noise, in [0, 1]."""
    y, x = np.indices(shape)
    disc = 1 / (1 + np.exp(np.hypot(y - shape[0] / 2, x - shape[1] / 2) - shape[0] / 4))
    return np.clip(disc + RNG.normal(0, 0.05, shape), 0, 1)


@pytest.mark.parametrize("task", ["dis", "matting"])
def test_masks_and_mattes_in_eight_and_sixteen_bits(task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    pred, gt = two_folders(tmp_path)
    maps = [soft(32, 40) for _ in range(3)]
    truths = [np.where(soft(32, 40) > 0.5, 255, 0).astype(np.uint8) for _ in range(3)]
    png(pred / "a.png", np.rint(maps[0] * 255).astype(np.uint8))
    Prediction(maps[1], {"dis": "mask", "matting": "alpha"}[task]).save(pred / f"b_{task}.png", ["png", "color"])
    np.save(pred / "c.npy", maps[2].astype(np.float32))
    png(gt / "a.png", truths[0])
    png(gt / "b.png", np.stack([truths[1]] * 3, -1))  # grey, stored as colours
    png(gt / "c_gt.png", truths[2] > 0)
    got = run(capsys, task, pred, gt)
    eight, sixteen = (np.rint(m * top) / top for m, top in zip(maps, (255, 65535), strict=False))
    wanted = score_arrays(task, [eight, sixteen, maps[2].astype(np.float32)], truths)
    assert {k: got[k] for k in wanted} == pytest.approx(wanted)
    png(gt / "b.png", np.stack([truths[1], truths[0], truths[2]], -1))
    with pytest.raises(ValueError, match=r"b.png: red, green and blue disagree"):
        main(task, pred, gt)


def test_trimaps_lie_beside(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    pred, gt = two_folders(tmp_path)
    maps = [np.rint(soft(24, 30) * 255).astype(np.uint8) for _ in range(4)]
    trimap = np.full((24, 30), 128, np.uint8)
    trimap[:6], trimap[-6:] = 0, 255
    for i in range(2):
        png(pred / f"{i}.png", maps[i]), png(gt / f"{i}.png", maps[2 + i]), png(tmp_path / "tri" / f"{i}.png", trimap)
    got = run(capsys, "matting", pred, gt, protocol="dim", trimap=tmp_path / "tri")
    wanted = score_arrays("matting", maps[:2], maps[2:], protocol="dim", trimap=[trimap, trimap])
    assert {k: got[k] for k in wanted} == pytest.approx(wanted) and got["protocol"] == "dim"
    assert run(capsys, "matting", pred, gt, region="trimap", trimap=tmp_path / "tri")["options"] == {"region": "trimap"}
    (tmp_path / "tri" / "1.png").unlink()
    with pytest.raises(ValueError, match=r"ground truth without a partner of the same stem in .*tri: 1.png"):
        main("matting", pred, gt, protocol="dim", trimap=tmp_path / "tri")
    with pytest.raises(ValueError, match="segmentation takes no --trimap"):
        main("segmentation", pred, gt, trimap=tmp_path / "tri")


def anomalies(pred: Path, gt: Path, layout: str, offset: float = 0) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Four pictures of one category under pred and gt, as `layout` says; the maps and the masks."""
    maps = [soft(20, 20).astype(np.float32) + offset for _ in range(4)]
    masks = [np.where(soft(20, 20) > 0.8, 255, 0).astype(np.uint8) for _ in range(3)] + [np.zeros((20, 20), np.uint8)]
    for i, kind in enumerate(("crack", "crack", "hole", "good")):
        folder = {"mvtec": f"test/{kind}", "kinds": kind, "flat": ""}[layout]
        (pred / folder).mkdir(parents=True, exist_ok=True)
        np.save(pred / folder / f"{i:03d}_anomaly.npy", maps[i])
        if layout == "mvtec":
            png(gt / folder / f"{i:03d}.png", np.zeros((5, 5, 3), np.uint8))  # the picture itself, no truth
        if kind != "good" or layout == "flat":
            truth = {"mvtec": f"ground_truth/{kind}", "kinds": kind, "flat": ""}[layout]
            png(gt / truth / f"{i:03d}_mask.png", masks[i])
    return maps, masks


@pytest.mark.parametrize("layout", ["mvtec", "kinds", "flat"])
def test_anomaly_maps_of_one_category(layout: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    maps, masks = anomalies(tmp_path / "p", tmp_path / "g", layout)
    got = run(capsys, "anomaly", tmp_path / "p", tmp_path / "g", details=True)
    wanted = score_arrays("anomaly", maps, masks)
    assert {k: got[k] for k in wanted} == pytest.approx(wanted)
    assert got["images"] == 4 and got["empty"] == [] and got["details"] == {}


@pytest.mark.parametrize("layout", ["mvtec", "kinds", "flat"])
def test_anomaly_maps_of_several_categories(layout: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    each = {
        name: score_arrays("anomaly", *anomalies(tmp_path / "p" / name, tmp_path / "g" / name, layout, offset))
        for name, offset in {"nut": 0, "pill": 50}.items()
    }
    got = run(capsys, "anomaly", tmp_path / "p", tmp_path / "g", details=True)
    assert got["details"]["categories"]["pill"] == pytest.approx(each["pill"])
    assert got["aupro"] == pytest.approx((each["nut"]["aupro"] + each["pill"]["aupro"]) / 2)


def test_anomaly_maps_in_png_and_their_partners(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    maps, masks = anomalies(tmp_path / "p", tmp_path / "g", "kinds", offset=3)
    for kind, i in (("crack", 0), ("crack", 1), ("hole", 2), ("good", 3)):
        (tmp_path / "q" / kind).mkdir(parents=True, exist_ok=True)
        Prediction(maps[i] * (i + 1), "anomaly").save(tmp_path / "q" / kind / f"{i:03d}_anomaly.png", ["png"])
    wanted = score_arrays("anomaly", [m * (i + 1) for i, m in enumerate(maps)], masks)
    got = run(capsys, "anomaly", tmp_path / "q", tmp_path / "g")  # each PNG has a range of its own
    assert {k: got[k] for k in wanted} == pytest.approx(wanted, abs=2e-3)
    file = run(capsys, "anomaly", tmp_path / "p" / "hole" / "002_anomaly.npy", tmp_path / "g" / "hole" / "002_mask.png")
    assert file["pixel_auroc"] == pytest.approx(score_arrays("anomaly", maps[2], masks[2])["pixel_auroc"])
    (tmp_path / "g" / "crack" / "000_mask.png").unlink()
    with pytest.raises(ValueError, match=r"prediction without a partner .*: crack/000_anomaly.npy"):
        main("anomaly", tmp_path / "p", tmp_path / "g")
    with pytest.raises(ValueError, match="anomaly takes no --valid"):
        main("anomaly", tmp_path / "p", tmp_path / "g", tmp_path / "g")


@pytest.fixture
def people(tmp_path: Path) -> tuple[np.ndarray, Path]:
    """(3, 17, 3) keypoints of two images, 5 with two people and 8 with one, and their annotations."""
    joints = np.concatenate([RNG.uniform(0, 90, (3, 17, 2)) + 100, np.full((3, 17, 1), 2)], -1).round(2)
    annotations = [
        {"id": i, "image_id": image, "category_id": 1, "keypoints": joints[i].ravel().tolist(), "num_keypoints": 17}
        | {"area": 4000.0, "bbox": [100, 100, 90, 90], "iscrowd": 0}
        for i, image in enumerate((5, 5, 8))
    ]
    images = [{"id": 5, "file_name": "000000000005.jpg"}, {"id": 8, "file_name": "000000000008.jpg"}]
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "p"}]}))
    return joints, path


def test_coco_results(people: tuple[np.ndarray, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    joints, gt = people
    results = [
        {"image_id": image, "category_id": 1, "keypoints": joints[i].ravel().tolist(), "score": 0.5 + 0.1 * i}
        for i, image in enumerate((5, 5, 8))
    ]
    (tmp_path / "dt.json").write_text(json.dumps(results[1:]))
    got = run(capsys, "pose", tmp_path / "dt.json", gt, details=True, per_image=True)
    assert got["ap"] == pytest.approx(67 / 101)  # recall 2 / 3 holds at 67 of the 101 points
    assert got["ap_l"] is None and got["ap_m"] == got["ap"] and got["details"]["ar"] == pytest.approx(2 / 3)
    assert list(got["per_image"]) == ["000000000005", "000000000008"] and got["images"] == 2
    for path, message in (
        (tmp_path, "is a folder: the ground truth of pose"),
        (tmp_path / "no.json", "no such ground"),
    ):
        with pytest.raises(ValueError, match=message):
            main("pose", tmp_path / "dt.json", path)


def test_keypoints_of_images_in_a_folder(
    people: tuple[np.ndarray, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    joints, gt = people
    joints[..., 2] = 0.9
    folder = tmp_path / "pred"
    folder.mkdir()
    Prediction(joints[:2], "keypoints").save(folder / "000000000005_pose.npz", ["npz"])
    np.save(folder / "000000000008_pose.npy", joints[2:])
    assert run(capsys, "pose", folder, gt)["ap"] == pytest.approx(1)
    np.save(folder / "000000000008_pose.npy", np.zeros((0, 17, 3)))
    assert run(capsys, "pose", folder, gt)["ap"] == pytest.approx(67 / 101)
    np.save(folder / "strange.npy", joints[2:])
    with pytest.raises(ValueError, match="prediction without an image: strange"):
        main("pose", folder, gt)
    (folder / "strange.npy").unlink()
    np.save(folder / "000000000008_pose.npy", joints[2:, :5])
    with pytest.raises(ValueError, match=r"000000000008_pose.npy: keypoints of shape \(1, 5, 3\)"):
        main("pose", folder, gt)
    (folder / "000000000008_pose.npy").unlink()
    with pytest.raises(ValueError, match="image without a prediction: 000000000008"):
        main("pose", folder, gt)


def test_scales_are_of_depth(tmp_path: Path):
    png(tmp_path / "a.png", IDS[0].astype(np.uint8))
    for task in ("segmentation", "normals", "dis"):
        with pytest.raises(ValueError, match="has no --pred-scale and --gt-scale"):
            main(task, tmp_path / "a.png", tmp_path / "a.png", gt_scale=256)


def test_options_of_the_command(tmp_path: Path):
    from click.testing import CliRunner

    from genpercept.commands.cli import cli

    pred, gt = png(tmp_path / "p.png", WRONG[0].astype(np.uint8)), png(tmp_path / "g.png", IDS[0].astype(np.uint8))
    files = ["segmentation", "--pred", str(pred), "--gt", str(gt)]
    given = ["--num-classes", "6", "--ignore-index", "3", "--ignore-index", "255", "--details"]
    for arguments, options in ((given, {"num_classes": 6, "ignore_index": (3, 255)}), ([], {})):
        got = json.loads(CliRunner().invoke(cli, ["score", *files, *arguments], catch_exceptions=False).stdout)
        assert got["miou"] == pytest.approx(score_arrays("segmentation", WRONG[0], IDS[0], **options)["miou"])
        assert ("details" in got) == bool(options)


class Colours(PerPixel):
    """RMSE of colours, by their weight."""

    keys = ("rmse",)

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self._scale = scale

    def update(
        self, pred: Any, gt: Any, valid: Any = None, name: str = "", *args: Any, **extras: Any
    ) -> dict[str, float]:
        weight = extras["weight"]
        return super().update(pred * self._scale, gt, weight, name)

    def measure(self, pred: np.ndarray, gt: np.ndarray) -> dict[str, float]:
        return {"rmse": float(np.sqrt(np.mean((pred - gt) ** 2)))}


class ColoursPlugin(MetricPlugin[Colours]):
    name, metric = "colours", Colours
    columns = (down("rmse", "RMSE"),)
    extras: ClassVar = {"weight": "where it counts"}
    beside: ClassVar = {"weight": read_mask}


def test_a_strangers_task_is_scored_by_its_metric_with_its_options_and_files(
    tmp_path: Path, install: Install, call: Call
) -> None:
    """The metric goes by another name than the task; what it takes besides is said by --option."""
    task = type("Albedo", (type(TASKS.find("normals")),), {"name": "albedo", "metric": "colours"})()
    install({"genpercept.tasks": {"albedo": task}, "genpercept.metrics": {"colours": ColoursPlugin()}})
    pred, gt = RNG.random((2, 4, 5, 3)).astype(np.float32)
    weight = np.zeros((4, 5), bool)
    weight[1:3] = True
    for folder, name, array in (("p", "a_albedo", pred), ("g", "a", gt), ("w", "a", weight)):
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / f"{name}.npy", array)
    options = ("--option", "scale=0.5", "--option", f"weight={tmp_path / 'w'}")
    code, out, err = call("score", "albedo", "--pred", tmp_path / "p", "--gt", tmp_path / "g", *options)
    assert (code, err) == (0, "") and json.loads(out)["options"] == {"scale": 0.5}
    assert json.loads(out)["rmse"] == pytest.approx(np.sqrt(np.mean((pred[1:3] / 2 - gt[1:3]) ** 2)), rel=1e-5)
    found = score_arrays("albedo", pred, gt, weight=weight)
    assert found == pytest.approx({"rmse": np.sqrt(np.mean((pred[1:3] - gt[1:3]) ** 2))}, rel=1e-5)
    code, _, err = call("score", "albedo", "--pred", tmp_path / "p", "--gt", tmp_path / "g", "--option", "scale")
    assert code == 2 and "--option 'scale': write key=value" in err
