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


TOGETHER = """
import threading, numpy as np
from genpercept.imaging.cutout import cutout
made = []
def make():
    made.append(cutout(np.full((6, 8, 3), 200, np.uint8), np.linspace(0, 1, 48).reshape(6, 8)))
threads = [threading.Thread(target=make) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert len(made) == 4 and all((m == made[0]).all() for m in made)
"""


def test_threads_that_begin_together_all_have_theirs() -> None:
    """`predict` writes several images at once, and the first ones meet while the module is being loaded."""
    pytest.importorskip("numba")
    done = subprocess.run([sys.executable, "-c", TOGETHER], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
