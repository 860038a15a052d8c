"""Own data as people have it: each case is read as it is meant, or refused in words, and training takes what `check` passes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genpercept.commands.data import check
from genpercept.data.folder import PLUGIN
from tests.support.own_data import CASES, DISC, Case

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


def test_the_contact_sheet_lays_a_mask_over_its_image(tmp_path: Path) -> None:
    BY_NAME["mask_palette"].build(tmp_path)
    assert check.main(tmp_path, tmp_path / "out") == 0
    sheet = np.asarray(Image.open(tmp_path / "out" / "contact_sheet.png")).astype(int)
    overlay = sheet[:120, 164:324]  # of 24 x 32 pixels, five times as large
    red = overlay[..., 0] - overlay[..., 1]
    inside = np.kron(DISC, np.ones((5, 5), bool))
    assert red[inside].min() > 60 and np.abs(red[~inside]).max() == 0
