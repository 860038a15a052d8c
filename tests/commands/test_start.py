"""What a command imports, and that what it does not import yet is the thing itself once it is used."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genpercept.core import said
from genpercept.core.stand_ins import Later

HEAVY = ("accelerate", "numba", "peft", "scipy", "skimage", "sympy", "torch._dynamo", "transformers")
MODELS = ("diffusers", "torch")
CODE = """
import sys
from genpercept.__main__ import main
sys.argv = ["genpercept", *sys.argv[1:]]
try:
    main()
finally:
    print("MODULES", *sys.modules)
"""


def imported(tmp_path: Path, *words: str) -> tuple[int, set[str], str]:
    """Exit code, modules and stderr of a command in a fresh process."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    env.pop("DIFFUSERS_SLOW_IMPORT", None)
    command = [sys.executable, "-c", CODE, *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=env, timeout=300, check=False)
    line = next(line for line in done.stdout.splitlines() if line.startswith("MODULES "))
    return done.returncode, set(line.split()[1:]), done.stderr


@pytest.fixture
def photo(tmp_path: Path) -> str:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)).save(tmp_path / "photo.png")
    return "photo.png"


def test_a_prediction_imports_what_it_needs(tmp_path: Path, photo: str) -> None:
    code, modules, err = imported(tmp_path, "predict", photo, "--out", "out", "-m", "mini/depth", "--device", "cpu")
    assert code == 0, err
    assert not sorted(modules.intersection((*HEAVY, "diffusers.quantizers.auto")))  # which would bring torchao
    assert "torch" in modules and "diffusers.models.unets.unet_2d_condition" in modules


@pytest.mark.parametrize(
    "words",
    [
        ("predict", "photo.png", "--out", "out", "--model", "mini/dept"),
        ("predict", "photo.png", "--out", "out", "--task", "dept"),
        ("predict", "photo.png", "--out", "out", "--model", "no/such/folder"),
        ("inspect", "mini/dept"),
    ],
)
def test_a_wrong_name_is_refused_before_anything_heavy(tmp_path: Path, photo: str, words: tuple[str, ...]) -> None:
    code, modules, err = imported(tmp_path, *words)
    assert code == 2 and err.startswith("genpercept: error: ") and len(err.splitlines()) == 1
    assert not sorted(modules.intersection((*HEAVY, *MODELS)))


def test_an_embedded_model_is_looked_at_without_what_it_is_built_of(tmp_path: Path) -> None:
    code, modules, err = imported(tmp_path, "inspect", "mini/depth")
    assert code == 0, err
    assert not sorted(modules.intersection((*HEAVY, *MODELS)))


def run(code: str) -> None:
    code = f"from genpercept.__main__ import start\nstart()\n{code}"
    env = {k: v for k, v in os.environ.items() if k != "DIFFUSERS_SLOW_IMPORT"} | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr


def test_torch_takes_the_places_of_its_stand_ins() -> None:
    run("""
import sys, types
import genpercept.core.resampling as resampling, genpercept.core.values as values, genpercept.checkpoints.parts as parts
assert "torch" not in sys.modules and not isinstance(1, values.Tensor)
plan = values.Geometry.plan((30, 40), 64, 8)
import torch, torch.nn.functional
assert values.torch is torch and resampling.F is torch.nn.functional and values.Tensor is torch.Tensor
assert parts.nn is torch.nn
assert values.resize(torch.zeros(1, 3, 4, 4), (2, 2)).shape == (1, 3, 2, 2)
""")


def test_diffusers_is_the_same_when_all_of_it_is_asked_for() -> None:
    run("""
import sys
import genpercept, torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock
from diffusers.utils import torch_utils
assert "torch._dynamo" not in sys.modules and "diffusers.models.autoencoders.autoencoder_kl_wan" not in sys.modules
from diffusers.models.autoencoders import AutoencoderKLWan  # the package runs now
import diffusers.models.autoencoders as package
assert type(package) is type(sys) and package.AutoencoderKL is AutoencoderKL
compiled = torch.compile(torch.nn.Linear(1, 1))
assert torch_utils.is_compiled_module(compiled) and not torch_utils.is_compiled_module(torch.nn.Linear(1, 1))
from torch._dynamo import trace_rules
assert trace_rules.is_callable_allowed(BasicTransformerBlock)
from diffusers.loaders import peft
from peft.tuners.tuners_utils import BaseTunerLayer
assert not isinstance(torch.nn.Linear(1, 1), BaseTunerLayer)
""")


def test_a_stand_in_becomes_the_thing_when_it_is_used() -> None:
    assert Later("fractions", "Fraction")(1, 2) == Later("fractions").Fraction(1, 2)
    assert isinstance(Later("fractions", "Fraction")(1), Later("fractions", "Fraction"))  # type: ignore[arg-type]
    assert not isinstance(1, Later("no_such_module", "Thing"))  # type: ignore[arg-type]
    either = Later("no_such_module", "Thing") | None
    assert isinstance(None, either | int) and isinstance(1, int | either) and not isinstance("1", either | int)
    half = types.new_class("Half", (Later("fractions", "Fraction"),))  # type: ignore[arg-type]
    assert issubclass(half, Fraction)
    assert list(Later("string", "digits")) == list("0123456789") and "7" in Later("string", "digits")
    assert Later("xml", inside="xml.dom").dom._real().__name__ == "xml.dom"
    with pytest.raises(ModuleNotFoundError):
        Later("no_such_module").anything  # noqa: B018


def test_compiling_is_said_once_and_quietly_not_at_all(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from numba import njit

    import genpercept.world.jit  # noqa: F401  # listens

    monkeypatch.setattr(said, "_said", set())

    def kernel(x: float) -> float:
        return x + 1

    for module, how, lines in (
        ("somebody.else", "", 0),
        ("genpercept.world.kernel", said.QUIET, 0),
        ("genpercept.world.kernel", "", 1),
        ("genpercept.world.kernel", "", 0),
    ):
        monkeypatch.setenv(said.VARIABLE, how)
        kernel.__module__ = module
        assert njit(kernel)(1.0) == 2
        err = capsys.readouterr().err
        assert len(err.splitlines()) == lines and ("compiling" in err) == bool(lines)
