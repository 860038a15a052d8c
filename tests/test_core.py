"""Plugins, keyed randomness, the mini model's vocabulary."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from genpercept import plugins
from genpercept.rng import Rng
from genpercept.text import make_tokenizer


@pytest.mark.parametrize("kind", ["codecs", "backbones", "heads", "paradigms", "tasks", "losses", "metrics"])
def test_every_module_in_the_folder_is_a_plugin(kind: str) -> None:
    found = plugins.names(kind)
    assert found and not any(name.startswith("_") for name in found)
    for name in found:
        plugin = plugins.find(kind, name)  # type: ignore[call-overload]
        assert plugin is importlib.import_module(f"genpercept.{kind}.{name}").PLUGIN


@pytest.mark.parametrize("name", ["_shared", "../depth", "os", "Depth", "", "depht"])
def test_nothing_else_can_be_imported_by_name(name: str) -> None:
    with pytest.raises(ValueError, match="unknown task"):
        plugins.find("tasks", name)


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
