"""`genpercept data prepare`: the samples of a data set, once, in a form that is quick to read; see data/_prepared.py."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import torch

from genpercept.core import files
from genpercept.core.texts import one_line, time_left
from genpercept.core.workers import end_with_parent
from genpercept.data import DATASETS, Dataset, prepared
from genpercept.imaging.read import shown

_BEGUN = "preparing.json"  # beside the samples until all are there
_PROBED = 3  # samples that the size of the rest is estimated from
_LISTED = 20  # samples that could not be read, named in the text
_EVERY = 10.0  # seconds between two lines
_SLACK = 1.05  # of the estimate


def main(
    name: str,
    root: Path | None,
    out: Path,
    options: Mapping[str, Any] | None = None,
    splits: Sequence[str] = (),
    processes: int = 0,
    eight_bits: bool = False,
    skip_bad: bool = False,
) -> int:
    """Prepare splits (none named: those that are there) of a data set under `out`. Returns 0; 1 when some cannot be read.

    What an earlier call has made is kept, so one that was stopped goes on. ValueError for a folder with something else in it,
    for options other than those it was begun with, and where the disk is too small.
    """
    plugin = DATASETS.find(name).with_options(**(options or {}))
    if prepared.manifest_of(root) is not None:
        raise ValueError(f"{shown(Path(str(root)))}: is a prepared tree already; give the published one as --root")
    found = _entries(plugin, root, splits)
    identity = {
        "format": prepared.FORMAT,
        "dataset": name,
        "options": prepared.plain(prepared.changed_options(plugin)),
        "eight_bits": eight_bits,
    }
    earlier = _claim(out, identity)
    files.sweep(out / "samples")
    jobs = {prepared.file_name(entry): entry for entries in found.values() for entry in entries}
    missing = {file: entry for file, entry in jobs.items() if not (out / "samples" / file).exists()}
    problems: dict[str, str] = {}
    if missing:
        _check_space(plugin, out, list(missing.values()), len(jobs), eight_bits)
        problems = _prepare_all(plugin, out / "samples", missing, eight_bits, processes or os.cpu_count() or 1)
    rows = {
        split: [prepared.row_of(entry, problems.get(prepared.file_name(entry), "")) for entry in entries]
        for split, entries in found.items()
    }
    manifest = {**identity, "licence": plugin.licence, "splits": {**earlier, **rows}}
    files.write_text(out / prepared.MANIFEST, files.to_json(manifest))
    (out / _BEGUN).unlink(missing_ok=True)
    for problem in list(problems.values())[:_LISTED]:
        print(f"broken: {problem}")
    if len(problems) > _LISTED:
        print(f"broken: and {len(problems) - _LISTED} more")
    counts = ", ".join(f"{len(entries)} of {split}" for split, entries in found.items())
    print(f"{len(jobs) - len(problems)} samples ({counts}): {out}; read them as data set {name!r} with this root")
    return 1 if problems and not skip_bad else 0


def _entries(plugin: Dataset, root: Path | None, splits: Sequence[str]) -> dict[str, list[Any]]:
    """Of each split. Of those that are not named, the ones that are not there are said. ValueError where none is."""
    if splits:
        return {split: list(plugin.index(root, split)) for split in splits}
    found, absent = {}, []
    for split in plugin.about.splits if plugin.about else ("train", "val", "test", "all"):
        try:
            found[split] = list(plugin.index(root, split))
        except ValueError as error:
            absent.append(error)
            print(f"split {split}: left out: {str(error).partition('. Layout: ')[0]}")
    if not found:
        raise absent[0]
    return found


def _claim(out: Path, identity: Mapping[str, Any]) -> dict[str, Any]:
    """Begin in `out`, or go on there; the splits that it has. ValueError where something else is in it."""
    earlier: dict[str, Any] = {}
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out}: is a file; name a folder")
    begun = [out / name for name in (prepared.MANIFEST, _BEGUN) if (out / name).is_file()]
    if not begun and out.is_dir() and any(out.iterdir()):
        raise ValueError(
            f"--out {out}: has files in it that are no prepared data set; name a new folder or an empty one"
        )
    for path in begun:
        said = files.read_json(path)
        if different := [key for key, value in identity.items() if said.get(key) != value]:
            key = different[0]
            raise ValueError(
                f"--out {out}: was begun with {key} {said.get(key)}, now {identity[key]}; choose another folder"
            )
        earlier |= said.get("splits", {})
    out.mkdir(parents=True, exist_ok=True)
    files.write_text(out / _BEGUN, files.to_json(identity))
    return earlier


def _check_space(plugin: Dataset, out: Path, missing: Sequence[Any], total: int, eight_bits: bool) -> None:
    """Say how many bytes are needed, by samples from everywhere. ValueError where the disk has not that much."""
    sizes = []
    for place in range(_PROBED):
        try:
            sample = plugin.load(missing[(2 * place + 1) * len(missing) // (2 * _PROBED)])
            sizes.append(len(prepared.pack(sample, eight_bits)))
        except ValueError:  # a broken one, which is listed in its turn
            continue
    each = max(sizes, default=0)
    needed, free = int(each * len(missing) * _SLACK), shutil.disk_usage(out).free
    print(
        f"{len(missing)} of {total} samples to prepare: about {_size(needed)} ({_size(each)} each), {_size(free)} free"
    )
    if needed > free:
        raise ValueError(f"--out {out}: {_size(needed)} are needed, but {_size(free)} are free; choose another disk")


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _prepare_all(
    plugin: Dataset, folder: Path, missing: Mapping[str, Any], eight_bits: bool, processes: int
) -> dict[str, str]:
    """Write what is missing; of those that cannot be read, the problem by file name."""
    folder.mkdir(parents=True, exist_ok=True)
    problems: dict[str, str] = {}
    begin = said = time.monotonic()
    for done, (file, problem) in enumerate(_made(plugin, folder, missing, eight_bits, processes), 1):
        if problem:
            problems[file] = problem
        if time.monotonic() - said > _EVERY:
            said = time.monotonic()
            print(f"prepared {done} of {len(missing)}, {time_left(done, len(missing), said - begin)}", flush=True)
    return problems


def _made(
    plugin: Dataset, folder: Path, missing: Mapping[str, Any], eight_bits: bool, processes: int
) -> Iterator[tuple[str, str]]:
    if processes == 1 or len(missing) == 1:
        for file, entry in missing.items():
            yield file, prepare(plugin, entry, folder / file, eight_bits)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(processes, len(missing)), context, _begin) as pool:
        futures: dict[Future[str], str] = {
            pool.submit(prepare, plugin, entry, folder / file, eight_bits): file for file, entry in missing.items()
        }
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool:
            raise ValueError(
                "a process that prepares samples ended by itself, most often for lack of memory: use fewer --processes"
            ) from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in dict(pool._processes or {}).values():  # or leaving would wait for all that is queued
                worker.terminate()
            raise


def prepare(plugin: Dataset, entry: Any, file: Path, eight_bits: bool) -> str:
    """Write one sample; what is wrong with it, or "". ValueError where it cannot be written."""
    try:
        packed = prepared.pack(plugin.load(entry), eight_bits)
    except ValueError as error:
        return str(error)
    try:
        files.write_bytes(file, packed)
    except OSError as error:
        raise ValueError(f"{file}: cannot be written ({one_line(error)})") from None
    return ""


def _begin() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a word: an unfinished sample is not there
    end_with_parent()
    torch.set_num_threads(1)
