"""The mean of two predictors' denoisers that one was trained on from the other (Wortsman et al. 2022, WiSE-FT, eq. 2).

    python tools/average_models.py runs/depth_far/model runs/depth_sharp/model --resolution 112 --out runs/depth_mean

Everything else, the codec, too, is the first one's.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from genpercept.pipeline.pipeline import GenPerceptPipeline


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("--share", type=float, default=0.5, help="of the second")
    parser.add_argument("--resolution", type=int, help="longest edge that the mean works at; left out: the first one's")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    first, second = (GenPerceptPipeline.from_pretrained(folder) for folder in (args.first, args.second))
    own, other = first.unet.state_dict(), second.unet.state_dict()
    if {name: t.shape for name, t in own.items()} != {name: t.shape for name, t in other.items()}:
        raise SystemExit(f"{args.first} and {args.second}: denoisers of different shapes have no mean")
    first.unet.load_state_dict({name: own[name].lerp(other[name], args.share) for name in own})
    if args.resolution:
        first.info["resolution"] = args.resolution
    first.save_pretrained(args.out)


if __name__ == "__main__":
    main()
