"""Cross-entropy of classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from genpercept.training.losses._masked import hide


def cross_entropy(
    pred: Tensor,
    target: Tensor,
    valid: Tensor,
    *,
    ignore: int = 255,
    class_weights: Sequence[float] | None = None,
    smoothing: float = 0.0,
) -> Tensor:
    """Logits (B, K, H, W), class map (B, 1, H, W) of whole numbers in [0, K), valid (B, 1, H, W) -> (B,).

    Pixels of class `ignore` count as invalid. class_weights: one per class; the mean is over the weights. smoothing: share of
    the label that is spread over all classes. ValueError for other classes, and for weights that are not K.
    """
    classes = pred.shape[1]
    if target.shape[1] != 1:
        raise ValueError(f"cross_entropy takes a class map of 1 channel, not of {target.shape[1]}")
    if class_weights is not None and len(class_weights) != classes:
        raise ValueError(f"cross_entropy: {len(class_weights)} class_weights for {classes} classes; give one for each")
    ids = torch.where(valid, target, 0).long()
    valid = valid & (ids != ignore)
    ids = torch.where(valid, ids, 0)
    if bool(((ids < 0) | (ids >= classes)).any()):
        raise ValueError(
            f"cross_entropy: class {int(ids.min()) if int(ids.min()) < 0 else int(ids.max())} in the label, but the "
            f"network tells {classes} apart: mark it invalid, or set ignore"
        )
    each = F.cross_entropy(hide(pred, valid), ids[:, 0], reduction="none", label_smoothing=smoothing)
    weight = torch.ones(classes) if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
    w = torch.where(valid[:, 0], weight.to(pred.device)[ids[:, 0]], 0.0)
    return (each * w).flatten(1).sum(1) / w.flatten(1).sum(1).clamp_min(1e-6)


PLUGIN = cross_entropy
