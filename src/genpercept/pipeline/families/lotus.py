"""Lotus (He et al. 2024): the network answers with the label's latent itself, in one step at t = 999.

D starts from the image alone, G from noise beside it. A class embedding switches between predicting and restoring the
image; the labels here are the former's. GeoWizard v2's U-Net has the shapes of G's: only names tell them apart. The public
code draws from the VAE's posterior; here it is its mean, so that D gives one answer. Normals: trained on x left, y up, z
towards the viewer (its loaders negate Hypersim's x).
"""

from __future__ import annotations

import math
from typing import Any

from genpercept.pipeline.families import Candidate
from genpercept.pipeline.families._family import LEFT_UP_VIEWER, LOOK_ALIKE, UNetFamily
from genpercept.pipeline.families._from_base import Base
from genpercept.pipeline.families._headers import Layout

TIMESTEP = 999
SWITCH = [math.sin(1), math.sin(0), math.cos(1), math.cos(0)]  # "predict", as its position encoding of (1, 0)


class Lotus(UNetFamily):
    name = "lotus"
    published = {  # noqa: RUF012
        "jingheya/lotus-depth-g-v1-0": "depth",
        "jingheya/lotus-depth-d-v1-0": "depth",
        "jingheya/lotus-depth-g-v2-0-disparity": "disparity",
        "jingheya/lotus-depth-d-v2-0-disparity": "disparity",
        "jingheya/lotus-depth-g-v2-1-disparity": "disparity",
        "jingheya/lotus-normal-g-v1-0": "normals",
        "jingheya/lotus-normal-d-v1-0": "normals",
        "jingheya/lotus-normal-g-v1-1": "normals",
        "jingheya/lotus-normal-d-v1-1": "normals",
    }

    def candidate(self, layout: Layout) -> Candidate | None:
        if layout.class_width != len(SWITCH) or layout.in_channels not in (4, 8) or layout.out_channels != 4:
            return None
        kind = "D" if layout.in_channels == 4 else "G"
        why = f"class embedding of width {len(SWITCH)} and {layout.in_channels} input channels: Lotus-{kind}"
        sure = kind == "D" or layout.pipeline.startswith("Lotus")
        return Candidate(self.name, LOOK_ALIKE, why, sure)

    def settings(self, layout: Layout, base: Base | None, task: str) -> dict[str, Any]:
        decided = {
            "prompt": "empty, not padded",
            "posterior": "its mean; Lotus' code draws from it",
        }
        common: dict[str, Any] = {"conditions": {"class_labels": SWITCH}, "decided": decided}
        if task == "normals":
            common["axes"] = LEFT_UP_VIEWER
            decided["axes"] = "x left, y up, z towards the viewer (Lotus' training data): x negated"
        else:
            common["task_options"] = {"clip": "channels"}
        if layout.in_channels == 4:
            options: dict[str, Any] = {"timestep": TIMESTEP, "prediction_type": "sample"}
            return common | {"variant": "D", "paradigm": "one_step", "paradigm_options": options}
        options = {"prediction_type": "sample", "spacing": "trailing", "set_alpha_to_one": True}
        return common | {
            "variant": "G",
            "paradigm": "stochastic_multi_step",
            "paradigm_options": options,
            "num_inference_steps": 1,
        }


PLUGIN = Lotus()
