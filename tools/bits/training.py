"""Ten steps of every kind of stage, by the recipes of mini on few and small scenes: every tensor of the model, every
figure that was logged, the last checkpoint, the pictures, and what the model then predicts. The rendered scenes, too.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from bits import inputs
from bits.command import done, genpercept
from bits.entries import Entries

STEPS = 10
_SMALL = {
    "steps": STEPS,
    "max_minutes": 0,
    "data.0.count": 64,
    "data.0.size": [48, 64],
    "loader.batch_size": 4,
    "loader.render_workers": 1,
    "validation.every": 5,
    "validation.count": 4,
    "validation.pictures": 2,
    "checkpoint.every_minutes": 0,
    "logging.every": 1,
    "speed.threads": 1,
    "optim.warmup": 3,
}
_QUICK = {"loader.latent_variants": 0, "precision": "fp32"}
_FOLDER = {"data": [{"name": "folder", "root": "data", "split": "all", "size": [28, 42]}], "validation.split": "all"}
_PIXELS = {"paradigm": "direct", "model.head": "dpt", "model.head_config": {"fusion_hidden_size": 8}}
Case = tuple[str, dict[str, Any]]

# name -> recipe, and what is changed beside _SMALL. A model that a later case starts from comes first.
CASES: dict[str, Case] = {
    "codec": ("codec", {"speed.processes": 1}),
    "codec-two-processes": ("codec", {"speed.processes": 2, "steps": 4, "loader.batch_size": 8}),
    "base": ("base", {"model.codec": "mini/base", "denoiser.sample_steps": 3}),
    "base-min-snr": (
        "base",
        {"model.base": "mini/base", "denoiser.cached_latents": False, "denoiser.min_snr_gamma": 5.0},
    ),
    "transformer": ("base_transformer", {"model.codec": "mini/base", "denoiser.sample_steps": 3}),
    "depth": ("depth", {"model.base": "mini/base"}),
    "depth-transformer": ("depth_transformer", {"model.base": "runs/transformer/model", **_QUICK}),
    "depth-pixels": ("depth_pixels", {"model.base": "mini/depth"}),
    "depth-accumulated": ("depth_pixels", {"model.base": "mini/depth", "optim.accumulation": 2, "pixel_share": 0.5}),
    "depth-dpt": ("depth_dpt", {}),
    "depth-frozen-dpt": ("depth_dpt", {"learn.denoiser": "frozen", "loss": {"vnl": 1.0, "hdn": 1.0, "gradient": 0.5}}),
    "depth-decoder": ("depth_pixels", {"model.base": "mini/depth", "learn.decoder": "finetune", "optim.kind": "adam"}),
    "depth-scratch": (
        "depth",
        {"model.base": "mini/base", **_QUICK, "learn.denoiser": "scratch", "optim.kind": "adamw"},
    ),
    "depth-controlnet": ("depth", {"model.base": "mini/base", **_QUICK, "learn.denoiser": "controlnet"}),
    "depth-blended": ("depth", {"model.base": "mini/base", **_QUICK, "paradigm": "deterministic_multi_step"}),
    "depth-noise": ("depth", {"model.base": "mini/base", **_QUICK, "paradigm": "stochastic_multi_step"}),
    "depth-random-step": (
        "depth",
        {"model.base": "mini/base", **_QUICK, "paradigm_options": {"random_timestep": True}},
    ),
    "depth-prompts": ("depth", {"model.base": "mini/base", **_QUICK, "prompt.kind": "random"}),
    "depth-fixed-prompt": (
        "depth",
        {"model.base": "mini/base", **_QUICK, "prompt": {"kind": "fixed", "text": "a room"}},
    ),
    "normals": ("normals_pixels", {"model.base": "mini/normals"}),
    "disparity": ("disparity", {}),
    "segmentation": ("segmentation", {"model.base": "mini/normals"}),
    "pose": ("pose", {}),
    "dis": ("dis", _QUICK),
    "matting": ("matting", {**_QUICK, "loss": {"l1": 1.0, "pyramid": 1.0, "ssim": 0.5}}),
    "anomaly": ("anomaly", {}),
    "dinov2": ("depth_pixels", {"model.base": "bases/dinov2", **_FOLDER, **_PIXELS, "augment.sizes": [[28, 42]]}),
    "clip": ("depth_pixels", {"model.base": "bases/clip", **_FOLDER, **_PIXELS, "augment.sizes": [[28, 42]]}),
    "slim-decoder": ("distil_depth_decoder", {}),
    "slim-encoder": ("distil_depth_decoder", {"distil.part": "encoder"}),
    "tiny-decoder": ("tiny_depth_decoder", {}),
    "tiny-encoder": ("tiny_depth_encoder", {}),
    "tiny-both": ("tiny_depth_decoder", {"model.base": "runs/tiny-encoder/model"}),
}
_TIMED = ("images/s", "data_wait")  # figures of speed
_LEFT = ("tensorboard", "model", "optimiser.pt", "state.json")  # of a run: timed, or read otherwise


def run(entries: Entries) -> None:
    inputs.golden()
    inputs.labelled()
    inputs.dinov2()
    inputs.clip()
    for name, (recipe, changes) in CASES.items():
        with entries.case(name):
            train(entries, name, recipe, changes)
    for kind in ("mini", "paper", "distil"):
        for path in sorted((inputs.RECIPES / kind).glob("*.toml")):
            with entries.case(f"dry/{kind}/{path.stem}"):
                entries.text(f"dry/{kind}/{path.stem}", done("train", path, "--dry-run").out)
    with entries.case("scenes"):
        scenes(entries)


def train(entries: Entries, name: str, recipe: str, changes: dict[str, Any]) -> None:
    settings = _SMALL | changes
    if "data" in changes:
        settings = {key: value for key, value in settings.items() if not key.startswith("data.0")}
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={_toml(value)}")]
    out = Path("runs") / name
    done("train", inputs.RECIPES / "mini" / f"{recipe}.toml", *words, "--out", out)
    for key, points in scalars(out / "tensorboard").items():
        entries.array(f"{name}/logged/{key}", points)
    entries.folder(f"{name}/run", out, leave=_LEFT)
    model = out / "model"
    entries.folder(f"{name}/model", model, each=True)
    if (model / "genpercept.json").is_file():
        from genpercept import load

        pipe = load(model, device="cpu")
        entries.prediction(f"{name}/predicted", pipe(inputs.picture(*inputs.SIZES[1]), processing_resolution=0))
    else:
        entries.json(f"{name}/inspected", genpercept("inspect", model, "--json").timeless)


def scalars(folder: Path) -> dict[str, np.ndarray]:
    """Name -> (n, 2): step and value of what TensorBoard was given, but for figures of speed."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    names = [tag for tag in events.Tags()["scalars"] if not tag.endswith(_TIMED)]
    return {tag: np.array([(p.step, p.value) for p in events.Scalars(tag)]) for tag in sorted(names)}


def scenes(entries: Entries) -> None:
    """The arrays of all rendered scenes that lie in the cache, by domain, split and size."""
    for folder in sorted(Path("cache").glob("scenes-*")):
        key = json.loads((folder / "key.json").read_text(encoding="utf-8"))
        title = f"{key['domain']}-{key['split']}-{'x'.join(map(str, key['size']))}"
        for path in sorted(folder.glob("shard-*/*")):
            entries.file(f"scenes/{title}/{path.parent.name}/{path.name}", path)


def _toml(value: Any) -> str:
    """As TOML writes it in one line: JSON, but for tables."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(each)}" for key, each in value.items()) + "}"
    return "[" + ", ".join(map(_toml, value)) + "]" if isinstance(value, list) else json.dumps(value)
