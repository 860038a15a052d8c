"""Every command and Python block that README and docs print, run as printed by somebody who has just installed the package.

    python tools/printed_commands.py --from checkout --out printed_commands.md
    python tools/printed_commands.py --from wheel                      # in an environment that has no checkout
    python tools/printed_commands.py --from bare                       # and none of the optional packages
    python tools/printed_commands.py --source ../before --from checkout README.md
    python tools/printed_commands.py --with checkout.json wheel.json --out printed_commands.md    # one page of two runs

Each page has a folder of its own with two photographs, in which its commands run one after another. What takes long is
shortened by words behind its own (`train` to two steps); what needs data, weights, a GPU or the network is read by click
alone, so that a wrong option is found: such a command has a placeholder in capitals, or its page says
`<!-- needs: ... -->` before the block. Exit code 1 when one failed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `tools` lies
from tools.printed import newcomer, pages
from tools.printed.pages import Printed
from tools.printed.run import Reader, Result

STATES = {
    "run": "run as printed",
    "short": "run, shortened by words behind its own",
    "read": "read by click, or by Python's grammar, and not run",
    "extra": "answered in one line with the extra to install",
    "failed": "failed",
}
KINDS = ("checkout", "wheel", "bare")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("only", nargs="*", help="only these pages, such as README.md or docs/speed.md")
    parser.add_argument("--from", dest="kind", choices=KINDS, action="append", help="repeatable [checkout]")
    parser.add_argument("--source", type=Path, default=Path(__file__).parents[1], help="the repository")
    parser.add_argument("--work", type=Path, help="folder to work in [a temporary one]")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds that a command may take")
    parser.add_argument("--out", type=Path, help="the page of results")
    parser.add_argument("--json", type=Path, help="the results, for programs")
    parser.add_argument(
        "--with", dest="earlier", type=Path, nargs="+", default=[], help="--json of other runs, shown too"
    )
    args = parser.parse_args(argv)
    source, found = args.source.resolve(), earlier(args.earlier)
    for kind in args.kind or ([] if args.earlier else ["checkout"]):
        with tempfile.TemporaryDirectory(prefix="printed_") as temp:
            work = (args.work or Path(temp)).resolve() / kind
            made = (
                newcomer.checkout(source, work) if kind == "checkout" else newcomer.wheel(source, work, kind == "bare")
            )
            found[kind] = try_all(Reader(made, source, args.limit), args.only)
    text = report(found)
    print(text.partition("\n## All")[0])
    if args.out:
        args.out.write_text(text)
    if args.json:
        rows = [{"from": kind, **asdict(one)} for kind, results in found.items() for one in results]
        args.json.write_text(json.dumps(rows, indent=1))
    return 1 if any(one.state == "failed" for results in found.values() for one in results) else 0


def earlier(files: Sequence[Path]) -> dict[str, list[Result]]:
    """What --json of other runs has, by where their commands came from."""
    found: dict[str, list[Result]] = {}
    for file in files:
        for row in json.loads(file.read_text(encoding="utf-8")):
            kind = row.pop("from")
            found.setdefault(kind, []).append(Result(**row | {"one": Printed(**row["one"])}))
    return found


def try_all(reader: Reader, only: Sequence[str]) -> list[Result]:
    """All pages, or those named; what fails is said at once."""
    found: list[Result] = []
    for path in pages.pages(reader.root):
        printed = pages.unneeded(pages.read(path, reader.root))
        if not printed or (only and printed[0].page not in only):
            continue
        begin = time.monotonic()
        for one in reader.page(printed):
            found.append(one)
            if one.state == "failed":
                print(f"{one.one.page}:{one.one.line}: {one.one.shown}\n    {one.said}", flush=True)
        mine = Counter(one.state for one in found if one.one.page == printed[0].page)
        said = ", ".join(f"{n} {state}" for state, n in mine.items())
        print(f"{reader.machine.kind}: {printed[0].page}: {said}; {time.monotonic() - begin:.0f} s", file=sys.stderr)
    return found


def report(found: dict[str, list[Result]]) -> str:
    """The page of results: how many of each kind, what failed, and all that was tried."""
    lines = ["# Printed commands, run", "", "By `python tools/printed_commands.py`, which says how.", ""]
    lines += ["| | " + " | ".join(found) + " |", "| --- |" + " ---: |" * len(found)]
    counted = {kind: Counter(one.state for one in results) for kind, results in found.items()}
    for state, what in STATES.items():
        lines.append(f"| {what} | " + " | ".join(str(count[state]) for count in counted.values()) + " |")
    lines += ["", "## Failed", ""]
    failed = [(kind, one) for kind, results in found.items() for one in results if one.state == "failed"]
    lines += [f"- {kind}, {_place(one)}: `{_cell(one.one.shown)}`: {_cell(one.said)}" for kind, one in failed] or [
        "None."
    ]
    lines += ["", "## All", "", "| from | where | command | | s | |", "| --- | --- | --- | --- | ---: | --- |"]
    for kind, results in found.items():
        for one in results:
            if one.one.kind != "inline" or one.state == "failed":
                seconds = f"{one.seconds:.1f}" if one.seconds >= 0.05 else ""
                command = f"`{_cell(one.one.shown, 90)}`"
                lines.append(
                    f"| {kind} | {_place(one)} | {command} | {one.state} | {seconds} | {_cell(one.said, 90)} |"
                )
    return "\n".join(lines) + "\n"


def _place(one: Result) -> str:
    return f"{one.one.page}:{one.one.line}"


def _cell(text: str, most: int = 300) -> str:
    text = " ".join(text.replace("`", "'").replace("|", "\\|").split())
    return text if len(text) <= most else f"{text[: most - 3]}..."


if __name__ == "__main__":
    sys.exit(main())
