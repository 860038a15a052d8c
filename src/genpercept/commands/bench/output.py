"""A session's results as Markdown, JSON and tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from genpercept.commands import terminal
from genpercept.commands.bench.flops import UNCOUNTED
from genpercept.core import files

STAGES = ("read", "resize", "encode", "denoise", "head", "decode", "write")
_GIB = 2**30
_COLUMNS = 3  # settings side by side on a terminal
Table = tuple[str, list[str], list[list[str]]]  # title, header, rows


def tables(result: dict[str, Any]) -> list[Table]:
    """All there is to show; the first column of each is text, the others figures."""
    good = [row for row in result["rows"] if "error" not in row]
    found = [_speed(good), _stages(good), _cold(good), _differences(good)]
    found += [_peers(result), _paper(result), _failures(result)]
    return [table for table in found if table[2]]


def _speed(rows: Sequence[dict[str, Any]]) -> Table:
    header = ["setting", "px", "batch", "network, ms/image", "quartiles", "runs", "images/s", "file to file, ms/image"]
    header += ["TFLOP/image", "TFLOP/s", "of the ceiling", "peak, GiB"]
    return (
        "Speed",
        header,
        [
            [
                row["label"],
                str(row["resolution"]),
                str(row["batch"]),
                _ms(row["network"]["median"], row["batch"]),
                _spread(row["network"], row["batch"]),
                str(row["network"]["runs"]),
                f"{row['batch'] / row['network']['median']:.3g}",
                _ms(row["together"]["median"], row["batch"]) if row["together"] else "-",
                f"{row['tflops']:.4g}",
                f"{row['tflops_per_s']:.3g}",
                f"{row['share']:.0%} of {row['ceiling']['tflops']:.3g}",
                f"{row['peak'] / _GIB:.2f}",
            ]
            for row in rows
        ],
    )


def _stages(rows: Sequence[dict[str, Any]]) -> Table:
    header = ["setting", "px", "batch", *STAGES, "encode, TFLOP", "denoise, TFLOP", "head, TFLOP"]
    lines = []
    for row in rows:
        found = row["stages"]
        times = [_ms(found[stage]["median"], row["batch"]) if stage in found else "-" for stage in STAGES]
        counts = [f"{row['flops'][stage]['total']:.3g}" for stage in ("encode", "denoise", "head")]
        lines.append([row["label"], str(row["resolution"]), str(row["batch"]), *times, *counts])
    return "Stages apart, ms/image", header, lines


def _cold(rows: Sequence[dict[str, Any]]) -> Table:
    rows = [row for row in rows if "cold" in row]
    names = list(dict.fromkeys(name for row in rows for name in row["cold"]["seconds"]))
    lines = []
    for row in rows:
        seconds = row["cold"]["seconds"]
        cells = [f"{seconds[name]:.2f}" if name in seconds else "-" for name in names]
        lines.append([row["label"], *cells, f"{row['cold']['total']:.2f}", f"{row['cold']['peak'] / _GIB:.2f}"])
    return "Cold start: seconds in a fresh process", ["setting", *names, "in all", "peak, GiB"], lines


def _differences(rows: Sequence[dict[str, Any]]) -> Table:
    found = [(row["label"], row["difference"]) for row in rows if "difference" in row]
    lines = [[label, f"{d['rms']:.2e}", f"{d['max']:.2e}"] for label, d in found]
    title = "Difference from the same networks, plain, in float32 (over the standard deviation of their raw map)"
    return title, ["setting", "root mean square", "largest"], lines


def _peers(result: dict[str, Any]) -> Table:
    header = [
        "peer (measured, random weights)",
        "network sees, px",
        "parameters, M (published)",
        "ms/image",
        "quartiles",
        "runs",
    ]
    header += ["images/s", "TFLOP/image", "of the ceiling", "peak, GiB"]
    lines = []
    for row in result["peers"]:
        if "error" in row:
            continue
        times = row["network"]
        parameters = f"{row['parameters'] / 1e6:.1f} ({row['published']:g})"
        lines.append(
            [
                ", ".join(filter(None, [row["name"], row["dtype"], row.get("way", "")])),
                str(row["edge"]),
                parameters,
                _ms(times["median"], 1),
                _spread(times, 1),
                str(times["runs"]),
                f"{1 / times['median']:.3g}",
                f"{row['tflops']:.4g}",
                f"{row['share']:.0%} of {row['ceiling']['tflops']:.3g}",
                f"{row['peak'] / _GIB:.2f}",
            ]
        )
    return "Peers in the same run, batch 1", header, lines


def _paper(result: dict[str, Any]) -> Table:
    rows = result.get("paper", {}).get("rows", [])
    lines = [
        [
            f"{row['name']} (paper's figure)",
            str(row["ensemble"]),
            str(row["steps"]),
            f"~{1e3 * row['seconds']:.0f}",
            f"{row['memory_gb']:g}",
        ]
        for row in rows
    ]
    title = f"The paper's figures, not measured here. {result.get('paper', {}).get('source', '')}"
    return title, ["method", "ensemble", "steps", "ms/image", "GPU memory, GB"], lines


def _failures(result: dict[str, Any]) -> Table:
    lines = [
        [str(row.get("label", row.get("name"))), row["error"]]
        for row in (*result["rows"], *result["peers"])
        if "error" in row
    ]
    lines += [[what, "left out: the time was over"] for what in result["left_out"]]
    return "Not measured", ["what", "why"], lines


def machine_line(result: dict[str, Any]) -> str:
    """Date, machine and versions in a sentence."""
    facts = result["machine"]
    if not facts:
        return result["date"]
    parts = [result["date"], f"{facts['cores']} cores {facts['processor']}, {facts['memory_gib']} GiB"]
    if "accelerator" in facts:
        parts.append(f"{facts['accelerator']} ({facts['accelerator_gib']} GiB, CUDA {facts['cuda']})")
    parts += [f"{facts['threads']} threads", f"Python {facts['python']}"]
    return "; ".join([*parts, ", ".join(f"{k} {v}" for k, v in facts["versions"].items())])


def notes(result: dict[str, Any]) -> list[str]:
    """How the figures came about."""
    effort = result["effort"]
    return [
        f"{effort['warmup']} warm-up run(s), then medians of at most {effort['repeats']} runs, fewer once "
        f"{effort['seconds']:g} s are over; quartiles beside them. `network` is encoding, denoising and head of images "
        "that are resized already; the stages are timed in runs of their own, in which the device is waited for at each "
        "border. `file to file` is reading, all of the pipeline and writing, one after the other.",
        f"FLOPs are counted (convolutions, matrix products, attention; not {UNCOUNTED}) over the plain networks, also "
        "where a specialised one does less. The ceiling is the quickest product of two square matrices in the same "
        "process, dtype and threads, in TFLOP/s.",
        "Peak memory is, on a CUDA device, that of its tensors, elsewhere the whole process's main memory while the "
        "network runs.",
    ]


def markdown(result: dict[str, Any], title: str, lead: Sequence[str] = ()) -> str:
    """The page. lead: paragraphs before the tables."""
    parts = [f"# {title}", machine_line(result), *lead, *notes(result)]
    for name, header, rows in tables(result):
        parts += [f"## {name}", markdown_table(header, rows)]
    return "\n\n".join(parts) + "\n"


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "| --- |" + " ---: |" * (len(header) - 1)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def save(result: dict[str, Any], out: Path, name: str, title: str, lead: Sequence[str] = ()) -> list[Path]:
    """`out`/`name`.md and .json. ValueError when the folder cannot be written to."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        paths = [out / f"{name}.md", out / f"{name}.json"]
        files.write_text(paths[0], markdown(result, title, lead))
        files.write_json(paths[1], result)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ValueError(f"{out}: cannot be written to ({reason}); choose another folder for --out") from None
    return paths


def show(result: dict[str, Any]) -> None:
    """The tables on stdout, turned: a column for each setting, since there are more figures than settings."""
    parts: list[Any] = [machine_line(result)]
    for title, header, rows in tables(result):
        for start in range(0, len(rows), _COLUMNS):
            some = rows[start : start + _COLUMNS]
            turned = [[name, *(row[k] for row in some)] for k, name in enumerate(header[1:], 1)]
            parts.append(terminal.table([header[0], *(row[0] for row in some)], turned, title=title))
    terminal.show(*parts)


def _ms(seconds: float, batch: int) -> str:
    value = 1e3 * seconds / batch
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"


def _spread(times: dict[str, Any], batch: int) -> str:
    return f"{_ms(times['low'], batch)} to {_ms(times['high'], batch)}"
