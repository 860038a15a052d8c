"""Every golden answer of DepthFM, GeoWizard and DepthMaster by `genpercept predict`: benchmarks/quality/families.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.commands import script
from tests.support.depthmaster import ANSWERS
from tests.support.paths import GOLDEN

FILES = {  # how many keys the command's own file gives
    "depthfm": 20,
    "geowizard": 46,
    "depthmaster": 6,
}


@pytest.mark.parametrize("family", FILES)
def test_every_key(family: str, tmp_path: Path) -> None:
    """Each within its tolerance, or said why there is nothing to compare; the wrong ways are told apart."""
    module: Any = script("quality/families")
    rows, runs = module.measured([family], GOLDEN, tmp_path)
    with np.load(ANSWERS if family == "depthmaster" else GOLDEN / family / "answers.npz") as file:
        assert {row.key for row in rows} == set(file.files)
    assert not [row for row in rows if not row.fine]
    assert len({row.key for row in rows if row.where == module.FILE}) >= FILES[family] and runs >= 6
    assert [row for row in rows if row.where == module.APART]


def test_what_is_wrong_is_found() -> None:
    """A difference, a wrong way that is not told apart, a key of which nobody knows, another shape."""
    module: Any = script("quality/families")
    answers = {"depth_a": np.zeros((2, 2)), "wrong_a": np.zeros((2, 2)), "new_a": np.zeros(1), "noise_a": np.zeros(1)}
    found = [
        module.Found("depth_a", np.full((2, 2), 1e-5)),
        module.Found("depth_a", np.full((2, 2), 2e-4)),  # the worse of two runs counts
        module.Found("wrong_a", np.full((2, 2), 1e-3), module.APART, 0.01),
    ]
    rows = {row.key: row for row in module.compared("depthfm", answers, iter(found))}
    assert [rows[key].fine for key in ("depth_a", "wrong_a", "new_a", "noise_a")] == [False, False, False, True]
    assert rows["depth_a"].largest == pytest.approx(2e-4)
    with pytest.raises(ValueError, match=r"depth_a: \[3\], theirs is \[2, 2\]"):
        module.compared("depthfm", answers, iter([module.Found("depth_a", np.zeros(3))]))
