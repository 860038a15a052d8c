"""torch's threads are the caller's, and known before torch is there."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from genpercept.core.devices import set_threads, threads, threads_kept


def test_threads_are_kept() -> None:
    before = torch.get_num_threads()
    with threads_kept():
        torch.set_num_threads(before + 1)
    assert torch.get_num_threads() == before
    with pytest.raises(KeyError), threads_kept():
        torch.set_num_threads(before + 1)
        raise KeyError
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("said", [None, "1", "3", "0"])
def test_threads_are_torchs_before_it_is_there(said: str | None) -> None:
    code = """
import sys
from genpercept.core.devices import set_threads, threads
set_threads(5)
before = threads()
assert "torch" not in sys.modules
import torch
assert before == torch.get_num_threads() == threads(), (before, torch.get_num_threads())
"""
    env = {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    env |= {} if said is None else {"OMP_NUM_THREADS": said}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_threads_are_set_where_torch_is() -> None:
    with threads_kept():
        set_threads(3)
        assert torch.get_num_threads() == threads() == 3
