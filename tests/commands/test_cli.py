"""The command line as a user meets it: one line per mistake, exit codes, and the whole way with a real (tiny) model."""

from __future__ import annotations

import ast
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import load_file, save_file

from genpercept import commands
from genpercept.commands import cli
from genpercept.commands.doctor import run
from genpercept.commands.export.targets import TARGETS
from genpercept.core.labels import Label
from genpercept.imaging.prediction import Prediction
from tests.support.bad_images import bad_files
from tests.support.commands import Call
from tests.support.paths import GOLDEN, SD_TINY
from tests.support.strangers import Install

COMMANDS = sorted(cli.cli.commands)


def genpercept(*arguments: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    command = [sys.executable, "-m", "genpercept", *map(str, arguments)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=env, check=False)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved depth predictor with random weights."""
    from genpercept import GenPerceptPipeline

    folder = tmp_path_factory.mktemp("model") / "tiny"
    GenPerceptPipeline.from_base(GOLDEN / "sd-tiny", "depth", resolution=64).save_pretrained(folder)
    return folder


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 45, 3), np.uint8)).save(path)
    return path


# ---- help


def test_export_offers_what_there_is(call: Call) -> None:
    assert all(name in call("export", "--help")[1] for name in TARGETS.names())


def test_help_imports_nothing_heavy() -> None:
    """Its time is that of its imports, which are counted here: a quarter of a second for 287 modules on a quiet machine."""
    code = "import sys, genpercept.commands.cli as c\ntry: c.main()\nfinally: print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True, check=True)
    assert all(name in done.stdout for name in COMMANDS)
    loaded = done.stderr.split()
    assert len(loaded) < 350, len(loaded)
    large = ("genpercept.", "torch", "numpy", "PIL", "pydantic", "scipy", "diffusers", "transformers")
    heavy = [m for m in loaded if m.startswith(large) and not m.startswith(("genpercept.commands", "genpercept.core"))]
    assert heavy == []


@pytest.mark.parametrize("words", [*([name] for name in COMMANDS), *(["data", name] for name in cli.data.commands)])
def test_every_command_has_help(words: list[str]) -> None:
    result = CliRunner().invoke(cli.cli, [*words, "--help"])
    assert result.exit_code == 0 and ("--debug" in result.output or words == ["data"])


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_declared_in_its_folder(name: str) -> None:
    module = importlib.import_module(f"genpercept.commands.{name}.options")
    assert getattr(module, name) is cli.cli.commands[name]


def test_an_option_of_several_commands_is_declared_once() -> None:
    """Its names are written in one file only: shared_options.py, or that of the one command that has it."""
    homes: dict[str, set[str]] = {}
    for path in sorted(Path(commands.__file__).parent.rglob("*options.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("click.option", "_shared"):
                names = [ast.literal_eval(a) for a in node.args if isinstance(a, ast.Constant)]
                for name in names:
                    if name.startswith("--"):
                        homes.setdefault(name, set()).add(str(path))
    assert len(homes) > 60
    assert {name: paths for name, paths in homes.items() if len(paths) > 1} == {}


def test_version() -> None:
    assert "genpercept, version" in CliRunner().invoke(cli.cli, ["--version"]).output


# ---- mistakes: one line, exit code 2


def one_line(result: tuple[int, str, str], *says: str) -> None:
    code, out, err = result
    assert code == 2 and out == ""
    assert err.startswith("genpercept: error: ") and err.count("\n") == 1, err
    assert all(s in err for s in says), err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["predct"], "'predict'"),
        (["predict"], "INPUT"),
        (["predict", "x.jpg"], "--out"),
        (["predict", "x.jpg", "--out", "o", "--formt", "png"], "--format"),
        (["predict", "x.jpg", "--out", "o", "--batch-size", "0"], "--batch-size"),
        (["predict", "x.jpg", "--out", "o", "--dtype", "int8"], "--dtype"),
        (["predict", "x.jpg", "--out", "o", "--format", "jpeg"], "unknown output format 'jpeg'"),
        (["predict", "x.jpg", "--out", "o", "--format", ","], "no output format"),
        (["predict", "x.jpg", "--out", "o", "--task", "dept"], "did you mean 'depth'"),
        (["predict", "missing.jpg", "--out", "o"], "missing.jpg: no such file"),
        (["predict", "*.nothing", "--out", "o"], "matches no file"),
        (["predict", "missing.jpg", "--out", "/proc/o"], "cannot be written to"),
        (["score", "dept", "--pred", "a", "--gt", "b"], "dept"),
        (["score", "depth", "--pred", "a.npy", "--gt", "b.npy"], "a.npy"),
        (["train", "missing.toml", "--out", "r"], "missing.toml"),
        (["train", "missing.toml"], "--out RUN is missing"),
        (["train"], "Missing argument 'RECIPE'"),
        (["train", "--set", "steps=1", "--explain"], "Missing argument 'RECIPE'"),
        (["train", "--explain", "optim.lrr"], "optim.lrr: unknown key; did you mean 'lr'?"),
        (["train", "--explain", "missing.toml"], "missing.toml: no such recipe"),
        (["inspect", "nothing/here/at/all"], "no such folder"),
        (["export", "mini/depth", "--out", "o"], "--to"),
        (["export", "mini/depth", "--to", "diffusrs", "--out", "o"], "diffusers"),
        (["export", "mini/depth", "--to", "diffusers", "--out", "o"], "0.18215 is fixed in the family's own code"),
    ],
)
def test_mistakes(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: Sequence[str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    one_line(call(*arguments), says)


@pytest.mark.parametrize("name", ["text.jpg", "cut.jpg", "huge.png", "empty.png", "zero.png", "header.png"])
def test_bad_images(call: Call, tmp_path: Path, name: str) -> None:
    one_line(call("predict", bad_files(tmp_path)[name], "--out", tmp_path / "o"), name)


def test_empty_folder_and_unusable_output(call: Call, tmp_path: Path, photo: Path) -> None:
    (tmp_path / "empty").mkdir()
    one_line(call("predict", tmp_path / "empty", "--out", tmp_path / "o"), "without images")
    (notes := tmp_path / "notes").write_text("mine")
    one_line(call("predict", photo, "--out", notes), "is a file")
    one_line(call("predict", photo, "--out", notes / "below"), "below one")
    one_line(call("predict", photo, "--out", photo), photo.name)
    assert notes.read_text() == "mine"


def test_debug_shows_the_traceback(photo: Path) -> None:
    result = genpercept("predict", photo, "--out", photo, "--debug")
    assert result.returncode != 0 and "Traceback" in result.stderr
    result = genpercept("predict", photo, "--out", photo)
    assert result.returncode == 2 and "Traceback" not in result.stderr and result.stderr.count("\n") == 1


def test_a_package_of_an_extra_is_named(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(**_: object) -> int:
        raise ModuleNotFoundError("No module named 'numba'", name="numba.core")

    monkeypatch.setattr(run, "main", lacking)
    one_line(call("doctor"), "pip install 'genpercept[synthetic]'")


def test_interrupt(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(**_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "main", interrupted)
    code, out, err = call("doctor")
    assert (code, out, err.strip()) == (130, "", "genpercept: interrupted")


# ---- damaged models


def _damage(folder: Path, how: str) -> None:
    path = next((folder / "unet").glob("*.safetensors"))
    tensors = load_file(path)
    name = sorted(tensors)[0]
    if how == "missing":
        del tensors[name]
    elif how == "renamed":
        tensors["other"] = tensors.pop(name)
    elif how == "misshaped":
        tensors[name] = torch.zeros(3, 5, 7)
    else:
        tensors[name] = torch.full_like(tensors[name], float("nan"))
    save_file(tensors, path)


@pytest.mark.parametrize("how", ["missing", "renamed", "misshaped", "nan"])
def test_damaged_models(call: Call, tmp_path: Path, photo: Path, model: Path, how: str) -> None:
    shutil.copytree(model, tmp_path / "m")
    _damage(tmp_path / "m", how)
    one_line(call("predict", photo, "--model", tmp_path / "m", "--out", tmp_path / "o"))
    assert not list((tmp_path / "o").iterdir())


def test_no_such_model(call: Call, tmp_path: Path, photo: Path) -> None:
    for name in ("mini/dept", "nobody/nothing", tmp_path / "none"):
        one_line(call("predict", photo, "--model", name, "--out", tmp_path / "o"), str(name))


# ---- the whole way with a real pipeline


def test_predict_with_a_real_model(tmp_path: Path, photo: Path, model: Path) -> None:
    out = tmp_path / "o"
    bad = bad_files(tmp_path)["cut.jpg"]
    result = genpercept("predict", photo, bad, "--model", model, "--out", out, "--format", "png,npz", "--device", "cpu")
    assert result.returncode == 1 and "cut.jpg" in result.stderr and "1 failed" in result.stderr
    assert sorted(p.name for p in out.iterdir()) == ["photo_depth.json", "photo_depth.npz", "photo_depth.png"]
    prediction = Prediction.load(out / "photo_depth.npz")
    assert prediction.values.shape == (30, 45) and prediction.kind == "depth_affine"
    sidecar = json.loads((out / "photo_depth.json").read_text())
    assert sidecar["meta"]["steps"] == 1 and len(sidecar["meta"]["model_sha256"]) == 64


def test_predict_options_with_a_real_model(call: Call, tmp_path: Path, photo: Path, model: Path) -> None:
    Image.new("L", (1, 1)).save(tmp_path / "dot.png")
    common = ("predict", photo, tmp_path / "dot.png", "--model", model, "--device", "cpu", "--format", "npy")
    assert call(*common, "--out", tmp_path / "a")[0] == 0
    assert call(*common, "--out", tmp_path / "b", "--batch-size", "2", "--vae-slicing", "--vae-tiling")[0] == 0
    assert call(*common, "--out", tmp_path / "c", "--processing-resolution", "0", "--dtype", "bf16")[0] == 0
    for name in ("photo_depth.npy", "dot_depth.npy"):
        a, b, c = (np.load(tmp_path / x / name) for x in "abc")
        np.testing.assert_allclose(a, b, atol=1e-5)
        assert a.shape == c.shape
    code, _, err = call(*common, "--out", tmp_path / "a", "--resume")
    assert code == 0 and "2 done before" in err
    one_line(call(*common, "--out", tmp_path / "d", "--ensemble-size", "3"), "ensemble")
    one_line(call(*common, "--out", tmp_path / "d", "--offload"), "--offload")


def test_predict_steps_and_ensembles(call: Call, tmp_path: Path, photo: Path) -> None:
    """A model that starts from noise: steps, runs and seed matter; the uncertainty is written; nonsense is refused."""
    from genpercept import GenPerceptPipeline

    golden = SD_TINY
    pipe = GenPerceptPipeline.from_base(golden, "depth", paradigm="stochastic_multi_step", resolution=32)
    pipe.save_pretrained(tmp_path / "m")
    common = ("predict", photo, "--model", tmp_path / "m", "--device", "cpu", "--format", "npy")
    runs = {"a": ("--seed", "3"), "b": ("--seed", "3"), "c": ("--seed", "4"), "d": ("--seed", "3", "--steps", "2")}
    runs["e"] = ("--seed", "3", "--ensemble-size", "3", "--batch-size", "2")
    for name, more in runs.items():
        steps = () if "--steps" in more else ("--steps", "3")
        assert call(*common, *steps, *more, "--out", tmp_path / name)[0] == 0
    a, b, *others = (np.load(tmp_path / name / "photo_depth.npy") for name in runs)
    np.testing.assert_array_equal(a, b)
    assert all(np.abs(a - other).max() > 1e-3 for other in others)
    spread = np.load(tmp_path / "e" / "photo_depth_uncertainty.npy")
    assert spread.shape == a.shape and spread.min() >= 0 and spread.max() > 0
    sidecar = json.loads((tmp_path / "e" / "photo_depth.json").read_text())
    assert sidecar["files"]["uncertainty"] == "photo_depth_uncertainty.npy"
    assert sidecar["meta"]["steps"] == 3 and sidecar["meta"]["ensemble_size"] == 3 and sidecar["meta"]["seed"] == 3
    one_line(call(*common, "--out", tmp_path / "f", "--steps", "1001"), "between 1 and 1000")


def test_predictions_can_be_scored(call: Call, tmp_path: Path, photo: Path, model: Path) -> None:
    assert call("predict", photo, "--model", model, "--out", tmp_path / "p", "--format", "npy")[0] == 0
    values = np.load(tmp_path / "p" / "photo_depth.npy")
    (tmp_path / "gt").mkdir()
    np.save(tmp_path / "gt" / "photo.npy", values * 3 + 2)
    code, out, err = call("score", "depth", "--pred", tmp_path / "p", "--gt", tmp_path / "gt", "--max-depth", "10")
    assert code == 0, err
    assert json.loads(out)["abs_rel"] == pytest.approx(0, abs=1e-4)


# ---- inspect, export, pickles


def test_pickles_on_the_command_line(call: Call, tmp_path: Path, photo: Path, model: Path) -> None:
    """Refused by predict and inspect until --allow-pickle."""
    from genpercept.checkpoints import parts

    shutil.copytree(model, tmp_path / "m")
    weights = next((tmp_path / "m" / "unet").glob("*.safetensors"))
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()
    manifest = json.loads((tmp_path / "m" / "genpercept.json").read_text())
    manifest["parts"]["unet"]["sha256"] = parts.sha256(tmp_path / "m" / "unet", allow_pickle=True)
    (tmp_path / "m" / "genpercept.json").write_text(json.dumps(manifest))
    predict = ("predict", photo, "--model", tmp_path / "m", "--out", tmp_path / "o", "--device", "cpu")
    one_line(call(*predict), "--allow-pickle")
    assert call(*predict, "--allow-pickle")[0] == 0
    code, out, _ = call("inspect", tmp_path / "m")
    assert code == 1 and "--allow-pickle" in out
    assert call("inspect", tmp_path / "m", "--allow-pickle")[0] == 0


# ---- train --explain


def test_explain_needs_no_recipe_and_takes_one(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text('stage = "autoencoder"\n[optim]\nlr = 1e-3\n')
    code, out, err = call("train", "--explain", "optim.lr")
    assert (code, err) == (0, "") and out.startswith("optim.lr: number above 0; default 0.0001\n")
    for words in ((path, "--explain", "optim.lr"), ("--explain", "optim.lr", "--set", "optim.lr=0.001", path)):
        assert "default 0.0001; here 0.001\n" in call("train", *words)[1]
    whole = call("train", path, "--explain")[1]
    assert "optim.lr: " in whole and "guard.limit: " in whole
    assert call("train", "--explain", path)[1] == whole
    assert call("train", "--explain")[1] == re.sub("; here .*", "", whole)


def test_explain_is_light() -> None:
    code = "import sys, genpercept.training.recipe_reference as r; r.explain('optim'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---- doctor


def test_doctor(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, _ = call("doctor", "--device", "cpu")
    assert code in (0, 1)
    for word in ("torch", "diffusers", "numpy", "device", "memory", "threads", "bf16", "embedded models", "OpenEXR"):
        assert word in out
    assert "a matrix product" in out
    assert re.search(r"works, matrix products at \d+\.\d x the speed of float32|not on this device", out)
    monkeypatch.setenv("GENPERCEPT_BASE", "/nowhere/at/all")
    code, out, _ = call("doctor", "--device", "cuda:99")
    assert code == 1 and "cuda:99" in out and "/nowhere/at/all: no such folder" in out and "!! device" in out


def test_doctor_without_embedded_models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from genpercept.checkpoints import hub

    monkeypatch.setattr(hub, "embedded_root", lambda: tmp_path)
    lines = {line.name: line for line in run._models()}
    assert lines["embedded models"].problem


def test_doctor_says_what_other_packages_add_and_what_is_wrong_with_it(install: Install) -> None:
    good, row = SimpleNamespace(load=None, model="m", name="finder"), Label("glow", "emitted light")
    bad, hidden = SimpleNamespace(name="other"), Label("depth", "metres")
    install(
        {
            "genpercept.detectors": {"finder": good, "other": bad},
            "genpercept.labels": {"glow": row, "depth": hidden},
            "genpercept.detector": {"lost": good},
        }
    )
    *problems, summary = run._additions()
    assert summary.text == (
        "adds detector finder, detector other, label glow, label depth (not used: the name is ours)"
    )
    assert all(line.problem for line in problems) and not summary.problem
    said = sorted(line.text for line in problems)
    where = "detector 'other' of the package (unknown) (stranger:detectors_other)"
    what = "a SimpleNamespace without load, model; genpercept.models.detectors.DetectorPlugin says what they are"
    assert said[0] == f"{where}: {what}"
    assert said[1:] == ["genpercept.detector 'lost': nobody reads this group; did you mean 'genpercept.detectors'?"]


def test_a_task_without_an_embedded_model_asks_for_one(call: Call, photo: Path, tmp_path: Path) -> None:
    for command in (("predict", photo), ("evaluate", "--dataset", "synthetic")):
        result = call(*command, "--task", "intrinsics", "--out", tmp_path / "o")
        one_line(result, "task 'intrinsics' has no embedded model: name one by its folder or hub id (--model)")
