"""What the embedded models of the other tasks score: `genpercept evaluate` on 300 held-out scenes, baselines beside them.

    python benchmarks/quality/mini_tasks.py --markdown docs/mini.md --work runs/mini_tasks \
        --scratch segmentation=runs/scratch_segmentation/model --scratch dis=runs/scratch_dis/model

`--scratch TASK=FOLDER`: the same network after the same fine-tuning, from random weights. Tables stand between markers, one
per task; `--tasks` replaces its tasks' tables and leaves the others as they are.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from genpercept.checkpoints import hub
from genpercept.commands.evaluate.columns import Column, columns
from genpercept.commands.evaluate.run import Machinery, ModelSpec, SetSpec, Way, run

TASKS = ("disparity", "segmentation", "dis", "matting", "pose", "anomaly")
BEGIN, END = "<!-- tasks:begin -->", "<!-- tasks:end -->"
SIZE = (192, 256)
SHOWN = 3  # figures of each task
# dis and matting cut something out, which a quarter of the scenes have not: no answer has an F above 0 there
HAVING = {"dis": "mask", "matting": "mask"}
NOTE = (
    "Measured with `benchmarks/quality/mini_tasks.py`: `genpercept evaluate` on scenes of test/mixed at "
    f"{SIZE[1]} x {SIZE[0]}. Baselines look at no image; their means are fitted to these very scenes."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate the tasks and print their tables; put them into --markdown as well. 0."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--tasks", nargs="+", default=[t for t in TASKS if f"mini/{t}" in hub.embedded_names()])
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--model", action="append", default=[], metavar="TASK=FOLDER", help="in place of mini/TASK")
    parser.add_argument("--scratch", action="append", default=[], metavar="TASK=FOLDER")
    parser.add_argument("--work", type=Path, default=Path("runs/mini_tasks"), help="evaluate's folders, kept")
    parser.add_argument("--markdown", type=Path, help="file whose part between the markers is replaced")
    args = parser.parse_args(argv)
    models, twins = ({k: v for k, _, v in (i.partition("=") for i in items)} for items in (args.model, args.scratch))
    results = {
        task: evaluate(task, models.get(task, f"mini/{task}"), twins.get(task), args.count, args.work / task)
        for task in args.tasks
    }
    tables = {task: table(task, rows, args.count) for task, rows in results.items()}
    if args.markdown:
        insert(args.markdown, tables)
    print("\n\n".join(tables.values()))
    return 0


def evaluate(task: str, model: str, twin: str | None, count: int, out: Path) -> list[dict[str, Any]]:
    """The results of evaluate: the model, its twin from scratch, the baselines."""
    options = {"size": SIZE, "having": HAVING.get(task, "")}
    specs = [SetSpec("synthetic", "synthetic", split=f"test/mixed:{count}", options=options)]
    models = [ModelSpec(name) for name in (model, twin) if name]
    run(models, specs, Machinery(out, batch_size=8, keep=False), Way(), baselines=True, resume=out.exists())
    found = json.loads((out / "results.json").read_text(encoding="utf-8"))["results"]
    for row in found:
        row["role"] = (
            row["model"] if row["baseline"] else f"mini/{task}" if row["model"] == model else "the same from scratch"
        )
    return sorted(found, key=lambda row: row["baseline"])


def table(task: str, rows: list[dict[str, Any]], count: int) -> str:
    """The first figures of every model and baseline, under what was measured when."""
    shown = columns(rows[0]["metric"], rows[0]["figures"])[:SHOWN]
    which = "scenes with something to cut out" if task in HAVING else "scenes"
    head = (f"{task}, {count} {which}, {time.strftime('%Y-%m-%d')}", *(f"{c.title} {c.arrow}" for c in shown))
    return grid(head, [(row["role"], *cells(row["figures"], shown)) for row in rows])


def cells(figures: dict[str, float | None], shown: Sequence[Column]) -> list[str]:
    return [column.shown(figures.get(column.key)) for column in shown]


def grid(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(line) + " |" for line in (header, rule, *rows))


def insert(path: Path, tables: dict[str, str]) -> None:
    """Put tables in the place of those of the same tasks between the markers of `path`, which must be there."""
    head, _, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    old, found, tail = rest.partition(END)
    if not found:
        raise ValueError(f"{path}: has no {BEGIN} ... {END} for the table to go between")
    kept = {t.removeprefix("| ").split(",")[0]: t for t in old.strip().split("\n\n") if t.startswith("| ")}
    text = "\n\n".join((NOTE, *(t for task in TASKS if (t := (kept | tables).get(task)))))
    path.write_text(f"{head}{BEGIN}\n\n{text}\n\n{END}{tail}", encoding="utf-8")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ValueError as error:
        sys.exit(f"error: {error}")
