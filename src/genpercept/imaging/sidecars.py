"""The JSON beside a result: what the files hold, what they were made of, and that they are this program's.

It names under `files` the result's files by format, under `written` the size and SHA-256 of each, and under `earlier` those
that an earlier request has made of the same stem. Older ones have `files` alone. It is written last. Until then a claim lies in
its place, a hidden file of the same content, so that what a killed run leaves is known as ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from genpercept.core.files import read_json, temporary, to_json
from genpercept.imaging.write import FORMATS, Digest

UNCERTAINTY = "_uncertainty.npy"
FILM = ".mp4"
CLAIM = ".unfinished"  # the end of its name, which begins with a dot
_BEGINS, _ENDS = '{"kind": "', "}\n"  # of a claim's text
_SUFFIXES = tuple(sorted({*(f.suffix for f in FORMATS.values()), UNCERTAINTY, FILM}, key=len, reverse=True))


def read(path: Path) -> dict[str, Any] | None:
    """What a sidecar of ours says; None where there is none, or a file of someone else's."""
    try:
        found = read_json(path)
    except (OSError, ValueError, RecursionError):
        return None
    ours = isinstance(found, dict) and isinstance(found.get("kind"), str)
    return found if ours and all(isinstance(found.get(key), dict) for key in ("files", "meta")) else None


def known(path: Path) -> dict[str, Any] | None:
    """What is known of the files of the sidecar `path`: what it says, or, where a run was killed before it, the claim."""
    return read(path) or read(_claim(path))


def names(sidecar: Mapping[str, Any]) -> set[str]:
    """The files beside it that this program has written."""
    found = [*sidecar["files"].values(), *_table(sidecar, "written"), *_table(sidecar, "earlier")]
    return {name for name in found if isinstance(name, str)}


def digests(sidecar: Mapping[str, Any]) -> dict[str, Digest] | None:
    """Size and hash of each file of the result, by its name; None of an older one, which has none."""
    table = sidecar.get("written")
    if table is None:
        return None
    return {str(name): Digest(int(each["bytes"]), str(each["sha256"])) for name, each in dict(table).items()}


def of(file: Path) -> list[Path]:
    """Where the sidecar of a file would be, or a claim to it, were the file a result."""
    stems = [file.name.removesuffix(suffix) for suffix in _SUFFIXES if file.name.endswith(suffix)]
    found = [file.with_name(f"{stem}.json") for stem in stems if stem]
    return [*found, *map(_claim, found)]


def told(written: Mapping[Path, Digest], earlier: Mapping[str, Any]) -> dict[str, Any]:
    """`written` and `earlier` of a sidecar whose files are whole."""
    new = {path.name: asdict(digest) for path, digest in written.items()}
    old = {name: about for name, about in earlier.items() if name not in new}
    return {"written": new} | ({"earlier": old} if old else {})


@contextmanager
def claimed(path: Path, about: Mapping[str, Any], written: Mapping[Path, Digest]) -> Iterator[dict[str, Any]]:
    """While the files of the sidecar `path` are written, a claim says whose they are. Gives what earlier files there are.

    An older sidecar goes: it would vouch for files of which some are new. The claim is not synced: after a power cut the files
    may be nobody's, and are left alone. Where the block fails, what is `written` by then goes; the claim stays where older
    files have been replaced.
    """
    old = known(path) or {}
    there = [name for name in sorted(names(old)) if path.with_name(name).exists()] if old else []
    tables = {**_table(old, "earlier"), **_table(old, "written")}
    earlier = {name: tables.get(name) for name in there}
    claim, temp = _claim(path), temporary(path.parent)
    try:
        temp.write_text(to_json({**about} | ({"earlier": earlier} if earlier else {})) + "\n")
        temp.replace(claim)
    except BaseException:
        with suppress(OSError):
            temp.unlink()
        raise
    path.unlink(missing_ok=True)
    try:
        yield earlier
        claim.unlink()
    except BaseException:
        for file in written:
            if file.name not in there:
                with suppress(OSError):
                    file.unlink()
        with suppress(OSError):
            if not any(path.with_name(name).exists() for name in names({**about, "earlier": earlier})):
                claim.unlink()
        raise


def sweep(folder: Path) -> None:
    """Remove claims that no file needs, for the sidecar is there or no file is, and those that a power cut left in part."""
    for claim in folder.glob(f".*{CLAIM}"):
        about, sidecar = read(claim), claim.with_name(f"{claim.name[1:].removesuffix(CLAIM)}.json")
        with suppress(OSError):
            if about is None:
                useless = _in_part(claim)
            else:
                useless = bool(read(sidecar)) or not any(claim.with_name(name).exists() for name in names(about))
            if useless:
                claim.unlink()


def _in_part(claim: Path) -> bool:
    """Whether it is empty, or begins as a claim does and ends before its end: nobody's file has such a name and content."""
    text = claim.read_text(encoding="utf-8", errors="replace")
    if text.startswith(_BEGINS[: len(text)]) and len(text) <= len(_BEGINS):
        return True
    return text.startswith(_BEGINS) and not text.endswith(_ENDS)


def _claim(sidecar: Path) -> Path:
    return sidecar.with_name(f".{sidecar.stem}{CLAIM}")


def _table(sidecar: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = sidecar.get(key)
    return found if isinstance(found, dict) else {}
