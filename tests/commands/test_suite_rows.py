"""Paper rows of the suites, and the script that holds them against the paper's texts."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

from genpercept.commands.evaluate import suites
from tests.support.paths import ROOT

ROWS = "method,set,abs_rel,delta1\nMiDaS,a,0.236,0.630\nMiDaS,b,,0.885\nOurs,a,0.099,0.904\nOurs,b,0.056,0.960\n"
TEXT = """Words before.
Table 1: A caption.

Method	A [20]		B [54]
	AbsRel \\downarrow	$\\delta_1$	AbsRel	$\\delta_1$
MiDaS [48]	0.236	0.630	-	0.885
GenPercept	0.099	0.904	0.056	0.960
"""
WEB = """Method | A | B |
---|---|---|---|---|
MiDaS [61] | 0.236 | 0.630 | - | 0.885 |
GenPercept | 0.099 | 0.904 | 0.056 | 0.960 |
"""


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """tools/paper_rows.py."""
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    return importlib.import_module("paper_rows")


@pytest.fixture
def suite(tmp_path: Path) -> str:
    """A suite whose rows are those of the texts above."""
    (tmp_path / "rows.csv").write_text(ROWS)
    head = 'title = "Mine"\ntasks = ["depth"]\n[[printed]]\nsource = "v1, Table 1"\nfile = "rows.csv"\nmain = false\n'
    sets = "".join(f'[[set]]\nid = "{i}"\ntitle = "{i}"\ndataset = "folder"\nsplit = "all"\n' for i in "ab")
    (tmp_path / "mine.toml").write_text(head + sets)
    return str(tmp_path / "mine.toml")


def _compared(script: Any, suite: str, text: str = TEXT, web: str = WEB) -> Any:
    rows = (script.Row("MiDaS", "MiDaS"), script.Row("GenPercept", "Ours"))
    columns = tuple((s, k) for s in "ab" for k in ("abs_rel", "delta1"))
    table = script.Methods("v1, Table 1", {script.V1: "Table 1:", script.WEB: "Method"}, rows, columns)
    return script.compare({script.WEB: web, script.V1: text}, (table,), (suite,))


def test_equal_texts(script: Any, suite: str) -> None:
    found = _compared(script, suite)
    assert (found.figures, found.comparisons) == (7, 14) and not found.wrong and not found.disagreements


def test_a_changed_digit_is_found(script: Any, suite: str) -> None:
    found = _compared(script, suite, TEXT.replace("0.904", "0.940"), WEB.replace("0.904", "0.940"))
    assert found.wrong and len(found.different) == 1
    assert "Ours, a, delta1: 0.904, but 0.940 in v1, Table 1" in found.different[0]


def test_texts_that_disagree_are_no_difference(script: Any, suite: str) -> None:
    found = _compared(script, suite, TEXT.replace("0.630", "0.680"))
    assert not found.wrong and len(found.disagreements) == 1 and "0.680" in found.disagreements[0]


def test_what_only_one_side_has_is_found(script: Any, suite: str) -> None:
    table = Path(suite).with_name("rows.csv")
    table.write_text(ROWS.replace("Ours,b,0.056,0.960\n", "Ours,b,,0.960\nDPT,a,0.1,0.2\n"))
    found = _compared(script, suite)
    assert len(found.left_out) == 1 and "Ours, b, abs_rel" in found.left_out[0]
    assert [line.split(" (")[0] for line in found.nowhere] == [
        f"{suite}: DPT, a, abs_rel: 0.1",
        f"{suite}: DPT, a, delta1: 0.2",
    ]
    assert _compared(script, suite, TEXT + "Table 2: Another.\n").unknown


def test_a_table_that_cannot_be_read_is_an_error(script: Any, suite: str) -> None:
    with pytest.raises(ValueError, match="no row 'GenPercept' of 4 figures"):
        _compared(script, suite, TEXT.replace("\t0.960", ""))


def test_every_declared_table_is_of_a_suite(script: Any) -> None:
    sources = {table.source for table in script.TABLES}
    assert {one for _, found, *_ in script.of_suites(suites.names()) for one in found} == sources


def test_rows_of_a_suite_are_read_as_they_stand(suite: str) -> None:
    (midas, ours) = suites.load(suite).paper
    assert midas.figures == {"a": {"abs_rel": 0.236, "delta1": 0.63}, "b": {"delta1": 0.885}} and not ours.main
    Path(suite).with_name("rows.csv").write_text("method,set,abs_rel\nX,a,0.1o\n")
    with pytest.raises(ValueError, match=r"rows\.csv, line 2: could not convert"):
        suites.load(suite)
    Path(suite).with_name("rows.csv").write_text("method,abs_rel\nX,0.1\n")
    with pytest.raises(ValueError, match="expected the columns method, set"):
        suites.load(suite)
    Path(suite).with_name("rows.csv").unlink()
    with pytest.raises(ValueError, match=r"rows\.csv: cannot be read"):
        suites.load(suite)
