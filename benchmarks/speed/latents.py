"""Latents of images and labels as a training run caches them, beside plain loops over batches of 64.

    python benchmarks/speed/latents.py                    # latents.md beside it
    python benchmarks/speed/latents.py --records 256 --rounds 1 --out check.md

The cache is made by the function that training calls: scenes are read from shards, augmented twice, turned into label maps,
encoded and written. The plain loops have the same codec, precision and PyTorch threads. One is given the very images and maps
as tensors, so that it does nothing but encode; the other makes them first. "One record at a time" is how caches were filled
before. All in one process, in turns. CPU seconds say what one core would do; wall seconds also what else runs on the machine.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))  # where `benchmarks` lies
from benchmarks._page import made

BATCH = 64  # of the plain loop
RECIPE = """
stage = "finetune"
task = "{task}"
precision = "{precision}"
[model]
base = "mini/base"
[[data]]
domain = "mixed"
count = {records}
size = [96, 128]
far = 25
[augment]
sizes = [[48, 64]]
crop = [0.75, 1.0]
colour = 0.2
[loss]
latent = 1.0
[loader]
latent_variants = 2
cache_dir = "{cache}"
"""


class Caching:
    """One recipe's source, codec and task, as its stage has them."""

    def __init__(self, folder: Path, task: str, precision: str, records: int) -> None:
        from genpercept.training import recipe as recipes
        from genpercept.training.stages.finetune import FinetuneStage

        file = folder / "recipe.toml"
        text = RECIPE.format(task=task, precision=precision, records=records, cache=folder / "cache")
        file.write_text(text, encoding="utf-8")
        # A stage whose cache is not used: it opens the scenes, the codec and the task.
        self.stage: Any = FinetuneStage(recipes.load(file, ["loader.latent_variants=0"]), lambda line: None)
        self.recipe, self.folder, self.turn = recipes.load(file), folder, 0
        rows = range(records)
        self.pairs = [self.stage._encode_pair(self.cut(row, variant)) for row in rows for variant in range(2)]
        self.images = len(self.pairs) * 2

    def cut(self, row: int, variant: int) -> Any:
        from genpercept.core.rng import generator
        from genpercept.training.samples.augment import augment
        from genpercept.training.samples.records import cut_off

        record = cut_off(self.stage.draw.sources[0][row], 25)
        return augment(record, (48, 64), self.recipe.augment, generator(self.recipe.seed, variant, row, "augment"))

    def cache(self) -> None:
        """Into a folder where nothing is yet."""
        from genpercept.training.samples import latents

        self.turn += 1
        loader = self.recipe.loader.model_copy(update={"cache_dir": self.folder / f"latents-{self.turn}"})
        recipe = self.recipe.model_copy(update={"loader": loader})
        stage = self.stage
        latents.open_pairs(
            recipe, stage.draw.sources, stage.parts.codec, stage.draw.prepared, stage._encode_pair, lambda line: None
        )

    def encoding(self) -> None:
        self._encode(self.pairs)

    def plain(self) -> None:
        rows = range(len(self.pairs) // 2)
        self._encode([self.stage._encode_pair(self.cut(row, variant)) for row in rows for variant in range(2)])

    def _encode(self, pairs: Any) -> None:
        maps = torch.stack([one for image, label, _ in pairs for one in (image, label)])
        self._encoded(maps.split(BATCH))

    def one_by_one(self) -> None:
        """Two variants' images and labels are encoded together, between making the records."""
        for row in range(len(self.pairs) // 2):
            images, labels, _ = zip(*(self.stage._encode_pair(self.cut(row, v)) for v in range(2)), strict=True)
            self._encoded([torch.stack([*images, *labels])])

    def _encoded(self, batches: Any) -> None:
        bf16 = self.recipe.precision == "bf16"
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            for batch in batches:
                self.stage.parts.codec.encode(batch.to(memory_format=torch.channels_last)).half()


def clocked(work: Callable[[], Any]) -> tuple[float, float]:
    """Wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def measured(precision: str, args: argparse.Namespace) -> list[str]:
    """Rows of the table."""
    with tempfile.TemporaryDirectory() as temp:
        case = Caching(Path(temp), args.task, precision, args.records)
        case.encoding()  # warm
        works = {
            "one record at a time": case.one_by_one,
            "encoding alone": case.encoding,
            "plain loop": case.plain,
            "cache": case.cache,
        }
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
        for _ in range(args.rounds):
            for name, work in works.items():
                found[name].append(clocked(work))
    rows = []
    for name, times in found.items():
        cells = [precision, name]
        for which in (0, 1):
            cells += [f"{case.images / statistics.median(one[which] for one in times):.0f}"]
            for other in ("encoding alone", "plain loop"):
                ratios = [b[which] / a[which] for a, b in zip(times, found[other], strict=True)]
                cells += [f"{statistics.median(ratios):.2f}"]
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def main() -> None:
    """Time the loops in turns, for each precision, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--task", default="depth")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch, as the recipes of mini have it")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = [row for precision in ("fp32", "bf16") for row in measured(precision, args)]
    args.out.write_text(page(rows, args), encoding="utf-8")
    print(args.out.read_text(encoding="utf-8"))


def page(rows: list[str], args: argparse.Namespace) -> str:
    cores = len(os.sched_getaffinity(0))
    return "\n".join(
        [
            "# Caching latents beside plain loops",
            "",
            f"{made(__file__, args.threads)}. {args.records} scenes, two variants, images and label maps of {args.task}, "
            f"48 x 64 pixels, mini/base's codec; {cores} cores may be used, the machine had a load of {os.getloadavg()[0]:.1f}."
            f" Images and label maps per second, and how many times as many as the two loops over batches of {BATCH}: "
            f"medians of {args.rounds} rounds in turns.",
            "",
            "| precision | | per second | / encoding alone | / plain loop | per CPU second | / encoding alone | / plain loop |",
            "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
            *rows,
            "",
        ]
    )


if __name__ == "__main__":
    main()
