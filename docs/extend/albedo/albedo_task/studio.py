"""Data set "studio": things on a table, each photographed once, with their albedo."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from genpercept.core.values import Sample
from genpercept.data import About, FileDataset, read_rgb, same_size


@dataclass(frozen=True)
class Entry:
    """A sample's files."""

    name: str
    photo: Path
    reflectance: Path


@dataclass(frozen=True)
class Studio(FileDataset):
    """gamma: by which the reflectance was encoded; 1: it was not."""

    name = "studio"
    about = About(
        title="Studio",
        url="https://example.org/studio",
        obtain="Run make_pictures.py, which stands beside the package.",
        licence="CC0",
        layout=("SPLIT/THING/photo.png and reflectance.png",),
        provides=("albedo",),
        splits=("train", "val", "test"),
        protocols={"albedo": ""},
    )

    gamma: float = 1.0

    def index(self, root: Path | None, split: str) -> Sequence[Entry]:
        """By name."""
        root = self.folder(root, split)
        things = sorted(path.parent for path in root.glob(f"{split}/*/photo.png"))
        if not things:
            self.wrong_layout(root, f"{split}/THING/photo.png")
        return [Entry(thing.name, thing / "photo.png", thing / "reflectance.png") for thing in things]

    def load(self, entry: Entry) -> Sample:
        """The image and its albedo."""
        image, albedo = read_rgb(entry.photo), read_rgb(entry.reflectance) ** self.gamma
        same_size(entry.reflectance, albedo.permute(1, 2, 0), image)
        return Sample(entry.name, image, extra={"albedo": albedo})


PLUGIN = Studio()
