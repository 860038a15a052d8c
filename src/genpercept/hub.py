"""Where models come from: the embedded ones, a folder, or a hub repository (downloaded or cached)."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

from genpercept.names import hint

EMBEDDED = "mini"


def embedded_root() -> Path:
    """The folder of the embedded models inside the installed package."""
    return Path(str(files("genpercept"))) / "assets" / EMBEDDED


def embedded_names() -> list[str]:
    """Names of the embedded models, such as "mini/depth"."""
    return sorted(f"{EMBEDDED}/{p.name}" for p in embedded_root().iterdir() if (p / "model_index.json").is_file())


def resolve(
    name: str | Path,
    *,
    subfolder: str | None = None,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
) -> Path:
    """The local folder behind an embedded name, a folder or a hub id ("owner/name"), downloading where it must.

    ValueError in one line: what was looked for, where, and how to pass a folder instead.
    """
    text = str(name)
    folder = Path(text).expanduser()
    if folder.is_dir():
        return _descend(folder, subfolder)
    if text.startswith(f"{EMBEDDED}/"):
        return _descend(_embedded(text), subfolder)
    if folder.exists():
        raise ValueError(f"{text}: is a file; a model is a folder (with genpercept.json), an embedded name or a hub id")
    if text.count("/") != 1 or text.startswith((".", "/", "~")):
        raise ValueError(
            f"{text}: no such folder; pass a model folder, a hub id (owner/name) or one of {', '.join(embedded_names())}"
        )
    where = {"revision": revision, "cache_dir": cache_dir, "local_files_only": local_files_only, "token": token}
    return _descend(_download(text, subfolder, where), subfolder)


def _embedded(text: str) -> Path:
    known = embedded_names()
    if text in known:
        return embedded_root() / text.split("/", 1)[1]
    raise ValueError(f"{text}: no such embedded model: {hint(text, known)}")


def _descend(folder: Path, subfolder: str | None) -> Path:
    if not subfolder:
        return folder
    if not (folder / subfolder).is_dir():
        there = ", ".join(sorted(p.name for p in folder.iterdir() if p.is_dir())) or "no folders"
        raise ValueError(f"{folder}: has no subfolder {subfolder!r}; it holds {there}")
    return folder / subfolder


def _download(repo: str, subfolder: str | None, where: dict[str, Any]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    patterns = ["*.json", "*.txt", "*.safetensors"]
    allow = [f"{subfolder}/{p}" for p in patterns] + [f"{subfolder}/*/{p}" for p in patterns] if subfolder else patterns
    try:
        return Path(snapshot_download(repo, allow_patterns=allow, **where))
    except RepositoryNotFoundError:
        reason = "no such repository on the hub, or it needs a token (huggingface-cli login)"
    except (LocalEntryNotFoundError, HFValidationError, HfHubHTTPError, OSError) as error:
        reason = f"no such folder here, not in the cache, and the hub did not give it ({type(error).__name__})"
    raise ValueError(
        f"{repo}: {reason}; pass a local folder instead, or one of {', '.join(embedded_names())}"
    ) from None
