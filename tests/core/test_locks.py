"""A folder has one holder, who is named to the next, and whose end frees it however it comes."""

from __future__ import annotations

import os
import platform
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from genpercept.core import locks

HOLDS = """
import os, sys, time
from pathlib import Path
from genpercept.core import locks
with locks.hold(Path(sys.argv[1]), "train"):
    if sys.argv[2] == "alone" or not os.fork():  # a worker that outlives its parent, and has started
        print("held", flush=True)
    time.sleep(600)
"""


def holder(folder: Path, way: str = "alone") -> subprocess.Popen[str]:
    child = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(folder), way], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert child.stdout is not None and child.stdout.readline() == "held\n"
    return child


@pytest.mark.parametrize("way", ["alone", "fork"])
def test_the_second_is_told_who_holds_it_and_a_kill_frees_it(way: str, tmp_path: Path) -> None:
    child = holder(tmp_path, way)
    try:
        for _ in range(2):  # asking takes nothing away from the holder
            with pytest.raises(ValueError) as refused, locks.hold(tmp_path, "predict"):
                pass
        words = rf"in use by process {child.pid} on {re.escape(platform.node())} since \d\d:\d\d \(train\);"
        assert re.search(words, str(refused.value)) and str(refused.value).startswith(str(tmp_path))
        child.kill()
        child.wait()
        with locks.hold(tmp_path, "predict"):
            assert str(os.getpid()) in (tmp_path / locks.NAME).read_text()
    finally:
        os.killpg(child.pid, signal.SIGKILL) if way == "fork" else child.kill()
        child.communicate()
    assert list(tmp_path.iterdir()) == []


def test_it_ends_with_its_block_and_whatever_ends_that(tmp_path: Path) -> None:
    with pytest.raises(KeyError), locks.hold(tmp_path, "a"):
        raise KeyError
    twice = pytest.raises(ValueError, match=f"process {os.getpid()} .*\\(b\\)")
    with locks.hold(tmp_path, "b"), twice, locks.hold(tmp_path, "c"):
        pass
    (tmp_path / locks.NAME).write_text("not JSON")  # left by whoever was killed
    with locks.hold(tmp_path, "d"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_folder_removed_meanwhile_is_no_second_error(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    with locks.hold(folder, "a"):
        (folder / locks.NAME).unlink()
        folder.rmdir()
        folder.mkdir()
        with locks.hold(folder, "b"):  # another folder of that name
            pass
    assert list(folder.iterdir()) == []
