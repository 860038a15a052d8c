"""Own data as people have it: small folders, each with the label that must be read from it, or the words of its refusal.

A disc lies off the middle and depth grows to the right and downwards, so that an inversion, a shift or a turn is seen.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from genpercept.imaging.prediction import Prediction
from genpercept.imaging.stored import turned

H, W = 24, 32
Y, X = np.mgrid[:H, :W]
DISC = (Y - 9) ** 2 + (X - 12) ** 2 <= 36
BYTES = np.where(DISC, 255, 0).astype(np.uint8)
SOFT = np.clip(255 * (7.51 - np.hypot(Y - 9.0, X - 12.0)) / 3, 0, 255).astype(np.uint8)  # a disc with a wide edge
DEPTH = (500 + 40 * X + 30 * Y).astype(np.uint16)  # millimetres
METRES = (DEPTH / 1000).astype(np.float32)
IDS = np.where(DISC, 3, 0).astype(np.uint8)
IDS[:, -4:] = 1
NONE = IDS.astype(np.int64)
NONE[:2] = -1  # what IDS is where its first rows have no class
_N = np.stack([X / W - 0.5, 0.4 - Y / H, np.ones((H, W))], -1)
NORMALS = (_N / np.linalg.norm(_N, axis=-1, keepdims=True)).astype(np.float32)
NAMES = ("a", "b")
_ORIENTATION = 0x0112
Save = Callable[[Path], object]  # given the path without a suffix


@dataclass(frozen=True)
class Case:
    """build: makes the folder. label, wanted: what sample "a" must have. code: of `data check`. says: in what it prints, or
    in the line that it stops with. options: of the data set. listed: whether it is of the list of reports, or a variant."""

    name: str
    build: Callable[[Path], object]
    label: str = ""
    wanted: np.ndarray | None = None
    code: int = 0
    says: tuple[str, ...] = ()
    listed: bool = False
    skip_bad: bool = False
    close: float = 1e-6


# Building ---------------------------------------------------------------------------------------------------------------


def photo(path: Path, orientation: int = 1, size: tuple[int, int] = (H, W)) -> None:
    """Noise as JPEG, stored as a camera does that was turned."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    exif = Image.Exif()
    if orientation != 1:
        exif[_ORIENTATION] = orientation
    Image.fromarray(pixels).save(path, format="JPEG", exif=exif)


def folder(
    label: str, save: Save, ending: str = "", orientation: int = 1, **files: str | bytes
) -> Callable[[Path], None]:
    """Images a and b, `label` of both, and further files of the root: name, its dot as two underscores, to content."""

    def build(root: Path) -> None:
        for name in NAMES:
            photo(root / "images" / f"{name}.jpg", orientation)
            (root / label).mkdir(exist_ok=True)
            save(root / label / f"{name}{ending}")
        texts(root, **files)

    return build


def texts(root: Path, **files: str | bytes) -> None:
    for name, content in files.items():
        path = root / name.replace("__", ".")
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def image(array: np.ndarray, suffix: str = ".png", mode: str = "", **how: Any) -> Save:
    def save(path: Path) -> None:
        picture = Image.fromarray(array)
        (picture.convert(mode) if mode else picture).save(f"{path}{suffix}", **how)

    return save


def palette(indices: np.ndarray, colours: Sequence[int], **how: Any) -> Save:
    def save(path: Path) -> None:
        picture = Image.fromarray(indices.astype(np.uint8), "P")
        picture.putpalette(list(colours))
        picture.save(f"{path}.png", **how)

    return save


def npy(array: np.ndarray) -> Save:
    return lambda path: np.save(f"{path}.npy", array)


def deep(array: np.ndarray) -> Save:
    """A PNG of 16 bits per channel, RGB or RGBA, as libpng filters it."""
    swapped = array.astype(np.uint16)[..., [2, 1, 0, 3][: array.shape[-1]]]
    return lambda path: cv2.imwrite(f"{path}.png", swapped)


def ours(values: np.ndarray, kind: str, form: str, task: str = "", valid: np.ndarray | None = None) -> Save:
    """As `predict` writes it, its sidecar beside it."""

    def save(path: Path) -> None:
        stem = path.with_name(f"{path.name}_{task}") if task else path
        suffix = {"png": ".png", "npz": ".npz", "exr": ".exr", "mask": "_mask.png"}[form]
        Prediction(values, kind, valid=valid).save(stem.with_name(stem.name + suffix), [form])
        stem.with_suffix(".json").write_text(json.dumps({"kind": kind, "files": {}}))

    return save


def channels(*planes: np.ndarray) -> np.ndarray:
    return np.stack(planes, -1)


def manifest(name: str, content: str | bytes) -> Callable[[Path], None]:
    build = folder("depth", image(DEPTH))

    def made(root: Path) -> None:
        build(root)
        (root / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return made


# Masks ------------------------------------------------------------------------------------------------------------------

ZERO, FULL = np.zeros((H, W), np.uint8), np.full((H, W), 255, np.uint8)
MASKED = dict(label="mask", wanted=DISC)  # noqa: C408
GREY, OPACITY = "grey values in a mask", "the opacity is read"
WHITE_FIRST = [255, 255, 255, 0, 0, 0]
VOC = [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]


def mask(name: str, save: Save, *says: str, ending: str = "", listed: bool = False, **files: str) -> Case:
    return Case(f"mask_{name}", folder("mask", save, ending, **files), **MASKED, says=says, listed=listed)


def no_mask(name: str, save: Save, *says: str) -> Case:
    return Case(f"mask_{name}", folder("mask", save), code=2, says=says)


MASKS = [
    mask("palette", palette(~DISC, WHITE_FIRST), listed=True),
    mask("palette_unused_entries", palette(DISC * 7, [0, 0, 0, *[9, 90, 200] * 6, 255, 255, 255])),
    mask("palette_one_colour", palette(DISC * 2, VOC), "a colour on black"),
    mask("palette_opacity", palette(DISC, [0] * 6, transparency=bytes([0, 255])), OPACITY),
    mask("palette_opaque_with_a_clear_entry", palette(~DISC, [*WHITE_FIRST, 5, 5, 5], transparency=2)),
    mask("green", image(channels(ZERO, BYTES, ZERO)), "a colour on black", "green", listed=True),
    mask("blue_bmp", image(channels(ZERO, ZERO, BYTES), ".bmp"), "blue"),
    mask("rgb_equal", image(channels(BYTES, BYTES, BYTES))),
    mask("rgba", image(channels(ZERO, ZERO, ZERO, BYTES)), OPACITY, listed=True),
    mask("rgba_white", image(channels(FULL, FULL, FULL, BYTES)), OPACITY),
    mask("la", image(channels(ZERO, BYTES)), OPACITY, listed=True),
    mask("la_opaque", image(channels(BYTES, FULL))),
    mask("rgba_opaque", image(channels(BYTES, BYTES, BYTES, FULL))),
    mask("rgba_clear_outside", image(channels(BYTES, BYTES, BYTES, BYTES)), OPACITY),
    mask("soft", image(SOFT), GREY, listed=True),
    mask("soft_16_bits", image(SOFT.astype(np.uint16) * 257), GREY),
    mask("one_bit", image(DISC)),
    mask("zero_one", image(DISC.astype(np.uint8))),
    mask("two_values", image((DISC * 128).astype(np.uint8))),
    mask("16_bits", image(BYTES.astype(np.uint16) * 257)),
    mask("16_bits_zero_one", image(DISC.astype(np.uint16))),
    mask("16_bits_of_colour", deep(channels(BYTES, BYTES, BYTES).astype(np.uint16) * 257)),
    mask("float_tiff", image(DISC.astype(np.float32), ".tif")),
    mask("float_tiff_255", image(BYTES.astype(np.float32), ".TIFF")),
    mask("npy_bool", npy(DISC)),
    mask("npy_float_255", npy(BYTES.astype(np.float64))),
    mask("npy_int64", npy(DISC.astype(np.int64))),
    mask("npy_one_channel", npy(BYTES[..., None])),
    mask("npz", lambda path: np.savez(f"{path}.npz", DISC)),
    mask("jpg", image(BYTES, ".jpg", quality=80), listed=True),
    mask("jpg_green", image(channels(ZERO, BYTES, ZERO), ".JPEG", quality=95, subsampling=0), "green"),
    mask("jpg_cmyk", image(channels(BYTES, BYTES, BYTES), ".jpg", "CMYK"), GREY),
    mask("webp", image(BYTES, ".webp", lossless=True)),
    mask("gif", image(BYTES, ".gif")),
    mask("pgm", image(BYTES, ".PGM")),
    mask("ours_png", ours(DISC.astype(np.float32), "mask", "png", "dis")),
    mask("ours_mask", ours(DISC.astype(np.float32), "mask", "mask", "dis")),
    mask("ours_npz", ours(DISC.astype(np.float32), "mask", "npz", "dis", DISC | (X > 20))),
    mask("ours_exr", ours(DISC.astype(np.float32), "mask", "exr", "dis", DISC | (X > 20))),
    mask("called_mask", image(BYTES), ending="_mask"),
    mask("called_gt", image(BYTES), ending="_gt"),
    no_mask(
        "yellow", image(channels(BYTES, BYTES, ZERO)), "red, green and blue disagree (255, 255, 0 at row 3, column 12)"
    ),
    no_mask("palette_of_colours", palette(IDS, VOC), "red, green and blue disagree"),
    no_mask("of_parts", image(IDS), "values from 0 to 3, all below half of 255"),
    no_mask(
        "rgba_both", image(channels(SOFT, SOFT, SOFT, 255 - SOFT // 2)), "colours and opacity both vary and disagree"
    ),
    no_mask("negative", npy(np.where(DISC, 1.0, -1.0)), "some below 0"),
    no_mask("nothing_finite", npy(np.full((H, W), np.nan)), "no pixel has a value that is finite"),
    no_mask("text", lambda path: Path(f"{path}.png").write_text("no image"), "not an image, or a damaged file"),
    Case(
        "mask_inverted",
        folder("mask", image(255 - BYTES)),
        "mask",
        ~DISC,
        says=("of the pixels on average are foreground: is it inverted?",),
    ),
    Case("mask_empty", folder("mask", image(ZERO)), "mask", DISC & False, says=("mask: empty in every sample",)),
]

# Mattes, trimaps ----------------------------------------------------------------------------------------------------------

SHARE = (SOFT / 255).astype(np.float32)


def alpha(name: str, save: Save, *says: str, close: float = 1e-6, listed: bool = False) -> Case:
    return Case(f"alpha_{name}", folder("alpha", save), "alpha", SHARE, says=says, close=close, listed=listed)


def no_alpha(name: str, save: Save, *says: str) -> Case:
    return Case(f"alpha_{name}", folder("alpha", save), code=2, says=says)


TRIMAP = np.where(SOFT == 255, 255, np.where(SOFT == 0, 0, 128)).astype(np.uint8)

MATTES = [
    alpha("npy255", npy(SOFT.astype(np.float32)), "floats up to 255 are divided by 255", listed=True),
    alpha("rgb", image(channels(SOFT, SOFT, SOFT)), listed=True),
    alpha("npy", npy(SHARE.astype(np.float16)), close=1e-3),
    alpha("16_bits", image(SOFT.astype(np.uint16) * 257)),
    alpha("16_bits_rgba", deep(channels(*[FULL.astype(np.uint16) * 257] * 3, SOFT.astype(np.uint16) * 257)), OPACITY),
    alpha("float_tiff", image(SHARE, ".tif")),
    alpha("int64", npy(SOFT.astype(np.int64))),
    alpha("jpg", image(SOFT, ".jpg", quality=97), close=0.07),
    alpha("ours_png", ours(SHARE, "alpha", "png", "matting"), close=1e-5),
    alpha("ours_npz", ours(SHARE, "alpha", "npz", "matting")),
    alpha("ours_exr", ours(SHARE, "alpha", "exr", "matting")),
    Case(
        "alpha_zero_one",
        folder("alpha", image(DISC.astype(np.uint8))),
        "alpha",
        DISC.astype(np.float32),
        says=("whole numbers up to 1 are taken",),
    ),
    Case(
        "alpha_nan",
        folder("alpha", npy(np.where(DISC, 1, np.nan))),
        "alpha",
        DISC.astype(np.float32),
        says=("what is not finite is taken for 0",),
    ),
    no_alpha("too_large", npy(SHARE * 1.7), "values up to 1.7, neither of 0 ... 1 nor of 0 ... 255"),
    no_alpha("65535", npy(SHARE * 65535), "values up to 6.554e+04, neither"),
    Case("trimap_float", folder("trimap", npy(TRIMAP / 255)), "trimap", TRIMAP),
    Case("trimap_16_bits", folder("trimap", image(TRIMAP.astype(np.uint16) * 257)), "trimap", TRIMAP),
    Case("trimap_palette", folder("trimap", palette(TRIMAP // 127, [0] * 3 + [128] * 3 + [255] * 3)), "trimap", TRIMAP),
    Case(
        "trimap_012",
        folder("trimap", image(TRIMAP // 127)),
        code=2,
        says=("values from 0 to 2, but a trimap has 0, 128",),
    ),
]

# Classes ------------------------------------------------------------------------------------------------------------------


def marked(number: int, dtype: Any = np.uint8) -> np.ndarray:
    ids = IDS.astype(dtype)
    ids[:2] = number
    return ids


def ids(name: str, save: Save, *says: str, listed: bool = False, **files: str) -> Case:
    return Case(f"ids_{name}", folder("class_ids", save, **files), "class_ids", NONE, says=says, listed=listed)


def _with_valid(root: Path) -> None:
    folder("class_ids", image(marked(255)))(root)
    folder("valid", image(np.where(NONE >= 0, 255, 0).astype(np.uint8)))(root)


OURS_IDS = ours(NONE.astype(np.int32), "class_ids", "png", "segmentation")

CLASSES = [
    ids("ok", image(marked(255)), "255 is taken for no class", listed=True),
    Case("ids_valid", _with_valid, "class_ids", NONE, says=("255 is taken for no class",), listed=True),
    ids("65535", image(marked(65535, np.uint16)), "65535 is taken for no class", listed=True),
    ids("ignore", image(marked(200)), "200 is taken for no class", listed=True, dataset__toml="ignore = [200]\n"),
    ids("ignore_one", image(marked(77)), "77 is taken for no class", dataset__toml="ignore = 77\n"),
    ids("negative", npy(marked(-1, np.int32))),
    ids("float", npy(marked(-1, np.float32))),
    ids("palette", palette(marked(255), VOC + [9] * 756), "255 is taken for no class"),
    ids("rgb_equal", image(channels(*[marked(255)] * 3)), "255"),
    ids("ours_png", OURS_IDS, "65535 is taken"),
    ids("ours_npz", ours(NONE.astype(np.int32), "class_ids", "npz", "segmentation")),
    ids("npz_valid", ours(IDS.astype(np.int32), "class_ids", "npz", "segmentation", NONE >= 0)),
    Case("ids_jpg", folder("class_ids", image(IDS, ".jpg")), code=2, says=("a format that changes values",)),
    Case("ids_fractions", folder("class_ids", npy(IDS + 0.5)), code=2, says=("values with fractions",)),
    Case("ids_coloured", folder("class_ids", image(channels(IDS, IDS * 2, IDS))), code=2, says=("a colour picture",)),
    Case(
        "ids_ignore_words",
        folder("class_ids", image(IDS), dataset__toml='ignore = "x"\n'),
        code=2,
        says=("ignore 'x'",),
    ),
]

# Depth, normals -------------------------------------------------------------------------------------------------------------


def _holes(value: float, metres: bool = False) -> np.ndarray:
    found = METRES.copy() if metres else DEPTH.copy()
    found[DISC] = value
    return found


HOLED = np.where(DISC, 0, METRES).astype(np.float32)
AFFINE = ((METRES - METRES.min()) / np.ptp(METRES) * 0.8 + 0.1).astype(np.float32)


def depth(name: str, save: Save, *says: str, wanted: np.ndarray = METRES, close: float = 1e-6, **how: Any) -> Case:
    listed = how.pop("listed", False)
    return Case(f"depth_{name}", folder("depth", save, **how), "depth", wanted, says=says, close=close, listed=listed)


def raw(array: np.ndarray, orientation: int) -> np.ndarray:
    """What a camera stores that shows as `array`."""
    back = {6: 8, 8: 6}.get(orientation, orientation)
    return np.ascontiguousarray(turned(array, back))


def exif(orientation: int, upright: bool, toml: str = "", *says: str, listed: bool = False) -> Case:
    """Images that show as H x W, stored turned, with labels as they are stored, or as they are shown."""

    def build(root: Path) -> None:
        size = raw(DEPTH, orientation).shape
        for name in NAMES:
            photo(root / "images" / f"{name}.jpg", orientation, (size[0], size[1]))
            (root / "depth").mkdir(exist_ok=True)
            image(DEPTH if upright else raw(DEPTH, orientation))(root / "depth" / name)
        if toml:
            texts(root, dataset__toml=toml)

    name = f"depth_exif{orientation}" + "_upright" * upright + "_said" * bool(toml)
    return Case(name, build, "depth", METRES, says=says, listed=listed)


def _exr(path: Path) -> None:
    import OpenEXR

    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    OpenEXR.File(header, {"Z": METRES}).write(f"{path}.exr")


def _normals_exif6(root: Path) -> None:
    """Stored on its side, to be turned clockwise: what is right when shown is up as it is stored."""
    x, y, z = np.moveaxis(NORMALS, -1, 0)
    stored = raw(channels(-y, x, z), 6)
    for name in NAMES:
        photo(root / "images" / f"{name}.jpg", 6, (W, H))
        (root / "normals").mkdir(exist_ok=True)
        npy(stored)(root / "normals" / name)


EXIF_NOTE = "set upright = true in dataset.toml"
NO_DEPTH = "65535, the largest 16-bit value, is taken for no depth"

GEOMETRY = [
    depth("ok", image(DEPTH)),
    depth("65535", image(_holes(65535)), NO_DEPTH, wanted=HOLED, listed=True),
    depth("exr", _exr, listed=True),
    depth(
        "exr_ours",
        ours(AFFINE, "depth_affine", "exr", "depth", ~DISC),
        "without a unit",
        wanted=np.where(DISC, 0, AFFINE),
    ),
    depth(
        "npz_ours",
        ours(AFFINE, "depth_affine", "npz", "depth", ~DISC),
        "without a unit",
        wanted=np.where(DISC, 0, AFFINE),
    ),
    depth(
        "png_ours",
        ours(AFFINE, "depth_affine", "png", "depth", ~DISC),
        "without a unit",
        wanted=np.where(DISC, 0, AFFINE),
        close=1e-5,
    ),
    depth("upper", image(DEPTH, ".PNG", format="PNG"), listed=True),
    depth("called_depth", image(DEPTH), ending="_depth", listed=True),
    depth("float_tiff", image(METRES, ".tif")),
    depth("16_bit_tiff", image(DEPTH, ".TIF", format="TIFF")),
    depth("npy_holes", npy(_holes(np.nan, True)), wanted=HOLED),
    depth("npy_big_endian", npy(METRES.astype(">f8"))),
    depth("rgb_16_bits", deep(channels(DEPTH, DEPTH, DEPTH))),
    depth("scale", image((DEPTH * 2).astype(np.uint16)), dataset__toml="depth_scale = 2000\n"),
    Case("depth_8_bits", folder("depth", image(BYTES)), code=2, says=("8 bits are too few for depth",)),
    Case(
        "depth_of_disparity",
        folder("depth", ours(AFFINE, "disparity_affine", "png")),
        code=2,
        says=("a prediction of kind disparity_affine, which is no depth",),
    ),
    exif(3, False, "", EXIF_NOTE, "orientation 3", listed=True),
    exif(2, False, "", EXIF_NOTE),
    exif(4, False, "upright = false\n"),
    exif(3, True, "upright = true\n"),
    *(exif(n, False) for n in (5, 6, 7, 8)),
    exif(6, True),
    Case("normals_exif6", _normals_exif6, "normals", NORMALS.transpose(2, 0, 1), close=1e-5),
    Case(
        "normals_16_bits",
        folder("normals", deep(np.rint((NORMALS + 1) / 2 * 65535))),
        "normals",
        NORMALS.transpose(2, 0, 1),
        close=5e-5,  # of 8 bits: 4e-3
    ),
    Case(
        "normals_ours",
        folder("normals", ours(NORMALS, "normals", "png", "normals", ~DISC)),
        "normals",
        np.where(DISC, 0, NORMALS.transpose(2, 0, 1)),
        close=5e-5,
    ),
]

# Names, lists, manifests ------------------------------------------------------------------------------------------------------

DEEP = dict(label="depth", wanted=METRES)  # noqa: C408
BOM = "\ufeff"


def named(name: str, *says: str, code: int = 0, listed: bool = False, **files: str | bytes) -> Case:
    wanted: dict[str, Any] = DEEP if code == 0 else {}
    return Case(name, folder("depth", image(DEPTH), **files), **wanted, code=code, says=says, listed=listed)


def table(name: str, content: str | bytes, *says: str, code: int = 0, listed: bool = False, file: str = "csv") -> Case:
    wanted: dict[str, Any] = DEEP if code == 0 else {}
    return Case(name, manifest(f"manifest.{file}", content), **wanted, code=code, says=says, listed=listed)


def _appledouble(root: Path) -> None:
    folder("depth", image(DEPTH))(root)
    for path in ("images/._a.jpg", "images/.DS_Store", "images/.cache/x.jpg", "images/__MACOSX/a.jpg", "depth/._a.png"):
        (root / path).parent.mkdir(exist_ok=True)
        (root / path).write_bytes(b"\0\5\26\7\0\2")
    (root / "images/Thumbs.db").write_bytes(b"no image")


def _two_labels(root: Path) -> None:
    folder("depth", image(DEPTH), "_depth")(root)
    folder("depth", image(DEPTH), "_gt")(root)


def _line_separator(root: Path) -> None:
    for name in ("a", "x\u2028y"):
        photo(root / "images" / f"{name}.jpg")
        (root / "depth").mkdir(exist_ok=True)
        image(DEPTH)(root / "depth" / name)
    texts(root, train__txt="a\n", val__txt="x\u2028y\n")


def _numbered(root: Path) -> None:
    """Labels called otherwise than any image."""
    for name in NAMES:
        photo(root / "images" / f"{name}.jpg")
    (root / "depth").mkdir()
    image(DEPTH)(root / "depth" / "1")


ROWS = "image,depth,split\nimages/a.jpg,depth/a.png,train\nimages/b.jpg,depth/b.png,val\n"
JSONL = "".join(f'{{"image": "images/{n}.jpg", "depth": "depth/{n}.png", "caption": "words"}}\n' for n in NAMES)
NULL = '{"image":"images/a.jpg","depth":"depth/a.png"}\n{"image":"images/b.jpg","depth":null}\n'

SCORED = '{"image":"images/b.jpg","depth":"depth/b.png","split":"val"}\n'

TEXTS = [
    named("lists_withext", "1 train, 1 val", train__txt="a.jpg\n", val__txt="b.jpg\n", listed=True),
    named("lists_paths", "1 train, 1 val", train__txt="images\\a.jpg\n", val__txt=" ./images/b\t\n"),
    named("lists_bom", "1 train, 1 val", train__txt=BOM + "a\r\n", val__txt=BOM + "b\r\n", listed=True),
    named("lists_cr", "1 train, 1 val", train__txt="\ra\r", val__txt="b\r\r"),
    named("lists_utf16", "UTF-16, not UTF-8", code=2, train__txt="a\n".encode("utf-16"), val__txt="b\n"),
    named("lists_unknown", "train.txt, line 2: lists 'c'", code=2, train__txt="a\nc\n", val__txt="b\n"),
    named(
        "lists_overlap",
        "val.txt, line 1: 'b' is in train.txt, too",
        code=2,
        train__txt="a\nb",
        val__txt="b",
        listed=True,
    ),
    named("lists_train_only", "no sample is for validation", train__txt="a\nb\n"),
    named("lists_without_training", "no sample is for training", code=1, val__txt="a\nb\n"),
    Case("lists_line_separator", _line_separator, **DEEP, says=("1 train, 1 val",)),
    named("toml_bom", dataset__toml=BOM + "depth_scale = 1000\r\n", listed=True),
    named(
        "toml_wrong", "dataset.toml: not a TOML file", "line 2", code=2, dataset__toml="ignore = [1]\ndepth_scale = \n"
    ),
    named("toml_unknown", "unknown key 'depthscale'; did you mean", code=2, dataset__toml="depthscale = 1\n"),
    Case("dotfiles", _appledouble, **DEEP, says=("samples     2", "broken 0"), listed=True),
    Case("two_labels", _two_labels, code=2, says=("which is the label of a, a_depth.png, a_gt.png? Keep one",)),
    Case("no_label", _numbered, code=2, says=("no such label",)),
    table("csv_bom", BOM + ROWS, listed=True),
    table("csv_blank", ROWS.replace("\n", "\r\n") + ",,\r\n\r\n", listed=True),
    table("csv_semicolon", ROWS.replace(",", ";"), listed=True),
    table("csv_tab", ROWS.replace(",", "\t")),
    table("tsv", ROWS.replace(",", "\t"), file="tsv"),
    table("csv_backslash", ROWS.replace("/", "\\"), listed=True),
    table("csv_blanks", ROWS.replace(",", " , ")),
    table(
        "csv_quoted",
        '"image","depth","split"\n"images/a.jpg","depth/a.png","train"\n"images/b.jpg","depth/b.png","val"\n',
    ),
    table("csv_trailing", ROWS.replace("\n", ",\n")),
    table("csv_cr", ROWS.replace("\n", "\r")),
    table("csv_too_many", ROWS + "images/a.jpg,depth/a.png,val,x\n", "line 4, column 4: 'x' has no name", code=2),
    table("csv_twice", "image,depth,image\n", "line 1, column 3: a second column 'image'", code=2),
    table("csv_utf16", ROWS.encode("utf-16"), "UTF-16, not UTF-8", code=2),
    table("csv_latin", ROWS.encode() + b"images/\xe9.jpg,,\n", "line 4, column 8: byte 0xe9 is not UTF-8", code=2),
    table("csv_absolute", ROWS.replace("depth/a", "C:\\depth\\a"), "paths are relative to the manifest", code=2),
    table("jsonl_bom", BOM + JSONL.replace("depth/", "depth\\\\").replace("\n", "\r\n"), file="jsonl", listed=True),
    table("jsonl_separator", JSONL.replace("words", "x\u2028y"), file="jsonl"),
    table(
        "jsonl_wrong",
        '{"image": "images/a.jpg"}\n{"image": }\n',
        "not JSON: Expecting value (at line 2, column 11)",
        code=2,
        file="jsonl",
    ),
    table("jsonl_labelnull", NULL, "sample 'images/b' has no depth, which 1 of 2", code=1, file="jsonl", listed=True),
    Case(
        "jsonl_labelnull_skipped",
        manifest("manifest.jsonl", NULL.replace("}", ', "split": "train"}') + SCORED),
        **DEEP,
        says=("sample 'images/b' has no depth",),
        skip_bad=True,
    ),
]

CASES = [*MASKS, *MATTES, *CLASSES, *GEOMETRY, *TEXTS]
