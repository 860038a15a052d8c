"""Compare every figure of the suites' paper rows with the paper's texts: python tools/paper_rows.py TEXTS_FOLDER.

TEXTS_FOLDER holds the texts as files of the names below. Their tables are read as they stand there (cells between tabs or
bars); what a row and a column mean is declared here, table by table. Counts go to stdout, and each difference with both
values. Exit code 0 when no figure differs, none is missing on either side, and no table is unknown; else 1.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from genpercept.commands.evaluate import suites

WEB, V1, SUPPLEMENT, FACTS = (
    "genpercept-web-page-and-v1-html.txt",
    "genpercept-v1-eccv-text.txt",
    "genpercept-supplementary-iclr.txt",
    "FACTS.md",
)
# The first of these that has a figure is what the suites follow: v1's web version was made of its source, the other text by
# reading a scan of it.
TEXTS = (WEB, V1, SUPPLEMENT, FACTS)

Figure = tuple[str, str, str, str]  # source, method, set, figure: as suites name them
_VALUE = re.compile(r"\d+(?:\.\d+)?|Failed|-")  # a cell that is a figure, or says that there is none
_CAPTION = re.compile(r"Table (\d+):")


@dataclass(frozen=True)
class Row:
    """A row that begins with the word `printed`. name: the method in the suite. where: its set, where columns do not say."""

    printed: str
    name: str
    where: str = ""


@dataclass(frozen=True)
class Methods:
    """A table with a method a row. columns: (set, figure). begins: the line that it starts at, by text. scale: of ours."""

    source: str
    begins: Mapping[str, str]
    rows: tuple[Row, ...]
    columns: tuple[tuple[str, str], ...]
    scale: float = 1

    def read(self, text: str, lines: list[str]) -> Iterator[tuple[Figure, str, float]]:
        at = _line(lines, self.begins[text], self.source)
        for row in self.rows:
            while at < len(lines) and not lines[at].startswith(row.printed):
                at += 1
            values = _values(lines[at]) if at < len(lines) else []
            if len(values) < len(self.columns):  # the web version joins the cells of what failed
                values = [v for value in values for v in ([value] * 2 if value == "Failed" else [value])]
            if len(values) != len(self.columns):
                raise ValueError(f"{text}, {self.source}: no row {row.printed!r} of {len(self.columns)} figures")
            at += 1
            for (where, figure), value in zip(self.columns, values, strict=True):
                yield (self.source, row.name, where or row.where, figure), value, self.scale


@dataclass(frozen=True)
class Blocks:
    """A table with a method a column and a figure a row, a block of rows for each set."""

    source: str
    begins: Mapping[str, str]
    methods: tuple[str, ...]
    sets: tuple[str, ...]
    figures: tuple[str, ...]

    def read(self, text: str, lines: list[str]) -> Iterator[tuple[Figure, str, float]]:
        at = _line(lines, self.begins[text], self.source) + 1
        for where in self.sets:
            for figure in self.figures:
                while at < len(lines) and len(_values(lines[at])) != len(self.methods):
                    if _values(lines[at]):
                        raise ValueError(f"{text}, {self.source}, {where} {figure}: not {len(self.methods)} figures")
                    at += 1
                if at == len(lines):
                    raise ValueError(f"{text}, {self.source}: ends before {where} {figure}")
                for method, value in zip(self.methods, _values(lines[at]), strict=True):
                    yield (self.source, method, where, figure), value, 1
                at += 1


@dataclass(frozen=True)
class Sentence:
    """Figures in running text: a group of the pattern for each."""

    source: str
    begins: Mapping[str, str]  # the pattern, by text
    figures: tuple[tuple[str, str, str], ...]  # method, set, figure
    scale: float = 1

    def read(self, text: str, lines: list[str]) -> Iterator[tuple[Figure, str, float]]:
        found = re.search(self.begins[text], "\n".join(lines), re.DOTALL)
        if found is None:
            raise ValueError(f"{text}, {self.source}: no sentence like {self.begins[text]!r}")
        for figure, value in zip(self.figures, found.groups(), strict=True):
            yield (self.source, *figure), value, self.scale


def _values(line: str) -> list[str]:
    return [cell for part in re.split(r"[\t|]", line) if _VALUE.fullmatch(cell := part.strip())]


def _line(lines: list[str], begins: str, source: str) -> int:
    found = [i for i, line in enumerate(lines) if line.startswith(begins)]
    if not found:
        raise ValueError(f"{source}: no line begins with {begins!r}")
    return found[0]


# ---- what the tables of the texts mean -------------------------------------------------------------------------------


def _depth(*sets: str) -> tuple[tuple[str, str], ...]:
    return tuple((name, figure) for name in sets for figure in ("abs_rel", "delta1"))


def _data(names: Mapping[str, int], called: str) -> tuple[Row, ...]:
    return tuple(Row(f"{n}K (1/{part})", called.format(n)) for n, part in names.items())


_FOUR = _depth("kitti", "nyuv2", "diode", "eth3d")
_NORMALS = tuple(("", key) for key in ("mean", "median", "rmse", "a11_25", "a22_5", "a30"))
_DIS = ("max_f", "weighted_f", "mae", "s_measure", "e_measure", "hce")
_SETS = ("vd", "te1", "te2", "te3", "te4", "te")
_BETAS = ("0.00085, 0.012", "0.00340, 0.048", "0.1360, 0.192", "0.5440, 0.768")
_EARLIER = (
    *("UNet", "BASNet", "GateNet", "F3Net", "GCPANet", "U2Net", "SINetV2", "PFNet", "PSPNet", "DeepLabV3+", "HRNet"),
    *("BiSeNetV1", "ICNet", "MobileNetV3", "STDC", "HySM", "IS-Net"),
)
_V2 = {"90": 1, "45": 2, "22.5": 4, "11.2": 8, "5.6": 16}
_V1 = {"44": 1, "22": 2, "11": 4, "5.5": 8, "2.7": 16, "1.4": 32, "0.6": 64, "0.3": 128}
_POSE = (Row("Painter", "Painter"), Row("GenPercept", "GenPercept"))
_JOINTS = tuple(("coco", key) for key in ("ap", "ap50", "ap75", "ap_m", "ap_l"))
_SEGMENTED = tuple((m, s, "miou") for m in ("GenPercept, frozen U-Net", "GenPercept") for s in ("hypersim", "ade20k"))
_DINO = tuple((m, s, "miou") for m in ("DINOv2 ViT-giant, frozen", "DINOv2 ViT-giant") for s in ("hypersim", "ade20k"))
_MVTEC = (("GenPercept, mean over categories", "mvtec_ad", "pixel_auroc"),)
_PERCENT = 100

Table = Methods | Blocks | Sentence
TABLES: tuple[Table, ...] = (
    Methods(
        "v1, Table 1",
        {V1: "Table 1:", WEB: "Method | Synthetic"},
        (
            *(Row(name, name) for name in ("DiverseDepth", "MiDaS", "LeReS", "Omnidata", "HDN", "DPT-large")),
            Row("GenPercept", "GenPercept, DPT head"),
        ),
        _FOUR,
    ),
    Methods(
        "v1, Table 2",
        {V1: "Table 2:", WEB: "Method | Train Dataset"},
        (
            *(Row(name, f"{name}, trained on ScanNet", "nyuv2") for name in ("FrameNet", "VPLNet", "TiltedSN")),
            Row("Bae", "Bae et al., trained on ScanNet", "nyuv2"),
            Row("GenPercept", "GenPercept", "nyuv2"),
            Row("Bae", "Bae et al., trained on NYU", "scannet"),
            Row("GenPercept", "GenPercept", "scannet"),
        ),
        _NORMALS,
    ),
    Methods(
        "v1, Table 3",
        {V1: "Table 3:"},
        (
            Row("DINOv2", "DINOv2 ViT-giant, frozen"),
            Row("DINOv2", "DINOv2 ViT-giant"),
            Row("Ours", "GenPercept, frozen U-Net"),
            Row("Ours", "GenPercept"),
        ),
        (("hypersim", "miou"), ("ade20k", "miou")),
        _PERCENT,
    ),
    Methods(
        "v1, Table 4",
        {V1: "Table 4:", WEB: "Dataset | DIS-VD"},
        (
            Row("U", "U2Net"),
            Row("S", "SINetV2"),
            Row("HySM", "HySM"),
            Row("IS-Net", "IS-Net"),
            Row("Ours", "GenPercept"),
        ),
        tuple((name, figure) for name in ("vd", "te4", "te") for figure in _DIS),
    ),
    Methods(
        "v1, Table 5",
        {V1: "Table 5:"},
        (Row("P3M", "P3M"), Row("GenPercept", "GenPercept")),
        tuple(("p3m_np", key) for key in ("sad", "mad", "mse", "conn")),
    ),
    Methods("v1, Table 6", {V1: "Metrics\tAP"}, _POSE, _JOINTS),
    Methods(
        "v1, Table 7",
        {V1: "Table 7:", WEB: "Setting | Inference"},
        (
            Row("Stochastic MS Gen. (w. ensemble)", "stochastic multi-step, 10 runs"),
            Row("Stochastic MS Gen. (w/o ensemble)", "stochastic multi-step"),
            Row("Deterministic MS Gen.", "deterministic multi-step"),
            Row("Deterministic OS infer. (Ours)", "GenPercept, Hypersim alone"),
        ),
        _FOUR,
    ),
    Methods(
        "v1, Table 8",
        {V1: "Table 8:", WEB: "(, ) | KITTI"},
        tuple(Row(f"({beta})", f"blending, beta {beta}") for beta in _BETAS),
        _FOUR,
    ),
    Methods(
        "v1, Table 9",
        {V1: "Table 9:", WEB: "Setting | KITTI"},
        (
            Row("Baseline", "baseline"),
            Row("Train U-Net from scratch", "U-Net from scratch"),
            Row("Fine-tune U-Net + DPT", "DPT decoder"),
            Row("Customized VAE encoder", "customised VAE encoder"),
            Row("Freeze U-Net", "frozen U-Net, DPT decoder"),
        ),
        _FOUR,
    ),
    Methods(
        "v1, Table 10",
        {V1: "Table 10:"},
        (Row("GenPercent (SDv2.1", "Stable Diffusion 2.1"), Row("GenPercent (PixArt", "PixArt-alpha")),
        _FOUR,
    ),
    Methods(
        "v1, Table 11",
        {V1: "Table 11:"},
        (Row("Genpercept", "Stable Diffusion 2.1, DPT decoder"), Row("DINOV2", "DINOv2, DPT decoder")),
        _FOUR,
    ),
    Methods("v1, Table 12", {V1: "Table 12:", WEB: "Amount of Data"}, _data(_V1, "{}K labels"), _FOUR),
    Blocks("v1, Table 15", {WEB: "Dataset | Metric |"}, (*_EARLIER, "GenPercept"), _SETS, _DIS),
    Methods(
        "supplement, Table 2",
        {SUPPLEMENT: "Table 2:"},
        _data(_V2, "GenPercept, {}K labels"),
        _depth("kitti", "nyuv2", "scannet", "diode", "eth3d"),
    ),
    Methods("supplement, Table 3", {SUPPLEMENT: "Table 3:"}, _POSE, _JOINTS),
    Blocks(
        "supplement, Table 4",
        {SUPPLEMENT: "Table 4:"},
        (*_EARLIER, "MVANet", "GenPercept", "GenPercept, 1024 px"),
        _SETS,
        _DIS,
    ),
    Sentence(
        "v1, 0.B.6",
        {WEB: r"reaches (\d+\.\d+)% pixel AUC on MVTec", FACTS: r"MVTec AD, (\d+\.\d+) % pixel AUROC"},
        _MVTEC,
        _PERCENT,
    ),
    Sentence(
        "v1, Table 3",
        {
            FACTS: r"\(mIoU\): frozen (\d+\.\d+) / (\d+\.\d+), fine-tuned (\d+\.\d+) / (\d+\.\d+);"
            r"\s+DINOv2-giant (\d+\.\d+) / (\d+\.\d+), (\d+\.\d+) / (\d+\.\d+)"
        },
        (*_SEGMENTED, *_DINO),
        _PERCENT,
    ),
)
# Tables of the texts whose figures no suite measures.
ELSEWHERE = {(SUPPLEMENT, 1): "seconds and memory: genpercept bench measures those"}


# ---- the comparison --------------------------------------------------------------------------------------------------


@dataclass
class Found:
    """compared: figures of suites that were held against a text, and comparisons made. The rest: one line for each."""

    figures: int = 0
    comparisons: int = 0
    different: list[str] = field(default_factory=list)  # a suite's figure is not the one of the text that it follows
    nowhere: list[str] = field(default_factory=list)  # a suite's figure that no text has
    left_out: list[str] = field(default_factory=list)  # a text's figure that no suite has
    disagreements: list[str] = field(default_factory=list)  # between texts
    unknown: list[str] = field(default_factory=list)  # tables that nobody declared

    @property
    def wrong(self) -> bool:
        return bool(self.different or self.nowhere or self.left_out or self.unknown)


def printed(texts: Mapping[str, str], tables: Sequence[Table] = TABLES) -> dict[Figure, dict[str, tuple[str, float]]]:
    """What each text says of a figure, as it is printed, and the scale: 100 where it is percent of ours."""
    found: dict[Figure, dict[str, tuple[str, float]]] = {}
    for table in tables:
        for text in (name for name in TEXTS if name in texts and name in table.begins):
            for key, value, scale in table.read(text, texts[text].splitlines()):
                found.setdefault(key, {})[text] = value, scale
    return found


def of_suites(names: Sequence[str]) -> Iterator[tuple[str, tuple[str, ...], str, str, str, float]]:
    """(suite, sources, method, set, figure, value) of every figure of their paper rows."""
    for name in names:
        for row in suites.load(name).paper:
            for where, figures in row.figures.items():
                for figure, value in figures.items():
                    yield name, tuple(row.source.split("; ")), row.method, where, figure, value


def compare(texts: Mapping[str, str], tables: Sequence[Table] = TABLES, names: Sequence[str] = ()) -> Found:
    """The suites (all, or those of these names) against the texts, by file name.

    ValueError where a table cannot be read as it is declared.
    """
    said, result, used = printed(texts, tables), Found(), set[Figure]()
    for suite, sources, method, where, figure, value in of_suites(names or suites.names()):
        keys = [(source, method, where, figure) for source in sources]
        used |= set(keys)
        answers = [(key[0], text, *said[key][text]) for key in keys for text in TEXTS if text in said.get(key, {})]
        numbers = [(s, t, v, scale) for s, t, v, scale in answers if v not in ("Failed", "-")]
        line = f"{suite}: {method}, {where}, {figure}: {value:g}"
        if not numbers:
            result.nowhere.append(f"{line} ({'; '.join(sources)})")
            continue
        result.figures += 1
        result.comparisons += len(answers)
        if not _same(value, *numbers[0][2:]):
            result.different.append(f"{line}, but {_cited(*numbers[0])}")
        for source, text, word, scale in answers:
            if not _same(value, word, scale) and (source, text) != numbers[0][:2]:
                one, other = _cited(*numbers[0]), _cited(source, text, word)
                result.disagreements.append(f"{method}, {where}, {figure}: {one}, {other}")
    for key in sorted(said.keys() - used):
        words = {text: value for text, (value, _) in said[key].items()}
        if len(set(words.values())) > 1:
            result.disagreements.append(f"{', '.join(key)}: {words}")
        if next(iter(words.values())) not in ("Failed", "-"):
            result.left_out.append(f"{', '.join(key)}: {words}")
    result.unknown += _unknown(texts, tables)
    return result


def _cited(source: str, text: str, word: str, scale: float = 1) -> str:
    return f"{word} in {source} ({text})"


def _same(value: float, word: str, scale: float) -> bool:
    return word not in ("Failed", "-") and abs(value * scale - float(word)) < 1e-9 * max(scale, abs(value))


def _unknown(texts: Mapping[str, str], tables: Sequence[Table]) -> list[str]:
    """Captions of tables that are declared nowhere."""
    known = {(text, table.source) for table in tables for text in table.begins}
    edition = {V1: "v1", SUPPLEMENT: "supplement"}
    lines = []
    for text, name in edition.items():
        for line in texts.get(text, "").splitlines():
            caption = _CAPTION.match(line)
            if (
                caption
                and (text, int(caption[1])) not in ELSEWHERE
                and (text, f"{name}, Table {caption[1]}") not in known
            ):
                lines.append(f"{text}: {line[:80]}")
    return lines


def main(folder: Path) -> int:
    """Compare, print, and return the exit code."""
    missing = [name for name in TEXTS if not (folder / name).is_file()]
    if missing:
        raise SystemExit(f"{folder}: lacks {', '.join(missing)}: give the folder of the paper's texts")
    found = compare({name: (folder / name).read_text(encoding="utf-8") for name in TEXTS})
    print(f"{found.figures} figures of the suites' paper rows, {found.comparisons} comparisons with the texts")
    for words, lines in (
        ("differ", found.different),
        ("in no text", found.nowhere),
        ("of the texts in no suite", found.left_out),
        ("tables that nobody declared", found.unknown),
        ("disagreements between the texts", found.disagreements),
    ):
        print("\n".join([f"{len(lines)} {words}", *(f"  {line}" for line in lines)]))
    for (text, number), why in ELSEWHERE.items():
        print(f"not compared: {text}, Table {number}: {why}")
    return int(found.wrong)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    raise SystemExit(main(Path(sys.argv[1])))
