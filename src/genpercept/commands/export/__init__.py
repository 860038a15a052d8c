"""The parts of `genpercept export` that write a graph: one step as a network, ONNX, OpenVINO, the check of what was written."""
