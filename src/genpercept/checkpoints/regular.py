"""Files of a model folder, which may be anybody's: regular ones, no larger than they have a reason to be, that lie in it."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from genpercept.core.texts import shown

SETTINGS = 2 << 20  # bytes of a config at most: those of models have a few thousand, with a recipe in it ten thousand
TOKENIZER = 64 << 20  # of a tokenizer's file
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def opened(path: Path) -> BinaryIO:
    """The file, open for reading. ValueError for what is no regular file, without waiting for a pipe's other end; OSError."""
    # without O_NONBLOCK, opening a pipe waits for somebody who writes
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        refuse_irregular(path, os.fstat(descriptor))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def refuse_irregular(path: Path, found: os.stat_result | None = None) -> None:
    """ValueError for a pipe, a device, a socket or a folder where a file should be. OSError where there is nothing."""
    mode = (found or path.stat()).st_mode
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "no file")
        raise ValueError(f"{shown(path)}: is {kind}, not a file; copy or download the model again")


def read(path: Path, most: int) -> bytes:
    """A small file of a model. ValueError for what is no file, larger than `most` bytes, or elsewhere; OSError."""
    refuse_stray(path)
    with opened(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(
            f"{shown(path)}: is larger than {most >> 20} MB, which no file of its kind is; download it again"
        )
    return content


def refuse_stray(path: Path) -> None:
    """ValueError for a link out of the file's folder. The hub's cache may: its files are links to the blobs beside them."""
    if not path.is_symlink():
        return
    try:
        folder, target = path.parent.resolve(), path.resolve()
    except (OSError, RuntimeError):  # which of them, differs by Python's version
        raise ValueError(f"{shown(path)}: is a link that leads nowhere; copy the file itself here") from None
    if not any(target.is_relative_to(place) for place in (folder, *_blobs(folder))):
        raise ValueError(
            f"{shown(path)}: is a link to {shown(target)}, outside of its folder; copy the file itself here"
        )


def _blobs(folder: Path) -> list[Path]:
    """Where the hub's cache keeps the content of a snapshot that `folder` is, or is part of."""
    return [place.parent / "blobs" for place in folder.parents if place.name == "snapshots"]


def check_folder(folder: Path, most: int) -> None:
    """ValueError where another library would find something else than files in `folder`, or text of more than `most` bytes."""
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            continue
        try:
            refuse_irregular(path)
            if path.suffix in (".json", ".txt"):
                refuse_stray(path)
                if path.stat().st_size > most:
                    raise ValueError(f"{shown(path)}: is larger than {most >> 20} MB, which no file of its kind is")
        except OSError as error:
            raise ValueError(f"{shown(path)}: cannot be read ({error.strerror}); copy or download it again") from None
