"""Own data as people have it: each case is read as it is meant, or refused in words, and training takes what `check` passes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from genpercept.commands.data import check
from genpercept.data.folder import PLUGIN
from tests.support.own_data import CASES, Case

BY_NAME = {case.name: case for case in CASES}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_case_is_read_as_it_is_meant(case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case.build(tmp_path)
    try:
        code = check.main(tmp_path, skip_bad=case.skip_bad)
        said = capsys.readouterr().out
    except ValueError as error:
        code, said = 2, str(error)
        assert "\n" not in said
    assert code == case.code, said
    for words in case.says:
        assert words in said, said
    if not case.says:
        assert "note:" not in said and "broken:" not in said
    if case.wanted is not None:
        sample = PLUGIN.load(PLUGIN.index(tmp_path, "all")[0])
        label = sample.label(case.label).numpy()
        assert label.shape == case.wanted.shape
        np.testing.assert_allclose(label.astype(np.float64), case.wanted, atol=case.close, rtol=0)
