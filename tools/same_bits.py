"""Whether two versions of the program give the same bits: run everything with each, store SHA-256 per output, compare.

    python tools/same_bits.py record --source OLD/src --out old.json
    python tools/same_bits.py record --source NEW/src --out new.json
    python tools/same_bits.py compare old.json new.json          # exit code 1 where anything differs

Both runs are given the inputs, recipes and golden checkpoints of the checkout that this script lies in, and drive the program
by what it promises to keep: the command line, `genpercept.load`, GenPerceptPipeline and Prediction. Every part runs in a
process of its own, on one thread of the CPU, in a new folder. The bits are those of one machine: record both on the same one.
What is left out, because it tells the time or the place, stands in tools/bits/entries.py. A recording takes about ten minutes.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bits import compare, record


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("record", help="run everything with one version")
    one.add_argument("--source", type=Path, required=True, metavar="SRC", help="the folder that has genpercept/ in it")
    one.add_argument("--out", type=Path, required=True, metavar="FILE.json")
    one.add_argument("--only", nargs="+", choices=record.PARTS, default=list(record.PARTS), metavar="PART")
    one.add_argument("--work", type=Path, default=record.WORK, metavar="DIR", help="a new folder, the same for both")
    one.add_argument("--keep", action="store_true", help="leave in it what the program wrote")
    two = commands.add_parser("compare", help="what differs between two recordings")
    two.add_argument("old", type=Path)
    two.add_argument("new", type=Path)
    part = commands.add_parser("part")  # one process of `record`
    part.add_argument("name", choices=record.PARTS)
    part.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    if args.command == "compare":
        return compare.main(args.old, args.new)
    if args.command == "part":
        return record.run_part(args.name, args.out)
    return record.main(args.source, args.out, args.only, args.work, args.keep)


if __name__ == "__main__":
    sys.exit(main())
