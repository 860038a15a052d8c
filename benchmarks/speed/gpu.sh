#!/usr/bin/env bash
# Speed on one GPU: writes gpu.md and gpu.json beside it in under 8 minutes. `benchmarks/speed/gpu.sh --smoke --out DIR`
# runs the same with tiny networks on the CPU. PYTHON names another interpreter than the repository's.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-.venv/bin/python}
[ -x "$python" ] || python=python3
PYTHONPATH="src${PYTHONPATH:+:$PYTHONPATH}" exec "$python" benchmarks/speed/gpu.py "$@"
