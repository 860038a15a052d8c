"""The world's foregrounds over photographs: exact mattes, keyed pictures, splits that further photographs do not change."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from genpercept.data import DATASETS, composites, files_of
from genpercept.data.composites import Composites

SMALL = Composites(size=(48, 64), domain="closeup", count=4)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    for i in range(60):
        path = root / f"set{i % 3}" / f"{i}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40 + i % 7, 70, 3), np.uint8)).save(path)
    return root


def test_a_picture_is_foreground_over_photograph(photographs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the layers that it was made of, in the order in which they cover each other."""
    layers: list[tuple[np.ndarray, np.ndarray]] = []
    seen = Composites._foreground

    def watched(self: Composites, *given: object) -> tuple[np.ndarray, np.ndarray]:
        layers.append(seen(self, *given))  # type: ignore[arg-type]
        return layers[-1]

    monkeypatch.setattr(Composites, "_foreground", watched)
    exact = Composites(size=(48, 64), domain="closeup", count=4, matched=0.0)
    for entry in exact.index(photographs, "train"):
        layers.clear()
        sample = exact.load(entry)
        assert sample.image.shape == (3, 48, 64) and sample.image.dtype == torch.float32
        assert sample.alpha is not None and sample.mask is not None and 1 <= len(layers) <= exact.most
        through = np.prod([1 - matte for _, matte in layers], 0)
        np.testing.assert_allclose(sample.alpha.numpy(), 1 - through, atol=1e-6)
        assert torch.equal(sample.mask, sample.alpha >= 0.5)
        colours, matte = layers[-1]
        top = matte > 0.999
        np.testing.assert_allclose(sample.image.numpy().transpose(1, 2, 0)[top], colours[top], atol=1e-3)


def test_pictures_are_keyed(photographs: Path) -> None:
    entries = SMALL.index(photographs, "train")
    first, again = SMALL.load(entries[1]), SMALL.load(SMALL.index(photographs, "train")[1])
    assert torch.equal(first.image, again.image) and torch.equal(first.labels()["alpha"], again.labels()["alpha"])
    other = SMALL.with_options(seed=1)
    assert not torch.equal(other.load(other.index(photographs, "train")[1]).image, first.image)
    assert files_of(entries[0]) == [entries[0].photograph]  # whose change makes a cache anew


def test_splits_share_no_photograph_and_stay(photographs: Path, tmp_path: Path) -> None:
    used = {
        split: {e.photograph for e in Composites(count=200).index(photographs, split)}
        for split in ("train", "val", "test")
    }
    assert not used["train"] & used["val"] and not used["train"] & used["test"] and not used["val"] & used["test"]
    assert sum(map(len, used.values())) == 60
    before = composites._split_of(Path("set0/3.jpg"))
    assert before == composites._split_of(Path("set0/3.jpg")) and before in used


@pytest.mark.parametrize("axis", [0, 1])
def test_what_an_edge_cuts_stays_cut(axis: int) -> None:
    """A foreground that leaves its scene at an edge leaves the picture there, too."""
    matte = np.zeros((40, 40), np.float32)
    matte[10:20, :12] = 1  # cut on the left
    matte = matte if axis else matte.T
    places = composites._places(matte, (48, 48))
    assert places is not None and places[axis][1] == 0 and places[axis][0] < 0 < places[1 - axis][1]
    whole = np.ones((40, 40), np.float32)
    assert composites._places(whole, (48, 48)) is None  # cut all around, and too small to fill the picture
    assert composites._places(whole, (32, 32)) == [(-8, 0), (-8, 0)]


def test_bad_settings_and_folders(tmp_path: Path) -> None:
    for options, words in (
        ({"size": [8, 8]}, "at least 16"),
        ({"domain": "town"}, "choose one of"),
        ({"count": 0}, "count 0"),
        ({"most": True}, "most True"),
        ({"matched": 2}, "between 0 and 1"),
        ({"sise": 3}, "did you mean 'size'"),
    ):
        with pytest.raises(ValueError, match=words):
            DATASETS.find("composites").with_options(**options)
    with pytest.raises(ValueError, match="no photographs for split 'train'"):
        SMALL.index(tmp_path, "train")
    with pytest.raises(ValueError, match="needs its folder"):
        SMALL.index(None, "train")
