"""Where models come from: the embedded ones, a folder, or a hub repository (downloaded or cached)."""

from __future__ import annotations

from collections.abc import Iterable
from glob import escape
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from genpercept.checkpoints import weights
from genpercept.core.names import hint

EMBEDDED = "mini"
_BESIDE = ("prompt_embeds", "unet_difference", "adapter_model", "pytorch_lora_weights")  # of a model, beside its parts
_SETTINGS = (
    ".json",
    ".txt",
    "README.md",
    "spiece.model",
    "empty_text_embed.npy",
)  # and small files: ends of their names
_UNREAD = ("safety_checker",)  # folders of pipelines that hold weights which nothing here reads
_TEXT, _IMAGE = "text_encoder", "image_encoder"  # the latter is read where there is no text encoder: GeoWizard v1
_DENOISER = "unet"  # read where a whole repository is pointed at; other U-Nets beside it, unet_v2, only if they are


def embedded_root() -> Path:
    """The folder of the embedded models inside the installed package."""
    return Path(str(files("genpercept.checkpoints"))) / "assets" / EMBEDDED


def embedded_names() -> list[str]:
    """Names of the embedded models, such as "mini/depth"."""
    return sorted(f"{EMBEDDED}/{p.name}" for p in embedded_root().iterdir() if (p / "model_index.json").is_file())


def embedded_for(task: str) -> str:
    """The name of a task's embedded model. ValueError where there is none."""
    name = f"{EMBEDDED}/{task}"
    if name not in embedded_names():
        raise ValueError(f"task {task!r} has no embedded model: name one by its folder or hub id (--model)")
    return name


def resolve(
    name: str | Path,
    *,
    subfolder: str | None = None,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
    allow_pickle: bool = False,
    lone_files: bool = False,
) -> Path:
    """The local folder behind an embedded name, a folder or a hub id ("owner/name"), downloading where it must.

    allow_pickle: download .bin files too. lone_files: a checkpoint may be one file, which is returned. ValueError in one
    line: what was looked for, where, and how to pass a folder.
    """
    if lone_files and not subfolder and (file := Path(name).expanduser()).is_file() and weights.lone_file(file):
        return file
    if (found := here(name, subfolder)) is not None:
        return found
    where = {"revision": revision, "cache_dir": cache_dir, "local_files_only": local_files_only, "token": token}
    return _descend(_download(str(name), subfolder, where, allow_pickle), subfolder)


def here(name: str | Path, subfolder: str | None = None) -> Path | None:
    """The folder behind an embedded name or a path; None of a hub id. ValueError, at once, for what can be none of them."""
    text = str(name)
    folder = Path(text).expanduser()
    if folder.is_dir():
        return _descend(folder, subfolder)
    if text.startswith(f"{EMBEDDED}/"):
        return _descend(_embedded(text), subfolder)
    if folder.exists():
        raise ValueError(f"{text}: {file_advice(folder)}")
    if text.count("/") != 1 or text.startswith((".", "/", "~")):
        raise ValueError(
            f"{text}: no such folder; pass a model folder, a hub id (owner/name) or one of {', '.join(embedded_names())}"
        )
    return None


def file_advice(path: Path) -> str:
    """What a file is that is no model, and what to pass in its place."""
    if path.suffix not in (weights.SUFFIX, *weights.PICKLE_SUFFIXES):
        return "is a file; a model is a folder (with genpercept.json), an embedded name or a hub id"
    if (path.parent / "config.json").is_file():
        return (
            f"is a file of weights; pass its folder, {path.parent}, which has the config.json that says what they are"
        )
    return (
        "is a file of weights without a config.json beside it, so nothing says what they are; pass a model folder in "
        "diffusers' layout (config.json + diffusion_pytorch_model.safetensors)"
    )


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


def _download(repo: str, subfolder: str | None, where: dict[str, Any], allow_pickle: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    cache = _cache_folder(where["cache_dir"])
    try:
        wanted, how = _wanted(repo, subfolder, where, allow_pickle)
        return Path(snapshot_download(repo, allow_patterns=wanted, **how))
    except GatedRepoError:
        reason = f"{endpoint()} gives it only to those who accepted its terms there: do so, then `hf auth login`"
    except RepositoryNotFoundError:
        reason = f"no such repository on {endpoint()}, or it needs a token (`hf auth login`)"
    except RevisionNotFoundError:
        reason = f"{endpoint()} has no revision {where['revision']!r} of it"
    except HFValidationError:
        reason = "no such folder here, and no hub id either (owner/name)"
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        asked = _not_asked(where["local_files_only"]) or f"{endpoint()} did not give it ({type(error).__name__})"
        reason = f"no such folder here, not in the cache {cache}, and {asked}"
    raise ValueError(
        f"{repo}: {reason}; pass the path of a local folder instead (downloaded elsewhere with `hf download {repo}`), "
        f"or one of {', '.join(embedded_names())}"
    ) from None


def _wanted(
    repo: str, subfolder: str | None, where: dict[str, Any], allow_pickle: bool
) -> tuple[list[str], dict[str, Any]]:
    """Patterns of the files that reading a model takes, of one variant of its weights, and where to have them from.

    What the hub answers is left to the snapshot, which asks again. Where there is no way to it one wait is enough: the
    cache is all that is left.
    """
    import huggingface_hub
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    patterns = _patterns(subfolder, allow_pickle)
    if where["local_files_only"] or constants.HF_HUB_OFFLINE:
        return patterns, where
    try:
        info = huggingface_hub.HfApi(token=where["token"]).model_info(repo, revision=where["revision"])
    except (HfHubHTTPError, HFValidationError):
        return patterns, where
    except Exception:  # noqa: BLE001  # of whatever carries its requests, which differs by its version
        return patterns, where | {"local_files_only": True}
    names = [file.rfilename for file in info.siblings or ()]
    return [escape(name) for name in select(names, subfolder, allow_pickle=allow_pickle)] or patterns, where


def select(names: Iterable[str], subfolder: str | None = None, *, allow_pickle: bool = False) -> list[str]:
    """Of the paths in a repository those of a model: its settings, and of each part's weights what would be read."""
    folders: dict[str, list[str]] = {}
    paths = [PurePosixPath(name) for name in names]
    there = {path.parent.name for path in paths}
    unread = [*_UNREAD, *([_IMAGE] if _TEXT in there else [])]
    if not subfolder and _DENOISER in there:
        unread += [name for name in there if name.startswith(f"{_DENOISER}_")]
    for path in paths:
        place = path.parent.as_posix()
        inside = not subfolder or place == subfolder or path.parent.parent.as_posix() == subfolder
        if inside and path.parent.name not in unread:
            folders.setdefault(place, []).append(path.name)
    found = []
    for place, inside in folders.items():
        kept = set(weights.needed(inside, weights.wanted_variant(), allow_pickle=allow_pickle))
        kept |= {name for name in inside if name.endswith(_SETTINGS)}
        kept |= {name for name in inside if name.startswith(_BESIDE) and name.endswith(weights.SUFFIX)}
        found += [(PurePosixPath(place) / name).as_posix() for name in sorted(kept)]
    return found


def _patterns(subfolder: str | None, allow_pickle: bool) -> list[str]:
    """Files that models are made of. A repository's own single-file weights, gigabytes that no loader here reads, are not."""
    kinds = [*(f"*{end}" for end in _SETTINGS), "*.safetensors", *(["*.bin"] if allow_pickle else [])]
    if subfolder:
        return [f"{subfolder}/{p}" for p in kinds] + [f"{subfolder}/*/{p}" for p in kinds]
    single = [p for p in kinds if p in ("*.safetensors", "*.bin")]
    names = (*weights.STEMS, *_BESIDE)
    beside = [f"{name}*{p.removeprefix('*')}" for name in names for p in single]
    return [p for p in kinds if p not in single] + [f"*/{p}" for p in single] + beside


def endpoint() -> str:
    """The host that hub ids are asked of: no path, user name or password of its address."""
    from huggingface_hub import constants

    return urlsplit(constants.ENDPOINT).hostname or "the hub"


def cached(repo: str, cache_dir: str | Path | None = None) -> Path | None:
    """The folder that the cache holds of a hub id, without asking the network; None where there is none."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repo, cache_dir=cache_dir, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, OSError):
        return None


def _cache_folder(cache_dir: str | Path | None) -> str:
    from huggingface_hub import constants

    return str(cache_dir or constants.HF_HUB_CACHE)


def _not_asked(local_files_only: bool) -> str:
    from huggingface_hub import constants

    if local_files_only:
        return f"{endpoint()} was not asked (local_files_only)"
    return f"{endpoint()} was not asked (HF_HUB_OFFLINE)" if constants.HF_HUB_OFFLINE else ""
