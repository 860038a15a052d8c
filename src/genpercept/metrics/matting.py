"""Alpha mattes against true ones, as P3M and Deep Image Matting evaluate them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from genpercept.core.names import choose
from genpercept.metrics import _arrays, _baselines, _files, _matting, _unit
from genpercept.metrics._arrays import BoolArray, FloatArray
from genpercept.metrics._metric import Averaged, Baseline, down
from genpercept.metrics._protocols import resolve

KEYS = ("sad", "mad", "mse", "grad", "conn")
RULES = {"p3m": _matting.p3m, "dim": _matting.dim}
REGIONS = ("all", "trimap")
_OPAQUE, _CLEAR = 0.95, 0.1
_WORDS = {
    "none": "none",
    "min_max": "min-max",
    "threshold": f"min-max, then 1 above {_OPAQUE} and 0 below {_CLEAR}",
}


@dataclass(frozen=True)
class MattingProtocol:
    """How mattes are compared.

    rules: "p3m" or "dim", how each figure is defined and scaled, see `_matting`. region: "all", the whole image, or
    "trimap", where the trimap says unknown; predictions are set to the trimap's 0 and 1 elsewhere.
    post_processing: of each prediction before that: "none", "min_max" (stretched to its own [0, 1]) or "threshold"
    (stretched, then values above 0.95 are 1 and those below 0.1 are 0: v1, on image matting). The task does the last
    by default, so that it is for files of others.
    """

    rules: str = "p3m"
    region: str = "all"
    post_processing: str = "none"

    def __post_init__(self) -> None:
        choose("post_processing", self.post_processing, _unit.POST)
        choose("rules", self.rules, tuple(RULES))
        choose("region", self.region, REGIONS)


MATTING_PROTOCOLS = {
    "p3m": MattingProtocol("p3m", "all"),
    "p3m_trimap": MattingProtocol("p3m", "trimap"),
    "genpercept": MattingProtocol("p3m", "all", "threshold"),
    "dim": MattingProtocol("dim", "trimap"),
}


class MattingMetric(Averaged):
    """sad, mad, mse, grad, conn, scaled as the protocol's public evaluation does; averaged over the images.

    Deep Image Matting has no mad; here it is the mean over the unknown pixels. P3M's grad and conn look at the whole
    image under either region, as its code has no others.
    """

    keys = KEYS

    def __init__(self, protocol: MattingProtocol) -> None:
        super().__init__()
        self.protocol = protocol

    def update(self, pred: Any, gt: Any, valid: Any = None, name: str = "", trimap: Any = None) -> dict[str, float]:
        """Add one image: pred, gt (H, W) alpha in [0, 1] or 0..255, trimap (H, W) 0, 128, 255. Returns its figures.

        Region "trimap" needs the trimap, or valid (H, W) bool, True where alpha is unknown: known pixels then count as
        predicted without error. Region "all" looks at neither: ValueError when valid leaves pixels out. An image
        without an unknown pixel gives NaN and does not count.
        """
        name = _arrays.unique_name(name, self.rows)
        p, g = _unit.pair(pred, gt, name)
        p = _post_processed(p, self.protocol.post_processing)
        if self.protocol.region == "all":
            shown, unknown = p, _unit.whole(valid, g.shape, name, f"region 'all' has no mask; {_ADVICE}")
        else:
            shown, unknown = _known_set(p, g, valid, trimap, name)
        if unknown.any():
            row = RULES[self.protocol.rules](p, g, unknown, shown)
        else:
            row = {key: float("nan") for key in KEYS}
            self.empty.add(name)
        self.rows[name] = row
        return row

    @property
    def post_processing(self) -> str:
        return _WORDS[self.protocol.post_processing]


def _post_processed(pred: FloatArray, how: str) -> FloatArray:
    if how == "none":
        return pred
    alpha = _unit.stretched(pred)
    return alpha if how == "min_max" else np.where(alpha > _OPAQUE, 1.0, np.where(alpha < _CLEAR, 0.0, alpha))


_ADVICE = "choose region 'trimap', or protocol 'dim'"


def _known_set(pred: FloatArray, gt: FloatArray, valid: Any, trimap: Any, name: str) -> tuple[FloatArray, BoolArray]:
    """(prediction with its known pixels set, where alpha is unknown) out of the trimap or else the mask."""
    if trimap is None and valid is None:
        raise ValueError(f"{_arrays.label(name)}no trimap: region 'trimap' needs one, or valid= True where unknown")
    if trimap is None:
        mask = _arrays.as_mask(valid, gt.shape, name)
        if _arrays.to_numpy(valid).dtype != bool and np.any(_arrays.to_numpy(valid) == 128):
            raise ValueError(f"{_arrays.label(name)}valid holds 128: give a trimap as trimap=")
        return np.where(mask, pred, gt), mask
    array = _arrays.as_map(trimap, "trimap", name)
    _arrays.same_shape(array.shape, gt.shape, "trimap", name)
    found = np.unique(array)
    if not set(found.tolist()) <= {0, 128, 255}:
        values = ", ".join(f"{v:g}" for v in found[:6]) + (", ..." if found.size > 6 else "")
        raise ValueError(f"{_arrays.label(name)}trimap holds {values}: expected 0, 128 (unknown) and 255")
    unknown = array == 128
    given = _arrays.as_mask(valid, gt.shape, name)
    if not given.all() and not np.array_equal(given, unknown):
        raise ValueError(f"{_arrays.label(name)}valid and trimap disagree on what is unknown: give one of them")
    return np.where(unknown, pred, array / 255), unknown


class Matting(_unit.ForegroundPlugin[MattingMetric]):
    """pred and gt (H, W) in [0, 1] or 8 bits. Figures: sad mad mse grad conn, scaled as the protocol does.

    See `MattingProtocol` for the options. protocol: p3m (whole image, the default), p3m_trimap, dim, genpercept (p3m with
    the paper's post-processing).
    """

    name = "matting"
    metric = MattingMetric
    columns = (
        down("sad", "SAD", digits=2),
        down("mad", "MAD", digits=4),
        down("mse", "MSE", digits=4),
        down("grad", "Grad", digits=2),
        down("conn", "Conn", digits=2),
    )
    watched = ("sad", "mse", "grad")
    note = "Scaled as the protocol does; less is better throughout."
    kinds = ("alpha",)
    extras: Mapping[str, str] = {"trimap": "(H, W), 128 where unknown"}
    baselines = (
        Baseline("all foreground", _baselines.all_foreground),
        Baseline("mean alpha", _baselines.mean_map, fitted=True),
    )
    beside: Mapping[str, Any] = {"valid": _files.read_mask, "trimap": _files.read_unit}

    def __call__(self, *, protocol: str | None = None, **options: Any) -> MattingMetric:
        return MattingMetric(resolve(MATTING_PROTOCOLS, MattingProtocol(), protocol, options))


PLUGIN = Matting()
