"""torch's threads are the caller's."""

from __future__ import annotations

import pytest
import torch

from genpercept.core.devices import threads_kept


def test_threads_are_kept() -> None:
    before = torch.get_num_threads()
    with threads_kept():
        torch.set_num_threads(before + 1)
    assert torch.get_num_threads() == before
    with pytest.raises(KeyError), threads_kept():
        torch.set_num_threads(before + 1)
        raise KeyError
    assert torch.get_num_threads() == before
