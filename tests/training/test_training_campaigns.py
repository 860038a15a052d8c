"""The campaigns on training and on power cuts in short; in full: tools/campaigns."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from tools.campaigns import _runs, power_cut, training_full_disk, training_kills
from tools.campaigns._disk import Call, Disk

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")


def found(tmp_path: Path, calls: list[Call]) -> list[set[bytes | None]]:
    """By number of calls done, what `a` may be after a power cut: it was "old", and "new" is written beside it and renamed."""
    for name, text in (("before", "old"), ("after", "new")):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "a").write_text(text)
    disk = Disk(tmp_path / "before", tmp_path / "after", calls)
    return [
        {state.data[node.file] if (node := state.root.at("a")) else None for state in states}
        for states in disk.states(random.Random(0))
    ]


CREATE, WRITE, RENAME = Call("create", "t"), Call("write", "t"), Call("rename", "t", "a")
SYNC, SYNC_FOLDER = Call("sync", "t"), Call("sync", "")


def test_a_replayed_disk_loses_what_is_not_synced(tmp_path: Path) -> None:
    """Without a file's sync its name may come before its content; without the folder's a rename may be lost for ever."""
    synced = found(tmp_path / "1", [CREATE, WRITE, SYNC, RENAME, SYNC_FOLDER])
    assert synced == [{b"old"}] * 4 + [{b"old", b"new"}, {b"new"}]
    assert found(tmp_path / "2", [CREATE, WRITE, RENAME, SYNC_FOLDER])[-1] == {b"", b"n", b"new"}
    assert found(tmp_path / "3", [CREATE, WRITE, SYNC, RENAME])[-1] == {b"old", b"new"}


def test_calls_that_are_not_those_of_the_folder_are_refused(tmp_path: Path) -> None:
    """The replay is held to what is there in the end: a call that was overlooked does not pass."""
    with pytest.raises(AssertionError):
        found(tmp_path, [CREATE, WRITE, SYNC])


@needs_strace
@pytest.mark.parametrize(
    "name", ["a file, replaced", "model folder, replaced", "model folder, replaced by two renames"]
)
def test_a_power_cut_leaves_the_old_or_the_new(name: str) -> None:
    calls, counts, wrong = power_cut.cut(name, 0)
    assert not wrong and calls >= 5 and counts["old"] > 5 and counts["new"] > 1


@needs_strace
@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in power_cut.SCENARIOS if "file, " not in name and "model" not in name])
def test_a_power_cut_leaves_checkpoints_and_results_whole(name: str) -> None:
    assert not power_cut.cut(name, 0)[2]


@pytest.mark.slow
def test_killed_runs_end_as_if_never_killed(tmp_path: Path) -> None:
    outcomes = training_kills.campaign(["autoencoder", "distil"], 6, 5, 8, 0, tmp_path)
    assert sum(outcome.moments.total() for outcome in outcomes) == 6
    assert not [outcome.wrong for outcome in outcomes if outcome.wrong]


@pytest.mark.slow
def test_a_run_on_a_full_disk_ends_and_goes_on(tmp_path: Path) -> None:
    """By the largest file that a process may write; a disk of its own needs root."""
    recipe, whole = _runs.write("autoencoder", tmp_path, 8), tmp_path / "whole"
    first = _runs.Run(recipe, whole, 1, tmp_path / "log")
    assert first.wait(300) and first.codes == [0]
    (tmp_path / "disk").mkdir()
    wrong, line, kept, _ = training_full_disk.one("autoencoder", recipe, whole, tmp_path / "disk", 20_000, True)
    assert wrong == [] and "could not be written (File too large)" in line and kept == 0
