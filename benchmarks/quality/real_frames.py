"""Zero-shot depth of real frames with measured depth: models beside a constant and a vertical ramp.

    python tools/real_frames.py FRAMES --out runs/real_frames --one-scene osd
    python benchmarks/quality/real_frames.py runs/real_frames/A runs/real_frames/T     # real_frames.md beside it

Depth is aligned by least squares per image. Frames of one scene are not independent: a mean over frames stands beside the mean
over scenes, each the mean of its frames, whose standard error and paired difference from the first model are over scenes.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import genpercept
from genpercept.core.values import Sample
from genpercept.data import DATASETS
from genpercept.metrics import METRICS, _baselines

sys.path.insert(0, str(Path(__file__).parents[2]))  # where `benchmarks` lies
from benchmarks._page import with_error

Answers = Callable[[Sequence[Sample]], Iterator[Any]]


def main(argv: Sequence[str] | None = None) -> int:
    """Judge models and baselines on each folder, and write the page. 0."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folders", nargs="+", type=Path, help="data sets `folder` with images/SCENE/ and depth/SCENE/")
    parser.add_argument("--models", nargs="+", default=["mini/depth"], metavar="MODEL")
    parser.add_argument("--resolution", type=int, help="longest edge of processing, instead of each model's own")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    args = parser.parse_args(argv)
    ways = {name: of_model(name, args.resolution, args.device) for name in args.models}
    ways |= baselines()
    text = [
        f"Measured on {time.strftime('%Y-%m-%d')} by `benchmarks/quality/real_frames.py`; AbsRel after least squares."
    ]
    for folder in args.folders:
        samples = read(folder)
        errors = {name: judge(samples, answers(samples)) for name, answers in ways.items()}
        text.append(table(folder.name, scenes_of(samples), errors))
    print("\n\n".join(text))
    args.out.write_text("\n\n".join(text) + "\n", encoding="utf-8")
    return 0


def read(folder: Path) -> list[Sample]:
    data = DATASETS.find("folder")
    return [data.load(entry) for entry in data.index(folder, "all")]


def scenes_of(samples: Sequence[Sample]) -> list[str]:
    """The folder that each frame lies in."""
    return [sample.name.rpartition("/")[0] for sample in samples]


def of_model(name: str, resolution: int | None, device: str) -> Answers:
    return of_pipe(genpercept.load(name, device=device), resolution)


def of_pipe(pipe: Any, resolution: int | None = None) -> Answers:
    def answers(samples: Sequence[Sample]) -> Iterator[Any]:
        for sample in samples:
            yield pipe(picture(sample), processing_resolution=resolution)

    return answers


def of_shape(baseline: Callable[[tuple[int, int]], Any]) -> Answers:
    return lambda samples: (baseline(picture(sample).shape[:2]) for sample in samples)


def baselines() -> dict[str, Answers]:
    """The answers that look at no image."""
    return {"vertical ramp": of_shape(_baselines.vertical_ramp), "constant": of_shape(_baselines.constant)}


def picture(sample: Sample) -> np.ndarray:
    return np.asarray((sample.image.permute(1, 2, 0) * 255).round().byte())


def judge(samples: Sequence[Sample], answers: Iterator[Any]) -> np.ndarray:
    """AbsRel of each frame."""
    metric = METRICS.find("depth")()
    rows = []
    for sample, answer in zip(samples, answers, strict=True):
        depth = sample.label("depth").numpy()
        valid = sample.valid_or_all().numpy() & np.isfinite(depth) & (depth > 0)
        rows.append(metric.update(answer, depth, valid, sample.name)["abs_rel"])
    return np.array(rows)


def by_scene(values: np.ndarray, scenes: Sequence[str]) -> np.ndarray:
    """The mean of each scene's frames, in the order of first appearance."""
    return np.array([values[[s == scene for s in scenes]].mean() for scene in dict.fromkeys(scenes)])


def table(title: str, scenes: Sequence[str], errors: dict[str, np.ndarray]) -> str:
    """A folder's AbsRel over frames and over scenes, and each row's paired difference from the first."""
    first = by_scene(next(iter(errors.values())), scenes)
    lines = [
        f"**{title}**: {len(scenes)} frames, {len(first)} scenes",
        "",
        "| | over frames | over scenes | against the first |",
        "| --- | ---: | ---: | ---: |",
    ]
    for number, (name, values) in enumerate(errors.items()):
        mean = by_scene(values, scenes)
        apart = with_error(mean - first, "+") if number else ""
        lines.append(f"| {name} | {values.mean():.3f} | {with_error(mean)} | {apart} |")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
