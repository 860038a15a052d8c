"""OpenVINO's pair of files: one step as a graph."""

from __future__ import annotations

from genpercept.commands.export.targets._graph import Graph
from genpercept.pipeline import exported

PLUGIN = Graph("openvino", exported.SUFFIXES["openvino"])
