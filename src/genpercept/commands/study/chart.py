"""Line charts with matplotlib: panels side by side, one legend. The same points give the same bytes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genpercept.core import files

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MISSING = "no chart: matplotlib is not installed: pip install 'genpercept[plot]'"
_INCHES, _DPI = (4.6, 3.9), 110  # of one panel
_LEGEND = (0.8, 0.078)  # inches, beside the panels: for the lines, and for each letter
# Okabe & Ito's colours, told apart with any colour vision; then they come again, dashed with squares, then dotted
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#5a5a5a")
_DASHES: tuple[Any, ...] = ("solid", (0, (5, 2)), (0, (1, 1.5)))
_MARKS = ("o", "s", "^")
_DOTS = 12  # points of a line up to which they are marked
_STYLE = {
    "font.size": 10.0,
    "axes.titlesize": 10.0,
    "axes.titlelocation": "left",
    "axes.edgecolor": "#686e76",
    "axes.labelcolor": "#22242a",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e2e4e7",
    "xtick.color": "#686e76",
    "ytick.color": "#686e76",
    "lines.linewidth": 1.6,
    "lines.markersize": 4.0,
    "legend.frameon": False,
    "legend.handlelength": 3.4,
}

Point = tuple[float, float]


@dataclass
class Panel:
    """Lines by name, each a list of (x, y) with rising x above 0. Equal names have equal colours in all panels.

    y_label: its own, where panels show different things.
    """

    title: str
    lines: Mapping[str, Sequence[Point]] = field(default_factory=dict)
    y_label: str = ""


def draw(path: Path, panels: Sequence[Panel], x_label: str, y_label: str = "", *, powers: bool = False) -> None:
    """Write a PNG; x is logarithmic. ValueError without a single point, or without matplotlib (`MISSING`).

    Axes are shared by the panels. powers: y is logarithmic, too, and each panel has its own.
    """
    names = list(dict.fromkeys(name for panel in panels for name in panel.lines))
    if not any(line for panel in panels for line in panel.lines.values()):
        raise ValueError(f"{path}: nothing to draw")
    try:
        from matplotlib import style
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise ValueError(MISSING) from None
    with style.context(["default", _STYLE]):  # whatever a matplotlibrc says
        width = _INCHES[0] * len(panels) + _LEGEND[0] + _LEGEND[1] * max(map(len, names))
        figure = Figure((width, _INCHES[1]), dpi=_DPI, layout="constrained")
        axes = figure.subplots(1, len(panels), sharex=True, sharey=not powers, squeeze=False)[0]
        for axis, panel in zip(axes, panels, strict=True):
            for name, line in panel.lines.items():
                axis.plot(*zip(*line, strict=True), label=name, **_look(names.index(name), len(line) <= _DOTS))
            axis.set(title=panel.title, xlabel=x_label, ylabel=panel.y_label, xscale="log")
            if powers:
                axis.set_yscale("log")
            _plain_ticks(axis, powers)
        if y_label:
            axes[0].set_ylabel(y_label)
        handles = {
            label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
        }
        figure.legend([handles[name] for name in names], names, loc="outside right upper")
        stream = io.BytesIO()
        figure.savefig(stream, format="png", metadata={"Software": None})  # no version in it
    files.write_bytes(path, stream.getvalue())


def _look(place: int, marked: bool) -> dict[str, Any]:
    """Of the line at this place in the legend."""
    again = place // len(_COLOURS) % len(_DASHES)
    mark = _MARKS[again] if marked else ""
    return {"color": _COLOURS[place % len(_COLOURS)], "linestyle": _DASHES[again], "marker": mark}


def _plain_ticks(axis: Axes, powers: bool) -> None:
    """1, 2, 5, 10, ... written out, on each axis that is logarithmic."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    for one in (axis.xaxis, axis.yaxis) if powers else (axis.xaxis,):
        one.set_major_locator(LogLocator(subs=(1, 2, 5)))
        one.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        one.set_minor_locator(NullLocator())
        one.set_minor_formatter(NullFormatter())
