"""Marigold (Ke et al. 2024, 2025): denoising from noise beside the image's latent; depth, normals, intrinsic images.

Sampling as the checkpoint's scheduler says (DDIM leading: v1-0; trailing with zero terminal SNR: v1-1; LCM), steps and
resolution as its model_index.json does. What comes out is what diffusers' pipelines give; their normals have our axes.
"""

from __future__ import annotations

from typing import Any

from genpercept.checkpoints import schema
from genpercept.pipeline.families import Candidate
from genpercept.pipeline.families._family import OWN, UNetFamily
from genpercept.pipeline.families._from_base import Base
from genpercept.pipeline.families._headers import Layout
from genpercept.pipeline.families._marigold_index import is_plain, schedule, tasks

_INTRINSICS = "intrinsics"


class Marigold(UNetFamily):
    name = "marigold"
    published = {  # noqa: RUF012
        "prs-eth/marigold-v1-0": "depth",
        "prs-eth/marigold-lcm-v1-0": "depth",
        "prs-eth/marigold-depth-v1-0": "depth",
        "prs-eth/marigold-depth-lcm-v1-0": "depth",
        "prs-eth/marigold-depth-v1-1": "depth",
        "prs-eth/marigold-normals-v0-1": "normals",
        "prs-eth/marigold-normals-lcm-v0-1": "normals",
        "prs-eth/marigold-normals-v1-1": "normals",
        "prs-eth/marigold-iid-appearance-v1-1": _INTRINSICS,
        "prs-eth/marigold-iid-lighting-v1-1": _INTRINSICS,
    }

    def candidate(self, layout: Layout) -> Candidate | None:
        if count := _targets(layout):
            why = f"{layout.in_channels} input and {layout.out_channels} output channels: {count} intrinsic images"
            return Candidate(self.name, (_INTRINSICS,), why, sure=True)
        if not is_plain(layout):
            return None
        lcm = layout.scheduler.get("_class_name") == "LCMScheduler"
        why = "8 input and 4 output channels" + (", LCM scheduler" if lcm else ", as E2E-FT's")
        return Candidate(self.name, tasks(layout), why, sure=lcm)

    def settings(self, layout: Layout, base: Base | None, task: str) -> dict[str, Any]:
        options, source = schedule(layout, base)
        kind = {"lcm": "LCM", "ddim": f"DDIM {options['spacing']}"}[options["sampler"]]
        variant = kind + (", zero terminal SNR" if options["zero_terminal_snr"] else "")
        decided = {"scheduler": f"{variant}: {source}", "prompt": "empty, not padded"}
        settings: dict[str, Any] = {"variant": variant, "paradigm": "stochastic_multi_step", "decided": decided}
        if task == _INTRINSICS:
            options["targets"] = _targets(layout)
            settings["task_options"] = _named(layout, options["targets"])
        if task == "normals":
            settings["axes"] = OWN
            decided["axes"] = "x right, y up, z towards the viewer, as diffusers documents them: kept"
        for key, default in (
            ("num_inference_steps", "default_denoising_steps"),
            ("resolution", "default_processing_resolution"),
        ):
            if (stated := layout.index.get(default)) is not None:
                settings[key] = int(stated)
                decided[key] = f"{stated}: {default} of model_index.json"
        return settings | {"paradigm_options": options}


def _targets(layout: Layout) -> int:
    """Intrinsic images that the U-Net predicts together: its input is the image's latent and theirs. 0: it is none such."""
    count, rest = divmod(layout.out_channels, 4)
    fits = not rest and count > 1 and layout.in_channels == 4 * (count + 1) and not layout.has_class_embedding
    return count if fits else 0


def _named(layout: Layout, count: int) -> dict[str, Any]:
    """Options of the task out of target_properties. ValueError where model_index.json does not name as many as there are."""
    properties = layout.index.get("target_properties") or {}
    names = properties.get("target_names") or []
    schema.check(layout.root / "model_index.json", "target_properties.target_names", names, list[str])
    if len(names) != count:
        raise ValueError(
            f"{layout.root / 'model_index.json'}: target_properties name {len(names)} intrinsic images "
            f"({', '.join(map(str, names)) or 'none'}), but the U-Net predicts {count}: copy the checkpoint's own file"
        )
    return {"targets": list(names), "properties": {k: v for k, v in properties.items() if isinstance(v, dict)}}


PLUGIN = Marigold()
