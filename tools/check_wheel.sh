#!/usr/bin/env bash
# A wheel built from this tree, installed without extras into an empty environment, must predict with the embedded models.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
.venv/bin/python -m build --wheel --no-isolation --outdir "$work" . >/dev/null
ls -l "$work"/*.whl | awk '{printf "wheel: %.1f MB\n", $5 / 1e6}'
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt "$work"/*.whl
cd "$work"
"$work/venv/bin/python" - <<'PY'
import numpy as np
from PIL import Image

rows = np.linspace(0, 255, 120)[:, None, None]
Image.fromarray(np.broadcast_to(rows, (120, 160, 3)).astype(np.uint8)).save("photo.png")
PY
for task in depth normals; do
    HF_HUB_OFFLINE=1 "$work/venv/bin/genpercept" predict photo.png --task "$task" --out out
    test -s "out/photo_$task.png"
done
echo "the wheel predicts: $(ls out | tr '\n' ' ')"
