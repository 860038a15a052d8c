"""Angle between predicted and true surface normals (the DSINE and Marigold evaluations)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from genpercept.imaging.colour import colourise
from genpercept.imaging.prediction import Prediction
from genpercept.metrics import _arrays, _baselines, _files, _panels
from genpercept.metrics._arrays import FloatArray
from genpercept.metrics._baselines import Known
from genpercept.metrics._metric import Baseline, Metric, MetricPlugin, down, up
from genpercept.metrics._protocols import NORMALS_PROTOCOLS, NormalsProtocol, resolve

if TYPE_CHECKING:
    from genpercept.core.values import Sample
    from genpercept.tasks import Task

THRESHOLDS = {"a5": 5.0, "a7_5": 7.5, "a11_25": 11.25, "a22_5": 22.5, "a30": 30.0}  # degrees
KEYS = ("mean", "median", "rmse", *THRESHOLDS)
_BIN = 1e-3  # degrees: the median of a set is exact to this, and a set of any size takes 1.4 MB
_BRIGHT = 60.0  # degrees: errors that are as bright as a picture's get


class NormalsMetric(Metric):
    """mean, median, rmse in degrees; a5 ... a30: percent of pixels strictly under that angle.

    Pooled over all pixels of the set (DSINE's rule, the default) or averaged over images (`aggregate="images"`).
    """

    merges = True

    def __init__(self, protocol: NormalsProtocol) -> None:
        super().__init__()
        self.protocol = protocol
        self._histogram = np.zeros(round(180 / _BIN) + 1, dtype=np.int64)
        self._sum, self._squares, self._count = 0.0, 0.0, 0
        self._under = dict.fromkeys(THRESHOLDS, 0)

    def update(self, pred: Any, gt: Any, valid: Any = None, name: str = "") -> dict[str, float]:
        """Add one image: pred, gt (H, W, 3) of any length, valid (H, W) bool. Returns its figures.

        Where the ground truth is the zero vector or not finite there is none. A zero prediction is 90 degrees off.
        """
        name = _arrays.unique_name(name, self.rows)
        p, g = _arrays.as_vectors(pred, "prediction", name), _arrays.as_vectors(gt, "ground truth", name)
        _arrays.same_shape(p.shape, g.shape, "prediction", name)
        mask = _arrays.as_mask(valid, g.shape[:2], name) & np.isfinite(g).all(-1) & (np.abs(g).sum(-1) > 0)
        _arrays.require_finite(p[mask], name)
        angles = angles_deg(p[mask], g[mask])
        self._pool(angles)
        if angles.size == 0:
            self.empty.add(name)
        self.rows[name] = figures(angles)
        return self.rows[name]

    def merge(self, part: NormalsMetric) -> None:
        """Add what another metric of the same options saw. ValueError for a sample that both have."""
        _arrays.join_rows(self, part)
        self._histogram += part._histogram
        self._sum += part._sum
        self._squares += part._squares
        self._count += part._count
        self._under = {key: n + part._under[key] for key, n in self._under.items()}

    def compute(self) -> dict[str, float]:
        """Over all valid pixels so far, or the mean over the images that had one."""
        if self.protocol.aggregate == "images":
            return _arrays.mean_over_images(KEYS, self.rows, self.empty)
        if len(self.rows) == 1:
            return dict(next(iter(self.rows.values())))
        n = self._count
        if n == 0:
            return dict.fromkeys(KEYS, float("nan"))
        return {
            "mean": self._sum / n,
            "median": self._median(),
            "rmse": float(np.sqrt(self._squares / n)),
            **{k: 100 * self._under[k] / n for k in THRESHOLDS},
        }

    def _pool(self, angles: FloatArray) -> None:
        self._count += angles.size
        self._sum += float(angles.sum(dtype=np.float64))
        self._squares += float(np.square(angles, dtype=np.float64).sum())
        self._histogram += np.bincount(np.rint(angles / _BIN).astype(np.int64), minlength=self._histogram.size)
        for key, limit in THRESHOLDS.items():
            self._under[key] += int(np.count_nonzero(angles < limit))

    def _median(self) -> float:
        """Mean of the two middle angles, to half a bin."""
        cumulative = np.cumsum(self._histogram)
        middle = np.searchsorted(cumulative, [(self._count + 1) // 2, self._count // 2 + 1])
        return float(np.mean(middle) * _BIN)


def angles_deg(pred: FloatArray, gt: FloatArray) -> FloatArray:
    """Angle in degrees between vectors (N, 3), any length; 90 for a zero vector. (N,) float32.

    In float32 as the public code, which matters only for angles that sit on a threshold.
    """
    unit_p, unit_g = (v / np.maximum(np.linalg.norm(v, axis=-1, keepdims=True), 1e-8) for v in (pred, gt))
    cosine = np.clip((unit_p * unit_g).sum(-1), -1, 1)
    return np.degrees(np.arccos(cosine))


def figures(angles: FloatArray) -> dict[str, float]:
    """The figures over angles (N,) in degrees; NaN when N = 0."""
    if angles.size == 0:
        return dict.fromkeys(KEYS, float("nan"))
    exact = angles.astype(np.float64)
    return {
        "mean": float(exact.mean()),
        "median": float(np.median(exact)),
        "rmse": float(np.sqrt(np.mean(exact**2))),
        **{k: float(100 * np.mean(angles < limit)) for k, limit in THRESHOLDS.items()},
    }


def _mean_normal(task: Task, known: Known, sample: Sample) -> np.ndarray:
    x, y, z = known["sum"] if np.linalg.norm(known["sum"]) > 0 else (0.0, 0.0, 1.0)
    return _baselines.facing(_baselines.size_of(sample), (float(x), float(y), float(z)))


class Normals(MetricPlugin[NormalsMetric]):
    """pred and gt (H, W, 3), any length. Figures: mean median rmse (degrees) a5 a7_5 a11_25 a22_5 a30 (percent).

    See `NormalsProtocol` for the options. protocol: dsine (pooled pixels), marigold (mean over images).
    """

    name = "normals"
    metric = NormalsMetric
    columns = (
        down("mean", "mean", "Mean", 1, "mean angle", 2),
        down("median", "median", "Median", 1, "median angle", 2),
        down("rmse", "RMSE", digits=1, words="RMSE"),
        up("a11_25", "11.25°", r"$11.25^\circ$", 1, fine=1),
        up("a22_5", "22.5°", r"$22.5^\circ$", 1, fine=1),
        up("a30", "30°", r"$30^\circ$", 1, fine=1),
    )
    others = (up("a5", "5°", r"$5^\circ$", 1, fine=1), up("a7_5", "7.5°", r"$7.5^\circ$", 1, fine=1))
    watched = ("mean", "median", "rmse", "a11_25", "a30")
    note = "Degrees, and percent of pixels under an angle."
    kinds = ("normals",)
    ndim = 3
    baselines = (
        Baseline("facing the viewer", lambda task, known, sample: _baselines.facing(_baselines.size_of(sample))),
        Baseline("mean normal", _mean_normal, fitted=True),
    )

    def __call__(self, *, protocol: str | None = None, **options: Any) -> NormalsMetric:
        return NormalsMetric(resolve(NORMALS_PROTOCOLS, NormalsProtocol(), protocol, options))

    def observe(self, task: Task, sample: Sample) -> Known:
        truth = task.truth(sample)
        return {"sum": truth["gt"][truth["valid"]].sum(0, dtype=np.float64)}

    def panels(
        self, prediction: Prediction, truth: Mapping[str, Any], image: np.ndarray, metric: NormalsMetric, name: str
    ) -> _panels.Panels:
        gt, valid = truth["gt"], truth["valid"]
        angles = np.zeros(valid.shape, np.float32)
        angles[valid] = angles_deg(prediction.values[valid], gt[valid])
        return [
            (prediction.colourise(), "prediction"),
            (colourise(gt, "normals", valid), "truth"),
            (_panels.error(angles, _BRIGHT, valid), f"angle, bright: {_BRIGHT:.0f}° and more"),
        ]

    def read_pred(self, path: Path, scale: float | None = None) -> Any:
        """(H, W, 3): floating point as stored, PNG as (n + 1) / 2, exactly -1 where black."""
        array, _ = _files.read_array(path, ("values", self.name, "pred", "gt", "depth"))
        if array.dtype in (np.uint8, np.uint16):
            return array.astype(np.float32) / np.iinfo(array.dtype).max * 2 - 1
        if array.dtype.kind not in "uif":
            raise ValueError(f"{path}: holds {array.dtype} values: expected numbers")
        if array.dtype.kind == "f":
            return array
        raise ValueError(f"{path}: normals are read from RGB of 8 or 16 bits or floating point, not from {array.dtype}")

    def read_gt(self, path: Path, scale: float | None = None) -> Any:
        """As a prediction; where a PNG is black there is no normal."""
        truth = self.read_pred(path)
        if path.suffix.lower() == ".png":
            # Black decodes to (-1, -1, -1), which is no zero vector any more; DSINE masks on the PNG, and so do we.
            truth[(truth <= -1).all(-1)] = 0
        return truth


PLUGIN = Normals()
