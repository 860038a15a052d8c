"""The pictures of the tutorial and the how-tos, made with the embedded models: `python tools/site/pictures.py`.

Photographs: those inside the scikit-image and scikit-learn wheels that are free to use; docs/how-to/index.md says which, and by
whom. Scenes: the synthetic world's test split. It takes about a minute on one core.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import turned
from PIL import Image, ImageDraw, ImageFont
from skimage import data
from sklearn.datasets import load_sample_image

import genpercept
from genpercept.data import synthetic
from genpercept.imaging import painters
from genpercept.imaging.cutout import cutout
from genpercept.imaging.mesh import CUT

ROOT = Path(__file__).resolve().parents[2]
HEIGHT, GAP, WHITE = 240, 8, (255, 255, 255)
SCENES = 64  # of the test split, out of which those with people and defects are chosen
OTHERS = ("segmentation", "dis", "matting", "pose", "anomaly", "sharpness", "refined", "video")
CLIP = "room, forward"  # of benchmarks/_clips.py
PERSON = (60.0, 10.0, 350.0, 500.0)  # the astronaut's box: x, y, width, height

Picture = np.ndarray | Image.Image


def row(*pictures: Picture, labels: Sequence[str] = ()) -> Image.Image:
    """Pictures of one height beside each other, each with a word in its corner."""
    shown = [p if isinstance(p, Image.Image) else Image.fromarray(p) for p in pictures]
    shown = [
        p.convert("RGB").resize((round(p.width * HEIGHT / p.height), HEIGHT), Image.Resampling.LANCZOS) for p in shown
    ]
    for picture, label in zip(shown, labels, strict=False):
        _word(picture, label)
    out = Image.new("RGB", (sum(p.width for p in shown) + GAP * (len(shown) - 1), HEIGHT), WHITE)
    x = 0
    for picture in shown:
        out.paste(picture, (x, 0))
        x += picture.width + GAP
    return out


def column(rows: Sequence[Image.Image]) -> Image.Image:
    """Rows below each other, all as wide as the widest."""
    width = max(r.width for r in rows)
    rows = [r.resize((width, round(r.height * width / r.width)), Image.Resampling.LANCZOS) for r in rows]
    out = Image.new("RGB", (width, sum(r.height for r in rows) + GAP * (len(rows) - 1)), WHITE)
    y = 0
    for each in rows:
        out.paste(each, (0, y))
        y += each.height + GAP
    return out


def _word(picture: Image.Image, label: str) -> None:
    draw, font = ImageDraw.Draw(picture, "RGBA"), ImageFont.load_default(15)
    box = draw.textbbox((0, 0), label, font=font)
    draw.rectangle((0, 0, box[2] + 12, box[3] + 8), fill=(0, 0, 0, 150))
    draw.text((6, 3), label, font=font, fill=WHITE)


def on_squares(rgba: np.ndarray) -> np.ndarray:
    """A cut-out over a chequered ground, as image editors show what is clear."""
    h, w = rgba.shape[:2]
    squares = np.where((np.add.outer(np.arange(h) // 16, np.arange(w) // 16) % 2)[..., None] > 0, 235, 195)
    alpha = rgba[..., 3:] / 255
    return np.rint(rgba[..., :3] * alpha + squares * (1 - alpha)).astype(np.uint8)


def image_of(sample: Any) -> np.ndarray:
    """A scene's image (H, W, 3) uint8."""
    return np.rint(sample.image.permute(1, 2, 0).numpy() * 255).astype(np.uint8)


class Maker:
    """Photographs, scenes, and a picture for each page."""

    def __init__(self) -> None:
        self.photos = {"temple": load_sample_image("china.jpg"), "flower": load_sample_image("flower.jpg")}
        self.photos |= {"rocket": data.rocket(), "astronaut": data.astronaut()}

    @cached_property
    def scenes(self) -> list[Any]:
        """Of the synthetic world; the first picture that needs them waits for them."""
        return synthetic.samples(synthetic.render(range(SCENES), split="test", size=(192, 256), workers=2))

    def maps(self, task: str, names: Sequence[str]) -> Image.Image:
        """Photographs beside their answers."""
        pipe = genpercept.load(f"mini/{task}")
        photos = [self.photos[name] for name in names]
        return column([row(photo, pipe(photo).colourise(), labels=["photograph", task]) for photo in photos])

    def hero(self) -> Image.Image:
        """Two photographs with depth and normals."""
        pipes = {task: genpercept.load(f"mini/{task}") for task in ("depth", "normals")}
        labels = ["photograph", *pipes]
        chosen = (self.photos["temple"], self.photos["flower"])
        return column([row(p, *(pipe(p).colourise() for pipe in pipes.values()), labels=labels) for p in chosen])

    def video(self) -> Image.Image:
        """Frames of a rendered clip; its depth frame by frame; aligned and smoothed."""
        sys.path.insert(0, str(ROOT))
        from benchmarks._clips import render
        from genpercept.imaging.colour import painted

        pipe = genpercept.load("mini/depth")
        images = list(render(CLIP, 24).images)
        places = range(0, 24, 6)
        shown = [np.concatenate([images[i] for i in places], 1)]
        for how in ({"align": False}, {"smooth": 0.8}):
            values = [p.values for p in pipe.video(images, batch_size=8, **how)]
            shown.append(np.concatenate([painted(values[i], "depth_affine") for i in places], 1))
        labels = ("film", "frame by frame", "steadied")
        return column([row(picture, labels=[label]) for picture, label in zip(shown, labels, strict=True)])

    def segmentation(self) -> Image.Image:
        """A scene and a photograph with the colours of the classes that are seen."""
        pipe = genpercept.load("mini/segmentation")
        rows = []
        for image, what in ((image_of(self.scenes[2]), "scene"), (self.photos["temple"], "photograph")):
            answer = pipe(image)
            rows.append(row(image, answer.colourise(), _legend(answer), labels=[what, "segmentation"]))
        return column(rows)

    def dis(self) -> Image.Image:
        """A mask as the network gives it, and cut at one half."""
        pipe, image = genpercept.load("mini/dis"), self.photos["flower"]
        answer = pipe(image)
        mask = np.where(answer.values >= 0.5, 255, 0).astype(np.uint8)
        return row(image, answer.colourise(), mask, labels=["photograph", "dis", "mask"])

    def matting(self) -> Image.Image:
        """A matte, and the cut-out that it makes."""
        pipe, image = genpercept.load("mini/matting"), self.photos["flower"]
        answer = pipe(image)
        cut = on_squares(cutout(image, answer.values))
        return row(image, answer.colourise(), cut, labels=["photograph", "matting", "cut-out"])

    def sharpness(self) -> Image.Image:
        """A part of a photograph at 100 %: depth as the network gives it, by the image's edges, in tiles, and both."""
        pipe, photo = genpercept.load("mini/depth"), self.photos["temple"]
        part = np.s_[90 : 90 + HEIGHT, 190 : 190 + HEIGHT * 4 // 3]
        ways: dict[str, dict[str, Any]] = {"as it is": {}, "refined": {"refine": True}, "tiles": {"tiles": "auto"}}
        ways["tiles, refined"] = {"tiles": "auto", "refine": True}
        shown = [np.asarray(pipe(photo, **options).colourise())[part] for options in ways.values()]
        labels = ["photograph, a part", *ways]
        panels = [photo[part], *shown]
        whole = np.asarray(Image.fromarray(photo).resize((HEIGHT * photo.shape[1] // photo.shape[0], HEIGHT)))
        whole = whole[:, : panels[0].shape[1]]
        return column([row(*panels[:3], labels=labels[:3]), row(whole, *panels[3:], labels=["all", *labels[3:]])])

    def refined(self) -> Image.Image:
        """A matte as the network gives it, and refined; of a part at 100 %."""
        pipe, photo = genpercept.load("mini/matting"), self.photos["flower"]
        part = np.s_[60 : 60 + HEIGHT, 160 : 160 + HEIGHT * 4 // 3]
        shown = [np.asarray(pipe(photo, refine=refine).colourise())[part] for refine in (False, True)]
        return row(photo[part], *shown, labels=["photograph, a part", "matte", "refined"])

    def pose(self) -> Image.Image:
        """A figure of the world, which it finds, and a person, whom it does not."""
        pipe = genpercept.load("mini/pose")
        peopled = [s for s in self.scenes if s.keypoints is not None and len(s.keypoints)]
        best = max(peopled, key=lambda s: int((s.label("keypoints")[0, :, 2] == 2).sum()))
        image, person = image_of(best), self.photos["astronaut"]
        found = pipe(image, boxes=best.label("boxes").numpy())
        failed = pipe(person, boxes=np.array([PERSON]))
        rows = (image, found, "scene", "found"), (person, failed, "photograph", "wrong")
        return column([row(i, answer.colourise(i), labels=words) for i, answer, *words in rows])

    def space(self) -> Image.Image:
        """A photograph's depth as a mesh, from the side: cut where depth has a step, and as one sheet."""
        photo = self.photos["temple"]
        answer = genpercept.load("mini/depth")(photo)
        cut, sheet = (answer.mesh(photo, cut=cut, vertices=120_000) for cut in (CUT, None))
        views = [turned.picture(mesh, yaw, 6, (360, 540)) for mesh, yaw in ((cut, -20), (cut, 22), (sheet, 22))]
        return row(photo, *views, labels=["photograph", "mesh, from the left", "from the right", "not cut"])

    def anomaly(self) -> Image.Image:
        """A scene's defects, where they are, and the scores."""
        pipe = genpercept.load("mini/anomaly")
        best = max(self.scenes, key=lambda s: float(s.label("defect").float().mean()))
        image = image_of(best)
        answer = pipe(image)
        truth = np.repeat(np.where(best.label("defect").numpy(), 255, 0).astype(np.uint8)[..., None], 3, -1)
        over = painters.heat_over(answer.values, image)
        upper = row(image, truth, labels=["scene", "truth"])
        return column([upper, row(answer.colourise(), over, labels=["anomaly", "overlay"])])


def _legend(answer: genpercept.Prediction) -> Image.Image:
    """The commonest classes of an answer, each with its colour."""
    ids, counts = np.unique(answer.values, return_counts=True)
    common = ids[np.argsort(-counts)][:8]
    out = Image.new("RGB", (150, HEIGHT), WHITE)
    draw, font = ImageDraw.Draw(out), ImageFont.load_default(15)
    for i, each in enumerate(common):
        y = 8 + 28 * i
        draw.rectangle((4, y, 26, y + 20), fill=tuple(answer.meta["colours"][each]))
        draw.text((34, y), answer.meta["classes"][each], font=font, fill=(30, 30, 30))
    return out


def main() -> None:
    """Write what `--only` names, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "docs/images/how-to")
    parser.add_argument("--only", nargs="*", default=[])
    args = parser.parse_args()
    made = Maker()
    pictures: dict[str, Callable[[], Image.Image]] = {
        "hero": made.hero,
        "depth": lambda: made.maps("depth", ("temple", "rocket")),
        "disparity": lambda: made.maps("disparity", ("temple", "flower")),
        "normals": lambda: made.maps("normals", ("temple", "flower")),
        "3d": made.space,
        **{name: getattr(made, name) for name in OTHERS},
    }
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.only or pictures:
        pictures[name]().save(args.out / f"{name}.jpg", quality=85, optimize=True)
        print(args.out / f"{name}.jpg")


if __name__ == "__main__":
    main()
