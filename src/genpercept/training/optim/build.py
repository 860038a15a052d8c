"""The optimiser that a recipe names."""

from __future__ import annotations

import importlib
from typing import Any

import torch

from genpercept.training.optim.muon import Muon
from genpercept.training.recipe import Optim


def build(groups: list[dict[str, Any]], options: Optim) -> torch.optim.Optimizer:
    """Over parameter groups that each have their lr. ValueError where optim.kind needs a package that is not installed."""
    common: dict[str, Any] = {"betas": options.betas, "eps": options.eps, "weight_decay": options.weight_decay}
    match options.kind:
        case "adam":
            return torch.optim.Adam(groups, **common)
        case "adamw":
            return torch.optim.AdamW(groups, **common)
        case "fused":
            return torch.optim.AdamW(groups, **common, fused=True)
        case "muon":
            return Muon(groups, **common)
        case "8bit":
            try:
                adamw = importlib.import_module("bitsandbytes.optim").AdamW8bit
            except ImportError:
                raise ValueError(
                    'optim.kind "8bit" needs the package bitsandbytes: pip install bitsandbytes, or choose "fused"'
                ) from None
            return adamw(groups, **common)
