"""What a model says about one image, at that image's own size, with what is needed to use and to trace it."""

from __future__ import annotations

import copy
import json
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from genpercept.core.files import synced_once, write_json
from genpercept.imaging import metric, points, sidecars, write
from genpercept.imaging.camera import Camera
from genpercept.imaging.colour import colourise
from genpercept.imaging.encode import coded, kept
from genpercept.imaging.glb import to_trimesh
from genpercept.imaging.kinds import KINDS, METRIC
from genpercept.imaging.known import KnownSource, distances
from genpercept.imaging.mesh import CUT, VERTICES, grid_mesh, step_width
from genpercept.imaging.read import Source, read

if TYPE_CHECKING:
    import trimesh

_TOLERANCE = 1e-3  # of a range: rounding of resizing is no mistake, a forgotten shift is


@dataclass
class Prediction:
    """`values` at the image's own size; `kind` says what they mean and fixes their shape (see genpercept.imaging.kinds).

    valid: (H, W) bool, None where all of it is ((N, 17) for keypoints). uncertainty: (H, W) float32, the spread of an
    ensemble in units of `values` ((H, W, 3 n) of intrinsics, by channel). raw: what the head gave before the task
    decoded it. meta: model, model_sha256, family, paradigm, steps, resolution, axes, software. Tensors become arrays.
    Raises ValueError where a shape or range is not the kind's, or where a valid value is not finite.
    """

    values: np.ndarray
    kind: str
    valid: np.ndarray | None = None
    uncertainty: np.ndarray | None = None
    raw: np.ndarray | None = None
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.values = _array(self.values, KINDS.find(self.kind).dtype)
        self.valid = None if self.valid is None else _array(self.valid, np.bool_)
        self.uncertainty = None if self.uncertainty is None else _array(self.uncertainty, np.float32)
        self.raw = None if self.raw is None else _array(self.raw, np.float32)
        self._check()

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of a map. ValueError for points, which have none."""
        if KINDS[self.kind].layout == "points":
            raise ValueError(f"{self.kind} are points, not a map: they have no height and width")
        return self.values.shape[0], self.values.shape[1]

    def told(self, meta: dict[str, Any]) -> Prediction:
        """The same with another `meta`. (`replace` would look through all values once more.)"""
        other = copy.copy(self)
        other.meta = meta
        return other

    def colourise(self, image: np.ndarray | None = None) -> Image.Image:
        """A picture to look at; keypoints are drawn on `image` (H, W, 3). Grey where not valid."""
        return colourise(self.values, self.kind, self.valid, image, self.meta.get(write.legend(self.kind)))

    @synced_once()
    def save(
        self,
        path: str | Path,
        formats: Iterable[str] | None = None,
        *,
        image: np.ndarray | None = None,
        fov: float | None = None,
        name: str = "",
        names: Mapping[str, str] | None = None,
        camera: Camera | None = None,
        vertices: int = VERTICES,
    ) -> list[Path]:
        """Write it and return the paths; the last is the sidecar `<stem>.json` with kind, encodings, meta, sizes and hashes.

        `save("photo_depth.png")` takes the format from the suffix and adds `photo_depth.npz`, which holds all of it
        (values, valid, uncertainty, raw, meta). With `formats` (see genpercept.imaging.write) exactly those are
        written, beside the sidecar, and `<stem>_uncertainty.npy` where there is an uncertainty that no npz holds. image
        (H, W, 3) colours points and meshes, carries skeletons and is cut out; fov and camera: as `points` has them;
        vertices: of a mesh at most; name: of the image, for coco; names: of files by format, in place of the usual
        ones. Raises ValueError for an unknown format, or one that cannot hold this kind.
        """
        stem, suffix = _split(Path(path).expanduser())
        if formats is None:
            by_suffix = {f.suffix: name for name, f in write.FORMATS.items() if "_" not in f.suffix}
            if suffix not in by_suffix:
                raise ValueError(f"{path}: no format of that suffix; end in {', '.join(by_suffix)}, or give formats=")
            chosen = write.check_formats((by_suffix[suffix], "npz"), self.kind)
        else:
            chosen = write.check_formats(formats, self.kind)
        targets = {n: stem.with_name((names or {}).get(n, stem.name + write.FORMATS[n].suffix)) for n in chosen}
        if self.uncertainty is not None and "npz" not in chosen:
            targets["uncertainty"] = stem.with_name(stem.name + sidecars.UNCERTAINTY)
        sidecar = stem.with_name(stem.name + ".json")
        scene = write.Scene(image, fov, name or stem.name, camera, vertices)
        # Without a claim nobody would know whose files a killed run has left.
        about = self._sidecar(targets, scene)
        written: dict[Path, write.Digest] = {}
        with sidecars.claimed(sidecar, about, written) as earlier:
            for n, target in targets.items():
                written[target] = self._write(n, target, scene)
            # Last, because it says that all is there.
            write_json(sidecar, about | sidecars.told(written, earlier))
        return [*targets.values(), sidecar]

    # ---- in space --------------------------------------------------------------------------------------------------

    def fit(
        self,
        known: KnownSource,
        *,
        scale: float | None = None,
        threshold: float = metric.INLIER,
        seed: int = 0,
    ) -> Prediction:
        """This depth or disparity in metres (kind depth_metric), by distances along the optical axis that are known.

        known: points (N, 3), each x and y in pixels and metres; a map (h, w) of metres, of any size of the same shape, 0
        or NaN where unknown; or a file of either (see genpercept.imaging.known). scale: metres for each unit of it.
        threshold: the largest error of a point that counts, as a share of its distance; seed: of RANSAC's draws.
        `meta["fit"]` has scale, shift, inliers and residuals. ValueError for a kind without a distance, points outside
        the image, and points that cannot tell a scale and a shift.
        """
        row, keep = KINDS[self.kind], kept(self)
        if row.distance is None:
            raise ValueError(f"{self.kind} tell no distance: only depth and disparity are fitted to metres")
        found = distances(known, self.size, scale)
        columns, rows = found.x.astype(np.intp), found.y.astype(np.intp)
        there = keep[rows, columns]
        fit = metric.fit(
            self.values[rows, columns][there], found.metres[there], row.distance, threshold=threshold, seed=seed
        )
        fit = replace(fit, left_out=int((~there).sum()))
        metres = fit.metres(self.values)
        valid = keep & np.isfinite(metres)
        spread = None if self.uncertainty is None else fit.spread(self.uncertainty, metres)
        told = {"fit": fit.to_meta() | ({"known": found.name} if found.name else {})}
        metres[~valid] = 0
        return Prediction(metres, METRIC, None if valid.all() else valid, spread, self.raw, {**self.meta, **told})

    def points(self, *, fov: float | None = None, camera: Camera | None = None) -> np.ndarray:
        """(H, W, 3) float32: where each pixel lies in the camera frame, x right, y up, z towards the viewer; NaN where unknown.

        In metres where the kind is; else the shape up to scale and shift, with a distance that is assumed. fov:
        horizontal, degrees; else `camera`; else the one of `meta["camera"]`; else 60 degrees. OpenCV's axes (y down, z
        away from the viewer) are `points * (1, -1, -1)`. ValueError for a kind without a distance.
        """
        return points.back_projected(points.of(self).z, points.camera_of(self, fov, camera))

    def mesh(
        self,
        image: Source | None = None,
        *,
        fov: float | None = None,
        camera: Camera | None = None,
        cut: float | None = CUT,
        vertices: int = VERTICES,
    ) -> trimesh.Trimesh:
        """The same as a mesh of triangles, cut where one thing stands in front of another, with normals.

        image: as `read` takes it, of this size: its texture; None: the picture of the values. cut: the jump of inverse
        depth, beyond the planes on both sides, from which on nothing is joined; None: all is. vertices: at most so many.
        `metadata` says what its lengths are. ValueError for a kind without a distance, and without trimesh.
        """
        found, where = points.of(self), points.camera_of(self, fov, camera)
        grid = grid_mesh(found.z, where, cut=cut, vertices=vertices, gap=step_width(self))
        rgb = write.rgb_of(self, None if image is None else read(image))
        return to_trimesh(grid, rgb, found.words, where)

    # ----------------------------------------------------------------------------------------------------------------

    def _write(self, name: str, target: Path, scene: write.Scene) -> write.Digest:
        if name == "uncertainty":
            assert self.uncertainty is not None
            return write.array(target, self.uncertainty)
        return write.FORMATS[name].write(target, self, scene)

    @classmethod
    def load(cls, path: str | Path) -> Prediction:
        """What `save` wrote as .npz. ValueError for a file that is missing, damaged or something else."""
        path = Path(path).expanduser()
        try:
            with np.load(path, allow_pickle=False) as file:
                parts: dict[str, np.ndarray] = {name: file[name] for name in file.files}
            rest = {name: parts.get(name) for name in ("valid", "uncertainty", "raw")}
            return cls(parts["values"], str(parts["kind"]), **rest, meta=json.loads(str(parts["meta"])))
        except FileNotFoundError:
            raise ValueError(f"{path}: no such file; check the path") from None
        except (OSError, ValueError, KeyError, EOFError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
            reason = " ".join(str(error).split())[:100]
            raise ValueError(f"{path}: not a whole prediction (.npz): {reason}; predict again") from error

    def _sidecar(self, files: dict[str, Path], scene: write.Scene) -> dict[str, Any]:
        kind = KINDS[self.kind]
        out: dict[str, Any] = {"kind": self.kind, "meaning": kind.meaning, "shape": list(self.values.shape)}
        out["files"] = {name: path.name for name, path in files.items()}
        if "png" in files:
            out["png"] = coded(self).words
        if any(name in write.FORMATS and write.FORMATS[name].spatial for name in files):
            out["space"] = write.spatial(self, scene)
        if self.valid is not None:
            out["valid_fraction"] = float(self.valid.mean()) if self.valid.size else 0.0
        return {**out, "meta": self.meta}

    def _check(self) -> None:
        kind, shape = KINDS[self.kind], self.values.shape
        if not kind.fits(shape):
            raise ValueError(f"{self.kind} of shape {shape}: must be {kind.shape}, {kind.meaning}")
        if kind.layout != "points" and 0 in shape:
            raise ValueError(f"{self.kind} of shape {shape}: an empty map; both edges must be at least 1 pixel")
        spread = kind.uncertainty_shape(shape)
        for name, part, wanted in (("valid", self.valid, shape[:2]), ("uncertainty", self.uncertainty, spread)):
            if part is not None and part.shape != wanted:
                raise ValueError(f"{name} of shape {part.shape} beside {self.kind} of {shape}: must be {wanted}")
        kept = self.values if self.valid is None else self.values[self.valid]
        if kept.size == 0 or not np.issubdtype(kept.dtype, np.floating):
            return
        low, high = float(kept.min()), float(kept.max())  # NaN, where there is one
        if not np.isfinite((low, high)).all():
            raise ValueError(f"{self.kind} holds NaN or infinite values: mark those pixels as not valid")
        if kind.limits is not None:
            slack = _TOLERANCE * (kind.limits[1] - kind.limits[0])
            if low < kind.limits[0] - slack or high > kind.limits[1] + slack:
                raise ValueError(f"{self.kind} from {low:.6g} to {high:.6g}: must lie in {list(kind.limits)}")


def _array(value: Any, dtype: type[np.generic]) -> np.ndarray:
    """Arrays and tensors (any device, any float type) as a contiguous array of `dtype`."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = (value.float() if value.is_floating_point() else value).numpy()
    return np.ascontiguousarray(value, dtype=dtype)


def _split(path: Path) -> tuple[Path, str]:
    """The stem and a suffix that is ours: `a.b_depth` keeps its dot, `a_depth_color.png` is the stem `a_depth`."""
    for suffix in sorted({f.suffix for f in write.FORMATS.values()} | {".json"}, key=len, reverse=True):
        if path.name.endswith(suffix) and len(path.name) > len(suffix):
            return path.with_name(path.name.removesuffix(suffix)), path.suffix if "_" in suffix else suffix
    return path, path.suffix
