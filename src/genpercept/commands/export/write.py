"""From a pipeline to a checked file: graph, translation, settings in the metadata, comparison with the pipeline."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from genpercept.commands.export import check
from genpercept.commands.export import graph as graphs
from genpercept.commands.export import onnx as to_onnx
from genpercept.commands.export import openvino as to_openvino
from genpercept.core import dtypes
from genpercept.pipeline import exported
from genpercept.pipeline.pipeline import GenPerceptPipeline
from genpercept.pipeline.specialise import pipeline

_DTYPES = {"onnx": to_onnx.DTYPES, "openvino": to_openvino.DTYPES}


def write(
    pipe: GenPerceptPipeline, to: str, path: Path, dtype: str, paths: Sequence[str | Path] = ()
) -> dict[str, Any]:
    """Write `pipe`, a plain one in float32 on the CPU, for "onnx" or "openvino" to `path`; returns what its check found.

    paths: files and folders of images to check it on (and, for int8, to choose ranges by); none: drawn ones. ValueError for a
    dtype that a target does not have, for what cannot be a graph, and where the graph does not give the pipeline's answers.
    """
    dtypes.check(dtype, _DTYPES[to], f"dtype for {to}")
    pictures = check.images(pipe, paths)
    if to == "onnx":
        to_onnx.write(graphs.build(pipe, dtypes.to_torch(dtype)), path)
    else:
        to_openvino.write(graphs.build(pipe), path, dtype, pictures)
    describe = to_onnx.describe if to == "onnx" else to_openvino.describe
    settings = _settings(pipe, to, dtype)
    describe(path, json.dumps(settings, default=str))
    found = check.compare(pipe, exported.load(path), pictures)
    check.refuse_wrong(str(pipe.info.get("model")), dtype, found)
    found["drawn"] = not paths
    settings["export"]["check"] = found
    describe(path, json.dumps(settings, default=str))
    return found


def _settings(pipe: GenPerceptPipeline, to: str, dtype: str) -> dict[str, Any]:
    """genpercept.json's contents without the parts, and how the graph was made."""
    info = {k: v for k, v in pipe.info.items() if k not in ("parts", pipeline.MARK)}
    made = {"to": to, "dtype": dtype, "stride": pipe.stride, "software": pipe.meta["software"]}
    return info | {"export": made | {"exported_from": info.get("model")}}
