"""Sets that are scored during a run, and the model that is best by one of their figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genpercept.commands.evaluate import run
from genpercept.training import loop
from genpercept.training import recipe as recipes
from genpercept.training.loop import Training
from genpercept.training.run import judging
from genpercept.training.run.judging import Judge
from genpercept.training.run.state import State
from tests.support.paths import SD_TINY
from tests.support.planes import planes

SIZE = (32, 40)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planes(tmp_path_factory.mktemp("data"), 5, SIZE)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of another size than what is trained on."""
    return planes(tmp_path_factory.mktemp("other"), 3, (48, 28))


def table(data: Path, sets: list[dict[str, Any]], best: str = "", **further: Any) -> dict[str, Any]:
    scored = [{"name": "folder", "split": "all"} | one for one in sets]
    validation = {"every": 1, "split": "all", "count": 2, "pictures": 1, "sets": scored, "best": best}
    return {
        "stage": "finetune",
        "steps": 3,
        "model": {"base": str(SD_TINY)},
        "loss": {"latent": 1.0},
        "data": [{"name": "folder", "root": str(data), "split": "all", "size": SIZE}],
        "validation": validation,
        "loader": {"batch_size": 2, "prefetch": 1},
        "optim": {"lr": 3e-2, "warmup": 0, "decay": "constant"},
        "ema": {"decay": 0.0},
        "checkpoint": {"every": 0},
        "speed": {"threads": 1},
        "logging": {"tensorboard": False},
    } | further


@pytest.mark.parametrize(("best", "pick"), [("other/delta1", max), ("own/abs_rel", min)])
def test_the_best_model_is_the_one_of_this_figure(
    data: Path, other: Path, tmp_path: Path, best: str, pick: Any
) -> None:
    """Of two sets, whichever way is better; scored once more as a user would, `best` has the figure that the run told."""
    sets = [{"root": str(data), "title": "own", "count": 2}, {"root": str(other), "title": "other"}]
    training = Training(recipes.parse(table(data, sets, best)), tmp_path / "run", False)
    assert training.run() == 0
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert {"loss", "abs_rel", "own/abs_rel", "own/delta1", "other/abs_rel", "other/delta1"} <= rows[0].keys()
    wanted = pick(row[best] for row in rows)
    assert training.state.best == wanted and training.state.best_by == best
    root, count = (other, 3) if best.startswith("other") else (data, 2)
    model = str(tmp_path / "run" / "best")
    spec = {"workers": 0, "device": "cpu", "count": count}
    assert run.main([model], [f"folder={root}"], tmp_path / "scored", **spec) == 0
    (result,) = json.loads((tmp_path / "scored" / "results.json").read_text())["results"]
    assert result["figures"][best.partition("/")[2]] == pytest.approx(wanted, rel=1e-4)


def judge(data: Path, best: str) -> Judge:
    return Judge(recipes.parse(table(data, [{"root": str(data), "title": "s"}], best)), lambda line: None)


def test_better_is_what_the_metric_says(data: Path) -> None:
    less, more = judge(data, "s/abs_rel"), judge(data, "s/delta1")
    before = State(best=0.5, best_by="s/abs_rel")
    assert less.better({"s/abs_rel": 0.4}, before) and not less.better({"s/abs_rel": 0.6}, before)
    assert more.better({"s/delta1": 0.1}, before)  # of another figure: no comparison
    before = State(best=0.5, best_by="s/delta1")
    assert more.better({"s/delta1": 0.6}, before) and not more.better({"s/delta1": 0.4}, before)
    assert more.better({"s/delta1": 0.0}, State()) and not more.better({"s/delta1": float("nan")}, State())
    assert judge(data, "").figure == "loss" and judge(data, "delta1").better({"delta1": 0.6}, State(best=0.5))


def test_the_figures_of_each_stage(data: Path) -> None:
    codec = recipes.parse({"stage": "autoencoder", "autoencoder": {"paint": {"depth": 0.1}}})
    assert judging.figures(codec) == {"psnr": True, "psnr_depth": True}
    assert judging.figures(recipes.parse({"stage": "distil", "model": {"base": "b"}})) == {"loss": False, "snr": True}
    found = judging.figures(recipes.parse(table(data, [])))
    assert next(iter(found)) == "loss" and found["delta1"] and not found["abs_rel"]


@pytest.mark.parametrize(
    ("sets", "further", "says"),
    [
        (
            [{"root": "R"}],
            {"best": "folder/absrel"},
            "validation.best 'folder/absrel': no figure of this run; choose one of",
        ),
        ([{"root": "R"}, {"root": "R"}], {}, "validation.sets: two are called folder; give each a title of its own"),
        (
            [{"root": "R", "weight": 2}],
            {},
            "validation.sets.0: weight: nothing is trained on folder, which is only scored",
        ),
        ([{"root": "nowhere"}], {}, "validation.sets 'folder': "),
        ([{"name": "diode", "split": "nowhere"}], {}, "validation.sets 'mixed': unknown split of data set 'diode'"),
        (
            [{"name": "coco_keypoints", "split": "val", "title": "people"}],
            {},
            "has no depth, which task 'depth' needs",
        ),
        ([{"root": "R", "protocol": "nyuu"}], {}, "unknown protocol 'nyuu': did you mean 'nyu'?"),
        ([{"root": "R"}], {"stage": "autoencoder", "model": {}}, "stage 'autoencoder' trains nothing that predicts"),
    ],
)
def test_what_can_never_be_scored_is_refused_at_the_start(
    data: Path, tmp_path: Path, sets: list[dict[str, Any]], further: dict[str, Any], says: str
) -> None:
    sets = [one | {"root": str(data)} if one.get("root") == "R" else one for one in sets]
    best = further.pop("best", "") if "best" in further else ""
    with pytest.raises(ValueError) as error:
        Judge(recipes.parse(table(data, sets, best, **further)), lambda line: None)
    assert says in str(error.value) and "\n" not in str(error.value)


def test_a_set_without_the_label_is_refused_at_the_start(data: Path, tmp_path: Path) -> None:
    """A folder's labels are known from its files alone."""
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "0.png").write_bytes((data / "images" / "0.png").read_bytes())
    with pytest.raises(ValueError, match=r"validation.sets 'folder': .*depth"):
        Judge(recipes.parse(table(data, [{"root": str(tmp_path)}])), lambda line: None)


def test_a_dry_run_knows_them(data: Path, tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text(f'stage = "finetune"\nmodel = {{ base = "{SD_TINY}" }}\n[validation]\nbest = "nyu/abs_rel"\n')
    with pytest.raises(ValueError, match=r"validation.best 'nyu/abs_rel': no figure of this run"):
        loop.main(path, [], tmp_path / "run", dry_run=True)
    good = f'validation.sets=[{{name = "folder", root = "{data}", split = "all", title = "nyu"}}]'
    assert loop.main(path, [good], tmp_path / "run", dry_run=True) == 0


def test_samples_go_through_at_most_so_many_at_once(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order and all of them, whatever the number."""
    from genpercept.training.stages.finetune import FinetuneStage

    recipe = recipes.parse(table(data, [{"root": str(data)}]))
    stage = FinetuneStage(recipe, lambda line: None)
    seen: list[int] = []
    encoder: Any = stage.net.get_submodule("vae.encoder")
    encoder.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    judged = Judge(recipe, lambda line: None)
    found = [judged.score(stage, at_once) for at_once in (5, 2)]
    assert seen == [5, 2, 2, 1] and np.isfinite(list(found[0].values())).all()
    assert found[0] == pytest.approx(found[1], rel=1e-4)
