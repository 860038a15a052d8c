"""A pipeline's graph as OpenVINO's model.xml and model.bin, out of ONNX: weights in float32, float16 or, quantised, int8."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor

from genpercept.commands.export import graph as graphs
from genpercept.commands.export import onnx as to_onnx
from genpercept.pipeline import exported

DTYPES = ("fp32", "fp16", "int8")


def write(graph: graphs.OneStepGraph, path: Path, dtype: str, pictures: Sequence[Tensor]) -> None:
    """`graph` to `path` and the .bin beside it. ValueError for what ONNX cannot hold.

    int8: weights and activations, by NNCF's post-training quantisation, whose ranges are those of `pictures`.

    Read by OpenVINO's core: its `convert_model` reports each use to its maker unless a user has forbidden it.
    """
    import openvino

    core = openvino.Core()
    with TemporaryDirectory(dir=path.parent) as folder:
        source = Path(folder) / "graph.onnx"
        to_onnx.write(graph, source)
        model = core.read_model(source)
        if dtype == "int8":
            model = _quantised(model, pictures)
        openvino.save_model(model, path, compress_to_fp16=dtype == "fp16")
        del model  # which maps the temporary file


def _quantised(model: Any, pictures: Sequence[Tensor]) -> Any:
    os.environ.setdefault("NNCF_CI", "1")  # else it reports each use to its maker
    import nncf

    nncf.set_log_level(logging.ERROR)
    data = nncf.Dataset([{exported.INPUT: picture.numpy()} for picture in pictures])
    return nncf.quantize(model, data, subset_size=len(pictures), model_type=nncf.ModelType.TRANSFORMER)


def describe(path: Path, text: str) -> None:
    """Put the settings into the file's metadata."""
    import xml.etree.ElementTree as xml

    tree = xml.parse(path)
    root = tree.getroot()
    info = root.find("rt_info")
    if info is None:
        info = xml.SubElement(root, "rt_info")
    entry = info.find(exported.KEY)
    (xml.SubElement(info, exported.KEY) if entry is None else entry).set("value", text)
    tree.write(path, encoding="utf-8", xml_declaration=True)
