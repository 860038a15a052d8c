"""Disk caches of rendered scenes and of latents: shards of memory-mapped .npy files, each complete or absent.

A shard is written to a temporary folder and renamed, so a killed run leaves none half-written and the next one goes on
where it stopped. The folder's name holds what the content depends on.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import multiprocessing
import os
import random
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from genpercept.core.files import atomic_folder, read_json, sweep, write_text
from genpercept.core.labels import BESIDE, LABELS
from genpercept.core.workers import end_with_parent
from genpercept.training.recipe import DataSet
from genpercept.training.samples import identity
from genpercept.training.samples.records import TEXTS, Record

SHARD = 256  # scenes


def key_folder(root: Path, kind: str, key: dict[str, Any]) -> Path:
    """root/kind-<hash of key>, with the key beside the shards for whoever wonders what they are."""
    text = json.dumps(key, sort_keys=True, default=str)
    folder = root / f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    sweep(folder)
    if not (folder / "key.json").exists():
        write_text(folder / "key.json", text)
    return folder


def fingerprint(module: nn.Module) -> str:
    """SHA-256 over names and values of a module's tensors: equal networks have equal latents."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def silent(line: str) -> None:
    """Reports to nobody."""


def write_shard(folder: Path, arrays: dict[str, np.ndarray], texts: dict[str, list[str]]) -> None:
    """One shard, complete or not at all; that of another process, if it was first."""
    with atomic_folder(folder, replace=False) as part:
        for name, array in arrays.items():
            np.save(part / f"{name}.npy", array)
        (part / "texts.json").write_text(json.dumps(texts), encoding="utf-8")


def shard_folder(folder: Path, number: int, content: str = "") -> Path:
    """content: a digest of what the shard is made from, where the folder's key does not say it."""
    return folder / (f"shard-{number:05d}-{content[:16]}" if content else f"shard-{number:05d}")


def shard_folders(folder: Path, count: int) -> list[Path]:
    """Of so many records whose folder's key says all that they are made from."""
    return [shard_folder(folder, number) for number in range(-(-count // SHARD))]


def missing_shards(folders: Sequence[Path]) -> list[int]:
    """Shards that are not there yet, in random order: so two runs that begin together share the work, not repeat it."""
    missing = [number for number, folder in enumerate(folders) if not folder.is_dir()]
    random.Random().shuffle(missing)  # not the run's own generator
    return missing


def render_shard(folder: Path, number: int, data: dict[str, Any]) -> int:
    """Render one shard of the synthetic world, unless another run has; in a worker process. Returns the shard's number."""
    from genpercept.data import synthetic

    if shard_folder(folder, number).is_dir():
        return number
    indices = range(number * SHARD, min((number + 1) * SHARD, data["count"]))
    scenes = synthetic.render(
        list(indices), domain=data["domain"], split=data["split"], size=tuple(data["size"]), seed=data["seed"]
    )
    arrays = {name: _packed(name, np.asarray(getattr(scenes, name))) for name in synthetic.RECORDED}
    write_shard(shard_folder(folder, number), arrays, {name: [str(t) for t in getattr(scenes, name)] for name in TEXTS})
    return number


def _packed(name: str, array: np.ndarray) -> np.ndarray:
    """A label as its row packs it; the image as it is."""
    return array if name in BESIDE else LABELS.find(name).packed(array)


def _unpacked(name: str, array: np.ndarray) -> np.ndarray:
    return array if name in BESIDE else LABELS.find(name).unpacked(array)


class Whole:
    """A source that leaves nothing out, and whose key says all."""

    def content(self, rows: range) -> str:
        return ""

    def left_out(self) -> Mapping[int, str]:
        return {}

    def leave_out(self, number: int, problem: str) -> None:
        raise ValueError(f"number {number}: {problem}")


class Shards(Whole):
    """Records of shards, memory-mapped. Thread-safe; other processes open the files anew.

    folders: of the shards in their order, SHARD records in each but the last.
    """

    def __init__(self, folders: Sequence[Path], count: int) -> None:
        self._folders, self._count = list(folders), count
        self._open: dict[int, tuple[dict[str, np.ndarray], dict[str, list[str]]]] = {}

    @property
    def key(self) -> str:
        """Of the folder in which they lie."""
        return self._folders[0].parent.name

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": {}}

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Record:
        arrays, texts = self._shard(index // SHARD)
        row = index % SHARD
        for array in arrays.values():
            _announce(array, row)
        record: Record = {name: _unpacked(name, array[row]) for name, array in arrays.items()}
        return record | {name: texts[name][row] for name in TEXTS if name in texts}

    def captions(self) -> Iterator[str]:
        for number in range(-(-self._count // SHARD)):
            yield from self._shard(number)[1].get("caption", ())

    def column(self, name: str, index: int) -> np.ndarray:
        """One array of one record, as stored."""
        return self._shard(index // SHARD)[0][name][index % SHARD]

    def caption(self, index: int) -> str:
        return self._shard(index // SHARD)[1]["caption"][index % SHARD]

    def _shard(self, number: int) -> tuple[dict[str, np.ndarray], dict[str, list[str]]]:
        found = self._open.get(number)
        if found is None:
            folder = self._folders[number]
            arrays = {p.stem: _mapped(p) for p in sorted(folder.glob("*.npy"))}
            texts = read_json(folder / "texts.json")
            found = self._open[number] = (arrays, texts)
        return found


def _mapped(path: Path) -> np.ndarray:
    """Rows are read in random order: without saying so, each would bring megabytes of its neighbours from the disk."""
    array: Any = np.load(path, mmap_mode="r")
    if hasattr(mmap, "MADV_RANDOM"):
        array._mmap.madvise(mmap.MADV_RANDOM)
    return array


def _announce(array: Any, row: int) -> None:
    """Ask for one row of a mapped array at once, which a reader in random order would get page by page."""
    if hasattr(mmap, "MADV_WILLNEED"):
        first = array.offset + row * array.strides[0]
        start = first - first % mmap.PAGESIZE
        array._mmap.madvise(mmap.MADV_WILLNEED, start, first + array.strides[0] - start)


def scenes(root: Path, data: DataSet, workers: int, report: Callable[[str], None] = print) -> Shards:
    """The cached scenes of a set; renders, with one process per core, those that are not there yet."""
    key = {
        "domain": data.domain,
        "split": data.split,
        "size": data.size,
        "seed": data.seed,
        "world": world_version(),
    }
    folder = key_folder(root, "scenes", key)
    # Shards hold SHARD scenes whatever the count, so that a set of another count shares them.
    folders = shard_folders(folder, data.count)
    missing = missing_shards(folders)
    if missing:
        job = {
            "domain": data.domain,
            "split": data.split,
            "size": data.size,
            "seed": data.seed,
            "count": len(folders) * SHARD,
        }
        _render_all(folder, missing, job, workers or os.cpu_count() or 1, report)
    return Shards(folders, data.count)


def world_version() -> str:
    """What the pictures of the synthetic world depend on: its declared version, and its code where that is another."""
    from genpercept.data import synthetic

    declared, found = str(synthetic.WORLD_VERSION), world_code()
    return declared if found == synthetic.WORLD_CODE else f"{declared}-{found}"


def world_code() -> str:
    """SHA-256 of the code that renders the pictures."""
    return identity.code("genpercept.world.stage")


def _render_all(
    folder: Path, missing: list[int], job: dict[str, Any], workers: int, report: Callable[[str], None]
) -> None:
    """Render the missing shards in fresh processes (forking one that has run threads is unsafe)."""
    if len(missing) == 1:
        render_shard(folder, missing[0], job)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(missing)), context, _begin_worker) as pool:
        futures = [pool.submit(render_shard, folder, n, job) for n in missing]
        try:
            for done, future in enumerate(as_completed(futures), 1):
                future.result()
                if done % 8 == 0 or done == len(missing):
                    report(
                        f"rendered {done * SHARD} of {len(missing) * SHARD} scenes ({job['domain']}, {job['split']})"
                    )
        except BaseException:
            for worker in dict(pool._processes or {}).values():  # or leaving would render all that is queued
                worker.terminate()
            raise


def _begin_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a word: an unfinished shard is not there
    end_with_parent()
