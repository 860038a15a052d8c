#!/usr/bin/env bash
# Speed on one GPU: writes gpu.md and gpu.json beside it, and gpu_jobs.json, with which a second run goes on. Under 8 minutes.
# `--plan` prints what would run; `--smoke --out DIR` runs tiny networks on the CPU. PYTHON names another interpreter.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-.venv/bin/python}
[ -x "$python" ] || python=python3
PYTHONPATH="src${PYTHONPATH:+:$PYTHONPATH}" exec "$python" benchmarks/speed/gpu.py "$@"
