"""Own data as people have it: what `genpercept data check` prints of each case that tests/support/own_data.py builds.

python benchmarks/robustness/own_data.py --out benchmarks/robustness/own_data.md

A case is a folder of two images whose labels are stored in one way. It is right where the exit code, the words and the label of
the first sample are those that the case names.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))  # where `benchmarks` lies
from benchmarks._page import made, show
from genpercept.commands.data import check
from genpercept.data.folder import PLUGIN
from tests.support.own_data import CASES, Case

_PLAIN = ("sizes", "labels", "contact")  # lines that are alike in all cases
_WELL = "broken 0"


def tried(case: Case, root: Path) -> tuple[int, list[str], bool]:
    """Exit code, what was printed, and whether all of it is right."""
    case.build(root)
    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            code = check.main(root, skip_bad=case.skip_bad)
        lines = printed.getvalue().splitlines()
    except ValueError as error:
        code, lines = 2, [f"error: {error}"]
    lines = [line.replace(f"{root}/", "") for line in lines]
    right = code == case.code and all(any(words in line for line in lines) for words in case.says)
    if right and case.wanted is not None:
        found = PLUGIN.load(PLUGIN.index(root, "all")[0]).label(case.label).numpy()
        right = found.shape == case.wanted.shape and bool(np.abs(found * 1.0 - case.wanted).max() <= case.close)
    return code, lines, right


def told(lines: Iterable[str]) -> Iterator[str]:
    """The lines that differ between the cases."""
    for line in lines:
        if not line.startswith(_PLAIN) and _WELL not in line:
            yield " ".join(line.split()).replace("|", "\\|")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows, right = [], 0
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            code, lines, well = tried(case, Path(folder))
        right += well
        said = "<br>".join(told(lines))
        rows.append(f"| {case.name}{' *' * case.listed} | {code} | {said} | {'yes' if well else '**no**'} |")
    page = [
        "# Own data",
        "",
        f"{made(__file__)}.",
        "",
        f"{right} of {len(CASES)} cases are read, or refused, as they are meant. A star: of the list of reports; the others",
        "are variants. Lines that all cases share (sizes, labels, all samples readable) are left out. The label of the first",
        "sample was compared with the one that was stored.",
        "",
        "| case | exit code | what `data check` prints | right |",
        "| --- | ---: | --- | --- |",
        *rows,
    ]
    show(page, options.out)
    sys.exit(right != len(CASES))


if __name__ == "__main__":
    main()
