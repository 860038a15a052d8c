"""DepthMaster (Song et al. 2025): GenPercept's one step, told t = 1, by a U-Net with a Fourier block behind its middle.

It answers with the label's latent itself. The label is the square root of the inverse depth, by its quantiles to [-1, 1]
(src/dataset/base_depth_dataset.py of its code), so that 1 is near: its own evaluation aligns it as such. Its config.json is
Stable Diffusion's; only the tensors say what it is, and diffusers' own class would drop the block with no more than a log line.
"""

from __future__ import annotations

from typing import Any

from genpercept.pipeline.families import Candidate, FullFolder
from genpercept.pipeline.families._family import UNetFamily
from genpercept.pipeline.families._from_base import Base
from genpercept.pipeline.families._headers import Layout
from genpercept.pipeline.pipeline import GenPerceptPipeline
from genpercept.tasks import TASKS

TIMESTEP = 1
TASK_OPTIONS = {"root": True}
BLOCK = "fftblock."  # begins the names of the block's tensors


class DepthMaster(UNetFamily):
    name = "depthmaster"
    published = {"zysong212/DepthMaster": "disparity"}  # noqa: RUF012
    tasks = ("disparity",)
    backbone = "sd21_fourier"

    def candidate(self, layout: Layout) -> Candidate | None:
        if not any(name.startswith(BLOCK) for name in layout.shapes):
            return None
        if layout.in_channels != 4 or layout.out_channels != 4 or layout.has_class_embedding:
            return None
        why = f"tensors {BLOCK}* beside those of a U-Net with 4 input and output channels: DepthMaster's Fourier block"
        return Candidate(self.name, self.tasks, why, sure=True, backbone=self.backbone)

    def settings(self, layout: Layout, base: Base | None, task: str) -> dict[str, Any]:
        decided = {
            "prompt": "empty, not padded",
            "label": "the square root of inverse depth, as its training and its evaluation have it: 1 near, 0 far",
        }
        settings: dict[str, Any] = {
            "paradigm_options": {"timestep": TIMESTEP, "prediction_type": "sample"},
            "task_options": TASK_OPTIONS,
            "decided": decided,
        }
        if (stated := layout.index.get("default_processing_resolution")) is not None:
            settings["resolution"] = int(stated)
            decided["resolution"] = f"{stated}: default_processing_resolution of model_index.json"
        return settings

    def full_folder(self, pipe: GenPerceptPipeline) -> FullFolder:
        """Without a scheduler. Its code fixes the step, the prompt, the scale and what the answer is."""
        options = pipe.paradigm().options
        fixed = {"timestep": TIMESTEP, "prediction_type": "sample"}
        if pipe.info["paradigm"] != "one_step" or {key: options[key] for key in fixed} != fixed:
            raise ValueError(
                f"DepthMaster's code runs one step with {fixed}; this model's is {pipe.info['paradigm']}, {options}"
            )
        if pipe.task_plugin != TASKS.find(self.tasks[0]).with_options(**TASK_OPTIONS):
            raise ValueError("DepthMaster's code gives the root of disparity alone, without further options")
        index = {"scale_invariant": True, "shift_invariant": True, "default_processing_resolution": pipe.resolution}
        return FullFolder("DepthMasterPipeline", index)


PLUGIN = DepthMaster()
