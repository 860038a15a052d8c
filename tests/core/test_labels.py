"""Labels: what each row promises, and a label of another package from its files to the training step."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from genpercept.commands.data import check
from genpercept.commands.data.sheet import pictures
from genpercept.core import label_rules
from genpercept.core.labels import BESIDE, LABELS, Label
from genpercept.core.rng import generator
from genpercept.core.values import Geometry, Sample, Target
from genpercept.data import synthetic
from genpercept.data._files import About
from genpercept.data.folder import PLUGIN as FOLDER
from genpercept.imaging.prediction import KINDS, Prediction
from genpercept.tasks._task import TaskOptions
from genpercept.training import recipe
from genpercept.training.recipe import Augment, DataSet, Loader
from genpercept.training.samples import shard_cache
from genpercept.training.samples.augment import augment, crop, mirror
from genpercept.training.samples.paint import paint
from genpercept.training.samples.records import Record, cut_off, from_sample, to_sample
from genpercept.training.samples.sources import open_source
from genpercept.training.stages.finetune import FinetuneStage
from tests.support.commands import invoke
from tests.support.paths import SD_TINY
from tests.support.strangers import Install

SIZE = (24, 32)
NAMES = list(LABELS)  # of ours: the tests run without other packages' labels


def made(name: str, rng: np.random.Generator) -> Tensor:
    """A label of this name as a data set gives it."""
    h, w = SIZE
    special: dict[str, Any] = {
        "depth": lambda: rng.uniform(0.5, 80, SIZE),
        "class_ids": lambda: rng.integers(-1, 40, SIZE),
        "trimap": lambda: rng.choice((0, 128, 255), SIZE),
        "keypoints": lambda: np.concatenate(
            [rng.integers(0, 4 * min(SIZE), (2, 17, 2)) / 4, rng.integers(1, 3, (2, 17, 1))], -1
        ),
        "boxes": lambda: rng.integers(1, 8, (2, 4)),
        "intrinsics": lambda: np.array([[30, 0, 15.5], [0, 31, 11.25], [0, 0, 1]]),
    }
    row = LABELS[name]
    if name in special:
        values = special[name]()
    elif row.dtype is np.bool_:
        values = rng.random(row.shape((h, w))) > 0.4
    else:
        low, high = row.limits or (0, 1)
        values = rng.uniform(low, high, row.shape((h, w)))
    if name == "normals":
        values = values / np.sqrt((values**2).sum(0))
    return torch.from_numpy(np.asarray(values).astype(row.dtype))


@pytest.fixture
def full() -> Sample:
    """A sample with every label of ours."""
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.integers(0, 256, (3, *SIZE)).astype(np.float32) / 255)
    return Sample("a", image).with_labels({name: made(name, rng) for name in NAMES})


# ours ---------------------------------------------------------------------------------------------------------------


def test_every_field_of_a_sample_that_is_a_label_has_a_row(full: Sample) -> None:
    fields = set(Sample.__dataclass_fields__) - set(BESIDE)
    assert fields <= set(NAMES) == set(full.labels()) == fields | set(full.extra)
    assert all(row.kind in ("", *KINDS) and row.meaning for row in LABELS.values())


@pytest.mark.parametrize("name", NAMES)
def test_a_label_survives_a_record_and_two_mirrors(name: str, full: Sample) -> None:
    record = from_sample(full)
    back = to_sample(record).label(name)
    assert torch.equal(back, full.label(name)) and back.dtype == full.label(name).dtype
    once, twice = mirror(record), mirror(mirror(record))
    np.testing.assert_array_equal(twice[name], record[name])
    assert not np.array_equal(once[name], record[name])
    assert np.array_equal(once["image"], record["image"][:, ::-1])


def test_boxes_stay_around_their_people(full: Sample) -> None:
    joints = full.label("keypoints")[..., :2]
    low, high = joints.amin(1), joints.amax(1)
    full.boxes = torch.cat([low, high - low], 1)
    record = mirror(from_sample(full))
    joints = record["keypoints"][..., :2]
    np.testing.assert_allclose(record["boxes"][:, :2], joints.min(1))
    np.testing.assert_allclose(record["boxes"][:, 2:], joints.max(1) - joints.min(1))


@pytest.mark.parametrize("name", NAMES)
def test_a_packed_label_is_the_label_up_to_the_stated_error(name: str, full: Sample) -> None:
    row, array = LABELS[name], from_sample(full)[name]
    packed = row.packed(array)
    back = row.unpacked(packed)
    if row.packing is None or name == "class_ids":  # ids below 0 fit no byte
        assert packed is array and back is array
        return
    assert packed.dtype == row.packing.dtype and packed.nbytes < array.nbytes and back.dtype == array.dtype
    error = np.abs(back - array) / (np.abs(array) if row.packing.relative else 1)
    assert error.max() <= row.packing.error
    np.testing.assert_array_equal(row.unpacked(array), array)  # what is not packed stays


def test_small_ids_are_packed_in_a_byte() -> None:
    ids = np.array([[0, 255]])
    assert LABELS["class_ids"].packed(ids).dtype == np.uint8
    np.testing.assert_array_equal(LABELS["class_ids"].unpacked(LABELS["class_ids"].packed(ids)), ids)


@pytest.mark.parametrize("name", [name for name, row in LABELS.items() if row.channels])
def test_a_map_is_cut_with_its_image(name: str, full: Sample) -> None:
    """Each pixel of the cut is one of the label, and the image's with it: both are the number of the pixel."""
    record = from_sample(full)
    numbers = np.arange(SIZE[0] * SIZE[1]).reshape(SIZE)
    record = {"image": record["image"], name: record[name], "class_ids": numbers}
    out = crop(record, (10, 12), (0.4, 0.9), generator(0, 1, 2, "augment"))
    label = record[name] if name != "class_ids" else numbers
    flat = label.reshape(-1, *label.shape[2:])
    np.testing.assert_array_equal(out[name], flat[out["class_ids"]])


def test_boxes_leave_an_augmented_record_and_all_else_stays(full: Sample) -> None:
    record = from_sample(full)
    for size in ((10, 12), SIZE):
        assert set(record) - set(augment(record, size, Augment(), generator(0, 0, 0, "augment"))) == {"boxes"}
    assert "boxes" in record


def test_labels_in_metres_are_cut_off_and_others_are_not(full: Sample) -> None:
    full.depth, full.valid = full.label("depth").clone(), torch.zeros(SIZE, dtype=torch.bool)
    full.depth[0, 0], full.depth[0, 1] = torch.inf, 1
    record = from_sample(full)
    out = cut_off(record, 9)
    assert out["depth"].max() == 9 and out["depth"][0, 1] == 1 and out["valid"].nonzero() == (0, 0)
    assert all(out[k] is record[k] for k in record if k not in ("depth", "valid")) and cut_off(record, 0) is record


def test_the_world_records_labels_that_are_rows() -> None:
    assert {name for name in synthetic.RECORDED if name not in BESIDE} <= set(NAMES)
    assert {f"{name}.npy" for name in synthetic.RECORDED} == {
        *("image.npy", "depth.npy", "normals.npy", "class_ids.npy", "mask.npy", "alpha.npy", "defect.npy"),
        *("valid.npy", "keypoints.npy", "intrinsics.npy"),
    }  # what shards on people's disks hold


# unknown ones -------------------------------------------------------------------------------------------------------


def test_an_unknown_label_is_refused_by_name(full: Sample, tmp_path: Path) -> None:
    albedo = torch.zeros(3, *SIZE)
    with pytest.raises(ValueError, match=r"sample 'a': unknown label 'dept': did you mean 'depth'\?"):
        Sample("a", full.image, extra={"dept": albedo})
    with pytest.raises(ValueError, match="sample 'a': depth is a field of its own"):
        Sample("a", full.image, extra={"depth": albedo})
    with pytest.raises(ValueError, match="unknown label 'albedo'"):
        full.with_labels({"albedo": albedo})
    with pytest.raises(AttributeError, match="albedo"):
        full.albedo = albedo  # type: ignore[attr-defined]
    for name in ("albedo", "meta", "image"):
        with pytest.raises(ValueError, match=f"unknown label '{name}'"):
            full.label(name)
    record = from_sample(full) | {"albedo": np.zeros((*SIZE, 3), np.float32)}
    for call in (to_sample, mirror, lambda r: crop(r, (8, 8), (1, 1), generator(0, 0, 0, "augment"))):
        with pytest.raises(ValueError, match="unknown label 'albedo'"):
            call(record)
    full.extra["albedo"] = albedo
    with pytest.raises(ValueError, match="unknown label 'albedo'"):
        from_sample(full)
    with pytest.raises(ValueError, match=r"data set 'x': unknown label 'normal': did you mean 'normals'\?"):
        About("x", "", "", "", (), ("depth", "normal", "caption"), (), {})


def test_a_label_that_only_some_have() -> None:
    sample = Sample("a", torch.zeros(3, 2, 2))
    assert sample.labels() == {}
    with pytest.raises(ValueError, match="sample 'a' has no depth: choose a data set"):
        sample.label("depth")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"name": "a b"}, "choose a name of letters"),
        ({"name": "meta"}, "none of name, image"),
        ({"resampling": "cubic"}, "unknown resampling 'cubic'"),
        ({"summary": "ranges"}, "did you mean 'range'"),
        ({"resampling": "bilinear", "dtype": np.int64}, "int64 values cannot be resampled bilinearly"),
        ({"channels": 0}, "say what a crop does to it"),
        ({"channels": 2, "axes": "xyz"}, "3 axes"),
    ],
)
def test_a_row_that_cannot_be(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Label(**({"name": "albedo", "meaning": ""} | arguments))


def test_only_some_labels_can_be_asked_of_the_world(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="did you mean 'mask'"):
        DataSet(having="masks")
    with pytest.raises(ValueError, match="choose one of , mask, keypoints, defect"):
        DataSet(having="intrinsics")
    assert DataSet(having="mask").having == "mask"


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("mask", (-1.0, 1.0)), ("trimap", (-1.0, 1.0)), ("alpha", (-1.0, 1.0))],
)
def test_labels_without_a_task_are_painted_by_their_limits(
    kind: str, expected: tuple[float, float], full: Sample
) -> None:
    painted = paint(kind, from_sample(full))
    assert painted.shape == (3, *SIZE) and torch.equal(painted[0], painted[2])
    assert (float(painted.min()), float(painted.max())) == pytest.approx(expected, abs=0.01)
    with pytest.raises(ValueError, match="unknown label to paint 'masks': did you mean 'mask'"):
        paint("masks", from_sample(full))


# a stranger's -------------------------------------------------------------------------------------------------------

ALBEDO = Label("albedo", "reflected share of light", channels=3, limits=(0, 1), resampling="bilinear", kind="normals")
GLOW = Label("glow", "emitted light", unit="cd/m2", enough=lambda glow: bool(glow.any()))
LAMP = Label("lamp", "(2,) x, y of the lamp", channels=0, summary="", crop=label_rules.unchanged)


@dataclass(frozen=True)
class Albedo(TaskOptions):
    name = "albedo"
    kind = "normals"
    spaces = ("image",)
    labels = ("albedo",)
    head = "vae"
    losses: ClassVar[Mapping[str, Mapping[str, float]]] = {"image": {"mse": 1.0}}
    metric = "normals"

    def encode(self, sample: Sample, space: str = "image") -> Target:
        label = sample.label("albedo")
        return Target(label[None] * 2 - 1, torch.ones_like(label[None, :1], dtype=torch.bool))

    def decode(self, raw: Tensor, geometry: Geometry) -> Prediction:
        raise NotImplementedError  # nothing is validated here

    def truth(self, sample: Sample) -> dict[str, Any]:
        raise NotImplementedError


@pytest.fixture
def stranger(install: Install) -> None:
    """An installed package with three labels and a task."""
    labels = {"albedo": ALBEDO, "glow": GLOW, "lamp": LAMP}
    install({"genpercept.labels": labels, "genpercept.tasks": {"albedo": Albedo()}})


@pytest.fixture
def root(tmp_path: Path, stranger: None) -> Path:
    """Four images, whose albedo is the image itself: whatever is done to both, they stay the same."""
    rng = np.random.default_rng(0)
    for folder in ("images", "albedo", "glow"):
        (tmp_path / folder).mkdir()
    for i in range(4):
        image = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8)).resize((80, 60), Image.Resampling.BICUBIC)
        image.save(tmp_path / "images" / f"{i}.png")
        if i % 2:
            image.save(tmp_path / "albedo" / f"{i}.png")
        else:
            np.save(tmp_path / "albedo" / f"{i}.npy", np.asarray(image, np.float32) / 255)
        np.save(tmp_path / "glow" / f"{i}.npy", np.full((60, 80), 10.0 * i))
    return tmp_path


def test_a_strangers_label_is_found_in_a_folder_and_in_a_manifest(root: Path) -> None:
    for sample in map(FOLDER.load, FOLDER.index(root, "all")):
        assert set(sample.extra) == {"albedo", "glow"} == set(sample.labels())
        torch.testing.assert_close(sample.label("albedo"), sample.image)
        assert sample.label("glow").shape == (60, 80) and sample.label("glow").dtype == torch.float32
    row = {"image": "images/0.png", "albedo": "albedo/1.png", "split": "val"}
    (root / "m.jsonl").write_text(json.dumps(row))
    sample = FOLDER.load(FOLDER.index(root / "m.jsonl", "val")[0])
    np.testing.assert_allclose(
        sample.label("albedo").permute(1, 2, 0) * 255, np.asarray(Image.open(root / "images/1.png")), atol=1e-3
    )
    (root / "m.jsonl").write_text(json.dumps(row | {"lamp": "x.npy"}))
    with pytest.raises(ValueError, match="line 1: unknown key 'lamp'"):  # no map, and no reader
        FOLDER.index(root / "m.jsonl", "val")


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.full((60, 80, 3), 255.0), "values from 255 to 255, but albedo goes from 0 to 1; scale them"),
        (np.zeros((60, 80)), r"shape \[60, 80\]; albedo has 3 values per pixel"),
        (np.zeros((3, 60, 80)), r"shape \[3, 60, 80\]; albedo has 3 values per pixel \(height, width, 3\)"),
        (np.zeros((60, 79, 3)), "60 x 79 pixels, but its image has 60 x 80"),
    ],
)
def test_a_strangers_file_that_is_wrong_is_named(array: np.ndarray, says: str, root: Path) -> None:
    np.save(root / "albedo" / "0.npy", array)
    with pytest.raises(ValueError, match=f"0.npy: {says}"):
        FOLDER.load(FOLDER.index(root, "all")[0])


def test_images_with_opacity_and_16_bits(root: Path) -> None:
    rgba = np.zeros((60, 80, 4), np.uint16)
    rgba[..., 1], rgba[..., 3] = 13107, 1
    np.save(root / "albedo" / "0.npy", rgba)
    found = FOLDER.load(FOLDER.index(root, "all")[0]).label("albedo")
    torch.testing.assert_close(found[:, 3, 4], torch.tensor([0.0, 0.2, 0.0]))


def test_check_and_preview_know_a_strangers_label(root: Path) -> None:
    result = invoke("data", "check", root, "--out", root / "out")
    assert result.return_value == 0, result.output
    assert "labels        4 albedo, 4 glow" in result.output and "no labels" not in result.output
    assert "albedo        0 to 1, median 0." in result.output
    assert "glow [cd/m2]  0 to 30, median 15; known on 100.0% of the pixels" in result.output
    page = np.asarray(Image.open(root / "out" / "contact_sheet.png"))
    assert page.shape == (4 * 124, 2 * 164, 3)
    assert np.abs(page[:120, :160].astype(int) - page[:120, 164:324]).max() <= 1  # the image, its albedo, no glow
    result = invoke(
        "data", "preview", "folder", "--root", root, "--split", "all", "--out", root / "sheet.png", "--count", "2"
    )
    assert result.return_value == 0 and Image.open(root / "sheet.png").size == (2 * 164, 2 * 138)


def test_check_names_folders_that_are_no_label_and_ranges_that_cannot_be(root: Path) -> None:
    (root / "albedos").mkdir()
    Image.open(root / "albedo" / "1.png").save(root / "albedos" / "1.png")
    (root / "notes").mkdir()
    result = invoke("data", "check", root)
    assert "note: albedos/ is not read: no label is called so; did you mean 'albedo'?" in result.output
    assert result.return_value == 0 and "notes/" not in result.output
    report = check.Report(1, ranges={"albedo": [0.0, 9.0, 255.0, 1.0]}, labels=check.Counter(albedo=1))
    assert "values from 0 to 255, but albedo goes from 0 to 1: is its scale right?" in check._advice(report)


def test_check_refuses_a_map_of_another_shape(stranger: None) -> None:
    class Wrong:
        about = None

        def load(self, entry: Any) -> Sample:
            return Sample("one", torch.zeros(3, 4, 6), extra={"albedo": torch.zeros(4, 6, 3)})

    report, _ = check._examine(Wrong(), [0], "", 0)
    assert report.broken == ["one: albedo of shape [4, 6, 3]; must be [3, 4, 6]"]


def test_a_strangers_label_without_a_range_is_stretched_in_pictures(stranger: None) -> None:
    glow = torch.linspace(0, 50, 100)[None].expand(8, -1)
    vars(LABELS)["_theirs"] = {"glow": replace(GLOW, kind="mask")}
    _, drawn = map(np.asarray, pictures(Sample("a", torch.zeros(3, 8, 100), extra={"glow": glow})))
    assert drawn[4, 0, 0] == 0 and drawn[4, 99, 0] == 255 and 120 < drawn[4, 50, 0] < 136


def training_records(root: Path) -> Iterator[Record]:
    source = open_source(DataSet(name="folder", root=root, split="all"), Loader())
    options = Augment(crop=(0.4, 1.0), flip=0.5)
    for step in range(4):
        for i in range(len(source)):
            record = source[i] | {"lamp": np.array([3.0, 4.0], np.float32)}
            yield augment(record, (24, 40), options, generator(0, step, i, "augment"))


def test_a_strangers_label_is_augmented_with_its_image(root: Path) -> None:
    records = list(training_records(root))
    for record in records:
        sample = to_sample(record)
        assert sample.label("albedo").dtype == torch.float32 and sample.label("albedo").shape == (3, 24, 40)
        torch.testing.assert_close(sample.label("albedo"), sample.image, atol=1.01 / 255, rtol=0)
        assert set(np.unique(sample.label("glow"))) <= {0.0, 10.0, 20.0, 30.0}
        assert sample.label("lamp").tolist() == [3, 4]
        again = from_sample(sample)
        assert all(np.array_equal(again[name], record[name]) for name in ("albedo", "glow", "lamp"))
    assert len({record["image"].tobytes() for record in records}) == len(records)


def test_a_strangers_label_is_painted_and_cached_and_leaves_the_world_alone(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("numba")
    (record, *_) = training_records(root)
    torch.testing.assert_close(paint("albedo", record), to_sample(record).image * 2 - 1, atol=2.02 / 255, rtol=0)
    arrays = {"image": record["image"][None], "albedo": record["albedo"][None], "glow": record["glow"][None]}
    shard_cache.write_shard(tmp_path / "own", arrays, {})
    assert np.array_equal(shard_cache.Shards([tmp_path / "own"], 1)[0]["albedo"], record["albedo"])
    monkeypatch.setattr(shard_cache, "SHARD", 2)
    data = DataSet(count=2, size=(32, 32))
    scene = shard_cache.scenes(tmp_path / "cache", data, 1, report=lambda _: None)[1]
    assert set(to_sample(scene).labels()) == set(synthetic.RECORDED) - {"image"}
    with pytest.raises(ValueError, match=r"data.having: the synthetic world has no glow"):
        open_source(DataSet(count=2, having="glow"), Loader(cache_dir=tmp_path))


def test_a_strangers_label_is_trained_on(root: Path) -> None:
    settings = {
        "stage": "finetune",
        "task": "albedo",
        "model": {"base": str(SD_TINY)},
        "data": [{"name": "folder", "root": str(root), "split": "all", "size": (32, 40)}],
        "augment": {"crop": (0.5, 1.0), "flip": 0.5},
        "loader": {"batch_size": 2},
    }
    stage = FinetuneStage(recipe.parse(settings), lambda line: None)
    batch = stage.make_batch(0, range(4))
    assert batch.images is not None and batch.target is not None
    torch.testing.assert_close(batch.target.map, batch.images, atol=2.02 / 255, rtol=0)
    with torch.no_grad():
        pair = stage.training_pair(stage.encode(batch))
    losses, _ = stage.loss(stage.net(*pair.inputs), pair)
    losses.mean().backward()
    assert losses.shape == (4,) and any(p.grad is not None and p.grad.abs().max() > 0 for p in stage.net.parameters())


def test_a_label_of_an_unknown_kind_is_not_drawn_but_named(install: Install) -> None:
    install({"genpercept.labels": {"glow": Label("glow", "emitted light", kind="anomly")}})
    sample = Sample("a", torch.zeros(3, 4, 6), extra={"glow": torch.zeros(4, 6)})
    with pytest.raises(ValueError, match="label 'glow': unknown kind 'anomly': did you mean 'anomaly'"):
        pictures(sample)
