"""From nothing to the first answer: `genpercept.load("mini/depth")` and one photograph of 512 pixels, in fresh processes.

    python benchmarks/speed/cold_start.py            # writes cold_start.md beside it

Imports, loading and the first image are timed apart; the peak is the process's (VmHWM, Linux).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from skimage import data

sys.path.insert(0, str(Path(__file__).parents[2]))  # where `benchmarks` lies
from benchmarks._page import made

CHILD = """
import json, sys, time
start = last = time.perf_counter()
seconds = {}
def note(name):
    global last
    seconds[name], last = time.perf_counter() - last, time.perf_counter()
import torch; note("import torch")
from diffusers import AutoencoderKL, DiffusionPipeline, UNet2DConditionModel; note("import diffusers' parts")
import genpercept.pipeline.loading; note("import genpercept, transformers")
pipe = genpercept.load(sys.argv[1]); note("load")
pipe(sys.argv[2]); note("first image")
seconds["all"] = time.perf_counter() - start
pipe(sys.argv[2]); note("second image")
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps([seconds, int(peak.split()[1]) / 2**20]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini/depth")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        photo = Path(folder) / "astronaut.jpg"
        Image.fromarray(data.astronaut()).save(photo, quality=95)  # 512 x 512
        found = [child(args.model, photo) for _ in range(args.runs)]
    args.out.write_text(page(args.model, found), encoding="utf-8")
    print(args.out.read_text(encoding="utf-8"))


def child(model: str, photo: Path) -> tuple[dict[str, float], float]:
    """Seconds of each part and the peak in GiB, of a process of its own."""
    done = subprocess.run([sys.executable, "-c", CHILD, model, str(photo)], capture_output=True, text=True, check=True)
    seconds, peak = json.loads(done.stdout.splitlines()[-1])
    return seconds, peak


def page(model: str, found: list[tuple[dict[str, float], float]]) -> str:
    names = list(found[0][0])
    medians = {name: statistics.median(seconds[name] for seconds, _ in found) for name in names}
    imports = sum(value for name, value in medians.items() if name.startswith("import"))
    rows = [f"| {name} | {value:.2f} |" for name, value in medians.items()]
    return (
        f"# Cold start of {model}\n\n"
        f"{made(__file__)}. Medians of {len(found)} "
        "fresh processes with files in the page cache; a photograph of 512 x 512, the model's own processing resolution.\n\n"
        "| part | seconds |\n| --- | ---: |\n" + "\n".join(rows) + "\n\n"
        f"Imports take {imports:.2f} s of it. Peak memory {statistics.median(peak for _, peak in found):.2f} GiB.\n"
    )


if __name__ == "__main__":
    main()
