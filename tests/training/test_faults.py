"""What goes wrong around a run: its folder cannot be written, it is interrupted while something hangs, its parent is killed."""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmarks import _tiny
from genpercept.core import interrupts, locks, workers
from genpercept.training import loop
from genpercept.training import recipe as recipes
from genpercept.training.run import signals
from genpercept.training.run.state import Checkpoints
from genpercept.training.run.unwritable import Unwritable
from genpercept.training.samples.prefetch import Prefetch
from tests.support.processes import together

STEPS = 12


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _tiny.write(tmp_path_factory.mktemp("faults"), STEPS, 2)


def meeting(recipe: Path, out: Path, step: int, fault: Callable[[], object], *overrides: str) -> tuple[str, int]:
    """Train, with `fault` after so many steps: the line that ended the run, and how many steps it had by then."""
    training = loop.Training(recipes.load(recipe, overrides), out, resume=False)
    original = training.step

    def stepped(batches: Any) -> dict[str, float]:
        if training.state.step == step:
            fault()
        return original(batches)

    training.step = stepped  # type: ignore[method-assign]
    with pytest.raises(Unwritable) as error:
        training.run()
    return str(error.value), training.state.step


# ---- a folder that cannot be written -----------------------------------------------------------------------------------


def small_files() -> None:
    """From here on this process can write no file of more than 4 KB, as on a full disk; Python has SIGXFSZ ignored."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))


@pytest.mark.parametrize("step", [1, 5])
def test_a_checkpoint_that_cannot_be_written_ends_the_run(recipe: Path, tmp_path: Path, step: int) -> None:
    """At the next step, with the checkpoint that is left; nothing half-written is. The rest is then trained on."""
    out = tmp_path / "run"

    def work() -> int:
        line, steps = meeting(recipe, out, step, small_files)
        assert steps <= step + 4  # one more step, or two more to the next checkpoint, before the writer was done
        left = "there is no whole checkpoint" if step == 1 else "the last whole checkpoint is step-0000004"
        after = "begin again" if step == 1 else "go on with --resume"
        assert line == (
            f"{out}: the checkpoint of step {step + 1} could not be written (File too large), and training has stopped; "
            f"{left}: lift the limit on the size of files, then {after}"
        )
        return 0

    together(1, work, tmp_path / "log")
    kept = [] if step == 1 else ["step-0000002", "step-0000004"]
    assert sorted(path.name for path in (out / "checkpoints").glob("*")) == kept
    assert loop.main(recipe, [], out, resume=step > 1) == 0


def test_a_folder_that_is_gone_ends_the_run_and_stays_gone(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    line, steps = meeting(recipe, out, 5, lambda: (time.sleep(0.5), shutil.rmtree(out)))
    assert steps <= 9 and not out.exists()
    assert line.startswith(f"{out}: the checkpoint of step 6 could not be written (No such file or directory)")
    assert "the folder is not there" in line


@pytest.mark.parametrize("what", ["log.jsonl", "pictures/", "best/", "model/"])
def test_other_files_of_a_run_end_it_too(recipe: Path, tmp_path: Path, what: str) -> None:
    """A file, or a folder, is in the place of what is to be written."""
    out = tmp_path / "run"

    def fault() -> None:
        path = out / what.rstrip("/")
        path.mkdir() if what == "log.jsonl" else path.touch()

    line, steps = meeting(recipe, out, 3, fault, "validation.every=4", "steps=6")
    assert line.startswith(f"{out}: {what} could not be written (") and steps == (6 if what == "model/" else 4)
    assert f"the last whole checkpoint is {Checkpoints.name(6 if what == 'model/' else 2)}" in line


def test_all_processes_end_where_the_first_cannot_write(recipe: Path, tmp_path: Path) -> None:
    def work() -> int:
        line, _ = meeting(recipe, tmp_path / "run", 3, small_files, "optim.lr=1e-3")
        assert "could not" in line
        return 0

    begin = time.monotonic()
    together(2, work, tmp_path / "log")
    assert time.monotonic() - begin < 100


def test_the_errors_of_the_writer_are_told_at_the_next_step(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever they are: a mistake of ours does not hide either."""

    def fails(*args: Any) -> Path:
        raise KeyError("of ours")

    monkeypatch.setattr(Checkpoints, "save", fails)
    training = loop.Training(recipes.load(recipe, []), tmp_path / "run", resume=False)
    with pytest.raises(KeyError, match="of ours"):
        training.run()
    assert training.state.step <= 4


# ---- one run per folder ------------------------------------------------------------------------------------------------


def test_two_runs_in_one_folder_are_refused(recipe: Path, tmp_path: Path) -> None:
    """With who holds it and since when; and a run leaves no lock behind."""
    out = tmp_path / "run"
    out.mkdir()
    with locks.hold(out, "train"), pytest.raises(ValueError, match=rf"in use by process {os.getpid()} on .* since "):
        loop.main(recipe, [], out)
    assert loop.main(recipe, ["steps=2"], out) == 0
    assert not list(out.rglob(".*"))


def test_processes_of_one_launch_share_the_folder(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The launcher holds it; accelerate's and torch's launchers do not, but the first of their processes."""
    out = tmp_path / "run"
    together(2, lambda: loop.main(recipe, ["steps=2"], out), tmp_path / "log")
    with locks.hold(out, "train"):
        monkeypatch.setenv("GENPERCEPT_LAUNCHER", str(os.getppid()))
        monkeypatch.setattr(workers, "end_with", lambda parent: None)
        assert loop.main(recipe, ["steps=4"], out, resume=True) == 0


# ---- interrupted while something hangs ----------------------------------------------------------------------------------


def forked(work: Callable[[], object]) -> int:
    """The id of a process that does `work` as a program of its own would."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads
        pid = os.fork()
    if pid == 0:
        code = 70
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            interrupts.leave_at_second()
            code = int(work() or 0)  # type: ignore[call-overload]
        except KeyboardInterrupt:
            sys.exit = os._exit  # type: ignore[assignment]
            threading._shutdown()  # type: ignore[attr-defined]  # as the interpreter does at its end: it waits for threads
            code = 130
        finally:
            os._exit(code)
    return pid


def ended(pid: int, seconds: float) -> int | None:
    """Its exit status, or None when it is still there; it is not after this."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def hang(*args: Any, **kwargs: Any) -> Any:
    """Without a way out but the end of the process."""
    while True:
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            continue


HANGS: dict[str, Callable[[Path], None]] = {
    "the writer of checkpoints": lambda ready: setattr(Checkpoints, "save", lambda *a: (ready.touch(), hang())),
    "a thread that makes batches": lambda ready: setattr(
        Prefetch, "__init__", _hanging_maker(Prefetch.__init__, ready)
    ),
    "the step": lambda ready: setattr(loop.Training, "step", lambda *a: (ready.touch(), hang())),
    "a call that Python cannot interrupt": lambda ready: setattr(
        loop.Training, "step", lambda *a: (ready.touch(), _uninterrupted())
    ),
}


def _hanging_maker(original: Any, ready: Path) -> Any:
    def made(self: Any, make: Any, *rest: Any) -> None:
        original(self, lambda number: (ready.touch(), hang()) if number == 3 else make(number), *rest)

    return made


def _uninterrupted() -> None:
    """As a collective does that waits for a process which is gone: a handler of signals written in Python is not called."""
    mutex = (ctypes.c_char * 64)()
    lock = ctypes.CDLL(None).pthread_mutex_lock
    lock(mutex)
    lock(mutex)


@pytest.mark.parametrize("what", HANGS)
def test_a_second_interrupt_leaves_whatever_hangs(recipe: Path, tmp_path: Path, what: str) -> None:
    """Within two seconds of idle machine; ten here."""
    ready = tmp_path / "ready"

    def work() -> int:
        HANGS[what](ready)
        return loop.main(recipe, [], tmp_path / "run")

    pid = forked(work)
    while not ready.exists():
        time.sleep(0.02)
    os.kill(pid, signal.SIGINT)
    time.sleep(0.3)
    assert os.waitpid(pid, os.WNOHANG)[0] == 0, "the first one alone does not end what hangs"
    os.kill(pid, signal.SIGINT)
    assert ended(pid, 20) == 130


def test_one_interrupt_that_comes_by_two_ways_is_one() -> None:
    """torchrun passes Ctrl-C on as SIGTERM to processes that the terminal has told already."""
    told: list[int] = []
    with signals.noted(told.append):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        assert told == [signal.SIGINT]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)


# ---- children of a killed process ---------------------------------------------------------------------------------------


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="elsewhere a thread looks, which this child keeps from running"
)
def test_a_child_that_holds_pythons_lock_ends_with_its_parent() -> None:
    """As a decoder does that never returns."""
    read, write = os.pipe()

    def parent() -> None:
        own = os.getpid()
        if forked(lambda: (workers.end_with(own), os.write(write, b"x"), ctypes.PyDLL(None).sleep(120))):
            time.sleep(120)

    pid = forked(parent)
    os.close(write)
    assert os.read(read, 1) == b"x"
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert os.read(read, 1) == b""  # the other end is closed by the child's end
    os.close(read)


def killed(command: Sequence[str], out: Path, count: int) -> None:
    """Start it, wait for a checkpoint below `out`, kill it, and see the `count` or more processes below it end."""
    run = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 400
        while not list(out.rglob("step-*")):
            assert run.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        below = psutil.Process(run.pid).children(recursive=True)
        assert len(below) >= count
        run.kill()
        run.wait(20)
        assert not psutil.wait_procs(below, timeout=20)[1]
    finally:
        run.kill()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["launch", "accelerate", "torchrun", "workers"])
def test_no_process_of_a_killed_run_goes_on(recipe: Path, tmp_path: Path, how: str) -> None:
    settings = ["steps=100000", "logging.seconds=1000"]
    sets = [word for text in settings for word in ("--set", text)]
    out = tmp_path / "run"
    ours = [sys.executable, "-m", "genpercept", "train", str(recipe), "--out", str(out), *sets]
    module = ["-m", "genpercept.training", str(recipe), str(out), *settings]
    accelerate = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = {
        "launch": [*ours, "--set", "speed.processes=2"],
        "accelerate": [*accelerate, *module],
        "torchrun": [*torchrun, *module],
        "workers": [*ours, "--set", "loader.workers=2"],
    }[how]
    killed(command, out, 1 if how == "accelerate" else 2)
