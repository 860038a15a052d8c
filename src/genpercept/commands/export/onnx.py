"""A pipeline's graph as an ONNX file, by torch's exporter. Weights of more than a gigabyte lie in a file beside it."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import torch

from genpercept.commands.export import graph as graphs
from genpercept.core import extras
from genpercept.core.texts import one_line
from genpercept.pipeline import exported

DTYPES = ("fp32", "fp16")
_INSIDE = 2**30  # bytes of weights that one file holds; protobuf ends at twice that


def write(graph: graphs.OneStepGraph, path: Path) -> None:
    """`graph` to `path`, without metadata. ValueError where torch cannot trace or translate one of its operations."""
    extras.require("onnx")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, about its own deprecations
            logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it tells that torchvision is missing
            traced, image = graphs.trace(graph)
            program = torch.onnx.export(
                traced,
                (image,),
                dynamo=True,
                input_names=[exported.INPUT],
                output_names=[exported.OUTPUT],
                verbose=False,
            )
    except RuntimeError as error:
        reason = one_line(error, 200)
        raise ValueError(f"{path.name}: this model cannot be translated to ONNX for all sizes ({reason})") from error
    size = sum(t.numel() * t.element_size() for t in graph.state_dict().values())
    assert program is not None  # which it is by torch's older exporter alone
    program.save(path, external_data=size > _INSIDE)
    _strip(path)


def _strip(path: Path) -> None:
    """Take out what the exporter notes of each operation: lines of source code, with the paths of this machine's files."""
    import onnx

    model = onnx.load(path, load_external_data=False)
    del model.metadata_props[:]
    graph = model.graph
    for noted in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del noted.metadata_props[:]
        noted.doc_string = ""
    onnx.save(model, path)


def describe(path: Path, text: str) -> None:
    """Put the settings into the file's metadata."""
    import onnx

    model = onnx.load(path, load_external_data=False)
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {exported.KEY: text})
    onnx.save(model, path)  # tensors in other files stay there: they were not read
