"""A published scheduler_config.json as options of the stochastic paradigm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from genpercept.checkpoints.schema import check_arguments

_SAMPLERS = {"DDIMScheduler": "ddim", "LCMScheduler": "lcm"}
# What our samplers do not do, with the value that leaves it out.
_OFF = {"clip_sample": False, "thresholding": False, "trained_betas": None, "num_train_timesteps": 1000}
_OFF["beta_schedule"] = "scaled_linear"


def options(config: dict[str, Any], path: Path) -> dict[str, Any]:
    """As diffusers reads it: keys that the file lacks have diffusers' defaults. ValueError for what we cannot sample."""
    import diffusers

    name = str(config.get("_class_name", "DDIMScheduler"))
    if name not in _SAMPLERS:
        raise ValueError(f"{path}: a {name}; checkpoints of this family are sampled by {' or '.join(_SAMPLERS)}")
    kind: Any = getattr(diffusers, name)
    check_arguments(path, config, kind)
    full: Any = kind.from_config(config).config
    for key, wanted in _OFF.items():
        if full.get(key, wanted) != wanted:
            raise ValueError(f"{path}: {key} is {full[key]!r}, which is not sampled here: only {wanted!r} is")
    found = {
        "sampler": _SAMPLERS[name],
        "betas": [float(full["beta_start"]), float(full["beta_end"])],
        "prediction_type": full["prediction_type"],
        "zero_terminal_snr": bool(full["rescale_betas_zero_snr"]),
        "set_alpha_to_one": bool(full["set_alpha_to_one"]),
        "spacing": full["timestep_spacing"],
        "steps_offset": int(full["steps_offset"]),
    }
    if name == "LCMScheduler":
        found |= {key: full[key] for key in ("original_inference_steps", "timestep_scaling")}
    return found
