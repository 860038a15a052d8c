"""docs/extend.md word for word: a stranger's package is installed beside ours, and its task does all that ours do.

The package is put on the path as pip leaves it, and every command of the page runs in a process that nobody has prepared
otherwise. What the page shows is what came out, but for numbers.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import genpercept
from tests.support.paths import ROOT

SOURCE = Path(genpercept.__file__).parent
PAGE = (ROOT / "docs" / "extend.md").read_text(encoding="utf-8")
PACKAGE = ROOT / "docs" / "extend" / "albedo"
FENCE = re.compile(r"^```(\w+)(?: ([\w./]+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)

DRIVER = """
import contextlib, io, json, runpy, sys
from pathlib import Path

def said(run, *arguments):
    sys.argv, out = list(arguments), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            run()
            code = 0
        except SystemExit as error:
            code = error.code or 0
    return code, out.getvalue()

if __name__ == "__main__":  # evaluate's workers import this file
    from genpercept.commands.cli import main

    found, (jobs, answers) = [], map(Path, sys.argv[1:])
    for program, *rest in json.loads(jobs.read_text()):
        if program == "python":
            found.append(said(lambda: runpy.run_path(rest[0], run_name="__main__"), *rest))
        else:
            found.append(said(main, program, *rest))
    answers.write_text(json.dumps(found))
"""


@dataclass(frozen=True)
class Command:
    """A command of the page, what the page says that it prints, and what it did."""

    words: tuple[str, ...]
    shown: tuple[str, ...]
    code: int = 0
    said: str = ""


def commands() -> Iterator[Command]:
    """Those of the page, in its order."""
    for language, _, text in FENCE.findall(PAGE):
        for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:] if language == "console" else ():
            line, *shown = part.replace("\\\n", " ").splitlines()
            yield Command(tuple(shlex.split(line)), tuple(shown))


def unpack(package: Path, site: Path) -> None:
    """As pip leaves it: the modules, and beside them what the package says of itself."""
    project = tomllib.loads((package / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    name, version = project["name"].replace("-", "_"), project["version"]
    shutil.copytree(package / name, site / name, ignore=shutil.ignore_patterns("__pycache__"))
    about = site / f"{name}-{version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {version}\n")
    lines = []
    for group, entries in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{key} = {value}" for key, value in entries.items())]
    (about / "entry_points.txt").write_text("\n".join(lines) + "\n")


def hashes(folder: Path) -> dict[str, str]:
    """Of every file, by its path."""
    files = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@dataclass(frozen=True)
class Home:
    """Where the stranger works: `folder`, a copy of the package, beside which it is installed in `site`."""

    folder: Path
    site: Path

    def run(self, *words: tuple[str, ...], packages: bool = True) -> list[tuple[int, str]]:
        """Commands in one process, which is quicker than one each: exit code and all that was printed."""
        jobs, answers, driver = (self.site.parent / name for name in ("jobs.json", "answers.json", "driver.py"))
        driver.write_text(DRIVER)
        jobs.write_text(json.dumps(words))
        self.python(str(driver), str(jobs), str(answers), packages=packages)
        return [(code, text) for code, text in json.loads(answers.read_text())]

    def python(self, *arguments: str, packages: bool = True) -> str:
        path = os.pathsep.join([*([str(self.site)] if packages else []), str(SOURCE.parent)])
        env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            [sys.executable, *arguments], cwd=self.folder, env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    root = tmp_path_factory.mktemp("stranger")
    made = Home(root / "albedo", root / "site")
    shutil.copytree(PACKAGE, made.folder)
    unpack(PACKAGE, made.site)
    return made


@pytest.fixture(scope="module")
def walk(home: Home) -> list[Command]:
    """All commands of the page, in its order; ours must be untouched by them."""
    before = hashes(SOURCE)
    page = [command for command in commands() if command.words[0] != "pip"]
    found = home.run(*(command.words for command in page))
    assert hashes(SOURCE) == before
    return [Command(c.words, c.shown, code, said) for c, (code, said) in zip(page, found, strict=True)]


# ---- the page ------------------------------------------------------------------------------------------------------------


def test_code_on_the_page_is_the_code_of_the_package() -> None:
    blocks = [(name, text) for _, name, text in FENCE.findall(PAGE) if name]
    for name, text in blocks:
        assert text in (PACKAGE / name).read_text(encoding="utf-8"), name
    whole = {path.relative_to(PACKAGE).as_posix() for path in (PACKAGE / "albedo_task").glob("[!_]*.py")} | {
        "albedo.toml"
    }
    assert {name for name, text in blocks if text == (PACKAGE / name).read_text(encoding="utf-8")} == whole


def test_the_page_shows_what_its_commands_print(walk: list[Command]) -> None:
    assert len(walk) > 12
    for command in walk:
        assert command.code == 0, (command.words, command.said)
        shown, said = (lines_of(text) for text in ("\n".join(command.shown), command.said))
        pattern = "\n".join(".*" if line == "..." else re.escape(line) for line in shown)
        assert re.fullmatch(pattern, "\n".join(said), re.DOTALL), (command.words, shown, said)


def lines_of(text: str) -> list[str]:
    """Lines without what differs from run to run: numbers, widths of columns, and all that is said of speed."""
    plain = (re.sub(r"-?\d[\d.,]*(e[+-]?\d+)?", "#", line) for line in text.splitlines() if "images/s" not in line)
    squeezed = (re.sub(r"─+", "─", " ".join(line.split())) for line in plain)
    return [line for line in squeezed if line]


# ---- what came of it -----------------------------------------------------------------------------------------------------


def label(home: Home, name: str) -> np.ndarray:
    """(H, W, 3) in [0, 1]."""
    return np.asarray(Image.open(home.folder / "pictures" / "albedo" / f"{name}.png")) / 255


def results(home: Home, folder: str) -> dict[str, Any]:
    """What `evaluate` found, by model or baseline."""
    found = json.loads((home.folder / folder / "results.json").read_text())["results"]
    return {one["model"]: one for one in found}


@pytest.mark.usefixtures("walk")
def test_figures_are_right_and_best_and_worst_the_right_way_round(home: Home) -> None:
    found = results(home, "evaluated")
    names = [*"abc", "chess", *"defgh"]
    truth = np.stack([label(home, name) for name in names])
    mean = truth.mean((0, 1, 2))
    for title, answer in (("grey", 0.5), ("mean colour", mean)):
        rmse = np.sqrt(np.square(truth - answer).mean((1, 2, 3)))
        assert found[f"baseline: {title}"]["figures"] == pytest.approx(
            {"rmse": rmse.mean(), "psnr": (-20 * np.log10(rmse)).mean()}, rel=1e-5
        )
    model = found["run/model"]
    rows = {one["name"]: one["figures"] for one in model["samples"]}
    values = {name: np.load(home.folder / "predicted" / f"{name}_albedo.npy") for name in names}
    for i, name in enumerate(names):
        assert rows[name]["rmse"] == pytest.approx(np.sqrt(np.square(values[name] - truth[i]).mean()), rel=1e-4)
    picked = {one["rank"]: one["name"] for one in model["examples"]}
    order = sorted(rows, key=lambda name: rows[name]["rmse"])
    assert (picked["best"], picked["median"], picked["worst"]) == (order[0], order[4], "chess")
    page = (home.folder / "evaluated" / "report.html").read_text()
    assert "worst: chess" in page and f"best: {order[0]}" in page and "RMSE ↓" in page and "PSNR ↑" in page
    assert page.count("<figure>") == 3 * 4  # image, prediction, truth, error
    assert len(results(home, "evaluated_studio")["run_studio/model"]["samples"]) == 2


def test_validation_reports_the_figures_of_the_metric(walk: list[Command], home: Home) -> None:
    for run, steps in (("run", [3, 6]), ("run_charbonnier", [2]), ("run_studio", [2])):
        rows = [json.loads(line) for line in (home.folder / run / "log.jsonl").read_text().splitlines()]
        rows = [row for row in rows if "rmse" in row]
        assert [row["step"] for row in rows] == steps
        for row in rows:
            assert 0 < row["rmse"] < 1 and np.isfinite(row["loss"]) and len(row) == 4
            if run != "run_studio":  # whose validation is the mean of two samples
                assert row["psnr"] == pytest.approx(-20 * np.log10(row["rmse"]))
    last = json.loads((home.folder / "run" / "log.jsonl").read_text().splitlines()[-1])
    assert last["rmse"] == pytest.approx(
        results(home, "evaluated")["run/model"]["samples"][-1]["figures"]["rmse"], rel=1e-3
    )


@pytest.mark.usefixtures("walk")
def test_every_format_holds_the_prediction(home: Home) -> None:
    openexr = pytest.importorskip("OpenEXR")
    stem = home.folder / "predicted" / "a_albedo"
    values = np.load(f"{stem}.npy")
    assert values.shape == (48, 64, 3) and values.dtype == np.float32 and 0 <= values.min() < values.max() <= 1
    with np.load(f"{stem}.npz") as file:
        assert str(file["kind"]) == "albedo" and (file["values"] == values).all()
    with openexr.File(f"{stem}.exr") as file:
        assert (file.channels()["RGB"].pixels == values).all()
    assert (np.asarray(Image.open(f"{stem}_color.png")) == np.rint(values * 255)).all()
    upper = np.asarray(Image.open(f"{stem}.png"))  # Pillow gives the upper byte of sixteen bits
    assert (upper == np.rint(values * 65535).astype(np.uint16) >> 8).all()
    sidecar = json.loads(Path(f"{stem}.json").read_text())
    assert sidecar["kind"] == sidecar["meta"]["task"] == "albedo" and sidecar["png"] == "value = pixel / 65535"


@pytest.mark.usefixtures("walk")
def test_the_contact_sheet_shows_the_albedo_beside_the_image(home: Home) -> None:
    page = np.asarray(Image.open(home.folder / "preview.png").convert("RGB"), float)
    tile, caption, gap = (120, 160), 14, 4
    for row, name in [*enumerate("abc"), *enumerate("defgh", 4)]:  # the fourth, too fine a pattern to resize, left out
        top = row * (tile[0] + caption + gap) + caption
        seen = page[top : top + tile[0], tile[1] + gap : 2 * tile[1] + gap].mean((0, 1))
        np.testing.assert_allclose(seen, label(home, name).mean((0, 1)) * 255, atol=1)


PROBE = """
import json, sys
from pathlib import Path
import genpercept
from genpercept.commands.demo import page, scenes
from genpercept.data import DATASETS
from genpercept.imaging.kinds import KINDS
from genpercept.metrics import score
from genpercept.tasks import listed

studio = DATASETS.find("studio").with_options(gamma=2.0)
samples = [studio.load(entry) for entry in studio.index(Path("studio"), "test")]
plain = DATASETS.find("studio").load(studio.index(Path("studio"), "test")[0])
pipe = genpercept.load("run/model")
shown = scenes.judge(pipe, samples)
answers = pipe([sample.image for sample in samples])
noisy = genpercept.GenPerceptPipeline.from_base("mini/base", "albedo", paradigm="stochastic_multi_step", resolution=64)
merged = noisy(samples[0].image, ensemble_size=2, num_inference_steps=1)
print(json.dumps({
    "gamma": float((plain.label("albedo") ** 2 - samples[0].label("albedo")).abs().max()),
    "demo": shown.line()[:5],
    "page": page._judged(shown)["title"],
    "panels": [words for _, words in shown.examples[0].panels],
    "merged": [*merged.values.shape, *merged.uncertainty.shape],
    "spread": float(merged.uncertainty.max()),
    "set": score("albedo", answers, [s.label("albedo").permute(1, 2, 0) for s in samples]),
    "listed": listed()[-1] == "intrinsics" and "albedo" in listed(),
    "kinds": list(KINDS)[-1],
}))
"""


@pytest.mark.usefixtures("walk")
def test_the_demo_ensembles_and_arrays(home: Home) -> None:
    found = json.loads(home.python("-c", PROBE).splitlines()[-1])
    task, figure, model, baseline, title = found["demo"]
    assert (task, figure, title) == ("albedo", "RMSE ↓", "mean colour") and 0 < float(baseline) < float(model) < 1
    assert found["page"] == "Albedo" and found["listed"] and found["kinds"] == "albedo" and found["gamma"] < 1e-6
    assert found["panels"][:3] == ["image, 64 x 48", "prediction", "truth, the same colours"]
    assert found["merged"] == [48, 64, 3, 48, 64] and found["spread"] > 0
    assert found["set"]["rmse"] == pytest.approx(float(model), abs=1e-3)


@pytest.mark.usefixtures("walk")
def test_a_family_of_the_package_runs_its_checkpoint_as_it_says(home: Home) -> None:
    meta = json.loads((home.folder / "inked" / "a_depth.json").read_text())["meta"]
    assert (meta["family"], meta["task"], meta["decided"]["prompt"]) == ("inkwell", "depth", "empty, not padded")
    options = meta["paradigm_options"]
    assert (options["timestep"], options["prediction_type"]) == (500, "sample")
    ask = "import genpercept; print(genpercept.load('inkwell', device='cpu').meta['family'])"
    assert home.python("-c", ask).strip() == "inkwell"
    predict = ("genpercept", "predict", "pictures/images", "--model", "inkwell", "--out", "nowhere")
    ((code, said),) = home.run(predict, packages=False)
    assert code == 2 and "could be a stock text-to-image model" in said and said.count("\n") == 1


@pytest.mark.usefixtures("walk")
def test_without_the_package_its_model_says_what_is_missing(home: Home) -> None:
    predict = ("genpercept", "predict", "pictures/images", "--model", "run/model", "--out", "nowhere")
    train = ("genpercept", "train", "albedo.toml", "--dry-run")
    (code, said), (dry, answer) = home.run(predict, train, packages=False)
    assert code == dry == 2 and "unknown task 'albedo'" in answer
    assert "or install the package that gives genpercept.tasks 'albedo'" in said and said.count("\n") == 1


@pytest.mark.usefixtures("walk")
@pytest.mark.slow
def test_several_processes_train_it(home: Home) -> None:
    ((code, said),) = home.run(
        ("genpercept", "train", "albedo.toml", "--out", "run_two", "--set", "speed.processes=2", "--set", "steps=1")
    )
    assert code == 0, said
    assert "rmse" in (home.folder / "run_two" / "log.jsonl").read_text()
