"""Linear layers in int8: what is refused, and what it costs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import genpercept
from genpercept.commands.bench.setting import QUANTISE, Setting
from genpercept.pipeline import quantised
from genpercept.pipeline.call import Run


def test_refused_in_words() -> None:
    with pytest.raises(ValueError, match="quantised"):
        genpercept.load("mini/depth", device="cpu", quantised="int3")
    with pytest.raises(ValueError, match="do not go together"):
        genpercept.load("mini/depth", device="cpu", quantised="int8wo", specialised=True)
    quick = genpercept.load("mini/depth", device="cpu", specialised=True)
    with pytest.raises(ValueError, match="only a plain pipeline can be quantised"):
        quantised.quantise(quick, "int8wo")
    with pytest.raises(ValueError, match="leave out one of --quantise and --specialised"):
        Setting(quantise="int8wo", specialised=True)
    assert QUANTISE == quantised.KINDS


@pytest.mark.parametrize(("kind", "largest"), [("int8wo", 0.02), ("int8dq", 0.05)])
def test_answers_stay_near(kind: str, largest: float, tmp_path: Path) -> None:
    """Of the raw map's largest value; the weights are kept in a quarter of their bytes, and files hold others."""
    pytest.importorskip("torchao")
    pipes = [genpercept.load("mini/depth", device="cpu", quantised=how) for how in (None, kind)]
    image = torch.rand(1, 3, 48, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        want, found = (pipe._forward(image, Run(pipe.paradigm(), 1), None) for pipe in pipes)
    error = float((found - want).abs().max() / want.abs().max())
    assert 0 < error < largest
    changed = next(m for m in pipes[1].unet.modules() if isinstance(m, nn.Linear))
    assert type(changed.weight.data) is not torch.Tensor
    with pytest.raises(ValueError, match="cannot be saved"):
        pipes[1].save_pretrained(tmp_path)
