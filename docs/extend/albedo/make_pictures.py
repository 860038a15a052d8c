"""Makes data for the walk: patches of colour under soft light, with the colours as the answer."""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (48, 64)  # height, width
SEED = 0


def patches(rng: np.random.Generator) -> np.ndarray:
    """Colours of 8 x 8 pixels, (H, W, 3) in [0.2, 0.8]."""
    colours = rng.uniform(0.2, 0.8, (SIZE[0] // 8, SIZE[1] // 8, 3))
    return colours.repeat(8, 0).repeat(8, 1)


def light(rng: np.random.Generator) -> np.ndarray:
    """Light that falls off over the picture, (H, W, 1) in [0.4, 1]."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    slope = rng.uniform(-1, 1, 2)
    plane = slope[0] * y / SIZE[0] + slope[1] * x / SIZE[1]
    return 0.4 + 0.6 * ((plane - plane.min()) / np.ptp(plane))[..., None]


def save(values: np.ndarray, path: Path) -> None:
    """Values (H, W, 3) in [0, 1] as an 8-bit picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.rint(values * 255).astype(np.uint8)).save(path)


def main(out: Path) -> None:
    """OUT/pictures, as data set `folder` reads it, and OUT/studio, as data set `studio` does."""
    rng = np.random.default_rng(SEED)
    for name in "abcdefgh":
        albedo = patches(rng)
        save(albedo * light(rng), out / "pictures" / "images" / f"{name}.png")
        save(albedo, out / "pictures" / "albedo" / f"{name}.png")
    # No model can know this answer: every other pixel is black or white.
    chess = np.indices(SIZE).sum(0)[..., None] % 2 * np.ones(3)
    save(np.full((*SIZE, 3), 0.5), out / "pictures" / "images" / "chess.png")
    save(chess, out / "pictures" / "albedo" / "chess.png")
    for split, count in (("train", 4), ("val", 2), ("test", 2)):
        for i in range(count):
            albedo, thing = patches(rng), out / "studio" / split / f"thing{i}"
            save(albedo * light(rng), thing / "photo.png")
            save(albedo, thing / "reflectance.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
