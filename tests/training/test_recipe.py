"""Recipes: what is wrong is said in one line, with the file's name; what is right comes out whole."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from genpercept.commands.study import plan as study
from genpercept.tasks import TASKS
from genpercept.training import loop, recipe, recipe_reference
from genpercept.training.dry_run import LACKING, plan
from genpercept.training.networks import predictor
from genpercept.training.recipe import Recipe
from genpercept.training.recipe_fields import Distil
from tests.support.paths import RECIPES, ROOT
from tests.support.strangers import Install


def write(folder: Path, text: str) -> Path:
    path = folder / "r.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('stage = "autoencoder"\n[optim]\nlearning_rate = 1', "optim.learning_rate: unknown key"),
        ('stage = "autoencoder"\nstep = 5', "did you mean 'steps'?"),
        ('stage = "autoencoder"\n[[data]]\ncont = 5', "data.0.cont: unknown key; did you mean 'count'?"),
        ('stage = "autoencoder"\n[optim]\nlr = -1', "optim.lr:"),
        ('stage = "autoencodr"', "stage:"),
        ("steps = 5", "stage:"),
        ('stage = "one_step"', "model.codec"),
        ('stage = "one_step"\nmodel = {codec = "x"}', "model.base"),
        ('stage = "denoiser"', "model.codec"),
        ('stage = "autoencoder"\ndata = []', "data:"),
        ('stage = "autoencoder"\nloss = {l1 = -1}', "loss:"),
        ('stage = "finetune"\n[learn]\ndenoiser = "some"\n[model]\nbase = "b"', "learn.denoiser:"),
        ('stage = "finetune"\n[prompt]\nkind = "fixed"\n[model]\nbase = "b"', "a text go together"),
        ('stage = "finetune"\n[prompt]\ntexts = ["a"]\n[model]\nbase = "b"', "prompt.texts"),
        ('stage = "autoencoder"\n[[data]]\nsizes = [[8, 8]]', "one_set_per_batch"),
        ("stage = ", "not a TOML file"),
        ('stage = "autoencoder"\noptim = {accumulation = 2}\nloader = {micro_batch = 4}', "leave it out beside"),
        ('stage = "autoencoder"\noptim = {accumulation = 0}', "optim.accumulation 0: leave it out"),
    ],
)
def test_errors(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ValueError) as error:
        recipe.load(write(tmp_path, text))
    assert says in str(error.value) and "r.toml" in str(error.value) and "\n" not in str(error.value).strip()


def test_older_keys(tmp_path: Path) -> None:
    text = 'stage = "one_step"\n[model]\nbase = "b"\ninit = "scratch"\ntrain_decoder = true'
    r = recipe.load(write(tmp_path, text))
    assert (r.stage, r.learn.denoiser, r.learn.decoder) == ("finetune", "scratch", "finetune")
    assert recipe.load(write(tmp_path, text), ["learn.decoder=scratch"]).learn.decoder == "scratch"


@pytest.mark.parametrize(
    ("text", "batch", "micro"),
    [
        ("[loader]\nbatch_size = 4\n[optim]\naccumulation = 8", 32, 4),
        ("[loader]\nbatch_size = 32\n[optim]\naccumulation = 1", 32, 0),  # as every run before wrote it
        ("[optim]\naccumulation = 2", 32, 16),
        ("[loader]\nbatch_size = 32\nmicro_batch = 4\n[optim]\naccumulation = 1", 32, 4),
    ],
)
def test_batches_of_older_recipes(tmp_path: Path, text: str, batch: int, micro: int) -> None:
    """optim.accumulation counted batches of loader.batch_size; what is saved again has today's keys."""
    r = recipe.load(write(tmp_path, f'stage = "autoencoder"\n{text}'))
    assert (r.loader.batch_size, r.loader.micro_batch) == (batch, micro)
    assert "accumulation" not in r.resolved()["optim"] and recipe.parse(r.resolved()) == r


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such recipe"):
        recipe.load(tmp_path / "none.toml")


def test_overrides(tmp_path: Path) -> None:
    path = write(tmp_path, 'stage = "autoencoder"\n[[data]]\ncount = 5\n')
    r = recipe.load(
        path, ["optim.lr=2e-3", "data.0.count=7", "name=a run", "loss={l1 = 2}", "augment.sizes=[[64, 96]]"]
    )
    assert r.optim.lr == 2e-3 and r.data[0].count == 7 and r.name == "a run" and r.loss == {"l1": 2}
    assert r.sizes() == ((64, 96),)


@pytest.mark.parametrize("text", ["optim.lr", "=3", "data.5.count=1", "steps.x=1", "optim.lrr=1", "data.count=3"])
def test_bad_overrides(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError, match=r"--set|unknown key"):
        recipe.load(write(tmp_path, 'stage = "autoencoder"\nsteps = 3\n[[data]]\ncount = 5\n'), [text])


# ---- what each key means


def keys() -> dict[str, recipe_reference.Key]:
    return {key.name: key for group in recipe_reference.groups() for key in group.keys}


def test_every_key_is_described() -> None:
    """A sentence for each key and section, and no key of a recipe is forgotten."""
    assert [g.name for g in recipe_reference.groups() if not g.about.endswith(".")] == []
    assert [name for name, key in keys().items() if not key.meaning.endswith((".", '".'))] == []
    table = recipe.parse({"stage": "autoencoder", "validation": {"sets": [{}]}}).resolved()
    table["data"] = table["data"][0]
    held_out = table["validation"].pop("sets")[0]
    sections = {group.name for group in recipe_reference.groups()} - {"", "validation.sets"}
    assert sections == {name for name, info in Recipe.model_fields.items() if recipe.section_of(info.annotation)}
    known = {f"{s}.{key}" for s in sections for key in table[s]} | (table.keys() - sections)
    assert keys().keys() == known | {f"validation.sets.{key}" for key in held_out.keys() - {"weight", "sizes"}}


def test_the_page_on_training_has_every_key_of_distil_and_who_reads_it() -> None:
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    told = dict(re.findall(r"^\| `distil\.(\w+)` \| ([\w, ]+) \|", page, re.MULTILINE))
    assert told == {key: ", ".join(recipe._DISTIL_KEYS.get(key, ("all",))) for key in Distil.model_fields}


@pytest.mark.parametrize(
    ("name", "takes", "default"),
    [
        ("stage", "one of autoencoder, denoiser, finetune, distil", "must be given"),
        ("optim.lr", "number above 0", "0.0001"),
        ("optim.final", "number above 0, at most 1", "0.01"),
        ("ema.decay", "number at least 0, below 1", "0.999"),
        ("augment.flip", "number from 0 to 1", "0.5"),
        ("denoiser.variants", "integer from 1 to 2", "2"),
        ("distil.channels", "one of 0, 1, 3", "0"),
        ("data.having", "text", '""'),
        ("data.sizes", "list of pairs of integers", "[]"),
        ("data.root", "path", "none"),
        ("logging.trackers", "list of wandb, trackio", "[]"),
        ("loss_options", "table of tables", "{}"),
        ("autoencoder.paint", "table of numbers", "{ depth = 0.12, disparity = 0.08, normals = 0.15, mask = 0.05 }"),
        ("loader.cache", "true or false", "true"),
    ],
)
def test_types_ranges_and_defaults_in_words(name: str, takes: str, default: str) -> None:
    assert (keys()[name].takes, keys()[name].default) == (takes, default)


def _placed(name: str) -> str:
    """The key in the first table of its section, where there may be several."""
    return name.replace("data.", "data.0.").replace("sets.", "sets.0.")


def test_defaults_in_words_are_the_defaults() -> None:
    """Read as TOML they make the recipe that has none of them."""
    plain = recipe.parse({"stage": "autoencoder", "data": [{}], "validation": {"sets": [{}]}})
    table: dict[str, Any] = {"stage": "autoencoder", "data": [{}], "validation": {"sets": [{}]}}
    for name, key in keys().items():
        if name not in ("stage", "data.root", "validation.sets.root", "loader.cache_dir"):
            recipe.override(table, f"{_placed(name)}={key.default}")
    assert recipe.parse(table) == plain


def test_bounds_in_words_are_the_bounds() -> None:
    """What lies just outside is refused, by the key's name."""
    checked = 0
    for name, key in keys().items():
        for word, outside in (
            ("at least ", -1),
            ("from ", -1),
            ("above ", 0),
            ("at most ", 1),
            ("below ", 0),
            (" to ", 1),
        ):
            if word in key.takes and not key.takes.startswith(("one of", "list", "pair")):
                bound = float(key.takes.partition(word)[2].split(",")[0].split(" ")[0])
                value = type(tomllib.loads(f"x = {key.default}")["x"])(bound + outside)
                table: dict[str, Any] = {"stage": "autoencoder", "data": [{}], "validation": {"sets": [{}]}}
                recipe.override(table, f"{_placed(name)}={value}")
                with pytest.raises(ValueError, match=rf"{re.escape(_placed(name))}: .*than"):
                    recipe.parse(table)
                checked += 1
    assert checked > 50


def test_explain() -> None:
    one = recipe_reference.explain("optim.lr")
    assert one == (
        "optim.lr: number above 0; default 0.0001\n"
        "    Learning rate of the denoiser, its adapters, or whatever else the stage trains."
    )
    section = recipe_reference.explain("optim")
    assert section.startswith("[optim] The optimiser") and one in section and "ema." not in section
    whole = recipe_reference.explain()
    assert section in whole and all(f"\n{name}: " in whole for name in keys())
    assert recipe_reference.explain("data.0.count") == recipe_reference.explain("data.count")
    assert recipe_reference.explain("loss.l1") == recipe_reference.explain("loss")
    assert f"Names: {', '.join(TASKS.names())}." in recipe_reference.explain("task")
    assert max(map(len, recipe_reference.explain("loader").splitlines())) <= 120


def test_explain_shows_what_a_recipe_has(tmp_path: Path) -> None:
    path = write(tmp_path, 'stage = "autoencoder"\n[optim]\nlr = 1e-3\n[[data]]\ncount = 5\n[[data]]\ncount = 7')
    assert "default 0.0001; here 0.001\n" in recipe_reference.explain("optim.lr", path)
    assert "here 0.5\n" in recipe_reference.explain("optim.lr", path, ["optim.lr=0.5"])
    assert "here 5, 7\n" in recipe_reference.explain("data.count", path)
    assert 'here "autoencoder"\n' in recipe_reference.explain("", path)


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("optim.lrr", "optim.lrr: unknown key; did you mean 'lr'?"),
        ("optin", "optin: unknown key; did you mean 'optim'?"),
        ("lr", "lr: unknown key; did you mean 'optim.lr'?"),
        ("steps.x", "steps.x: unknown key; did you mean"),
        ("every", "'validation.every' or 'checkpoint.every' or 'logging.every'?"),
        ("nothing.at.all", "nothing.at.all: unknown key; choose one of stage, name"),
    ],
)
def test_an_unknown_key_is_not_explained(key: str, says: str) -> None:
    with pytest.raises(ValueError) as error:
        recipe_reference.explain(key)
    assert says in str(error.value)


def test_the_documentation_is_what_the_recipe_says() -> None:
    """`python -m genpercept.training.recipe_reference docs/recipe.md` makes it so."""
    assert (ROOT / "docs/recipe.md").read_text(encoding="utf-8") == recipe_reference.markdown()


# ---- dry runs, and the recipes of the repository


def test_dry_run_prints_the_resolved_recipe_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, 'stage = "autoencoder"\n')
    assert loop.main(path, ["steps=7"], tmp_path / "run", dry_run=True) == 0
    out = capsys.readouterr().out
    end = out.index("\n}\n") + 2
    assert json.loads(out[:end])["steps"] == 7
    assert "parameters" in out[end:] and "images" in out[end:]
    assert not (tmp_path / "run").exists()


OURS = [p for p in sorted(RECIPES.rglob("*.toml")) if "studies" not in p.parts]
STUDIES = [p for p in sorted((RECIPES / "studies").rglob("*.toml")) if p.parent.name != "suites"]


@pytest.mark.parametrize("path", OURS, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_recipes_of_the_repository(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert loop.main(path, [], path.parent / "unused", dry_run=True) in (0, LACKING)  # data and bases are not here
    out = capsys.readouterr().out
    name = json.loads(out[: out.index("\n}\n") + 2])["name"]
    assert "stage" in out and name == (f"paper/{path.stem}" if path.parent.name == "paper" else name)


def test_dry_run_counts_the_head_that_would_learn(capsys: pytest.CaptureFixture[str]) -> None:
    path = RECIPES / "mini" / "anomaly.toml"
    head = "model.head_config={ fusion_hidden_size = 16 }"
    for given in ([], [head]):
        assert loop.main(path, given, path.parent / "unused", dry_run=True) == 0
    counts = [line.rpartition("head ")[2] for line in capsys.readouterr().out.splitlines() if "parameters:" in line]
    assert counts[0] == "229,137" and int(counts[1].replace(",", "")) < 150_000


def test_dry_run_refuses_a_head_the_task_cannot_use() -> None:
    path = RECIPES / "mini" / "depth_dpt.toml"
    with pytest.raises(ValueError, match=r"model\.head 'keypoints' gives .* but task depth takes"):
        loop.main(path, ["model.head=keypoints", "model.head_config={}"], path.parent / "unused", dry_run=True)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"data.0.name": "hypersm"}, "unknown data set 'hypersm': did you mean 'hypersim'"),
        (
            {"data.0.name": "dis5k", "data.0.options": "{}"},
            "data set 'dis5k' has no depth, which task 'depth' needs; it provides mask",
        ),
        ({"data.0.options": '{label = "depth"}'}, "unknown option of data set 'hypersim' 'label'"),
        ({"data.1.split": "test"}, "unknown split of data set 'vkitti2' 'test': choose one of train, val, all"),
        ({"validation.split": "vali"}, "unknown split of data set 'hypersim' 'vali': did you mean 'val'"),
    ],
)
def test_dry_run_refuses_data_that_a_run_would_stop_at(changes: dict[str, str], says: str) -> None:
    path = RECIPES / "paper" / "depth.toml"
    with pytest.raises(ValueError, match=re.escape(says)):
        loop.main(path, [f"{key}={value}" for key, value in changes.items()], path.parent / "unused", dry_run=True)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"metric": "depht"}, "task 'other': unknown metric 'depht': did you mean 'depth'"),
        ({"kind": "depth"}, "task 'other': unknown kind 'depth': choose one of depth_affine"),
        ({"labels": ("dept",)}, "task 'other': unknown label 'dept': did you mean 'depth'"),
        ({"head": "vea"}, "unknown head 'vea': did you mean 'vae'"),
    ],
)
def test_dry_run_refuses_a_task_that_names_what_there_is_not(
    changes: dict[str, Any], says: str, install: Install, tmp_path: Path
) -> None:
    other = type("Other", (type(TASKS.find("depth")),), {"name": "other", **changes})()
    install({"genpercept.tasks": {"other": other}})
    path = write(tmp_path, 'stage = "finetune"\ntask = "other"\nmodel = {base = "mini/base"}')
    with pytest.raises(ValueError, match=re.escape(says)):
        loop.main(path, [], tmp_path / "unused", dry_run=True)


def test_a_task_without_losses_in_a_space_says_so() -> None:
    with pytest.raises(ValueError, match="task 'normals' has no losses of its own in space 'affine': say which"):
        predictor.own_losses(TASKS.find("normals"), "affine")


@pytest.mark.parametrize("path", STUDIES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_studies_of_the_repository(path: Path) -> None:
    """Every arm is a valid recipe whose plugins take its options, and no two arms are the same."""
    found = study.arms(study.load(path))
    assert len(found) > 1 and study.load(path).name == path.stem
    assert len({recipe.to_json(arm) for arm in found.values()}) == len(found)
    assert all("steps" in str(plan(arm)) for arm in found.values())


def test_an_arm_differs_where_it_says(tmp_path: Path) -> None:
    write(tmp_path, 'stage = "autoencoder"\n[[data]]\ncount = 5\n[optim]\nlr = 1e-3')
    text = 'name = "s"\nbase = "r.toml"\nseeds = [4]\nset = { steps = 9 }\n[[arm]]\nname = "a"\n[[arm]]\nname = "b"\n'
    path = tmp_path / "s.toml"
    path.write_text(text + 'set = { "optim.lr" = 2e-3, "data.0.count" = 7 }\n')
    arms = study.arms(study.load(path))
    assert [(r.steps, r.seed, r.optim.lr, r.data[0].count) for r in arms.values()] == [(9, 4, 1e-3, 5), (9, 4, 2e-3, 7)]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[arm]]\nname = 'a'\n[[arm]]\nname = 'a'", "two arms are called a"),
        ("[[arm]]\nnam = 'a'", "did you mean 'name'?"),
        ("", "arm:"),
        ("[[arm]]\nname = 'a'\nset = { 'optim.lrr' = 1 }", "arm 'a': optim.lrr: unknown key; did you mean 'lr'?"),
        ("[[arm]]\nname = 'a'\nset = { 'data.3.count' = 1 }", "arm 'a': '3' is no position"),
    ],
)
def test_wrong_studies(tmp_path: Path, text: str, says: str) -> None:
    write(tmp_path, 'stage = "autoencoder"\n[[data]]\ncount = 5\n')
    path = tmp_path / "s.toml"
    path.write_text(f"name = 's'\nbase = 'r.toml'\n{text}\n")
    with pytest.raises(ValueError) as error:
        study.arms(study.load(path))
    assert says in str(error.value) and "\n" not in str(error.value)
