"""A seeded, procedural, ray-cast world with exact labels: rooms, streets, landscapes, close views.

Picture i of a (seed, split, domain) is the same bits whatever the batch, the order and the number of workers. See
docs/world.md. Rendering needs the extra `genpercept[synthetic]`; importing this module does not.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genpercept.core import classes
from genpercept.core.labels import LABELS
from genpercept.core.values import Sample
from genpercept.data._files import About, FileDataset
from genpercept.data._scenes import DOMAINS, SPLITS, Scenes, render, sample_of, samples
from genpercept.world.words import CLASSES, WORDS

__all__ = ["CLASSES", "DOMAINS", "PALETTE", "PLUGIN", "RECORDED", "SPLITS", "WORDS", "Scenes", "render", "samples"]

WORLD_VERSION = 2  # of the pictures: raise it when they change, so that caches of rendered scenes are made anew
# Of genpercept.world as it makes them (samples.shard_cache.world_code): other code does not read this version's cache
WORLD_CODE = "73a184efd7c77cd3e523c781dfaedd2595886428e790f2251b42d0f2753d0f7a"
_LOOKED_AT = 20  # times as many scenes as are asked for, with `having`
DEFAULT_COUNT = 500  # entries of a split when its name gives no number
# Arrays of Scenes that training reads, and so what a shard of rendered scenes holds
RECORDED = ("image", "depth", "normals", "class_ids", "mask", "alpha", "defect", "valid", "keypoints", "intrinsics")

PALETTE = classes.find("synthetic").colours


@dataclass(frozen=True)
class Entry:
    """One picture of the world, by its key."""

    split: str
    domain: str
    index: int
    size: tuple[int, int] = (128, 128)
    seed: int = 0

    @property
    def name(self) -> str:
        return f"{self.domain}-{self.split}-{self.seed}-{self.index:06d}"


@dataclass(frozen=True)
class SyntheticWorld(FileDataset):
    """The world as a data set: split "test", "test/indoor" or "test/mixed:500". It needs no files; root is ignored.

    size: height, width. seed: another world. having: a label, such as mask or keypoints: only scenes with so much of it that
    training would choose them for it (recipe `data.having`), as many of them as the split says.
    """

    name = "synthetic"
    about = About(
        title="the synthetic world",
        url="docs/world.md",
        obtain="Nothing to fetch: scenes are rendered when they are asked for, the same bits for the same key.",
        licence="Apache-2.0",
        layout=("no files; a split is SPLIT, SPLIT/DOMAIN or SPLIT/DOMAIN:COUNT, as in test/indoor:100",),
        provides=(
            *("depth", "normals", "class_ids", "mask", "alpha", "keypoints", "boxes", "defect", "valid"),
            *("intrinsics", "caption"),
        ),
        splits=SPLITS,
        protocols={"depth": "synthetic", "disparity": "synthetic", "normals": "dsine", "segmentation": ""}
        | {"dis": "", "matting": "p3m", "pose": "", "anomaly": ""},
        classes="synthetic",
        extra="synthetic",
    )

    size: tuple[int, int] = (128, 128)
    seed: int = 0
    having: str = ""

    def __post_init__(self) -> None:
        size: Any = self.size
        asked = [name for name, row in LABELS.items() if row.enough and name in RECORDED]
        if self.having not in ("", *asked):
            raise ValueError(f"synthetic: having {self.having!r}: choose one of {', '.join(asked)}")
        if not isinstance(size, Sequence) or len(size) != 2 or not all(isinstance(n, int) and n >= 8 for n in size):
            raise ValueError(f"synthetic: size {self.size!r}: give [HEIGHT, WIDTH], both at least 8 pixels")
        if not isinstance(self.seed, int) or self.seed < 0:
            raise ValueError(f"synthetic: seed {self.seed!r}: must be a whole number from 0 up")
        object.__setattr__(self, "size", (size[0], size[1]))

    def index(self, root: Path | None, split: str) -> Sequence[Entry]:
        """Entries of a split: its domain (mixed unless given) and their number (500 unless given)."""
        base, _, rest = split.partition("/")
        domain, _, count = rest.partition(":")
        domain = domain or "mixed"
        if base not in SPLITS or domain not in DOMAINS or not (count == "" or count.isdecimal()):
            raise ValueError(
                f"split {split!r}: write SPLIT, SPLIT/DOMAIN or SPLIT/DOMAIN:COUNT "
                f"with SPLIT one of {', '.join(SPLITS)} "
                f"and DOMAIN one of {', '.join(DOMAINS)}"
            )
        number = int(count) if count else DEFAULT_COUNT
        entries = (Entry(base, domain, i, self.size, self.seed) for i in itertools.count())
        if self.having:
            entries = filter(self._has, itertools.islice(entries, _LOOKED_AT * number))
        found = list(itertools.islice(entries, number))
        if len(found) < number:
            raise ValueError(
                f"split {split!r}: {len(found)} of its first {_LOOKED_AT * number} scenes have {self.having}"
            )
        return found

    def load(self, entry: Entry) -> Sample:
        return sample_of(render([entry.index], entry.domain, entry.split, entry.size, entry.seed), 0)

    def _has(self, entry: Entry) -> bool:
        """Judged on a picture of a quarter of the size, where that is large enough: it costs a sixteenth of the time."""
        share = min(1.0, max(0.25, 32 / min(entry.size)))
        height, width = (round(edge * share) for edge in entry.size)
        scene = render([entry.index], entry.domain, entry.split, (height, width), entry.seed)
        enough = LABELS.find(self.having).enough
        return enough is not None and enough(getattr(scene, self.having)[0])


PLUGIN = SyntheticWorld()
