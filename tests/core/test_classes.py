"""Class tables: the published names and colours, one's own, and the classes that two tables share."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from genpercept.core import classes
from genpercept.core.classes import IGNORED, ClassTable
from genpercept.data.synthetic import CLASSES, PALETTE


def test_the_tables() -> None:
    known = {name: classes.find(name) for name in classes.names()}
    assert {n: len(t) for n, t in known.items()} == {"nyu40": 40, "ade20k150": 150, "cityscapes19": 19, "synthetic": 22}
    for name, table in known.items():
        assert table.name == name and len(set(table.names)) == len(table) == len(np.unique(table.colours, axis=0))
    ade, nyu, city = known["ade20k150"], known["nyu40"], known["cityscapes19"]
    # places in the official order
    assert [ade.names.index(n) for n in ("wall", "car", "bench", "television receiver", "flag")] == [0, 20, 69, 89, 149]
    assert [nyu.names.index(n) + 1 for n in ("wall", "ceiling", "person", "bag", "other prop")] == [1, 22, 31, 37, 40]
    assert nyu.colours[[0, 21, 39]].tolist() == [[174, 199, 232], [78, 71, 183], [100, 85, 144]]
    assert dict(zip(city.names, city.colours.tolist(), strict=True))["traffic sign"] == [220, 220, 0]
    assert known["synthetic"].names == CLASSES and (known["synthetic"].colours == PALETTE).all()


@pytest.mark.parametrize("n", [1, 2, 7, 27, 40, 150, 400])
def test_our_colours_are_apart(n: int) -> None:
    colours = classes.spread(n).astype(int)
    apart = np.abs(colours[:, None] - colours[None]).max(-1) + 999 * np.eye(n, dtype=int)
    assert colours.shape == (n, 3) and (n == 1 or apart.min() >= 255 // np.ceil(n ** (1 / 3)))


def test_ade20k_and_nyu40() -> None:
    ade, nyu = classes.find("ade20k150").names, classes.find("nyu40").names
    table = classes.mapping("ade20k150", "nyu40")
    pairs = {ade[i]: nyu[j] for i, j in enumerate(table) if j != IGNORED}
    assert pairs["swivel chair"] == "chair" and pairs["windowpane"] == "window" and "sky" not in pairs
    assert len(classes.shared()) == 33 and all(nyu[i] in pairs.values() for i in classes.shared())
    ids = np.array([[0, 2, IGNORED], [ade.index("sofa"), 149, ade.index("rug")]])
    wanted = [[0, IGNORED, IGNORED], [nyu.index("sofa"), IGNORED, nyu.index("floor mat")]]
    assert classes.convert(ids, "ade20k150", "nyu40").tolist() == wanted
    with pytest.raises(ValueError, match="no mapping of classes from 'nyu40' to 'cityscapes19'"):
        classes.mapping("nyu40", "cityscapes19")


def test_a_table_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('names = ["road", "sky"]\ncolours = [[1, 2, 3], [255, 0, 0]]\n')
    (tmp_path / "b.json").write_text(json.dumps({"names": ["road", "sky", "tree"]}))
    table = classes.find(str(tmp_path / "a.toml"))
    assert table.names == ("road", "sky") and table.colours.tolist() == [[1, 2, 3], [255, 0, 0]]
    assert len(np.unique(classes.find(tmp_path / "b.json").colours, axis=0)) == 3


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('names = ["a", "b"]\ncolours = [[1, 2, 3], [1, 2, 3]]', r"'a' and 'b' have the same colour \(1, 2, 3\)"),
        ('names = ["a", "b"]\ncolours = [[1, 2, 3]]', "2 names, but colours of shape"),
        ('names = ["a"]\ncolours = [[1, 2, 256]]', "whole numbers from 0 to 255"),
        ('names = ["a"]\ncolours = [[1, 2, 0.5]]', "whole numbers from 0 to 255"),
        ('names = ["a"]\ncolors = [[1, 2, 3]]', "did you mean 'colours'"),
        ('names = ["a", "a"]', "'a' is there twice"),
        ("names = []", "it has no classes"),
        ("name = 3", "has the key names"),
        ("names = [", "not a TOML file"),
    ],
)
def test_a_bad_table(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=says) as error:
        classes.find(path)
    assert "mine.toml" in str(error.value)


def test_unknown_and_missing_tables(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"unknown class table 'nyu': did you mean 'nyu40'\?"):
        classes.find("nyu")
    with pytest.raises(ValueError, match=r"gone.json: cannot be read"):
        classes.find(tmp_path / "gone.json")
    with pytest.raises(ValueError, match="have the same colour"):
        ClassTable("twins", ("a", "b"), np.zeros((2, 3), np.uint8))
    with pytest.raises(ValueError, match="read-only"):
        classes.find("nyu40").colours[0] = 0
