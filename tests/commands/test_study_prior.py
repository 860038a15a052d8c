"""Studies that make the bases of their arms, have parts, and score on folders of the user's own, to the study `prior`."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diffusers import AutoencoderKL, UNet2DConditionModel
from PIL import Image
from safetensors.torch import load_file

from genpercept.commands.study import execute, job, paired, shape
from genpercept.commands.study import plan as study
from genpercept.commands.study.schema import Shape
from genpercept.core import files
from genpercept.data import DATASETS
from tests.support.commands import Call
from tests.support.paths import SD_TINY
from tests.support.planes import planes
from tests.support.studies import RECIPE
from tools import real_frames

PRETRAINING = """
stage = "denoiser"
steps = 2
[model]
prompt_length = 8
text_config = { num_attention_heads = 2, num_hidden_layers = 1 }
[[data]]
domain = "indoor"
count = 4
size = [16, 16]
[denoiser]
sample_steps = 2
[loader]
batch_size = 2
[validation]
every = 0
count = 2
[speed]
threads = 1
[logging]
tensorboard = false
"""
STUDY = """
name = "tiny"
about = "What pretraining is worth."
base = "recipe.toml"
labels = [2, 4]
with_labels = { 4 = { "loader.latent_variants" = 2 } }
reference = "random"
against = ["world"]
draw = "labels"
keep_models = false
shape = { base = "BASE", latent = [2, 2] }
[[pretraining]]
name = "random"
base = "pretraining.toml"
untrained = true
[[pretraining]]
name = "world"
base = "pretraining.toml"
[[pretraining]]
name = "photographs 1/2"
base = "pretraining.toml"
data = { name = "folder", root = "{photographs}", fraction = 0.5, size = [16, 16] }
[[arm]]
name = "random"
pretrained = "random"
[[arm]]
name = "world"
pretrained = "world"
labels = [2]
[[arm]]
name = "photographs 1/2"
pretrained = "photographs 1/2"
[[test]]
title = "planes"
name = "folder"
root = "DATA"
split = "all"
[[test]]
title = "frames"
name = "folder"
root = "{frames}/A"
split = "all"
scenes = "folder"
[[part]]
name = "depth"
metrics = ["abs_rel"]
[[part]]
name = "normals"
about = "Rough ones."
arms = ["random", "photographs 1/2"]
labels = [2]
set = { task = "normals" }
[[part]]
name = "frozen"
arms = ["random", "photographs 1/2"]
labels = [2]
metrics = ["abs_rel"]
[part.set]
"learn.denoiser" = "frozen"
"model.head" = "dpt"
"model.head_config" = { fusion_hidden_size = 8 }
loss = { mse = 1.0 }
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A study's file beside its recipes and data; its base has another codec than any that is embedded."""
    shutil.copytree(SD_TINY, tmp_path / "base")
    codec = files.read_json(SD_TINY / "vae" / "config.json") | {"latent_channels": 16}
    AutoencoderKL.from_config(codec).save_pretrained(tmp_path / "base" / "vae")
    denoiser = files.read_json(SD_TINY / "unet" / "config.json") | {"in_channels": 16, "out_channels": 16}
    UNet2DConditionModel.from_config(denoiser).save_pretrained(tmp_path / "base" / "unet")
    planes(tmp_path / "data", 6, (16, 16), normals=True)
    (tmp_path / "recipe.toml").write_text(RECIPE.replace("DATA", str(tmp_path / "data")))
    (tmp_path / "pretraining.toml").write_text(PRETRAINING)
    text = STUDY.replace("DATA", str(tmp_path / "data")).replace("BASE", str(tmp_path / "base"))
    (tmp_path / "tiny.toml").write_text(text)
    return tmp_path / "tiny.toml"


@pytest.fixture
def given(tmp_path: Path) -> dict[str, Path]:
    """Six photographs with captions; four frames of two scenes."""
    draw, photographs, frames = np.random.default_rng(1), tmp_path / "photographs", tmp_path / "frames" / "A"
    (photographs / "images").mkdir(parents=True)
    rows = []
    for i in range(6):
        Image.fromarray(draw.integers(0, 256, (20, 30, 3), np.uint8)).save(photographs / "images" / f"{i}.jpg")
        rows.append({"image": f"images/{i}.jpg", "split": "val" if i == 5 else "train", "caption": f"a photograph {i}"})
    (photographs / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    flat = planes(tmp_path / "flat", 4, (16, 16), normals=True)
    for kind, ending in (("images", "png"), ("depth", "npy"), ("normals", "npy")):
        for i, scene in enumerate("rrrs"):  # three frames of one scene
            (frames / kind / scene).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(flat / kind / f"{i}.{ending}", frames / kind / scene / f"{i}.{ending}")
    return {"photographs": photographs, "frames": tmp_path / "frames"}


# ---- statistics ------------------------------------------------------------------------------------------------------

NAMES = ["000000 a/1", "000001 a/2", "000002 b/1", "000003 c/1", "000004 c/2"]


def test_clustered_standard_error_by_hand() -> None:
    """Seeds' averages 1, 3 of scene a, 6 of b, 5, NaN of c: scenes 2, 6, 5, mean 13/3, variance (49 + 25 + 4) / 9 / 2."""
    nan = float("nan")
    scores = {0: (NAMES, [0, 2, 5, 4, nan]), 1: (NAMES, [2, 4, 7, 6, 1.0])}
    found = paired.mean(scores, paired.folder_of)
    assert found is not None and (found.images, found.scenes) == (4, 3)
    assert found.value == pytest.approx(13 / 3) and found.error == pytest.approx(math.sqrt(13 / 3 / 3))
    assert found.seeds == pytest.approx({0: (1 + 5 + 4) / 3, 1: (3 + 7 + 6) / 3}) and found.seed_error == pytest.approx(
        1
    )
    plain = paired.mean(scores)
    assert plain is not None and plain.value == pytest.approx(15 / 4) and plain.scenes is None


def test_clustered_difference_by_hand() -> None:
    """Differences 1, 3 of scene a, 2 of b, -1, 1 of c: scenes 2, 2, 0, mean 4/3, variance 4/3."""
    ours, reference = {0: (NAMES, [11, 13, 12, 9, 11])}, {0: (NAMES, [10] * 5)}
    found = paired.difference(ours, reference, paired.folder_of)
    assert found is not None and found.value == pytest.approx(4 / 3) and found.error == pytest.approx(2 / 3)


def test_an_image_without_a_folder_is_a_scene_of_its_own() -> None:
    names = ["000000 indoor-test-0-000000", "000001 indoor-test-0-000001"]
    scores = {0: (names, [1.0, 2.0])}
    by_scene, by_image = paired.mean(scores, paired.folder_of), paired.mean(scores)
    assert by_scene is not None and by_image is not None
    assert (by_scene.value, by_scene.error, by_scene.scenes) == (by_image.value, by_image.error, 2)


# ---- what runs take from a base --------------------------------------------------------------------------------------


def test_sizes_are_cells_of_the_bases_codec(file: Path) -> None:
    for base, size in (("mini/base", None), (str(SD_TINY), [16, 24]), (str(file.parent / "base"), [16, 24])):
        found = Shape(base=base, latent=(2, 3))
        ours, theirs = shape.of_arm(found), shape.of_pretraining(found)
        assert ours["augment.sizes"] == theirs["augment.sizes"] and ours["model.base"] == theirs["model.codec"] == base
        assert size is None or (ours["augment.sizes"], ours["resolution"]) == ([size], 24)
        assert theirs["model.backbone_config"]["sample_size"] == [2, 3]
    assert (
        shape.of_pretraining(Shape(base=str(SD_TINY), latent=(2, 2)))["model.backbone_config"]["cross_attention_dim"]
        == 32
    )


def test_runs_of_the_parts(file: Path, given: dict[str, Path], tmp_path: Path) -> None:
    plan = study.folders.place(study.load(file), given)[0]
    pieces = study._pieces(plan)
    assert [(p.title, p.study.metrics) for p in pieces] == [
        ("depth", ("abs_rel",)),
        ("normals", ("mean", "median")),
        ("frozen", ("abs_rel",)),
    ]
    jobs = [j for piece in pieces for j in study.plan(piece.study, out=tmp_path / "out", title=piece.title)]
    assert [j.folder for j in jobs] == [
        *(f"depth_{arm}_2-labels_seed-0" for arm in ("random", "world", "photographs-1-2")),
        *(f"depth_{arm}_4-labels_seed-0" for arm in ("random", "photographs-1-2")),
        *(f"{part}_{arm}_2-labels_seed-0" for part in ("normals", "frozen") for arm in ("random", "photographs-1-2")),
    ]
    assert jobs[2].recipe.model.base == str(tmp_path / "out" / "pretraining_photographs-1-2" / "model")
    assert [j.recipe.loader.latent_variants for j in jobs[:5]] == [0, 0, 0, 2, 2]
    assert jobs[5].recipe.task == "normals" and jobs[7].recipe.learn.denoiser == "frozen"
    bases = study.pretrainings(plan, ["loader.cache_dir=elsewhere", "steps=9"])
    assert [(b.recipe.steps, b.recipe.loader.cache_dir.name) for b in bases] == [(2, "elsewhere")] * 3
    assert bases[2].recipe.data[0].root == given["photographs"] and bases[2].recipe.data[0].fraction == 0.5
    moved = study.plan(pieces[0].study, out=tmp_path / "moved", title="depth")
    assert moved[0].result() == jobs[0].result() != jobs[1].result()


# ---- what is refused, and what is left out ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (
            'pretrained = "world"',
            'pretrained = "wrld"',
            "arm 'world': unknown pretraining 'wrld': did you mean 'world'",
        ),
        ('arms = ["random", "photo', 'arms = ["randm", "photo', "part.arms: unknown arm 'randm'"),
        ('against = ["world"]', 'against = ["moon"]', "'moon' is no arm"),
        ('name = "normals"', 'name = "depth"', "two parts are called depth"),
        ('root = "{photographs}"', 'root = "{photos}"', "unknown folder 'photos'"),
        ('stage = "denoiser"', 'stage = "autoencoder"', "pretraining 'random'"),
    ],
)
def test_wrong_studies(file: Path, given: dict[str, Path], tmp_path: Path, old: str, new: str, says: str) -> None:
    for path in (file, file.with_name("pretraining.toml")):
        path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ValueError) as error:
        study.main(str(file), tmp_path / "out", dry_run=True, given=given)
    assert says in str(error.value) and "\n" not in str(error.value)


def test_folders_that_are_not_given(file: Path, given: dict[str, Path], tmp_path: Path, call: Call) -> None:
    words = ("study", str(file), "-o", str(tmp_path / "out"), "--dry-run")
    code, _, err = call(*words)
    assert code == 2 and len(err.splitlines()) == 1
    assert "photographs 1/2 are pretrained on photographs: give --photographs FOLDER" in err
    assert "or go without with --arms random,world" in err
    code, out, err = call(*words, "--arms", "random,world", "--seeds", "0")
    assert "without frames: no --frames FOLDER is given" in err and "depth: scored on planes" in out
    assert "pretraining random: random weights" in out and "photographs" not in out
    code, _, err = call(*words, "--photographs", str(tmp_path / "nowhere"))
    assert (code, err) == (2, f"genpercept: error: --photographs {tmp_path}/nowhere: no such folder\n")
    code, _, err = call(*words, "--photographs", str(tmp_path / "base"))  # a folder without photographs
    assert code == 2 and "neither images/ nor manifest.jsonl" in err and len(err.splitlines()) == 1
    code, _, err = call("study", "paradigms", "--dry-run", "--frames", str(given["frames"]))
    assert (code, err) == (2, "genpercept: error: --frames: study 'paradigms' reads none; leave it out\n")
    shutil.rmtree(given["frames"] / "A")
    lines = study.folders.place(study.load(file), given)[1]
    assert lines == [f"without frames: no folder {given['frames']}/A"]


# ---- running ---------------------------------------------------------------------------------------------------------


def run(out: Path, jobs: list[execute.Job]) -> None:
    """The jobs in this process, as each does its work in one of its own."""
    for each in jobs:
        (out / each.folder).mkdir(parents=True)
        files.write_text(out / each.folder / job.JOB, json.dumps(each.content()))
        assert job.run(out / each.folder) == 0, each.folder


def test_every_kind_of_run(
    file: Path, given: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Random weights, the world and photographs; depth, normals, a frozen U-Net with a DPT head; a codec of 16 channels."""
    out = tmp_path / "out"
    plan = study.folders.place(study.load(file), given)[0]
    bases = study.pretrainings(plan)
    run(out, bases)
    weights = [load_file(out / b.folder / "model/unet/diffusion_pytorch_model.safetensors") for b in bases]
    assert weights[0]["conv_in.weight"].shape[1] == 16
    change = [float((w["conv_in.weight"] - weights[0]["conv_in.weight"]).abs().max()) for w in weights]
    assert change[0] == 0 < min(change[1:]) and max(change) < 0.1  # all began at the same weights
    for piece in study._pieces(plan):
        run(out, study.plan(piece.study, out=out, title=piece.title))
    assert study.main(str(file), out, resume=True, given=given) == 0
    assert not (out / "depth_random_2-labels_seed-0" / "model").exists()
    assert (out / bases[0].folder / "model").is_dir()  # which further runs start from
    text, data = (out / "tiny.md").read_text(), json.loads((out / "tiny.json").read_text())
    assert (
        "| arm | planes (6) | frames (4 of 2 scenes) |" in text
        and "Of frames the images of a scene are averaged" in text
    )
    for said in (
        "## depth",
        "### 4 labels",
        "## normals",
        "Rough ones.",
        "**AbsRel ↓, minus that of world**",
        "## Pretraining",
    ):
        assert said in text, said
    assert "| depth: world | 2 | 2 | 4 |" in text and "![AbsRel against the number of labels" in text
    assert "Not run" not in text and str(given["frames"]) not in json.dumps(data) + text
    compare_with_scores(out, data)
    with Image.open(out / "tiny.png") as picture:
        assert len(picture.convert("RGB").getcolors(1 << 20) or []) > 10


def compare_with_scores(out: Path, data: dict[str, Any]) -> None:
    """A difference of the report is that of the runs' own figures."""

    def figures(arm: str) -> np.ndarray:
        found = files.read_json(out / f"depth_{arm}_2-labels_seed-0" / job.SCORES)["figures"]["its own steps"]["frames"]
        assert [name.split()[1] for name in found["name"]] == ["r/0", "r/1", "r/2", "s/3"]
        return np.array(found["abs_rel"])

    difference = figures("photographs-1-2") - figures("random")
    scenes = np.array([difference[:3].mean(), difference[3]])
    row = next(r for r in data["parts"][0]["rows"] if r["arm"] == "photographs 1/2" and r["labels"] == 2)
    cell = row["figures"]["frames"]["abs_rel"]
    assert cell["difference"]["value"] == pytest.approx(scenes.mean())
    assert cell["difference"]["error"] == pytest.approx(abs(scenes[0] - scenes[1]) / 2)
    assert set(cell["against"]) == {"world"}


@pytest.mark.slow
def test_one_command_and_its_resumption(file: Path, given: dict[str, Path], tmp_path: Path) -> None:
    """Processes of their own; what could not be pretrained takes its arms along, and the others count; then the rest."""
    out, own = tmp_path / "out", ["study.labels=[2]", "study.part=[{name='depth', metrics=['abs_rel']}]"]
    image = given["photographs"] / "images" / "0.jpg"
    good = image.read_bytes()
    image.write_bytes(b"no photograph")
    given["photographs"].joinpath("manifest.jsonl").write_text('{"image": "images/0.jpg", "caption": "one"}\n')
    words: dict[str, Any] = {"overrides": own, "arms": "random,photographs-1-2", "given": given, "at_once": 2}
    assert study.main(str(file), out, **words) == 1
    text = (out / "tiny.md").read_text()
    assert "Failed: pretraining_photographs-1-2 (" in text and "0.jpg" in text
    assert "Failed: depth_photographs-1-2_2-labels_seed-0 (pretraining_photographs-1-2 failed: " in text
    assert "Not run: depth_world_2-labels_seed-0." in text and "Not run: pretraining_world." in text
    kept = (out / "depth_random_2-labels_seed-0" / job.SCORES).stat().st_mtime_ns
    image.write_bytes(good)
    with pytest.raises(ValueError, match="go on with --resume"):
        study.main(str(file), out, **words)
    assert study.main(str(file), out, resume=True, **words) == 0
    assert (out / "depth_random_2-labels_seed-0" / job.SCORES).stat().st_mtime_ns == kept


# ---- the study `prior` -----------------------------------------------------------------------------------------------


def test_prior_takes_three_hours_at_most(given: dict[str, Path]) -> None:
    plan = study.load(study.find("prior", "mini"))
    bases = study.pretrainings(plan)
    jobs = [j for piece in study._pieces(plan) for j in study.plan(piece.study, title=piece.title)]
    assert {b.recipe.steps * 4 for b in bases if "quarter" in b.arm} == {
        b.recipe.steps for b in bases if b.arm == "world"
    }
    rates = plan.rates.images, plan.rates.passes
    wall = sum(execute.wall_seconds(group, *rates, at_once=2) for group in (bases, jobs))
    assert 3600 < wall <= 3 * 3600
    tuned = [j.recipe.model_dump(exclude={"seed", "model", "data", "loader"}) for j in jobs if j.part == "depth"]
    assert all(each == tuned[0] for each in tuned)  # fine-tuned alike


def test_prior_is_planned_without_frames(call: Call, tmp_path: Path) -> None:
    code, out, err = call("study", "prior", "--dry-run", "--arms", "random,world")
    assert code in (0, 3) and "without rooms and streets: no --frames FOLDER is given" in err
    assert "pretraining world: 1 x 640 steps" in out and "normals, random, 2000 labels: 2 x 500 steps" in out


# ---- normals of measured depth ---------------------------------------------------------------------------------------


def test_normals_of_a_measured_plane() -> None:
    """A wall that recedes to the right, 2 m + X / 2: it faces (1/2, 0, 1)."""
    h, w = 96, 128
    x = (np.arange(w) + 0.5 - w / 2) / (w / 2 / math.tan(math.radians(30)))
    slope = 0.5  # z = 2 + slope * X, X = x z
    depth = np.broadcast_to(2 / (1 - slope * x), (h, w)).astype(np.float32).copy()
    depth[:16] = 0
    found = real_frames.normals(depth)
    assert found is not None and found.shape == (h, w, 3) and not found[:16].any()
    known = found[(found != 0).any(-1)]
    assert len(known) == 10 * 16
    angle = np.degrees(np.arccos(np.clip(known @ np.array([slope, 0, 1]) / math.hypot(slope, 1), -1, 1)))
    assert angle.max() < 3
    assert real_frames.normals(np.where(np.arange(h)[:, None] < 50, 0, depth)) is None


def test_frames_of_a_set_that_shows_one_place(tmp_path: Path) -> None:
    """Folders say which frames are of one scene; those whose depth is dense have normals, too."""
    rows = ["name,set,scene,tier,unit"]
    for name, of, dense in (("a1", "a", True), ("a2", "a", True), ("b1", "b", False)):
        rows.append(f"{name},{of},{name},T,mm")
        Image.new("RGB", (32, 32)).save(tmp_path / f"{name}_rgb.jpg")
        millimetres = np.zeros((32, 32), np.uint16)
        millimetres[:: 1 if dense else 4] = 1500
        Image.fromarray(millimetres).save(tmp_path / f"{name}_depth.png")
    (tmp_path / "index.csv").write_text("\n".join(rows))
    assert real_frames.convert(tmp_path, tmp_path / "out", ["a"]) == {"T": 3}
    names = {
        kind: sorted(e.name for e in DATASETS.find("folder").index(tmp_path / "out" / kind, "all")) for kind in KINDS
    }
    assert names == {"T": ["a/a1", "a/a2", "b1/b1"], "T-normals": ["a/a1", "a/a2"]}
    sample = DATASETS.find("folder").load(DATASETS.find("folder").index(tmp_path / "out" / "T-normals", "all")[0])
    assert sample.normals is not None and float(sample.normals.abs().max()) == pytest.approx(1)


KINDS = ("T", "T-normals")
