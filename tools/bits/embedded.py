"""Every embedded model on images of all sizes, and all that a call can ask for; and the embedded base untrained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bits import inputs
from bits.command import done
from bits.entries import Entries

MODELS = ("depth", "normals", "disparity", "segmentation", "dis", "matting", "anomaly", "pose")
NOISY = ("depth", "disparity", "normals", "dis", "matting")  # that the base's decoder can answer, whatever it says
_BOXES = np.array([[3.0, 2, 30, 40, 0.9], [20, 10, 25, 36, 0.5]])
Ask = Callable[[Any], Any]


def run(entries: Entries) -> None:
    folder = inputs.images()
    for name in MODELS:
        with entries.case(name):
            predict(entries, name, folder)
        with entries.case(f"{name}/inspected"):
            entries.text(f"{name}/inspected", done("inspect", f"mini/{name}", "--json").out)
    for task in NOISY:
        with entries.case(f"base/{task}"):
            from_noise(entries, task)


def predict(entries: Entries, name: str, folder: Path) -> None:
    import genpercept

    pipe = genpercept.load(f"mini/{name}", device="cpu")
    for size in inputs.SIZES:
        entries.prediction(f"{name}/{size[0]}x{size[1]}", pipe(inputs.picture(*size)))
    for title, photo in inputs.photographs():
        entries.prediction(f"{name}/{title}", pipe(photo))
    for title, ask in calls(name, folder).items():
        with entries.case(f"{name}/{title}"):
            found = ask(pipe)
            for i, each in enumerate(found if isinstance(found, list) else [found]):
                entries.prediction(f"{name}/{title}/{i}", each)
    with entries.case(f"{name}/saved"):
        pipe.save_pretrained(f"saved/{name}")
        entries.folder(f"{name}/saved", Path(f"saved/{name}"))


def calls(name: str, folder: Path) -> dict[str, Ask]:
    """Name -> a call of the model."""
    import genpercept

    small, odd, large = (inputs.picture(*size) for size in inputs.SIZES[:3])
    asked: dict[str, Ask] = {
        "own-size": lambda p: p(odd, processing_resolution=0),
        "resolution-40": lambda p: p(large, processing_resolution=40),
        "official": lambda p: p(large, processing_resolution=64, resize_mode="official"),
        "flip": lambda p: p(odd, flip_test=True),
        "batch": lambda p: p([small, odd, small[::-1].copy(), large], batch_size=2),
        "specialised": lambda p: genpercept.load(f"mini/{name}", device="cpu", specialised=True)([odd, large]),
        "strips": lambda p: genpercept.specialise(p, strips=True)(large, processing_resolution=0),
        "bfloat16": lambda p: genpercept.load(f"mini/{name}", device="cpu", torch_dtype=torch.bfloat16)(odd),
    }
    if name == "depth":
        asked |= {
            "path": lambda p: p(folder / "astronaut.jpg"),
            "grey": lambda p: p(odd[..., 0]),
            "float": lambda p: p(odd / 255),
            "tensor": lambda p: p(torch.from_numpy(odd).permute(2, 0, 1).float() / 255),
            "replaced-codec": lambda p: p.with_codec(decoder="mini/normals")(odd),
            "channels-last": lambda p: genpercept.specialise(p, layout="channels_last")(odd),
        }
    if name == "pose":
        asked["boxes"] = lambda p: p([small, odd], boxes=[_BOXES, _BOXES[:1, :4]], batch_size=2)
    return asked


def from_noise(entries: Entries, task: str) -> None:
    """mini/base as the start of training has it: paradigms of several steps, noise, ensembles."""
    from genpercept import GenPerceptPipeline

    image = inputs.picture(*inputs.SIZES[1])
    for paradigm in ("one_step", "deterministic_multi_step", "stochastic_multi_step"):
        pipe = GenPerceptPipeline.from_base("mini/base", task, paradigm=paradigm, resolution=0)
        steps = None if paradigm == "one_step" else 3
        key = f"base/{task}/{paradigm}"
        entries.prediction(key, pipe(image, num_inference_steps=steps, generator=_seeded(3)))
        if paradigm != "stochastic_multi_step":
            continue
        several: dict[str, Any] = {"num_inference_steps": 2, "ensemble_size": 3, "batch_size": 2}
        entries.prediction(f"{key}/ensemble", pipe(image, generator=_seeded(4), flip_test=True, **several))
        each = pipe([image, image[:30]], generator=[_seeded(5), _seeded(6)], **several)
        for i, one in enumerate(each):
            entries.prediction(f"{key}/list/{i}", one)
        if task not in ("dis", "matting"):  # whose runs are merged in one way only
            mean = pipe(image, generator=_seeded(4), ensembling_kwargs={"reduction": "mean"}, **several)
            entries.prediction(f"{key}/mean", mean)


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
