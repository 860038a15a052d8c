"""What a metric is: figures over samples (`Metric`), and what it declares about itself (`MetricPlugin`).

A metric of your own is one file, such as

    class Errors(PerPixel):
        keys = ("rmse", "psnr")

        def measure(self, pred, gt):
            mse = float(np.mean(np.square(pred - gt)))
            return {"rmse": mse**0.5, "psnr": -10 * np.log10(max(mse, 1e-10))}

    class Albedo(MetricPlugin[Errors]):
        name, metric = "albedo", Errors
        columns = (down("rmse", "RMSE"), up("psnr", "PSNR", digits=1))

    PLUGIN = Albedo()
"""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import numpy as np

from genpercept.core.names import choose
from genpercept.imaging.prediction import Prediction
from genpercept.metrics import _arrays, _files, _panels
from genpercept.metrics._baselines import Known

if TYPE_CHECKING:  # torch, which no metric needs
    from genpercept.core.values import Sample
    from genpercept.tasks import Task

Row = dict[str, float]


class Metric(ABC):
    """Figures over samples. `rows`: those of each sample so far, by its name. `empty`: samples with nothing to compare.

    merges: whether `merge` joins parts that saw different samples to the very figures of one that saw all. Such a metric
    is evaluated by several processes, any other by one.
    """

    merges: ClassVar[bool] = False

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.empty: set[str] = set()

    @abstractmethod
    def update(self, pred: Any, gt: Any, valid: Any = None, name: str = "", *args: Any, **extras: Any) -> Row:
        """Add one sample; returns its own figures. ValueError that names it for NaN or infinite predictions.

        extras: what a sample brings besides, by the names that the plugin's `extras` declare.
        """

    @abstractmethod
    def compute(self) -> Row:
        """The figures over all samples so far, under the protocol's rule (mean per image, or pooled)."""

    def merge(self, part: Any) -> None:
        """Add what another metric of the same options saw. ValueError for a sample that both have."""
        raise TypeError(f"{type(self).__name__} cannot be joined out of parts: it has no `merge`")

    def details(self) -> dict[str, Any]:
        """What the metric knows besides its figures: by class, by category. Plain values."""
        return {}

    @property
    def post_processing(self) -> str:
        """What it does to a prediction before it compares, in words for tables ("none": nothing); "": it has no choice."""
        return ""


class Averaged(Metric):
    """Figures of each image, averaged over the images that are not `empty`. keys: of the figures."""

    merges = True
    keys: tuple[str, ...]

    def merge(self, part: Averaged) -> None:
        """Add what another metric of the same options saw. ValueError for a sample that both have."""
        _arrays.join_rows(self, part)

    def compute(self) -> Row:
        """Mean of the images that had something to compare; NaN when there is none."""
        return _arrays.mean_over_images(self.keys, self.rows, self.empty)


class PerPixel(Averaged):
    """Figures over the valid pixels of each image, averaged over the images that have one."""

    @abstractmethod
    def measure(self, pred: np.ndarray, gt: np.ndarray) -> Row:
        """The figures over predicted and true values (N,) or (N, C) of valid pixels; N is above 0."""

    def update(self, pred: Any, gt: Any, valid: Any = None, name: str = "", *args: Any, **extras: Any) -> Row:
        """Add one image: pred and gt (H, W) or (H, W, C), valid (H, W) bool. Returns its figures, NaN without a pixel."""
        name = _arrays.unique_name(name, self.rows)
        p, g = _arrays.to_numpy(pred), _arrays.to_numpy(gt)
        _arrays.same_shape(p.shape, g.shape, "prediction", name)
        mask = _arrays.as_mask(valid, g.shape[:2], name)
        _arrays.require_finite(p[mask], name)
        if mask.any():
            self.rows[name] = self.measure(p[mask], g[mask])
        else:
            self.empty.add(name)
            self.rows[name] = dict.fromkeys(self.keys, math.nan)
        return self.rows[name]


M = TypeVar("M", bound=Metric)


@dataclass(frozen=True)
class Column:
    """A figure. higher: whether more is better (None: neither; no sample is ranked by it).

    words: what running text calls it, by default its key. fine: digits where a standard error stands beside it.
    """

    key: str
    title: str
    latex: str
    digits: int
    higher: bool | None
    words: str = ""
    fine: int = 3

    @property
    def arrow(self) -> str:
        return {True: "↑", False: "↓", None: ""}[self.higher]

    def shown(self, value: float | None) -> str:
        """The figure as tables print it; a dash where there is none."""
        return "–" if value is None or not math.isfinite(value) else f"{value:.{self.digits}f}"


def up(key: str, title: str, latex: str = "", digits: int = 3, words: str = "", fine: int = 3) -> Column:
    """A figure of which more is better. latex: the title in LaTeX, where it differs."""
    return Column(key, title, latex or title, digits, True, words or key, fine)


def down(key: str, title: str, latex: str = "", digits: int = 3, words: str = "", fine: int = 3) -> Column:
    """A figure of which less is better."""
    return Column(key, title, latex or title, digits, False, words or key, fine)


@dataclass(frozen=True)
class Breakdown:
    """Figures by class, by category, by subset: a table of its own beside a set's. what: one of them is ("class")."""

    what: str
    columns: tuple[Column, ...]
    rows: Mapping[str, Row]  # by name, NaN where there is no figure; tables leave names without any out


def _undeclared(key: str) -> Column:
    return Column(key, key, key.replace("_", r"\_"), 4, None, key)


@dataclass(frozen=True)
class Baseline:
    """An answer that looks at no image. fitted: it must see the labels first, by the plugin's `observe`.

    answer(task, known, sample): the values of a Prediction of the task's kind; `known` is what `observe` gave, summed over
    the set, and empty unless fitted.
    """

    title: str
    answer: Callable[[Task, Known, Sample], np.ndarray]
    fitted: bool = False


class MetricPlugin(Generic[M]):
    """What a metric declares; the PLUGIN of its module is an instance, and called it gives a fresh metric.

    `name` and `metric` have no default. Without `columns` tables show all figures, and no sample can be ranked.
    """

    name: str
    metric: type[M]  # its keywords are the metric's options
    protocols: Mapping[str, Mapping[str, Any]] = {}  # named ones: their options

    # ---- figures
    columns: tuple[Column, ...] = ()  # what tables show; samples are ranked by the first
    others: tuple[Column, ...] = ()  # declared figures that tables leave out
    watched: tuple[str, ...] = ()  # keys that validation in training reports; default: those of the columns
    note = ""  # how to read the table

    # ---- samples
    kinds: tuple[str, ...] = ()  # of Prediction that can be scored, the metric's own first; none: any
    ndim: int | None = None  # axes of a sample's array; with it an array of one axis more is a set
    extras: Mapping[str, str] = {}  # what `update` takes besides, by keyword: what it is
    baselines: tuple[Baseline, ...] = ()

    # ---- files, for `genpercept score`
    suffixes: tuple[str, ...] = ()  # ends of file names that are no part of a sample's name, beside _NAME and the usual
    tree = False  # folders are matched by path, as MVTec's, and not by stem; good pictures have no truth: see `add`
    scaled = False  # whether integers in files have a unit: --pred-scale, --gt-scale
    beside: Mapping[str, Callable[[Path], Any]] = {"valid": _files.read_mask}  # further files, by keyword: their reader

    # ---- the demo
    photographs = True  # whether its tasks have an answer to any photograph

    def __call__(self, *, protocol: str | None = None, **options: Any) -> M:
        """A fresh metric. protocol: a named one; other keywords are its options, which override it. ValueError if unknown."""
        if protocol is not None:
            choose("protocol", protocol, self.protocols)
            options = {**self.protocols[protocol], **options}
        known = inspect.signature(self.metric).parameters
        for key in options:
            choose("option", key, known)
        return self.metric(**options)

    def options_for(self, kinds: Collection[str], options: Mapping[str, Any]) -> dict[str, Any]:
        """The options with which predictions of these kinds are scored."""
        return dict(options)

    # ---- figures

    def shown(self, figures: Collection[str]) -> tuple[Column, ...]:
        """The columns of a table; of a metric that declares none, all its figures."""
        return self.columns or tuple(_undeclared(key) for key in figures)

    def column(self, key: str) -> Column:
        """The figure `key`; one whose direction nobody knows where it is not declared."""
        return next((c for c in (*self.columns, *self.others) if c.key == key), _undeclared(key))

    def breakdown(self, details: Mapping[str, Any], task: Task) -> Breakdown | None:
        """A table of what the metric's `details` hold by class or by category; None where that is nothing.

        details: as `Metric.details` gave them, or as JSON holds them, which has None for NaN. task: has the classes' names.
        """
        return None

    def watches(self, key: str) -> bool:
        """Whether validation in training reports this figure."""
        keys = self.watched or tuple(column.key for column in self.columns)
        return not keys or key in keys

    def ranking(self) -> Column:
        """The column that samples are ranked by. ValueError where none is declared, or not which way is better."""
        if self.columns and self.columns[0].higher is not None:
            return self.columns[0]
        what = f"which way {self.columns[0].key!r} is better" if self.columns else "its figures (`columns`)"
        raise ValueError(
            f"metric {self.name!r} does not declare {what}, so that best and worst are unknown: "
            "begin its columns with up(...) or down(...)"
        )

    # ---- samples

    def observe(self, task: Task, sample: Sample) -> Known:
        """What one sample adds to what fitted baselines know: arrays that are summed over the set."""
        return {}

    def panels(
        self, prediction: Prediction, truth: Mapping[str, Any], image: np.ndarray, metric: M, name: str
    ) -> _panels.Panels:
        """(picture, words) of the prediction, the truth and the error, all of the image's size.

        truth: what the task's `truth` gives. image (H, W, 3) uint8. metric: a fresh one. Default: by the prediction's kind.
        """
        return _panels.by_kind(prediction, truth.get("gt"), truth.get("valid"), image)

    def scale(self, truth: Mapping[str, Any], metric: M, name: str) -> _panels.Scale | None:
        """What the colours of `panels` mean on a sample with this truth, where values have a unit."""
        return None

    def showable(self, truth: Mapping[str, Any]) -> bool:
        """Whether there is something to see on a sample with this truth; the demo leaves the others out."""
        return True

    # ---- files

    def read_pred(self, path: Path, scale: float | None = None) -> Any:
        """A prediction's array. scale: what its integers are divided by. Default: see `_files.read_map`."""
        return _files.read_map(path, ("values", self.name, "pred", "gt"))

    def read_gt(self, path: Path, scale: float | None = None) -> Any:
        """A ground truth's array. Default: as a prediction's."""
        return self.read_pred(path, scale)

    def add(self, metric: M, pair: _files.Pair, pred_scale: float | None = None, gt_scale: float | None = None) -> None:
        """One sample out of its files. ValueError that names the file or the sample."""
        if pair.gt is None:
            raise ValueError(f"{pair.pred}: has no ground truth, and metric {self.name!r} no rule for good pictures")
        mask = None if pair.valid is None else _files.read_mask(pair.valid)
        pred, truth = self.read_pred(pair.pred, pred_scale), self.read_gt(pair.gt, gt_scale)
        extras = {key: self.beside[key](path) for key, path in pair.extras.items()}
        metric.update(pred, truth, mask, name=pair.name, **extras)


class AnnotatedPlugin(MetricPlugin[M], ABC):
    """A metric whose ground truth is one file for all images, such as COCO's annotations.

    Predictions are one file for all, too, or a folder with a file for each image.
    """

    beside: Mapping[str, Callable[[Path], Any]] = {}

    @abstractmethod
    def read_annotations(self, path: Path) -> Any:
        """The ground truth of all images."""

    @abstractmethod
    def read_results(self, path: Path) -> Any:
        """The predictions of all images, out of one file."""

    @abstractmethod
    def add_results(self, metric: M, annotations: Any, results: Any) -> None:
        """All images, with predictions as `read_results` gives them."""

    @abstractmethod
    def add_folder(self, metric: M, annotations: Any, results: Mapping[str, Any]) -> None:
        """All images, with predictions as `read_pred` gives them, by the stems of their files."""
