"""Arrays of floats in allowed pickles become tensors; whatever else asks for NumPy's names is refused, and never runs."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from genpercept.checkpoints import pickled_arrays, pickles

RNG = np.random.default_rng(0)


def old_names(path: Path) -> None:
    """The pickle in torch's zip file as NumPy of before 2.0 wrote it."""
    with zipfile.ZipFile(path) as file:
        entries = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, "w") as file:
        for name, content in entries.items():
            if name.endswith("data.pkl"):
                content = content.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
            file.writestr(name, content)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
@pytest.mark.parametrize("old", [True, False])
def test_arrays_of_floats_are_read(dtype: Any, old: bool, tmp_path: Path) -> None:
    plain = RNG.standard_normal((1, 5, 3)).astype(dtype)
    content = {"a": plain, "columns": np.asfortranarray(plain[0]), "n": 400, "t": torch.arange(3)}
    torch.save(content, tmp_path / "x.ckpt")
    if old:
        old_names(tmp_path / "x.ckpt")
    found = pickles.read_content(tmp_path / "x.ckpt")
    np.testing.assert_array_equal(found["a"].numpy(), plain)
    np.testing.assert_array_equal(found["columns"].numpy(), plain[0])
    assert found["n"] == 400 and found["t"].tolist() == [0, 1, 2]
    allowed = torch.serialization.get_safe_globals()
    assert not any(entry in allowed for entry in pickled_arrays.NAMES)  # nobody else's pickles are read so


def test_an_array_is_no_weight(tmp_path: Path) -> None:
    torch.save({"state_dict": {"w": np.zeros(3, np.float32)}}, tmp_path / "x.ckpt")
    with pytest.raises(ValueError, match="entry 'w' is a NumPy array, not a plain tensor"):
        pickles.read_tensors(tmp_path / "x.ckpt")


class Asks:
    """Pickled, it is a call of `function`, then a state."""

    def __init__(self, function: Any, *args: Any, state: Any = None) -> None:
        self.parts = (function, args) if state is None else (function, args, state)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.parts


_reconstruct = np.zeros(1).__reduce__()[0]  # of the module that this NumPy has
F4 = np.dtype("f4")


@pytest.mark.parametrize(
    "content",
    [
        np.array([{}], object),
        np.zeros(3, np.int64),
        np.array(["text"]),
        np.zeros(2, [("x", "f4"), ("y", "f4")]),
        np.float32(3),  # asks for numpy's scalar
        np.datetime64("2024-01-01"),
        Asks(np.ndarray, (1 << 50,), "f8"),
        Asks(_reconstruct, np.ndarray, (1 << 50,), b"b"),
        Asks(_reconstruct, np.matrix, (0,), b"b"),
        Asks(_reconstruct, np.ndarray, (0,), b"b", state=(1, (1 << 40,), F4, False, b"0000")),
        Asks(_reconstruct, np.ndarray, (0,), b"b", state=(1, (-1, -1), F4, False, b"0000")),
        Asks(_reconstruct, np.ndarray, (0,), b"b", state=(1, (1,), F4, False, [0.0])),
        Asks(_reconstruct, np.ndarray, (0,), b"b", state=(1, (1,), None, False, b"0000")),
        Asks(_reconstruct, np.ndarray, (0,), b"b", state={"values": 3}),
        Asks(np.dtype, "O"),
        Asks(np.load, "/tmp/x.npy"),
        Asks(eval, "1"),
    ],
)
def test_whatever_else_is_refused(content: Any, tmp_path: Path) -> None:
    torch.save({"state_dict": {"w": torch.zeros(1)}, "x": content}, tmp_path / "x.ckpt")
    with pytest.raises(ValueError, match=r"x\.ckpt: (refused|not a readable pickle)") as error:
        pickles.read_content(tmp_path / "x.ckpt")
    assert "\n" not in str(error.value)


def test_an_array_without_its_state_is_refused(tmp_path: Path) -> None:
    torch.save({"x": Asks(_reconstruct, np.ndarray, (0,), b"b")}, tmp_path / "x.ckpt")
    with pytest.raises(ValueError, match="holds an array without values"):
        pickles.read_content(tmp_path / "x.ckpt")


def test_the_names_are_four() -> None:
    assert {name for _, name in pickled_arrays.NAMES} == {
        "numpy.core.multiarray._reconstruct",
        "numpy._core.multiarray._reconstruct",
        "numpy.ndarray",
        "numpy.dtype",
    }
    assert not any(
        isinstance(f, type(np.ndarray)) and f.__module__.startswith("numpy") for f, _ in pickled_arrays.NAMES
    )


def test_a_plain_pickle_of_an_array_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "x.ckpt").write_bytes(pickle.dumps(np.zeros(3)))
    with pytest.raises(ValueError, match=r"refused|not a readable pickle"):
        pickles.read_content(tmp_path / "x.ckpt")


@pytest.mark.parametrize("cut", [lambda b: b[: len(b) // 2], lambda b: b[:10], lambda b: b""])
def test_a_damaged_one_says_so(cut: Callable[[bytes], bytes], tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"a": np.zeros(3, np.float32), "t": torch.zeros(1000)}, buffer)
    (tmp_path / "x.ckpt").write_bytes(cut(buffer.getvalue()))
    with pytest.raises(ValueError, match=r"refused|not a readable pickle"):
        pickles.read_content(tmp_path / "x.ckpt")
