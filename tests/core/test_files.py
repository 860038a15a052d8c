"""Files and folders are whole or absent, whatever ends the writing; leftovers are told from what is being written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from genpercept.core import files

DIES = {
    "file": """
        with files.atomic(target) as temp:
            temp.write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    """,
    "folder": """
        with files.atomic_folder(target) as work:
            (work / "new").write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    """,
    "files": """
        with files.atomic_files(target) as work:
            (work / target.name).write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    """,
}


def content(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("kind", DIES)
def test_a_kill_in_the_middle_leaves_the_old_one(kind: str, tmp_path: Path) -> None:
    """SIGKILL runs no clean-up: what is left is the old file or folder, and a temporary one that the next sweep takes."""
    target = tmp_path / "target"
    if kind == "folder":
        target.mkdir()
        (target / "old").write_text("old")
    else:
        target.write_text("old")
    before = content(tmp_path)
    lines = [line.removeprefix("        ") for line in DIES[kind].splitlines()]
    header = "import os, signal, sys\nfrom pathlib import Path\nfrom genpercept.core import files\ntarget = Path(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", header + "\n".join(lines), str(target)], check=False)
    assert done.returncode == -signal.SIGKILL
    left = [p for p in tmp_path.iterdir() if p != target]
    assert len(left) == 1 and left[0].name.startswith(".genpercept-")
    assert content(tmp_path) != before  # what was half written is there, under its temporary name
    assert files.sweep(tmp_path) == 1
    assert content(tmp_path) == before and list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_a_failing_writer_leaves_nothing(error: type[BaseException], tmp_path: Path) -> None:
    with pytest.raises(error), files.atomic(tmp_path / "a") as temp:
        temp.write_text("half")
        raise error
    with pytest.raises(error), files.atomic_folder(tmp_path / "b") as work:
        (work / "c").write_text("half")
        raise error
    with pytest.raises(error), files.atomic_files(tmp_path / "d") as work:
        (work / "d").write_text("half")
        raise error
    assert not list(tmp_path.iterdir())


def test_a_file_is_replaced_with_the_users_own_mode(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("old")
    with files.atomic(path) as temp:
        temp.write_text("new")
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()


def test_a_folder_is_replaced_with_the_users_own_mode(tmp_path: Path) -> None:
    target = tmp_path / "parent" / "x"
    for name in ("old", "new"):
        with files.atomic_folder(target) as work:
            (work / "deep").mkdir()
            (work / "deep" / name).write_text(name)
        assert content(target) == {f"deep/{name}": name} and list(target.parent.iterdir()) == [target]
    assert target.stat().st_mode & 0o777 == 0o777 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_read_only_files_can_be_part_of_a_folder(tmp_path: Path) -> None:
    """As copies of a hub cache's files are."""
    with files.atomic_folder(tmp_path / "x") as work:
        (work / "a").write_text("a")
        (work / "a").chmod(0o444)
    assert content(tmp_path) == {"x/a": "a"}


def test_of_two_who_make_the_same_the_first_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "x"
    with files.atomic_folder(target, replace=False) as slow:
        (slow / "a").write_text("slow")
        with files.atomic_folder(target, replace=False) as quick:
            (quick / "a").write_text("quick")
    assert content(tmp_path) == {"x/a": "quick"} and list(tmp_path.iterdir()) == [target]


def replaced(target: Path) -> None:
    with files.atomic_folder(target) as work:
        (work / "a").write_text("new")


def old_folder(target: Path) -> Path:
    target.mkdir()
    (target / "a").write_text("old")
    return target


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="renameat2 is Linux's")
def test_there_is_no_moment_without_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two renames are not needed here, and whoever looks meanwhile finds the old or the new one."""
    target, seen, over = old_folder(tmp_path / "x"), Counter[bool](), threading.Event()
    monkeypatch.setattr(files, "_exchange", lambda *a: pytest.fail("put aside"))

    def look() -> None:
        while not over.is_set():
            seen[target.is_dir()] += 1

    watcher = threading.Thread(target=look)
    watcher.start()
    for _ in range(50):
        replaced(target)
    over.set()
    watcher.join()
    assert seen[True] > 50 and not seen[False]
    assert content(tmp_path) == {"x/a": "new"} and list(tmp_path.iterdir()) == [target]


def test_only_folders_and_links_to_them_are_replaced(tmp_path: Path) -> None:
    target = tmp_path / "x"
    target.write_text("a file of the user's")
    with pytest.raises(NotADirectoryError):
        replaced(target)
    assert content(tmp_path) == {"x": "a file of the user's"}
    target.unlink()
    target.symlink_to(old_folder(tmp_path / "elsewhere"))
    replaced(target)
    assert content(tmp_path) == {"elsewhere/a": "old", "x/a": "new"} and len(list(tmp_path.iterdir())) == 2


def test_where_names_cannot_be_swapped_the_old_one_is_put_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_swap", lambda work, target: False)
    target = old_folder(tmp_path / "x")
    replaced(target)
    assert content(tmp_path) == {"x/a": "new"} and list(tmp_path.iterdir()) == [target]


def test_a_folder_that_cannot_be_replaced_is_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = old_folder(tmp_path / "x")
    rename = Path.replace

    def fails(self: Path, other: Path) -> Path:
        if self.suffix == ".tmp":
            raise OSError("no")
        return rename(self, other)

    monkeypatch.setattr(files, "_swap", lambda work, target: False)
    monkeypatch.setattr(Path, "replace", fails)
    with pytest.raises(OSError, match="no"):
        replaced(target)
    assert content(tmp_path) == {"x/a": "old"} and list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("came", [False, True])
def test_a_folder_put_aside_by_a_killed_process_is_put_back(came: bool, tmp_path: Path) -> None:
    """Unless the new one has taken its place."""
    target = old_folder(tmp_path / "x")
    code = f"""
import os, signal, sys
from pathlib import Path
from genpercept.core import files
files._swap = lambda work, target: False
rename = Path.replace
def dies(self, other):
    if self.suffix == ".tmp":
        {"rename(self, other)" if came else "pass"}
        os.kill(os.getpid(), signal.SIGKILL)
    return rename(self, other)
Path.replace = dies
with files.atomic_folder(Path(sys.argv[1])) as work:
    (work / "a").write_text("new")
"""
    assert subprocess.run([sys.executable, "-c", code, str(target)], check=False).returncode == -signal.SIGKILL
    assert target.exists() is came and len(list(tmp_path.iterdir())) == 2
    assert files.sweep(tmp_path) == (1 if came else 2)
    assert content(tmp_path) == {"x/a": "new" if came else "old"} and list(tmp_path.iterdir()) == [target]


@pytest.mark.skipif(os.name != "posix", reason="folders are not synced elsewhere")
def test_folders_are_synced_after_renames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Content before its name, a new folder's own name, too; of files that belong together the folder once, at the end."""
    steps: list[str] = []
    sync, rename = files._sync, Path.replace

    def synced(path: Path) -> None:
        sync(path)
        steps.append(f"sync {path.relative_to(tmp_path.parent).as_posix()}" if path.is_dir() else "sync file")

    monkeypatch.setattr(files, "_sync", synced)
    monkeypatch.setattr(Path, "replace", lambda self, other: (steps.append(f"to {other.name}"), rename(self, other))[1])
    top = tmp_path.name
    files.write_text(tmp_path / "a", "")
    assert steps == ["sync file", "to a", f"sync {top}"]
    steps.clear()
    with files.synced_once():
        files.write_text(tmp_path / "a", "")
        files.write_text(tmp_path / "b", "")
    assert steps == ["sync file", "to a", "sync file", "to b", f"sync {top}"]
    steps.clear()
    with files.atomic_folder(tmp_path / "new" / "x") as work:
        (work / "a").write_text("")
    inside = f"sync {top}/new/{work.name}"
    assert steps == [f"sync {top}", "sync file", inside, "to x", f"sync {top}/new"]
    steps.clear()
    with files.atomic_files(tmp_path / "m.xml") as work:
        (work / "m.xml").touch()
        (work / "a.bin").touch()
    synced = f"sync {top}"
    assert steps == ["sync file", "sync file", synced, "to a.bin", synced, "to m.xml", synced]


def test_the_file_that_names_the_others_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[str] = []
    rename = Path.replace
    monkeypatch.setattr(Path, "replace", lambda self, other: (moved.append(self.name), rename(self, other))[1])
    (tmp_path / "model.xml").write_text("old")
    with files.atomic_files(tmp_path / "model.xml") as work:
        (work / "model.xml").write_text("new")
        (work / "model.bin").write_text("weights")
        (work / "z.bin").write_text("more")
    assert moved == ["model.bin", "z.bin", "model.xml"] or moved == ["z.bin", "model.bin", "model.xml"]
    assert content(tmp_path) == {"model.xml": "new", "model.bin": "weights", "z.bin": "more"}


def test_sweep_removes_what_the_dead_left(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from genpercept.core import files; t = Path(sys.argv[1])"
    code += "; files.temporary(t).touch(); (files.temporary(t) / 'deep').mkdir(parents=True)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    mine, old = files.temporary(tmp_path), tmp_path / ".genpercept-elsewhere-1-0.tmp"
    for path in (mine, old, tmp_path / ".genpercept-notes.tmp", tmp_path / ".genpercept-elsewhere-1-1.tmp"):
        path.touch()
    long_ago = time.time() - 25 * 3600
    os.utime(old, (long_ago, long_ago))
    kept = {mine.name, ".genpercept-notes.tmp", ".genpercept-elsewhere-1-1.tmp"}
    assert files.sweep(tmp_path) == 3
    assert {p.name for p in tmp_path.iterdir()} == kept
    assert files.sweep(tmp_path / "absent") == 0


def test_json_is_strict() -> None:
    text = files.to_json(
        {"a": np.float32(1.5), "b": float("nan"), "c": Path("x"), "d": np.arange(2), "e": (True, None)}
    )
    assert json.loads(text) == {"a": 1.5, "b": None, "c": "x", "d": [0, 1], "e": [True, None]}


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    files.write_text(tmp_path / "a.txt", "Grüße\n")
    assert (tmp_path / "a.txt").read_bytes() == "Grüße\n".encode()
    files.write_json(tmp_path / "a.json", {"ü": [1.0, float("inf")]})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n  "ü": [\n    1.0,\n    null\n  ]\n}\n'
    array = np.arange(6, dtype=np.float16).reshape(2, 3)
    files.write_array(tmp_path / "a.npy", array)
    files.write_arrays(tmp_path / "a.npz", {"one": array, "two": array[0]})
    assert np.array_equal(np.load(tmp_path / "a.npy"), array)
    with np.load(tmp_path / "a.npz") as found:
        assert found.files == ["one", "two"] and np.array_equal(found["two"], array[0])
    assert len(list(tmp_path.iterdir())) == 4
