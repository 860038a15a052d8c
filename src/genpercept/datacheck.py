"""`genpercept data check FOLDER`: what a folder of your own holds, what is broken, value ranges, a contact sheet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from genpercept import plugins
from genpercept.imaging.colour import colourise
from genpercept.imaging.write import atomic
from genpercept.types import Sample

_SHEET_SAMPLES, _SHEET_HEIGHT, _GAP = 12, 120, 4
_LISTED = 20  # broken files named in the text
_KINDS = {"depth": "depth_affine", "normals": "normals", "mask": "mask", "alpha": "alpha", "class_ids": "class_ids"}


@dataclass
class Report:
    """What was found. `ranges`: label -> lines of figures; `broken`: one line per sample that cannot be used."""

    samples: int = 0
    splits: Counter[str] = field(default_factory=Counter)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    ranges: dict[str, list[float]] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """The report as text, a line each."""
        said = [
            f"samples     {self.samples}: {_counts(self.splits)}",
            f"readable    {self.samples - len(self.broken)}, broken {len(self.broken)}",
            f"sizes       {_counts(Counter({f'{h}x{w}': n for (h, w), n in self.sizes.most_common(6)}))}",
            f"labels      {_counts(self.labels) or 'none'}",
        ]
        for name, (low, median, high, share) in self.ranges.items():
            said.append(f"{name:<11} {low:.4g} to {high:.4g}, median {median:.4g}; known on {share:.1%} of the pixels")
        said += [f"broken: {line}" for line in self.broken[:_LISTED]]
        if len(self.broken) > _LISTED:
            said.append(f"broken: and {len(self.broken) - _LISTED} more")
        return said + [f"note: {line}" for line in self.advice]


def main(folder: Path, out: Path | None = None, options: dict[str, Any] | None = None) -> int:
    """Print the report and write OUT/contact_sheet.png; 0 when all is well, 1 when samples are broken, 2 when none is readable.

    options: of the data set `folder`, such as depth_scale. ValueError when the folder has no readable layout.
    """
    report, samples = check(folder, options or {})
    for line in report.lines():
        print(line)
    if samples and out is not None:
        out.mkdir(parents=True, exist_ok=True)
        with atomic(out / "contact_sheet.png") as part:
            sheet(samples).save(part, format="PNG")
        print(f"contact sheet: {out / 'contact_sheet.png'}")
    if len(report.broken) == report.samples:
        return 2
    return 1 if report.broken else 0


def check(folder: Path, options: dict[str, Any]) -> tuple[Report, list[Sample]]:
    """Read every sample; the report, and some evenly spaced samples for the sheet."""
    plugin: Any = plugins.find("datasets", "folder")
    plugin = plugin.with_options(**options)
    entries = plugin.index(folder, "all")
    report, shown = Report(samples=len(entries)), []
    report.splits.update(e.split for e in entries)
    wanted = set(np.linspace(0, len(entries) - 1, min(_SHEET_SAMPLES, len(entries))).round().astype(int).tolist())
    figures: dict[str, list[tuple[float, float, float, float]]] = {}
    for number, entry in enumerate(entries):
        try:
            sample = plugin.load(entry)
        except ValueError as error:
            report.broken.append(str(error))
            continue
        report.sizes[sample.image.shape[-2], sample.image.shape[-1]] += 1
        report.labels.update(name for name in (*_KINDS, "valid", "intrinsics") if getattr(sample, name) is not None)
        for name, values, known in _figures(sample):
            figures.setdefault(name, []).append(_summary(values, known))
        if number in wanted:
            shown.append(sample)
    for name, rows in figures.items():
        low, median, high, share = zip(*rows, strict=True)
        report.ranges[name] = [min(low), float(np.median(median)), max(high), float(np.mean(share))]
    report.advice = _advice(report)
    return report, shown


def _figures(sample: Sample) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Name, values and where they are known, of what has a range: depth in metres, the components of normals."""
    found: list[tuple[str, np.ndarray, np.ndarray]] = []
    if sample.depth is not None:
        found.append(("depth [m]", sample.depth.numpy(), sample.valid_or_all().numpy()))
    if sample.normals is not None:
        n = sample.normals.numpy()
        known = np.abs(n).sum(0) > 0
        found += [(f"normals {axis}", n[i], known) for i, axis in enumerate("xyz")]
    return found


def _summary(values: np.ndarray, known: np.ndarray) -> tuple[float, float, float, float]:
    inside = values[known]
    if inside.size == 0:
        return float("inf"), float("nan"), float("-inf"), 0.0
    return float(inside.min()), float(np.median(inside)), float(inside.max()), float(known.mean())


def _advice(report: Report) -> list[str]:
    """What looks like a wrong setting."""
    said = []
    if depth := report.ranges.get("depth [m]"):
        _, median, _, _ = depth
        if not 0.05 <= median <= 500:
            said.append(f"the median depth is {median:.3g} m: is depth_scale right (units of 16-bit images per metre)?")
    z = report.ranges.get("normals z")
    if z and z[1] < 0:
        said.append('most normals point away from the viewer: set normals_axes = "opencv", if that is what they are')
    if not report.labels:
        said.append("no labels were found: nothing can be trained on these images")
    if report.samples and not report.splits["val"]:
        said.append("no sample is for validation: list some in val.txt, or give them split val in the manifest")
    return said


def sheet(samples: Sequence[Sample]) -> Image.Image:
    """Each sample's image and labels in a row."""
    rows = [[_thumbnail(picture) for picture in _pictures(sample)] for sample in samples]
    width = max(sum(p.width + _GAP for p in row) for row in rows)
    page = Image.new("RGB", (width, len(rows) * (_SHEET_HEIGHT + _GAP)), "white")
    for i, row in enumerate(rows):
        x = 0
        for picture in row:
            page.paste(picture, (x, i * (_SHEET_HEIGHT + _GAP)))
            x += picture.width + _GAP
    return page


def _pictures(sample: Sample) -> list[Image.Image]:
    pictures = [Image.fromarray((sample.image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8))]
    for name, kind in _KINDS.items():
        label = getattr(sample, name)
        if label is None:
            continue
        values, valid = label.numpy(), None
        if name == "depth":
            valid = sample.valid_or_all().numpy()
            low, high = np.quantile(values[valid], (0.02, 0.98)) if valid.any() else (0.0, 1.0)
            values = ((values - low) / max(high - low, 1e-6)).clip(0, 1)
        elif name == "normals":
            values = values.transpose(1, 2, 0)
        elif name == "mask":
            values = values.astype(np.float32)
        pictures.append(colourise(values, kind, valid))
    return pictures


def _thumbnail(picture: Image.Image) -> Image.Image:
    width = max(1, round(picture.width * _SHEET_HEIGHT / picture.height))
    return picture.resize((width, _SHEET_HEIGHT), Image.Resampling.BOX)


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{n} {name}" for name, n in sorted(counter.items()))
