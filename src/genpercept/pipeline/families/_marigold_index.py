"""What Marigold's layout and E2E-FT's have in common: an 8-channel U-Net, a scheduler, an index that may say the task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from genpercept.pipeline.families._family import LOOK_ALIKE
from genpercept.pipeline.families._from_base import Base
from genpercept.pipeline.families._headers import Layout
from genpercept.pipeline.families._schedule import options

# diffusers' pipeline of each task, and what its model_index.json says of the answers
PIPELINES = {
    "depth": "MarigoldDepthPipeline",
    "disparity": "MarigoldDepthPipeline",
    "normals": "MarigoldNormalsPipeline",
    "intrinsics": "MarigoldIntrinsicsPipeline",
}
_STATED: dict[str, dict[str, Any]] = {
    "MarigoldDepthPipeline": {"scale_invariant": True, "shift_invariant": True},
    "MarigoldNormalsPipeline": {"use_full_z_range": True},
}


def tasks(layout: Layout) -> tuple[str, ...]:
    """What model_index.json leaves possible."""
    found = tuple(task for task in LOOK_ALIKE if PIPELINES[task] == layout.pipeline) or LOOK_ALIKE
    said = layout.index.get("prediction_type")
    return (str(said),) if said in found else found


def stated(task: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """What model_index.json says of a task's answers; options: of the task, which names the images of several."""
    known = _STATED.get(PIPELINES[task])
    if known is not None:
        return known
    names = {"target_names": [str(name) for name in options["targets"]]}
    return {"target_properties": names | dict(options.get("properties") or {})}


def is_plain(layout: Layout) -> bool:
    """Whether the U-Net takes an image's latent and a label's, and gives a label's: depth or normals of both families."""
    return (layout.in_channels, layout.out_channels, layout.has_class_embedding) == (8, 4, False)


def schedule(layout: Layout, base: Base | None) -> tuple[dict[str, Any], str]:
    """Options of the paradigm, and where they were read: the checkpoint's scheduler, or else its base's."""
    if layout.scheduler:
        path = layout.root / "scheduler" / "scheduler_config.json"
        return options(layout.scheduler, path), f"{layout.scheduler.get('_class_name')} of the checkpoint"
    if base is not None:
        path = base.folder / "scheduler" / "scheduler_config.json"
        return options(base.json("scheduler", "scheduler_config.json"), path), f"of the base {base.name}"
    raise ValueError(
        f"{layout.root}: has no scheduler/scheduler_config.json, and no base was given: copy it, or pass base="
    )
