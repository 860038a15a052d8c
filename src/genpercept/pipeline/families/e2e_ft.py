"""E2E-FT (Martin Garcia et al. 2024): Marigold's U-Net run once, from zeros at the last timestep.

Spacing is trailing, whatever the checkpoint's scheduler says, and the answer is the clean estimate. Depth is stretched to
[0, 1] per image; normals are not clipped before they become unit vectors. Normals: trained on x left, y up, z towards the
viewer (its loader turns Hypersim's towards the camera and negates them in OpenCV's axes).
"""

from __future__ import annotations

from typing import Any

from genpercept.pipeline.families import Candidate
from genpercept.pipeline.families._family import LEFT_UP_VIEWER, UNetFamily
from genpercept.pipeline.families._from_base import Base
from genpercept.pipeline.families._headers import Layout
from genpercept.pipeline.families._marigold_index import is_plain, schedule, tasks

_ALWAYS = {"spacing": "trailing", "set_alpha_to_one": True, "start": "zeros"}  # one step, to the clean estimate


class E2eFt(UNetFamily):
    name = "e2e_ft"
    published = {  # noqa: RUF012
        "GonzaloMG/marigold-e2e-ft-depth": "depth",
        "GonzaloMG/marigold-e2e-ft-normals": "normals",
        "GonzaloMG/stable-diffusion-e2e-ft-depth": "depth",
        "GonzaloMG/stable-diffusion-e2e-ft-normals": "normals",
    }

    def candidate(self, layout: Layout) -> Candidate | None:
        if not is_plain(layout) or layout.scheduler.get("_class_name") == "LCMScheduler":
            return None
        why = "8 input and 4 output channels, as Marigold's"
        return Candidate(self.name, tuple(t for t in tasks(layout) if t != "disparity"), why, sure=False)

    def settings(self, layout: Layout, base: Base | None, task: str) -> dict[str, Any]:
        found, source = schedule(layout, base)
        options = {k: v for k, v in found.items() if k != "sampler"} | _ALWAYS
        decided = {
            "scheduler": f"{source}; spacing trailing, start from zeros, to the clean estimate, as E2E-FT's code",
            "prompt": "empty, not padded",
        }
        settings: dict[str, Any] = {
            "paradigm": "stochastic_multi_step",
            "paradigm_options": options,
            "num_inference_steps": 1,
            "decided": decided,
        }
        if task == "normals":
            decided["axes"] = "x left, y up, z towards the viewer (E2E-FT's training data): x negated"
            return settings | {"axes": LEFT_UP_VIEWER, "task_options": {"clip": False}}
        return settings | {"task_options": {"stretch": True}}


PLUGIN = E2eFt()
