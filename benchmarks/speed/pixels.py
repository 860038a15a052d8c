"""Photographs from file to file beside an older version: CPU seconds and wall, pass by pass, and how far the answers are apart.

    python benchmarks/speed/pixels.py --before OLD/src                          # pixels.md beside it
    python benchmarks/speed/pixels.py --before OLD/src --photos FOLDER          # of other photographs

One photograph of 12 megapixels, 20 of them, and 500 of 640 x 480, through the function behind `genpercept predict`: a process
of each version, in turns, in which the model is loaded and two small images have been predicted. Photographs are enlarged, with
a little noise, and are JPEGs of quality 90: those of scikit-image and scikit-learn, unless `--photos` names a folder.
"""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2]))  # where `benchmarks` lies
from benchmarks._page import made
from benchmarks.speed.house import commit

LARGE, MIDDLE, SMALL = (4000, 3000), (1280, 960), (640, 480)  # width, height
NOISE = 3.0  # standard deviation, of 255
TASKS = {  # what is compared: ends of files
    "depth": (".png", "_color.png"),
    "normals": (".png", "_color.png"),
    "dis": (".png", "_cutout.png"),
    "matting": (".png", "_cutout.png"),
}
PASSES = {
    "decode": "JPEG, decoded by Pillow",
    "array": "as an array, upright",
    "input": "to the network's size, in floats",
    "network": "network",
    "output": "its answer to the photograph's size, checked",
    "png": "16 bits as PNG",
    "color": "colours as PNG",
}


# ---- photographs


def sources(folder: Path | None) -> list[Image.Image]:
    """Photographs as they are. SystemExit where there is none."""
    if folder is None:
        from genpercept.commands.demo.photographs import photographs

        return [Image.fromarray(case.image) for case in photographs()]
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    pictures = [path for path in paths if "depth" not in path.stem]
    if not pictures:
        raise SystemExit(f"{folder}: no photographs there")
    return [Image.open(path).convert("RGB") for path in pictures]


def write_photographs(folder: Path, images: list[Image.Image], count: int, size: tuple[int, int]) -> list[Path]:
    """`count` JPEGs, no two alike."""
    draw = np.random.default_rng(0)
    tile = np.rint(draw.normal(0, NOISE, (512, 512, 3))).astype(np.int16)
    folder.mkdir()
    paths = []
    for i in range(count):
        image = images[i * max(1, len(images) // count) % len(images)]
        width, height = size if image.width >= image.height else size[::-1]
        pixels = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
        grain = np.roll(tile, draw.integers(0, 512, 2), (0, 1))
        pixels += np.tile(grain, (-(-height // 512), -(-width // 512), 1))[:height, :width]
        paths.append(folder / f"{i:03d}.jpg")
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(paths[-1], quality=90)
    return paths


# ---- in a process of one version


def worker(work: Path, first: bool, compared: bool) -> dict[str, Any]:
    """CPU and wall seconds of each set; the first time those of each pass, and files of all tasks if they are `compared`."""
    from genpercept.imaging import write

    out = Path(tempfile.mkdtemp(dir=work))
    found: dict[str, Any] = {"out": str(out)}
    found |= {name: streamed("depth", work / name, out / name) for name in ("warm", "one", "large", "small")}
    if first:
        found["passes"] = passes(next((work / "one").iterdir()), out)
    if first and compared:
        names = {write.FORMATS[name].suffix: name for name in ("png", "color", "cutout")}
        for task, endings in TASKS.items():
            streamed(task, work / "answers", out / task, tuple(names[ending] for ending in endings))
    return found


_pipes: dict[str, Any] = {}


def streamed(task: str, folder: Path, out: Path, formats: tuple[str, ...] = ("png", "color")) -> tuple[float, float]:
    """(CPU, wall) seconds of the command's own function, the model being loaded. SystemExit where it fails."""
    import genpercept
    from genpercept.commands.predict.run import Machine, Request, run

    pipe = _pipes.setdefault(task, genpercept.load(f"mini/{task}", device="cpu"))
    request, machine = Request(pipe.info["model"]), Machine("cpu", "auto")
    wall, cpu = time.perf_counter(), time.process_time()
    if code := run([folder], out, request, formats=formats, machine=machine, load=lambda *_, **__: pipe):
        raise SystemExit(f"predict ended with code {code}")
    return time.process_time() - cpu, time.perf_counter() - wall


def passes(photo: Path, out: Path) -> dict[str, float]:
    """CPU seconds of each pass of one photograph, one after the other; the smaller of two."""
    import torch

    import genpercept
    from genpercept.core import values
    from genpercept.imaging import pixels, read, write
    from genpercept.imaging.write import Scene
    from genpercept.pipeline.call import Run

    pipe = genpercept.load("mini/depth", device="cpu")

    def once() -> dict[str, float]:
        found = {}

        def of(name: str, work: Callable[[], Any]) -> Any:
            start = time.process_time()
            result = work()
            found[name] = time.process_time() - start
            return result

        with Image.open(photo) as image, torch.inference_mode():
            of("decode", image.load)
            array = of("array", lambda: pixels.to_rgb(image, photo.name))
            geometry = values.Geometry.plan(array.shape[:2], pipe.resolution, pipe.stride)
            if hasattr(geometry, "apply_array"):
                x = of("input", lambda: geometry.apply_array(array))
            else:
                x = of("input", lambda: geometry.apply(read.to_tensor(array)))
            raw = of("network", lambda: pipe._forward(x, Run(pipe.paradigm(), 1, [0]), None))
            answer = of("output", lambda: pipe.task_plugin.decode(raw, geometry))
            for name in ("png", "color"):
                target = out / write.FORMATS[name].suffix
                of(name, lambda name=name, target=target: write.FORMATS[name].write(target, answer, Scene(array)))
        return found

    once()
    rounds = [once(), once()]
    return {name: min(each[name] for each in rounds) for name in rounds[0]}


# ---- how far apart


def apart(before: Path, after: Path, ending: str, most: int) -> tuple[int, float]:
    """Of the files of two folders: the largest difference in steps, and the share of values that differ at all."""
    import cv2

    largest, differ, count = 0, 0, 0
    for file in sorted(before.glob(f"*{ending}"))[:most]:
        old, new = (cv2.imread(str(each), cv2.IMREAD_UNCHANGED) for each in (file, after / file.name))
        steps = cv2.absdiff(old, new)
        largest, differ, count = max(largest, int(steps.max())), differ + np.count_nonzero(steps), count + steps.size
    return largest, differ / count


def all_apart(out: dict[str, Path], compared: int) -> dict[str, tuple[int, float]]:
    """`apart`, by what the files are."""
    found = {}
    for task, endings in TASKS.items() if compared else ():
        for ending in endings:
            folders = (out[version] / task for version in ("before", "after"))
            found[f"{task}, {ending}"] = apart(*folders, f"_{task}{ending}", compared)
    for ending in TASKS["depth"]:
        folders = (out[version] / "large" for version in ("before", "after"))
        found[f"depth, {ending}, of large ones"] = apart(*folders, f"_depth{ending}", max(1, compared))
    return found


def shortcuts(photos: list[Path]) -> dict[str, int]:
    """What was not taken: the largest change of mini/depth's answer, in steps of 16 bits, by quicker ways to a small image."""
    import torch

    import genpercept
    from genpercept.core.values import Geometry
    from genpercept.pipeline.call import Run

    pipe = genpercept.load("mini/depth", device="cpu")
    found: dict[str, int] = {}
    for photo in photos:
        whole = np.array(Image.open(photo))
        plan = Geometry.plan(whole.shape[:2], pipe.resolution, pipe.stride)
        h, w = plan.resized
        small = {}
        for scale in (2, 4, 8):
            image = Image.open(photo)
            image.draft("RGB", (image.width // scale, image.height // scale))
            small[f"JPEG decoded at 1/{scale} of its size (Pillow's draft)"] = np.array(image)
        image = Image.fromarray(whole)
        small["resized in 8 bits (Pillow, bilinear)"] = np.array(image.resize((w, h), Image.Resampling.BILINEAR))

        def answer(array: np.ndarray, seen: Geometry) -> np.ndarray:
            own = Geometry.plan(array.shape[:2], pipe.resolution, pipe.stride)
            with torch.inference_mode():
                raw = pipe._forward(own.apply_array(array), Run(pipe.paradigm(), 1, [0]), None)
                return pipe.task_plugin.decode(raw, seen).values

        seen = Geometry((h, w), plan.resized, plan.padded)
        wanted = answer(whole, seen)
        for name, array in small.items():
            steps = round(float(np.abs(answer(array, seen) - wanted).max()) * 65535)
            found[name] = max(found.get(name, 0), steps)
    return found


# ---- the page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True, metavar="SRC", help="the older checkout's src folder")
    parser.add_argument("--photos", type=Path, help="a folder of photographs in place of scikit-image's")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--large", type=int, default=20)
    parser.add_argument("--small", type=int, default=500)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    parser.add_argument("--compared", type=int, default=6, help="large photographs of which answers are compared")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    importlib.import_module("genpercept.pipeline.loading")  # and with it what the versions import
    versions = {"before": args.before.resolve(), "after": Path(__file__).parents[2] / "src"}
    with tempfile.TemporaryDirectory() as temp:
        work, images = Path(temp), sources(args.photos)
        write_photographs(work / "warm", images, 2, SMALL)
        write_photographs(work / "one", images, 1, LARGE)
        large = write_photographs(work / "large", images, args.large, LARGE)
        write_photographs(work / "small", images, args.small, SMALL)
        write_photographs(work / "answers", images, 3, MIDDLE)
        rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in versions}
        for number in range(args.rounds):
            for name in list(versions)[:: -1 if number % 2 else 1]:
                rounds[name].append(in_a_child(versions[name], worker, work, number == 0, args.compared > 0))
                print(f"round {number + 1}, {name}: {rounds[name][-1]}", flush=True)
            if number == 0:
                out = {name: Path(each[0]["out"]) for name, each in rounds.items()}
                far = in_a_child(versions["after"], all_apart, out, args.compared)
                cut = in_a_child(versions["after"], shortcuts, large[: args.compared])
            args.out.write_text(page(rounds, far, cut, versions, args), encoding="utf-8")
    print(args.out.read_text(encoding="utf-8"))


def in_a_child(source: Path, work: Callable[..., Any], *args: Any) -> Any:
    """What `work` gives in a process of its own, in which genpercept is that of `source`. SystemExit where it fails.

    Other packages are there already: importing them would take longer than most of what is measured.
    """
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    child = context.Process(target=_child, args=(there, source, work, args))
    child.start()
    there.close()
    try:
        return here.recv()
    except EOFError:
        raise SystemExit(f"{source}: its process has ended without an answer") from None
    finally:
        child.join()


def _child(pipe: Connection, source: Path, work: Callable[..., Any], args: tuple[Any, ...]) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "genpercept"]:
        del sys.modules[name]
    sys.path.insert(0, str(source))
    import torch

    import genpercept

    if Path(genpercept.__file__).parents[1] != source:
        raise SystemExit(f"{source}: genpercept came from {genpercept.__file__}: give a checkout's src folder")
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    pipe.send(work(*args))


def page(
    rounds: dict[str, list[dict[str, Any]]],
    far: dict[str, tuple[int, float]],
    cut: dict[str, int],
    versions: dict[str, Path],
    args: argparse.Namespace,
) -> str:
    """All of it, as Markdown. Ratios are of medians; above 1, the newer version is quicker."""
    count = min(map(len, rounds.values()))
    measured = {name: each[0]["passes"] for name, each in rounds.items()}
    argv = ["--before", "OLD/src", "--rounds", str(count), "--large", str(args.large), "--small", str(args.small)]
    argv += ["--photos", "FOLDER"] if args.photos else []
    old, new = (commit(source) for source in versions.values())
    lines = [
        "# Pixels, from file to file\n",
        f"{made(__file__, args.threads, argv)}. {old} beside {new}, mini/depth to a PNG of 16 bits and a picture; {count} "
        "rounds in turns, medians. The wall depends on what else "
        "the machine does much more than CPU seconds do.\n",
        "| photographs | before, CPU s | after | before / after | before, wall s | after | before / after |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    titles = {"one": "1 of 4000 x 3000", "large": f"{args.large} of 4000 x 3000", "small": f"{args.small} of 640 x 480"}
    for name, title in titles.items():
        cells = []
        for unit in (0, 1):
            was, now = (statistics.median(each[name][unit] for each in rounds[v]) for v in ("before", "after"))
            cells += [f"{was:.3g}", f"{now:.3g}", f"{was / now:.2f}"]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    lines += [
        "\n## One photograph of 12 megapixels, pass by pass\n",
        "| pass | before, CPU ms | after |",
        "| --- | ---: | ---: |",
    ]
    for name, title in PASSES.items():
        lines.append(f"| {title} | {measured['before'][name] * 1e3:.0f} | {measured['after'][name] * 1e3:.0f} |")
    sums = [sum(measured[v][name] for name in PASSES) * 1e3 for v in ("before", "after")]
    lines += [f"| sum | {sums[0]:.0f} | {sums[1]:.0f} |", "\n## How far the files are apart\n"]
    lines += [
        f"Of three photographs of {MIDDLE[0]} x {MIDDLE[1]}, decoded by OpenCV. A step is one of 65535 (.png), or of 255. "
        "Of a matte what is below a threshold (0.1) is set to 0: a value that lies at it may fall to either side.\n"
    ]
    lines += ["| file | largest difference, steps | values that differ |", "| --- | ---: | ---: |"]
    lines += [f"| {name} | {steps} | {share:.2g} |" for name, (steps, share) in far.items()]
    lines += [
        "\n## What was not taken\n",
        "Quicker ways to the network's small image change the answer by more than a step:\n",
    ]
    lines += ["| | largest change of the answer, steps of 65535 |", "| --- | ---: |"]
    lines += [f"| {name} | {steps} |" for name, steps in cut.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
