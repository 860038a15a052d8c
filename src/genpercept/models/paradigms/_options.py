"""What paradigms share beside the machinery of options."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from genpercept import equations
from genpercept.core.options import Options, check_choice, check_flag, check_integer

__all__ = ["OnePass", "Options", "check_choice", "check_flag", "check_integer", "check_timestep", "full_timestep"]


class OnePass(Options):
    """Base of paradigms that call the network once."""

    noun = "paradigm"
    default_steps = 1
    prediction_types: ClassVar[tuple[str, ...]] = ("v_prediction",)

    def label_channels(self, latent_channels: int) -> int:
        return latent_channels

    def check_steps(self, steps: int) -> None:
        if steps != 1:
            raise ValueError(f"num_inference_steps={steps}: {self.name} takes exactly 1 step; leave the option out")


def check_timestep(name: str, value: Any) -> None:
    check_integer(name, value, 0, equations.TRAIN_STEPS - 1)


def full_timestep(z_BCHW: Tensor, t: int) -> Tensor:
    """The same timestep for each sample, (B,) int64 on its device."""
    return torch.full((z_BCHW.shape[0],), t, dtype=torch.int64, device=z_BCHW.device)
