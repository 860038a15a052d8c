"""The first cut-out says that it compiles, and compiles what it needs; the next process finds that."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import sys, numpy as np
from genpercept.imaging.cutout import cutout
image = np.zeros((6, 8, 3), np.uint8); image[:, 4:] = 200
alpha = np.zeros((6, 8)); alpha[:, 4:] = 1; alpha[:, 4] = 0.5
made = cutout(image, alpha)
assert made.shape == (6, 8, 4) and (made[:, 6, :3] >= 195).all() and made[0, 4, 3] == 128
assert "pymatting" not in sys.modules  # whose import compiles for minutes
"""


@pytest.mark.slow
def test_it_compiles_once_and_says_so(tmp_path: Path) -> None:
    pytest.importorskip("numba")
    said = []
    for _ in range(2):
        env = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
        done = subprocess.run([sys.executable, "-c", CODE], env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        said.append(done.stderr.strip().splitlines())
    assert said == [[f"cut-outs: compiling once for this machine, about 20 s; kept in {tmp_path}"], []]
