"""Cut the power at every moment of saving a checkpoint, a model, a result: what does the reader find?

    python tools/campaigns/power_cut.py --seed 0 --out benchmarks/robustness/power_cut.md

A process saves under strace, which notes what it asks of the system, in order. Then every prefix of that is replayed as a
disk may have it: what was not synced may be lost, alone or with others, and a file that was not synced may be empty or half
there; a name is safe once its folder was synced. In each of these states a run begins anew (it sweeps), and must find the
old files or the new ones, byte for byte; after the last call the new ones. Linux, and strace. Exit code 1 where something
else is found.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # where `benchmarks`, `tests` and `tools` lie
os.environ.setdefault("OMP_NUM_THREADS", "1")

from benchmarks._page import made, show
from genpercept.core import files
from tools.campaigns._disk import Disk, State, read_calls

Content = Mapping[str, bytes]


@dataclass(frozen=True)
class Scenario:
    """`save(folder, text)` is done twice: "old" before, unless first; then "new", watched. `whole`: see `verdict`."""

    save: Callable[[Path, str], None]
    first: bool = False
    apart: bool = False  # files each by itself: a mix of old and new is told by the sidecar's hashes
    note: str = ""


def checkpoint(folder: Path, text: str) -> None:
    import torch

    from genpercept.training.run.state import Checkpoints
    from genpercept.training.run.state import State as Step

    step = 1 if text == "old" else 2
    w = {"w": torch.full((64,), float(step))}
    Checkpoints(folder, 1).save(Step(step=step), w, w, {"state": {}, "param_groups": []})


def model(folder: Path, text: str) -> None:
    with files.atomic_folder(folder / "model") as work:
        for name in ("unet", "vae"):
            (work / name).mkdir()
            (work / name / "weights.safetensors").write_bytes(f"{name} {text}".encode() * 500)
        (work / "genpercept.json").write_text(text)


def model_by_two_renames(folder: Path, text: str) -> None:
    files._swap = lambda work, target: False
    model(folder, text)


def predictor(folder: Path, text: str) -> None:
    import torch

    from genpercept import GenPerceptPipeline
    from tests.support.paths import SD_TINY

    pipe = GenPerceptPipeline.from_base(SD_TINY, "depth", resolution=0)
    with torch.no_grad():
        next(iter(pipe.unet.parameters())).add_(float(text == "new"))
    pipe.save_pretrained(folder / "model")


def one_file(folder: Path, text: str) -> None:
    files.write_json(folder / "scores.json", {"text": text * 500})


def files_together(folder: Path, text: str) -> None:
    with files.atomic_files(folder / "model.xml") as work:
        (work / "model.xml").write_text(text)
        (work / "model.bin").write_text(text * 500)


def result(folder: Path, text: str) -> None:
    import numpy as np

    from genpercept.imaging.prediction import Prediction

    values = np.linspace(0, 1 if text == "old" else 0.5, 64, dtype=np.float32).reshape(8, 8)
    Prediction(values, "depth_affine").save(folder / "photo_depth", ("png", "npy"))


SCENARIOS = {
    "checkpoint, the first": Scenario(checkpoint, first=True),
    "checkpoint, the next; the old one is dropped": Scenario(checkpoint),
    "model folder, new": Scenario(model, first=True),
    "model folder, replaced": Scenario(model, note="swapped by renameat2"),
    "model folder, replaced by two renames": Scenario(model_by_two_renames, note="where names cannot be swapped"),
    "predictor, replaced (`save_pretrained`)": Scenario(predictor),
    "a file, replaced": Scenario(one_file),
    "a result's files, new": Scenario(result, first=True, apart=True),
    "a result's files, replaced": Scenario(result, apart=True),
    "a graph and its weights, replaced": Scenario(files_together, apart=True),
}


def watched(name: str, folder: Path) -> None:
    """What strace sees; the old state is there. Markers, and a copy of what was before, for whoever reads the trace."""
    scenario = SCENARIOS[name]
    run = folder / "run"
    run.mkdir()
    if not scenario.first:
        scenario.save(run, "old")
    shutil.copytree(run, folder / "before")
    (folder / "begin").mkdir()
    scenario.save(run, "new")
    (folder / "end").mkdir()


def content(run: Path) -> Content:
    return {p.relative_to(run).as_posix(): p.read_bytes() for p in sorted(run.rglob("*")) if p.is_file()}


def verdict(scenario: Scenario, found: Content, old: Content, new: Content) -> str:
    """old, new, mixed (of whole files that belong together), or broken."""
    if found in (old, new):
        return "old" if found == old else "new"
    if old and scenario.save is checkpoint and found == {**old, **new}:
        return "new"  # beside the old one, which is dropped next
    whole = all(data in (old.get(name), new.get(name)) for name, data in found.items())
    if scenario.save is files_together and found.get("model.xml", new["model.xml"]) != new["model.xml"]:
        whole = False  # it has no hash of its weights: it may only be there with its own
    return "mixed" if scenario.apart and whole else "broken"


def cut(name: str, seed: int) -> tuple[int, dict[str, int], list[str]]:
    """The number of calls watched, of states by verdict, and what is wrong."""
    scenario, draw = SCENARIOS[name], random.Random(f"{seed} {name}")
    counts: dict[str, int] = {"old": 0, "new": 0, "mixed": 0}
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary).resolve()
        trace = folder / "trace"
        calls = "openat,creat,write,writev,pwrite64,ftruncate,fsync,fdatasync,mkdir,mkdirat,rename,renameat,renameat2"
        command = ["strace", "-f", "-y", "-s", "4096", "-o", str(trace), "-e", f"trace={calls},unlink,unlinkat,rmdir"]
        subprocess.run([*command, sys.executable, __file__, "--watched", name, str(folder)], check=True)
        old, new = content(folder / "before"), content(folder / "run")
        watched_calls = read_calls(trace, folder / "run", folder / "begin", folder / "end")
        disk = Disk(folder / "before", folder / "run", watched_calls)
        for number, states in enumerate(disk.states(draw)):
            for state in states:
                found = reader(state, folder / "replayed")
                what = verdict(scenario, found, old, new)
                last = number == len(watched_calls)
                if what == "broken" or (last and what != "new"):
                    wrong.append(f"after call {number} of {len(watched_calls)}: {what}: {sorted(found)}")
                else:
                    counts[what] += 1
    return len(watched_calls), counts, wrong


def reader(state: State, folder: Path) -> Content:
    """What is there when a run has begun anew in this state, without claims: those say whose unfinished files are."""
    from genpercept.imaging import sidecars
    from genpercept.training.run.claim import sweep  # not in the process that is watched

    shutil.rmtree(folder, ignore_errors=True)
    state.write(folder)
    sweep(folder)
    sidecars.sweep(folder)
    claims = {p.name for p in folder.glob(f".*{sidecars.CLAIM}") if sidecars.read(p)}
    return {name: data for name, data in content(folder).items() if name not in claims}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=[*SCENARIOS], default=[*SCENARIOS], metavar="SCENARIO")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--watched", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.watched:
        watched(options.watched[0], Path(options.watched[1]))
        return
    lines = [
        "# The power is cut",
        "",
        f"{made(__file__)}. What a process asks of the system while it saves, by strace, and each state of the disk that a"
        " power cut may leave: what is not synced is lost, alone, with what came after, or in a random choice; files that"
        " are not synced are empty or half there. Then a run begins anew, sweeps, and reads. Files of one result that are"
        " old and new beside each other are each whole; sizes and hashes in the sidecar tell that they do not belong"
        " together. A graph has no such hashes: where its weights are not its own, it is absent.",
        "",
        "| saved | calls | states | old | new | mixed | broken |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    wrong: list[str] = []
    for name in options.only:
        calls, counts, bad = cut(name, options.seed)
        note = f" ({SCENARIOS[name].note})" if SCENARIOS[name].note else ""
        mixed = str(counts["mixed"]) if SCENARIOS[name].apart else "–"
        states = sum(counts.values()) + len(bad)
        lines.append(
            f"| {name}{note} | {calls} | {states} | {counts['old']} | {counts['new']} | {mixed} | {len(bad)} |"
        )
        print(lines[-1], *bad[:3], sep="\n", flush=True)
        wrong += [f"- {name}: {text}" for text in bad[:5]]
    show([*lines, *(["", *wrong] if wrong else [])], options.out)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
