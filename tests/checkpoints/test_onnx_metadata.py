"""Metadata of ONNX files, as onnx reads it; damaged files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from genpercept.checkpoints import onnx_metadata

onnx = pytest.importorskip("onnx")
PROPS = {"genpercept": '{"task": "depth", "ä": "ß"}' * 40, "other": "", "": "x"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A graph with weights, several opsets, a doc string and numbers of many bytes."""
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    ends = [onnx.helper.make_tensor_value_info(name, 1, [1]) for name in "xy"]
    weights = [onnx.numpy_helper.from_array(np.random.default_rng(0).random((300, 300)), "w")]
    graph = onnx.helper.make_graph([node], "g", ends[:1], ends[1:], weights)
    sets = [onnx.helper.make_opsetid("", 18), onnx.helper.make_opsetid("own", 2**40)]
    model = onnx.helper.make_model(graph, opset_imports=sets, model_version=2**62, doc_string="d", producer_name="p")
    onnx.helper.set_model_props(model, PROPS)
    onnx.save(model, tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def test_texts_are_those_that_onnx_reads(path: Path) -> None:
    model = onnx.load(path)
    assert onnx_metadata.read(path) == {entry.key: entry.value for entry in model.metadata_props} == PROPS


def test_what_is_cut_off_or_no_such_file(path: Path, tmp_path: Path) -> None:
    whole, bad = path.read_bytes(), tmp_path / "bad.onnx"
    for kept in (1, 3, 100, 50_000, len(whole) - 1):
        bad.write_bytes(whole[:kept])
        with pytest.raises(ValueError, match="byte"):
            onnx_metadata.read(bad)
    for content in (b"\xff" * 40, b"\x07abc", b"PK\x03\x04 a zip archive", b"\x72\xff\xff\xff\xff\xff\x7f"):
        bad.write_bytes(content)
        with pytest.raises(ValueError, match="byte"):
            onnx_metadata.read(bad)
    bad.write_bytes(b"")
    assert onnx_metadata.read(bad) == {}
