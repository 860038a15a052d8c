"""Plugins, keyed randomness, the mini model's vocabulary."""

import importlib
import importlib.metadata
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from genpercept.checkpoints import parts
from genpercept.commands.export.targets import TARGETS
from genpercept.core import registry
from genpercept.core.labels import LABELS
from genpercept.core.registry import Registry, Table
from genpercept.core.rng import Rng
from genpercept.data import DATASETS
from genpercept.imaging.kinds import KINDS
from genpercept.metrics import METRICS
from genpercept.models import adapters
from genpercept.models.backbones import BACKBONES
from genpercept.models.codecs import CODECS
from genpercept.models.detectors import DETECTORS
from genpercept.models.heads import HEADS, HeadPlugin
from genpercept.models.paradigms import PARADIGMS
from genpercept.models.text import make_tokenizer
from genpercept.pipeline.families import FAMILIES
from genpercept.tasks import TASKS, Task
from genpercept.training.losses import LOSSES

REGISTRIES = [BACKBONES, CODECS, DATASETS, DETECTORS, FAMILIES, HEADS, LOSSES, METRICS, PARADIGMS, TASKS, TARGETS]


class Renamed(HeadPlugin):
    """A plugin of another package that says what it must, and what is not as most have it."""

    name, class_name, older_names = "renamed", "Linear", ("Dense",)
    consumes, channels, space, spaces = "pyramid", 2, "classes", ("classes",)

    def build(self, config: dict) -> nn.Module:
        return nn.Linear(config["width"], 2)

    def skip(self, tensor: str) -> bool:
        return tensor == "steps"

    def rename(self, tensor: str) -> str:
        return tensor.removeprefix("old.")

    def convert(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: t.T if name == "weight" else t for name, t in tensors.items()}


def test_a_plugin_inherits_what_it_leaves_as_it_is(tmp_path: Path) -> None:
    part, weight = Renamed(), torch.arange(6.0).reshape(3, 2)
    save_file({"old.weight": weight, "bias": torch.ones(2), "steps": torch.ones(1)}, tmp_path / "model.safetensors")
    for name in ("Linear", "Dense"):
        config = {"_class_name": name, "width": 3}
        assert torch.equal(parts.load_part(part, tmp_path, config=config).state_dict()["weight"], weight.T)
    with pytest.raises(ValueError, match="holds a Conv2d, but 'renamed' needs a Linear"):
        parts.load_part(part, tmp_path, config={"_class_name": "Conv2d", "width": 3})
    dpt, sd21, dinov2 = HEADS.find("dpt"), BACKBONES.find("sd21"), BACKBONES.find("dinov2")
    assert (
        not dpt.skip("steps") and dpt.rename("old.weight") == "old.weight" and dpt.convert({"a": weight})["a"] is weight
    )
    assert sd21.lora_targets == adapters.ATTENTION and (sd21.null_caption, sd21.chooses_blocks) == ("", False)
    assert BACKBONES.find(sd21.controlled).controlled == dinov2.controlled == ""
    with pytest.raises(ValueError, match="backbone 'dinov2' has no ControlNet"):
        dinov2.control(nn.Linear(1, 1))


@pytest.mark.parametrize("plugins", [BACKBONES, CODECS, HEADS], ids=lambda r: r.noun)
def test_every_part_has_all_members(plugins: Registry[Any]) -> None:
    """By inheriting them: nothing asks whether a plugin has one."""
    for plugin in plugins.all().values():
        assert parts.PartPlugin in type(plugin).__mro__
        assert isinstance(plugin.older_names, tuple) and not plugin.skip("a") and plugin.rename("a") == "a"


def test_groups_of_entry_points_have_the_names_that_other_packages_know() -> None:
    """They are named by kind, so that no move of a folder of ours makes an installed package invisible."""
    kinds = (
        "backbones codecs datasets detectors families heads losses metrics paradigms tasks export_targets kinds labels"
    )
    assert [f"genpercept.{kind}" for kind in kinds.split()] == [kind.group for kind in (*REGISTRIES, KINDS, LABELS)]


@pytest.mark.parametrize("plugins", REGISTRIES, ids=lambda r: r.noun)
def test_our_own_plugins_have_what_is_asked_of_others(plugins: Registry[Any]) -> None:
    wanted = registry.members(plugins.protocol)
    assert wanted and ("name" in wanted or wanted == ["__call__"])
    for name, plugin in plugins.all().items():
        assert [member for member in wanted if not hasattr(plugin, member)] == [], name
        assert getattr(plugin, "name", name) == name


@pytest.mark.parametrize("plugins", REGISTRIES, ids=lambda r: r.noun)
def test_every_module_in_the_folder_is_a_plugin(plugins: Registry[Any]) -> None:
    found = plugins.names()
    assert found and not any(name.startswith("_") for name in found)
    for name in found:
        plugin = plugins.find(name)
        assert plugin is importlib.import_module(f"{plugins.package}.{name}").PLUGIN


@pytest.mark.parametrize("name", ["_shared", "../depth", "os", "Depth", "", "depht"])
def test_nothing_else_can_be_imported_by_name(name: str) -> None:
    with pytest.raises(ValueError, match="unknown task"):
        TASKS.find(name)


def _entry(name: str, value: str, package: str = "albedo-plugin") -> EntryPoint:
    entry = EntryPoint(name, value, "genpercept.tasks")
    vars(entry)["dist"] = SimpleNamespace(name=package)
    return entry


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> list[EntryPoint]:
    """Entry points of other packages; none at first."""
    found: list[EntryPoint] = []
    monkeypatch.setattr(registry, "_installed", lambda: {"genpercept.tasks": found})
    return found


def test_an_entry_point_gives_an_object_or_the_plugin_of_a_module(
    installed: list[EntryPoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    installed += [_entry("a", "strangers_task:PLUGIN"), _entry("b", "strangers_task.b")]
    plugins = [SimpleNamespace(**{m: m for m in registry.members(Task)} | {"name": name}) for name in ("a", "b")]
    for name, plugin in zip(("strangers_task", "strangers_task.b"), plugins, strict=True):
        module = ModuleType(name)
        vars(module).update(PLUGIN=plugin, __path__=[])
        monkeypatch.setitem(sys.modules, name, module)
    assert [TASKS.find("a"), TASKS.find("b")] == plugins and {"a", "b", "depth"} <= set(TASKS.names())
    vars(plugins[0]).update(name="c")
    with pytest.raises(ValueError, match=r"task 'a' of the package albedo-plugin .*named 'c'; give both the same name"):
        TASKS.find("a")
    del plugins[1].encode, plugins[1].truth
    with pytest.raises(
        ValueError, match=r"'b' .*a SimpleNamespace without encode, truth; genpercept\.tasks\.Task says"
    ):
        TASKS.find("b")


def test_a_name_of_ours_wins_and_a_broken_or_doubled_one_is_named(installed: list[EntryPoint]) -> None:
    installed += [_entry("depth", "nowhere:PLUGIN"), _entry("lost", "nowhere:PLUGIN")]
    assert TASKS.find("depth").name == "depth"
    with pytest.raises(ValueError, match=r"task .lost. of the package albedo-plugin .*No module named 'nowhere'"):
        TASKS.find("lost")
    installed += [_entry("lost", "elsewhere:PLUGIN", "other")]
    with pytest.raises(ValueError, match="albedo-plugin and other both give 'lost'"):
        TASKS.names()


def test_a_table_has_our_rows_first_and_other_packages_rows_after_them(installed: list[EntryPoint]) -> None:
    table = Table("task", "genpercept.tasks", TASKS.find("depth"))
    installed += [_entry("depth", "nowhere:PLUGIN"), _entry("normals", "genpercept.tasks.normals:PLUGIN")]
    assert table["depth"] is TASKS.find("depth") and list(table) == ["depth", "normals"] and len(table) == 2
    with pytest.raises(ValueError, match="unknown task 'normal': did you mean 'normals'"):
        table.find("normal")
    installed.append(_entry("lost", "nowhere:PLUGIN"))
    lazy = Table("task", "genpercept.tasks", TASKS.find("depth"))
    assert "lost" in lazy and "normals" in lazy and "norms" not in lazy  # without loading a row
    installed.pop()
    wrong = Table("task", "genpercept.tasks", TASKS.find("depth"))
    installed.append(_entry("albedo", "genpercept.tasks.normals:PLUGIN"))
    with pytest.raises(ValueError, match=r"task 'albedo' of genpercept.tasks: its row is named 'normals'"):
        list(wrong)


def test_installed_packages_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(registry, "entry_points", lambda: calls.append(1) or importlib.metadata.entry_points())
    registry._installed.cache_clear()
    for _ in range(3):
        TASKS.find("depth")
        assert TASKS.names() and HEADS.names()
    registry._installed.cache_clear()
    assert len(calls) == 1


def test_importing_the_package_is_quick_and_light() -> None:
    code = "import genpercept, sys; print(sorted({'torch', 'diffusers', 'transformers', 'numpy'} & set(sys.modules)))"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_a_batch_draws_what_its_samples_draw_alone() -> None:
    both = Rng(7, 3, [11, 12])
    alone = [Rng(7, 3, [s]) for s in (11, 12)]
    assert torch.equal(both.normal((2, 3)), torch.cat([r.normal((2, 3)) for r in alone]))
    assert torch.equal(both.integers(0, 1000), torch.cat([r.integers(0, 1000) for r in alone]))
    assert not torch.equal(both.normal((4,)), Rng(7, 4, [11, 12]).normal((4,)))
    assert not torch.equal(both.normal((4,), "noise"), both.normal((4,), "posterior"))


def test_every_word_is_one_token_and_other_words_are_spelled(tmp_path: Path) -> None:
    words = ["a", "standing", "stand", "stands", "house", "houses", "road", "roads", "in", "rain", "bright"]
    tokenizer = make_tokenizer(words, tmp_path)
    assert all(len(tokenizer(w).input_ids) == 3 for w in words)
    assert len(tokenizer("").input_ids) == 2
    assert len(tokenizer("A house, standing").input_ids) == 6
    spelled = tokenizer("zebra").input_ids
    assert len(spelled) > 3 and tokenizer.decode(spelled, skip_special_tokens=True).strip() == "zebra"
