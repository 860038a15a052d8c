"""Inkwell's checkpoints: depth in one step, told t = 500, by a U-Net that answers with the label's latent itself."""

from typing import Any

from genpercept.pipeline.families import Base, Candidate, Layout, UNetFamily


class Inkwell(UNetFamily):
    name = "inkwell"
    published = {"example/inkwell-depth": "depth"}  # noqa: RUF012
    tasks = ("depth",)
    resolution = 64

    def candidate(self, layout: Layout) -> Candidate | None:
        """A U-Net from one latent to one. The class that model_index.json names leaves no doubt: nobody else has it."""
        if (layout.in_channels, layout.out_channels) != (4, 4):
            return None
        named = layout.pipeline == "InkwellPipeline"
        why = "model_index.json names InkwellPipeline" if named else "4 input and output channels"
        return Candidate(self.name, self.tasks, why, sure=named)

    def settings(self, layout: Layout, base: Base | None, task: str) -> dict[str, Any]:
        """How it is run, and what of that was concluded from what."""
        return {
            "paradigm": "one_step",
            "paradigm_options": {"timestep": 500, "prediction_type": "sample"},
            "decided": {"prompt": "empty, not padded"},
        }


PLUGIN = Inkwell()
