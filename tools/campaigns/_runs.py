"""Training runs as small as they can be, one of each stage, in processes forked from one that has imported everything."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from accelerate.state import AcceleratorState

from benchmarks import _tiny
from genpercept import GenPerceptPipeline
from genpercept.core.texts import read_log
from genpercept.training import loop
from genpercept.training.run.state import Checkpoints, read_checkpoint
from genpercept.training.stages import autoencoder, denoiser, distil, finetune  # noqa: F401  # once, before the forks
from tests.support import normed
from tests.support.paths import SD_TINY

warnings.filterwarnings("ignore", message="Grad strides")  # of DDP, about speed
EVERY = 2  # steps between checkpoints
RECIPE = """
steps = {steps}
[[data]]
name = "folder"
root = "{data}"
split = "all"
size = [32, 32]
[augment]
crop = [0.6, 1.0]
colour = 0.5
[loader]
batch_size = 4
cache_dir = "{cache}"
[optim]
lr = 1e-3
warmup = 2
[ema]
decay = 0.9
[validation]
every = {validate}
count = 2
pictures = 1
split = "all"
[checkpoint]
every = {every}
[speed]
threads = 1
[logging]
tensorboard = false
seconds = 1000
"""
STAGES = {  # what comes before, and the tables beside; loader settings last
    "denoiser": (
        'stage = "denoiser"\n',
        '[model]\ncodec = "{base}/vae"\n[model.unet_config]\n{unet}[denoiser]\nsample_steps = 2\n',
    ),
    "predictor": (
        'stage = "finetune"\ntask = "depth"\nloss = {{ latent = 1.0 }}\n',
        '[model]\nbase = "{base}"\n',
    ),
    "distil": (
        'stage = "distil"\ntask = "depth"\n',
        '[model]\nbase = "{predictor}"\n[distil]\npart = "decoder"\nwidth = 0.5\n',
    ),
}
_UNET = """block_out_channels = [16, 16]
down_block_types = ["CrossAttnDownBlock2D", "DownBlock2D"]
up_block_types = ["UpBlock2D", "CrossAttnUpBlock2D"]
attention_head_dim = [2, 2]
cross_attention_dim = 16
norm_num_groups = 4
"""
KINDS = {"autoencoder": 1, "denoiser": 1, "predictor": 1, "distil": 1, "upernet": 1, "two processes": 2}


def write(kind: str, folder: Path, steps: int) -> Path:
    """The recipe of a kind, with what it needs, under `folder`; its path."""
    if kind == "upernet":
        path = normed.write(folder, "upernet", steps, EVERY)
        return _replaced(path, "every = 0", f"every = {steps // 2}")
    path = _tiny.write(folder, steps, EVERY)
    if kind in ("autoencoder", "two processes"):
        return _replaced(path, "every = 0", f"every = {steps // 2}")
    predictor = folder / "predictor"
    if kind == "distil" and not predictor.exists():
        GenPerceptPipeline.from_base(SD_TINY, "depth", resolution=0).save_pretrained(predictor)
    names = {"base": SD_TINY, "predictor": predictor, "unet": _UNET, "data": folder / "data", "cache": folder / "cache"}
    top, tables = STAGES[kind]
    text = (top + RECIPE + tables).format(**names, steps=steps, every=EVERY, validate=steps // 2)
    path.write_text(text, encoding="utf-8")
    return path


def _replaced(path: Path, old: str, new: str) -> Path:
    path.write_text(path.read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")
    return path


class Run:
    """A run that goes on, in one process or several."""

    def __init__(self, recipe: Path, out: Path, processes: int, log: Path, overrides: Sequence[str] = ()) -> None:
        """It resumes where there is something to resume; says what it says into `log`."""
        self.processes = processes
        environment: dict[str, str] = {}
        if processes > 1:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = str(probe.getsockname()[1])
            environment = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        resume = any((out / name).exists() for name in ("checkpoints", "model"))
        self._left = [
            _fork(recipe, out, resume, log, overrides, environment, rank if processes > 1 else None)
            for rank in range(processes)
        ]
        self.cpu = 0.0  # seconds, of those that have ended
        self.codes: list[int] = []

    def wait(self, seconds: float) -> bool:
        """Whether all have ended within so many seconds."""
        deadline = time.monotonic() + seconds
        while self._left and time.monotonic() < deadline:
            for pid in list(self._left):
                self._reap(pid, os.WNOHANG)
            time.sleep(0.002)
        return not self._left

    def kill(self) -> None:
        """SIGKILL to each, as when the machine runs out of memory or somebody has had enough."""
        for pid in self._left:
            os.kill(pid, signal.SIGKILL)
        for pid in list(self._left):
            self._reap(pid, 0)

    def _reap(self, pid: int, how: int) -> None:
        found, status, used = os.wait4(pid, how)
        if found:
            self._left.remove(pid)
            self.codes.append(os.waitstatus_to_exitcode(status))
            self.cpu += used.ru_utime + used.ru_stime


def _fork(
    recipe: Path,
    out: Path,
    resume: bool,
    log: Path,
    overrides: Sequence[str],
    environment: Mapping[str, str],
    rank: int | None,
) -> int:
    sys.stdout.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)  # within a test it was somewhere else
        if rank is not None:
            os.environ.update(environment, RANK=str(rank), LOCAL_RANK=str(rank))
        AcceleratorState._reset_state(True)
        torch.set_num_threads(1)
        code = loop.main(recipe, overrides, out, resume=resume)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        code = 2
    finally:
        os._exit(code)


def differences(whole: Path, run: Path) -> list[str]:
    """What is not the same in two runs: tensors of the last checkpoint, of model and best; files that only one has; figures."""
    found = []
    a, b = normed.tensors(whole), normed.tensors(run)
    found += [f"tensor {n}" for n in {**a, **b} if n not in a or n not in b or not torch.equal(a[n], b[n])]
    one, other = ({p.relative_to(top).as_posix(): p for p in top.rglob("*") if p.is_file()} for top in (whole, run))
    found += [f"file {name}" for name in sorted(one.keys() ^ other.keys())]
    for name in sorted(one.keys() & other.keys()):
        # they have seconds, or a step's figures twice; a pickle tells objects that are equal from those that are the same
        apart = name.endswith(("state.json", "done.json", "log.jsonl", "optimiser.pt"))
        if not apart and one[name].read_bytes() != other[name].read_bytes():
            found.append(f"content {name}")
    if _groups(whole) != _groups(run):
        found.append("the optimiser's settings")
    if _figures(whole) != _figures(run):
        found.append("figures of validations")
    return found


def _groups(run: Path) -> object:
    """Without the rates, which each step sets: a run that is resumed at its end makes none."""
    groups = read_checkpoint(Checkpoints(run, 1).list()[-1])[3]["param_groups"]
    return [{key: value for key, value in group.items() if key != "lr"} for group in groups]


def _figures(run: Path) -> dict[int, object]:
    """By step; of one that was validated twice the last."""
    return {row["step"]: row for row in read_log(run / "log.jsonl")}


def leftovers(folder: Path) -> list[str]:
    """Hidden files and folders: half-written ones, and locks."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob(".*"))
