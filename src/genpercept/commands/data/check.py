"""`genpercept data check` and `preview`: what a data set on disk holds, what is broken, value ranges, a contact sheet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genpercept.commands import terminal
from genpercept.commands.data import advice
from genpercept.commands.data.sheet import sheet
from genpercept.core import classes, notes
from genpercept.core.files import atomic
from genpercept.core.labels import LABELS, VALID, Label
from genpercept.core.names import hint
from genpercept.core.texts import assignments
from genpercept.core.values import Sample
from genpercept.data import DATASETS, Dataset
from genpercept.data.folder import unread
from genpercept.tasks import TASKS

__all__ = ["Report", "check", "check_named", "main", "named", "options_of", "preview", "sheet"]

_SHEET_SAMPLES = 12
_LISTED = 20  # broken files named in the text
_MOST = 8  # classes named in the text


@dataclass
class Report:
    """What was found. `ranges`: label, or one of its axes -> lowest, median, highest, share of the pixels that are known;
    `shares`: label -> mean over the samples; `pixels`: class id -> share of the labelled pixels; `broken`: a line per
    unusable sample; `refused`: why training would refuse the set; `advice`: what looks like a mistake; `heard`: what readers
    noticed -> the samples, each with what it was there."""

    samples: int = 0
    splits: Counter[str] = field(default_factory=Counter)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    ranges: dict[str, list[float]] = field(default_factory=dict)
    shares: dict[str, float] = field(default_factory=dict)
    covered: dict[str, list[float]] = field(default_factory=dict)  # `shares`, of each sample
    pixels: Counter[int] = field(default_factory=Counter)
    table: str = ""
    people: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)
    heard: dict[str, list[str]] = field(default_factory=dict)
    present: dict[int, set[str]] = field(default_factory=dict)  # number of a readable sample -> labels out of its files
    total: int = 0  # samples of the split, where a limit left some unread

    def facts(self) -> list[tuple[str, str]]:
        """What was found, by name."""
        left = f" (of {self.total}, evenly spaced)" if self.total > self.samples else ""
        said = [
            ("samples", f"{self.samples}{left}: {_counts(self.splits)}"),
            ("readable", f"{self.samples - len(self.broken)}, broken {len(self.broken)}"),
            ("sizes", _counts(Counter({f"{h}x{w}": n for (h, w), n in self.sizes.most_common(6)}))),
            ("labels", _counts(self.labels) or "none"),
        ]
        for name, (low, median, high, share) in self.ranges.items():
            said.append((name, f"{low:.4g} to {high:.4g}, median {median:.4g}; known on {share:.1%} of the pixels"))
        said += [(name, f"{share:.1%} of the pixels on average") for name, share in self.shares.items()]
        if self.pixels:
            said.append(("classes", self._classes()))
        if self.people:
            said.append(("people", _counts(self.people)))
        return said

    def remarks(self) -> list[str]:
        """What is wrong, and what looks so: a line each."""
        said = [f"broken: {line}" for line in self.broken[:_LISTED]]
        if len(self.broken) > _LISTED:
            said.append(f"broken: and {len(self.broken) - _LISTED} more")
        said += [f"refused: {line}" for line in self.refused]
        for text, seen in self.heard.items():
            said.append(f"note: {text} ({len(seen)} of {self.samples} samples, such as {seen[0]})")
        return said + [f"note: {line}" for line in self.advice]

    def _classes(self) -> str:
        known = classes.find(self.table).names if self.table in classes.names() else ()
        seen = [(i, n) for i, n in self.pixels.most_common() if i != classes.IGNORED]
        everything, labelled = sum(self.pixels.values()), sum(n for _, n in seen)
        name = dict(enumerate(known))
        most = ", ".join(f"{name.get(i, i)} {n / labelled:.1%}" for i, n in seen[:_MOST])
        of = f" of the {len(known)} of {self.table}" if known else ""
        return f"{len(seen)}{of} on {labelled / everything:.1%} of the pixels: {most}{', ...' if len(seen) > _MOST else ''}"


def main(
    folder: Path,
    out: Path | None = None,
    options: dict[str, Any] | None = None,
    split: str = "all",
    limit: int = 0,
    skip_bad: bool = False,
    task: str | None = None,
) -> int:
    """Print the report of your own folder; OUT/contact_sheet.png. 0 when training takes it, 1 broken samples or refused, 2 none
    is readable.

    options: of the data set `folder`, such as depth_scale. limit: read so many, evenly spaced (0: all). skip_bad: broken
    ones are no failure. task: whose labels each sample must have; None: those that any sample has. ValueError when the folder
    has no readable layout.
    """
    report, samples = check(folder, options or {}, split, limit, skip_bad, task)
    return _said(report, samples, out, skip_bad)


def check_named(
    name: str,
    root: Path | None,
    split: str | None,
    out: Path | None = None,
    options: Mapping[str, Any] | None = None,
    limit: int = 0,
    skip_bad: bool = False,
) -> int:
    """The same for a data set by name. limit: read so many, evenly spaced (0: all). skip_bad: broken ones are not a failure.

    ValueError for an unknown name, split or option, or another layout than the published one.
    """
    plugin, entries, total = _entries(name, root, split, options or {}, limit)
    report, samples = _examine(plugin, entries, _table(plugin), sheet_samples=_SHEET_SAMPLES if out else 0)
    report.splits[str(split)] = len(entries)
    report.total = total
    return _said(report, samples, out, skip_bad)


def preview(
    name: str,
    root: Path | None,
    split: str | None,
    out: Path,
    count: int = 12,
    options: Mapping[str, Any] | None = None,
) -> int:
    """A contact sheet of `count` evenly spaced samples at OUT; 0, or 1 when some of them could not be read (they are named)."""
    kind = _format(out)
    plugin, entries, _ = _entries(name, root, split, options or {}, count)
    report, samples = _examine(plugin, entries, _table(plugin), sheet_samples=count)
    for line in report.broken:
        print(f"broken: {line}")
    if not samples:
        raise ValueError(f"{name}, split {split!r}: none of {len(entries)} samples can be read; {report.broken[0]}")
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic(out) as part:
        sheet(samples, captions=True, table=_table(plugin)).save(part, format=kind)
    print(f"{len(samples)} samples: {out}")
    return 1 if report.broken else 0


def check(
    folder: Path,
    options: dict[str, Any],
    split: str = "all",
    limit: int = 0,
    skip_bad: bool = False,
    task: str | None = None,
) -> tuple[Report, list[Sample]]:
    """Read the samples of your own folder; the report, and some evenly spaced samples for the sheet."""
    plugin, entries, total = _entries("folder", folder, split, options, limit)
    wanted = TASKS.find(task).labels if task else None
    report, shown = _examine(plugin, entries, "", _SHEET_SAMPLES)
    report.total = total
    of = [getattr(e, "split", split) for e in entries]
    report.splits.update(of)
    _name_absent(report, [e.name for e in entries], wanted)
    if split == "all" and total == len(entries):
        good = Counter(of[number] for number in report.present)
        report.refused += _refused(report.splits, good, skip_bad)
        report.advice += _advice(report) + _unread(folder, [e.name for e in entries])
    return report, shown


def _name_absent(report: Report, names: Sequence[str], wanted: Sequence[str] | None) -> None:
    """Samples without a label that is wanted, or that others have, are broken: training would stop at them."""
    many = Counter(name for there in report.present.values() for name in there)
    for number, there in list(report.present.items()):
        if absent := [label for label in (many if wanted is None else wanted) if label not in there]:
            del report.present[number]
            which = "" if wanted else f", which {many[absent[0]]} of {report.samples} samples have"
            report.broken.append(f"sample {names[number]!r} has no {', '.join(absent)}{which}")


def _refused(splits: Mapping[str, int], good: Mapping[str, int], skip_bad: bool) -> list[str]:
    """Why training would not begin, whatever its task."""
    if not splits.get("train"):
        return ["no sample is for training: list some in train.txt, or give them split train in the manifest"]
    both = {"train": "training", "val": "validation"}
    bare = [what for split, what in both.items() if splits.get(split) and not good.get(split)]
    return [f"no sample that is for {what} can be read" for what in bare if skip_bad]


def named(text: str, root: Path | None) -> bool:
    """Whether `data check` is asked for a data set rather than for a folder of your own. ValueError if it is neither."""
    known = DATASETS.names()
    if root is None and Path(text).exists():
        return False
    if text not in known:
        raise ValueError(f"{text!r} is neither a data set nor a folder: {hint(text, known)}")
    return True


def options_of(pairs: Sequence[str]) -> dict[str, Any]:
    """Options of a data set, as --option says them."""
    return assignments(pairs, "category=hazelnut")


# Reading ------------------------------------------------------------------------------------------------------------------


def _entries(
    name: str, root: Path | None, split: str | None, options: Mapping[str, Any], limit: int
) -> tuple[Dataset, list[Any], int]:
    """The data set, the entries to read, evenly spaced, and how many the split has."""
    plugin = DATASETS.find(name)
    if split is None:
        about = plugin.about
        splits = about.splits if about else ("train", "val", "test", "all")
        raise ValueError(f"data set {name!r}: say which split (--split): {', '.join(splits)}")
    plugin = plugin.with_options(**options)
    entries = list(plugin.index(root, split))
    if not limit or limit >= len(entries):
        return plugin, entries, len(entries)
    return plugin, [entries[i] for i in _spaced(len(entries), limit)], len(entries)


def _spaced(length: int, count: int) -> list[int]:
    return np.linspace(0, length - 1, min(count, length)).round().astype(int).tolist()


def _examine(plugin: Dataset, entries: Sequence[Any], table: str, sheet_samples: int) -> tuple[Report, list[Sample]]:
    """Read the entries; what they hold, and the evenly spaced ones for a sheet."""
    report, shown = Report(samples=len(entries), total=len(entries), table=table), []
    wanted = set(_spaced(len(entries), sheet_samples))
    figures: dict[str, list[tuple[float, float, float, float]]] = {}
    shares: dict[str, list[float]] = {}
    for number, entry in enumerate(entries):
        try:
            with notes.heard() as heard:
                sample = plugin.load(entry)
            labels = list(_labels(sample))
            _same_table(report, sample, labels)
        except ValueError as error:
            report.broken.append(str(error))
            continue
        for text, seen in dict(heard).items():
            report.heard.setdefault(text, []).append(f"{entry.name}: {seen}" if seen else entry.name)
        report.present[number] = {row.name for row, _ in labels if row.has_files and row.name != VALID}
        report.sizes[sample.image.shape[-2], sample.image.shape[-1]] += 1
        for row, values in labels:
            report.labels[row.name] += 1
            if row.summary == "range":
                for title, part, known in _figures(row, values, sample):
                    figures.setdefault(title, []).append(_summary(part, known))
            elif row.summary == "share":
                shares.setdefault(row.name, []).append(float(torch.from_numpy(values).float().mean()))
            else:
                _count(report, row, values, sample)
        if number in wanted:
            shown.append(sample)
    for name, rows in figures.items():
        low, median, high, share = zip(*rows, strict=True)
        report.ranges[name] = [min(low), float(np.nanmedian(median)), max(high), float(np.mean(share))]
    report.shares = {name: float(np.mean(values)) for name, values in shares.items()}
    report.covered = shares
    return report, shown


def _labels(sample: Sample) -> Iterator[tuple[Label, np.ndarray]]:
    """Rows and arrays (H, W[, C]) of its labels. ValueError for a map of another shape than its row and image say."""
    there, size = sample.labels(), (sample.image.shape[-2], sample.image.shape[-1])
    for name in sorted(there, key=list(LABELS).index):
        row, values = LABELS[name], there[name].numpy()
        if row.channels and values.shape != row.shape(size):
            raise ValueError(f"{sample.name}: {name} of shape {list(values.shape)}; must be {list(row.shape(size))}")
        yield row, row.last(values)


def _same_table(report: Report, sample: Sample, labels: Sequence[tuple[Label, np.ndarray]]) -> None:
    """The sample's own table goes before the data set's; its ids must be of that table."""
    report.table = str(sample.meta.get("classes") or report.table)
    if report.table not in classes.names():
        return
    known = len(classes.find(report.table))
    for row, ids in labels:
        if row.classes and int(ids.max()) >= known:
            raise ValueError(f"{sample.name}: class {int(ids.max())}, but {report.table} has {known} classes")


def _count(report: Report, row: Label, values: np.ndarray, sample: Sample) -> None:
    if row.summary == "classes":
        ids, counts = np.unique(values, return_counts=True)
        report.pixels.update(dict(zip(ids.tolist(), counts.tolist(), strict=True)))
    elif row.summary == "people":
        seen = values[..., 2] > 0
        crowds = sum(map(bool, sample.meta.get("iscrowd", ())))
        report.people.update(
            {"annotated": len(seen), "with joints": int(seen.any(-1).sum()), "joints": int(seen.sum())}
        )
        report.people.update({"crowds": crowds, "images without people": int(len(seen) == 0)})


def _figures(row: Label, values: np.ndarray, sample: Sample) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Title, values and where they are known: of each axis that the row names, or of all channels together."""
    known = row.where(values, sample.valid_or_all().numpy()) if row.channels else np.isfinite(values)
    for i, title in enumerate(row.titles()):
        yield title, values[..., i] if row.axes else values, known


def _summary(values: np.ndarray, known: np.ndarray) -> tuple[float, float, float, float]:
    inside = values[known]
    if inside.size == 0:
        return float("inf"), float("nan"), float("-inf"), 0.0
    return float(inside.min()), float(np.median(inside)), float(inside.max()), float(known.mean())


# Saying -------------------------------------------------------------------------------------------------------------------


def _said(report: Report, samples: Sequence[Sample], out: Path | None, skip_bad: bool) -> int:
    terminal.show(terminal.pairs(report.facts()))
    for line in report.remarks():
        print(line)
    if samples and out is not None:
        out.mkdir(parents=True, exist_ok=True)
        with atomic(out / "contact_sheet.png") as part:
            sheet(samples, table=report.table, overlaid=True).save(part, format="PNG")
        print(f"contact sheet: {out / 'contact_sheet.png'}")
    if len(report.broken) == report.samples:
        return 2
    return 1 if report.refused or (report.broken and not skip_bad) else 0


def _advice(report: Report) -> list[str]:
    """What looks like a wrong setting."""
    said = [*advice.of_ranges(report.ranges), *advice.of_shares(report.covered), *advice.of_classes(report.pixels)]
    if not report.labels:
        said.append("no labels were found: nothing can be trained on these images")
    if report.samples and not report.splits["val"]:
        said.append(
            "no sample is for validation, so that training would score what it trains on: list some in val.txt, or give them "
            "split val in the manifest"
        )
    if left := report.splits["unlisted"]:
        said.append(f"{left} images are in none of the lists of splits, and left out")
    return said


def _unread(folder: Path, names: Sequence[str]) -> list[str]:
    """Labels that nobody knows."""
    known = [name for name, row in LABELS.items() if row.has_files]
    return [f"{name}/ is not read: no label is called so; {hint(name, known)}" for name in unread(folder, names)]


def _table(plugin: Dataset) -> str:
    return (plugin.about.classes or "") if plugin.about else ""


def _format(out: Path) -> str:
    kinds = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
    if out.suffix.lower() not in kinds:
        raise ValueError(f"--out {out}: must end in .png or .jpg")
    return kinds[out.suffix.lower()]


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{n} {name}" for name, n in sorted(counter.items()) if n)
