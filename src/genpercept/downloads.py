"""What downloads leave in the place of a file."""

from __future__ import annotations

from pathlib import Path


def refuse_stand_in(path: Path) -> None:
    """ValueError for an empty file, Git's pointer to a large file, or a page of a web site under the file's name."""
    with path.open("rb") as stream:
        begin = stream.read(64)
    if not begin:
        raise ValueError(f"{path}: is empty (0 bytes): its download or copy did not finish; fetch it again")
    if begin.startswith(b"version https://git-lfs"):
        raise ValueError(
            f"{path}: is a Git LFS pointer, not the file itself: run `git lfs pull` in its repository, or download the file"
        )
    if begin.lstrip()[:1] == b"<":
        raise ValueError(
            f"{path}: is a web page saved under this name, such as an error or login page; download it again"
        )
