"""The golden checkpoints of the tests, through every family's layout, and what is saved and exported of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from bits import inputs
from bits.command import done, genpercept
from bits.entries import Entries
from bits.inputs import BASE, LOTUS, UNET8

TRAILING = {"timestep_spacing": "trailing", "rescale_betas_zero_snr": True, "set_alpha_to_one": False}


def run(entries: Entries) -> None:
    inputs.golden()
    with entries.case("base"):
        from_base(entries)
    noise = inputs.arrays("multi_step")
    for name, (folder, options) in checkpoints().items():
        with entries.case(name):
            predict(entries, name, folder, options, noise)
    for name, words in EXPORTS.items():
        with entries.case(f"exported/{name}"):
            export(entries, f"exported/{name}", *words)


def from_base(entries: Entries) -> None:
    """The untrained tiny base for each task that its decoder can answer, by every paradigm, at sizes of the public code."""
    from genpercept import GenPerceptPipeline

    seen = inputs.arrays("one_step")
    for task in ("depth", "normals", "disparity", "dis", "matting"):
        pipe = GenPerceptPipeline.from_base(BASE, task, resolution=0)
        for letter in "ab":
            entries.prediction(f"base/{task}/{letter}", pipe(seen[f"image_{letter}"]))
    pipe = GenPerceptPipeline.from_base(BASE, "depth", resolution=0)
    for mode in ("official", "fit"):
        found = pipe(seen["image_c"], processing_resolution=192, resize_mode=mode)
        entries.prediction(f"base/depth/c-{mode}", found)
    for start, end in ((0.00085, 0.012), (0.136, 0.192), (1, 1)):
        blended: dict[str, Any] = {"paradigm": "deterministic_multi_step", "betas": (start, end)}
        found = pipe(seen["image_a"], num_inference_steps=10, **blended)
        entries.prediction(f"base/depth/blended-{start}-{end}", found)


def checkpoints() -> dict[str, tuple[Path, dict[str, Any]]]:
    """Name -> folder and how to load it: a U-Net beside its base, or a whole pipeline."""
    beside = {"base": BASE}
    generative = inputs.random_unet("lotus-g", LOTUS, 0, in_channels=8)
    leading = inputs.whole("marigold", UNET8, prediction_type="v_prediction", set_alpha_to_one=False)
    trailing = inputs.whole("trailing", UNET8, prediction_type="v_prediction", **TRAILING)
    found: dict[str, tuple[Path, dict[str, Any]]] = {
        "genpercept/headless": (inputs.headless(), beside | {"task": "disparity"}),
        "genpercept/unet": (inputs.tuned(), beside | {"task": "depth"}),
        "marigold/intrinsics": (inputs.intrinsics(), {}),
        "lotus-g/depth": (generative, beside | {"task": "depth"}),
        "lotus-whole/disparity": (inputs.whole("lotus", LOTUS), {"task": "disparity"}),
    }
    for task in ("depth", "normals"):
        found[f"genpercept/{task}"] = BASE, {"family": "genpercept", "task": task}
        found[f"e2e_ft/{task}"] = UNET8, beside | {"family": "e2e_ft", "task": task}
        found[f"marigold/{task}"] = leading, {"family": "marigold", "task": task}
        found[f"marigold-trailing/{task}"] = trailing, {"family": "marigold", "task": task}
    for task in ("depth", "disparity", "normals"):
        found[f"lotus/{task}"] = LOTUS, beside | {"task": task}
    return found


def predict(entries: Entries, name: str, folder: Path, options: dict[str, Any], noise: dict[str, np.ndarray]) -> None:
    from genpercept import load

    image = inputs.arrays("families")["image"]
    pipe = load(folder, device="cpu", **options)
    asked: dict[str, Any] = {"processing_resolution": 0, "generator": torch.Generator().manual_seed(7)}
    own = {} if pipe.meta["paradigm"] == "one_step" else {"num_inference_steps": 2}
    entries.prediction(f"{name}/own-size", pipe(image, **asked))
    entries.prediction(f"{name}/64", pipe(image, **asked | {"processing_resolution": 64}))
    entries.prediction(f"{name}/flip", pipe(image[:37, :53], flip_test=True, **asked))
    if name.startswith("marigold"):
        several = asked | own | {"ensemble_size": 5, "batch_size": 2}
        entries.prediction(f"{name}/ensemble", pipe(image, **several))
        if not name.endswith("intrinsics"):  # whose noise has more channels
            given = {"generator": None, "latents": torch.from_numpy(noise["noise_ens5"])}
            entries.prediction(f"{name}/latents", pipe(image, **several | given))
    else:
        entries.prediction(
            f"{name}/photograph", pipe(next(inputs.photographs())[1], **asked | {"processing_resolution": 96})
        )
    with entries.case(f"{name}/saved"):
        place = Path("saved") / name
        pipe.save_pretrained(place)
        entries.folder(f"{name}/saved", place)
        again = load(place, device="cpu")
        entries.prediction(f"{name}/loaded-again", again(image, **asked))
    with entries.case(f"{name}/inspected"):
        words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
        entries.text(f"{name}/inspected", done("inspect", folder, *words, "--json").out)


# Name -> words of `genpercept export`: saved folders back in the layout of their family. What is refused is an answer, too.
EXPORTS: dict[str, tuple[str, ...]] = {
    "genpercept": ("saved/genpercept/unet", "--base", str(BASE)),
    "headless": ("saved/genpercept/headless", "--base", str(BASE)),
    "marigold": ("saved/marigold/depth", "--base", str(BASE)),
    "e2e_ft": ("saved/e2e_ft/normals", "--base", str(BASE)),
    "lotus": ("saved/lotus-whole/disparity", "--base", str(BASE)),
    "embedded": ("mini/depth",),
}


def export(entries: Entries, name: str, *words: str) -> None:
    answer = genpercept("export", *words, "--to", "diffusers", "--out", name)
    entries.json(f"{name}/said", answer.timeless)
    if answer.code == 0:
        entries.folder(f"{name}/files", Path(name))
