"""How good the embedded models are: held-out scenes, real depth, baselines beside them, several resolutions.

    python benchmarks/quality/mini.py --out docs/mini_results.json --markdown docs/mini.md --pictures docs/images

Depth is aligned by least squares per image; in scenes, sky and beyond 25 m do not count. Real frames with measured depth
are read from `--frames` (folders that `tools/real_frames.py` writes), KITTI and NYU frames from `--samples`, where they are
at hand; they are never written anywhere.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import genpercept
from genpercept.commands.demo.photographs import Case, depth_picture, held_out, motorcycle, photographs, versions
from genpercept.imaging.colour import colourise
from genpercept.metrics import METRICS, _baselines

sys.path.insert(0, str(Path(__file__).parents[2]))  # where `benchmarks` lies
from benchmarks.quality import real_frames

Answer = Callable[[Case], Any]  # what is scored for a case
DOMAINS = ("indoor", "outdoor", "closeup", "heldout_shapes", "heldout_textures")
_TIERS = {"A": "rooms and streets (tier A)", "T": "table tops (tier T)"}
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
_CHUNK = 48  # images handed to the pipeline at once; it batches them by size
_PICTURE_BYTES = 500_000


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and write results, page and pictures. 0."""
    args = arguments(argv)
    start = time.perf_counter()
    models = load_models(args)
    results: dict[str, Any] = {"date": time.strftime("%Y-%m-%d"), "size": list(args.size), "models": about(models)}
    results["versions"] = versions(models["depth"]["model"])
    mixed = held_out(range(args.count), "mixed", args.size)
    results["depth"] = {"mixed": judge_depth(mixed, models["depth"], args.batch_size)}
    results["normals"] = {"mixed": judge_normals(mixed, models["normals"], args.batch_size)}
    for domain in DOMAINS if args.domain_count else ():
        cases = held_out(range(args.domain_count), domain, args.size)
        results["depth"][domain] = judge_depth(cases, models["depth"], args.batch_size)
        results["normals"][domain] = judge_normals(cases, models["normals"], args.batch_size)
    real = [motorcycle(), *kitti(args.samples), *nyu(args.samples)]
    results["frames"] = {folder.name: judge_frames(folder, models["depth"]) for folder in args.frames}
    results["real"] = judge_real(real, models["depth"], None)
    results["resolutions"] = {
        str(r): judge_resolution(r, mixed[: args.resolution_count], real, models, args.batch_size)
        for r in args.resolutions
    }
    results["seconds"] = round(time.perf_counter() - start, 1)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(results, indent=2) + "\n")
    text = markdown(results)
    if args.markdown:
        insert(args.markdown, text)
    if args.pictures:
        pictures(args.pictures, mixed[:6], models)
    print(text)
    return 0


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line, None: this process's own."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--depth", default="mini/depth")
    parser.add_argument("--normals", default="mini/normals")
    parser.add_argument("--latent-depth", help="the model before its stage with losses on pixels")
    parser.add_argument("--latent-normals")
    parser.add_argument("--scratch-depth", help="the same network, from random weights, after that same stage")
    parser.add_argument("--scratch-normals")
    parser.add_argument("--former-depth", help="the model that the present one replaces")
    parser.add_argument("--former-normals")
    parser.add_argument("--frames", nargs="+", type=Path, default=(), help="folders of real frames: .../A .../T")
    parser.add_argument("--count", type=int, default=500, help="held-out scenes of the mixed domain")
    parser.add_argument("--domain-count", type=int, default=150, help="of each other domain; 0 leaves them out")
    parser.add_argument("--size", type=pair, default=(192, 256), help="height x width of the scenes")
    parser.add_argument(
        "--samples", type=Path, help="folder with kitti/metric3d_kitti_demo and nyuv2/metric3d_nyu_demo"
    )
    parser.add_argument(
        "--resolutions", type=numbers, default=(), help="processing resolutions, such as 128,192,256,384"
    )
    parser.add_argument("--resolution-count", type=int, default=100, help="scenes for each of them")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=Path("docs/mini_results.json"))
    parser.add_argument("--markdown", type=Path, help="file whose part between the results markers is replaced")
    parser.add_argument("--pictures", type=Path, help="folder for the contact sheets")
    return parser.parse_args(argv)


def pair(text: str) -> tuple[int, int]:
    height, width = text.lower().split("x")
    return int(height), int(width)


def numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def load_models(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """task -> {"model": pipeline, and the others that are given}."""
    names = {
        task: {
            "model": getattr(args, task),
            "latent loss only": getattr(args, f"latent_{task}"),
            "the same from scratch": getattr(args, f"scratch_{task}"),
            "the former model": getattr(args, f"former_{task}"),
        }
        for task in ("depth", "normals")
    }
    return {
        task: {role: genpercept.load(name, device=args.device) for role, name in roles.items() if name}
        for task, roles in names.items()
    }


def about(models: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Of each model, by "task, role": hash, parameters and resolution."""
    return {
        f"{task}, {role}": {
            "sha256": str(pipe.info.get("model_sha256", ""))[:12],
            "denoiser_parameters": sum(p.numel() for p in pipe.unet.parameters()),
            "resolution": pipe.resolution,
        }
        for task, roles in models.items()
        for role, pipe in roles.items()
    }


# ---- judging ---------------------------------------------------------------------------------------------------------


def predict(pipe: Any, cases: Sequence[Case], batch_size: int, resolution: int | None = None) -> Iterator[Any]:
    for start in range(0, len(cases), _CHUNK):
        images = [case.image for case in cases[start : start + _CHUNK]]
        yield from pipe(images, batch_size=batch_size, processing_resolution=resolution)


def judge_depth(
    cases: Sequence[Case], roles: dict[str, Any], batch_size: int, resolution: int | None = None
) -> dict[str, Any]:
    """Figures of each model and baseline over the cases, as mean and standard error of the images."""
    baselines: dict[str, Answer] = {
        "constant": lambda case: _baselines.constant(case.image.shape[:2]),
        "vertical ramp": lambda case: _baselines.vertical_ramp(case.image.shape[:2]),
    }
    answers = {role: predict(pipe, cases, batch_size, resolution) for role, pipe in roles.items()}
    answers |= {name: map(answer, cases) for name, answer in baselines.items()}
    return {name: _depth_figures(cases, given) for name, given in answers.items()}


def _depth_figures(cases: Sequence[Case], answers: Iterator[Any]) -> dict[str, Any]:
    rows = []
    for case, answer in zip(cases, answers, strict=True):
        row = METRICS.find("depth")(protocol=case.protocol).update(answer, case.depth, case.valid, case.name)
        rows.append(row)
    return summarise(rows, ("abs_rel", "delta1", "rmse"))


def judge_normals(
    cases: Sequence[Case], roles: dict[str, Any], batch_size: int, resolution: int | None = None
) -> dict[str, Any]:
    """Figures over the cases: of all pixels together, and the standard error of the mean angle over images."""
    total = np.sum([case.normals[case.valid].sum(0) for case in cases], axis=0)  # type: ignore[index]
    mean_normal = tuple(float(v) for v in total)
    baselines: dict[str, Answer] = {
        "mean normal": lambda case: _baselines.facing(case.image.shape[:2], mean_normal),  # type: ignore[arg-type]
        "facing the viewer": lambda case: _baselines.facing(case.image.shape[:2]),
    }
    answers = {role: predict(pipe, cases, batch_size, resolution) for role, pipe in roles.items()}
    answers |= {name: map(answer, cases) for name, answer in baselines.items()}
    result = {}
    for name, given in answers.items():
        metric = METRICS.find("normals")()
        for case, answer in zip(cases, given, strict=True):
            metric.update(answer, case.normals, case.valid, case.name)
        pooled = metric.compute()
        spread = summarise(list(metric.rows.values()), ("mean",))
        keys = ("mean", "median", "a11_25", "a22_5", "a30")
        result[name] = {**{k: pooled[k] for k in keys}, "mean_se": spread["mean_se"], "images": spread["images"]}
    return result


def summarise(rows: Sequence[dict[str, float]], keys: Sequence[str]) -> dict[str, Any]:
    """Mean, its standard error and median over images; those without a valid pixel are left out and not counted."""
    used = [row for row in rows if not np.isnan(row[keys[0]])]
    result: dict[str, Any] = {"images": len(used)}
    for key in keys:
        values = np.array([row[key] for row in used])
        result[key] = float(values.mean()) if used else None
        result[f"{key}_median"] = float(np.median(values)) if used else None
        result[f"{key}_se"] = float(values.std(ddof=1) / np.sqrt(len(used))) if len(used) > 1 else None
    return result


def judge_frames(folder: Path, roles: dict[str, Any]) -> dict[str, Any]:
    """Scene of each real frame, and its AbsRel by every model and baseline."""
    samples = real_frames.read(folder)
    ways = {role: real_frames.of_pipe(pipe) for role, pipe in roles.items()}
    ways |= real_frames.baselines()
    errors = {name: real_frames.judge(samples, answers(samples)).tolist() for name, answers in ways.items()}
    return {"scenes": real_frames.scenes_of(samples), "abs_rel": errors}


def judge_real(cases: Sequence[Case], roles: dict[str, Any], resolution: int | None) -> dict[str, Any]:
    """Per image and per data set: AbsRel and delta1 of every model and baseline, and their averages."""
    images: dict[str, Any] = {}
    for case in cases:
        judged = judge_depth([case], roles, 1, resolution)
        images[case.name] = {name: {k: row[k] for k in ("abs_rel", "delta1")} for name, row in judged.items()}
    names = list(next(iter(images.values())))
    sets = sorted({case.note for case in cases}, key=[case.note for case in cases].index)
    averages: dict[str, Any] = {"over images": {}, "over data sets": {}}
    for name in names:
        for key in ("abs_rel", "delta1"):
            each = {case.name: images[case.name][name][key] for case in cases}
            per_set = [np.mean([each[case.name] for case in cases if case.note == s]) for s in sets]
            averages["over images"].setdefault(name, {})[key] = float(np.mean(list(each.values())))
            averages["over data sets"].setdefault(name, {})[key] = float(np.mean(per_set))
    return {"images": images, "averages": averages}


def judge_resolution(
    resolution: int, scenes: Sequence[Case], real: Sequence[Case], models: dict[str, dict[str, Any]], batch_size: int
) -> dict[str, Any]:
    """The main figures when the longest edge is `resolution`, and the time per image of depth."""
    depth, normals = ({"model": models[task]["model"]} for task in ("depth", "normals"))
    start = time.perf_counter()
    d = judge_depth(scenes, depth, batch_size, resolution)["model"]
    seconds = time.perf_counter() - start
    n = judge_normals(scenes, normals, batch_size, resolution)["model"]
    r = judge_real(real, depth, resolution)["averages"]["over images"]["model"]
    return {
        "abs_rel": d["abs_rel"],
        "delta1": d["delta1"],
        "mean_angle": n["mean"],
        "real_abs_rel": r["abs_rel"],
        "real_delta1": r["delta1"],
        "ms_per_scene": 1000 * seconds / max(len(scenes), 1),
    }


# ---- real depth ------------------------------------------------------------------------------------------------------


def kitti(samples: Path | None) -> list[Case]:
    """Frames cut to the 352 x 1216 benchmark crop (bottom, centred); depth = pixel / 256 m, 0 is none."""
    cases = []
    for case in _frames(samples, "kitti/metric3d_kitti_demo", "{}.png", 256, "kitti", "KITTI"):
        assert case.depth is not None
        top, left = case.image.shape[0] - 352, (case.image.shape[1] - 1216) // 2
        cut = np.s_[top : top + 352, left : left + 1216]
        cases.append(Case(case.name, case.image[cut], case.depth[cut], protocol="kitti", note="KITTI"))
    return cases


def nyu(samples: Path | None) -> list[Case]:
    """Whole 480 x 640 frames, of which the Eigen crop counts; depth = pixel / 1000 m, 0 is none."""
    return _frames(samples, "nyuv2/metric3d_nyu_demo", "sync_depth_{}.png", 1000, "nyu", "NYUv2")


def _frames(samples: Path | None, folder: str, depth_name: str, scale: float, protocol: str, note: str) -> list[Case]:
    if samples is None:
        return []
    root = samples / folder
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder; --samples must hold {folder} with rgb and depth")
    cases = []
    for path in sorted((root / "rgb").iterdir()):
        depth = np.array(Image.open(root / "depth" / depth_name.format(path.stem.removeprefix("rgb_")))) / scale
        image = np.array(Image.open(path).convert("RGB"))
        cases.append(Case(f"{note} {path.stem.removeprefix('rgb_')}", image, depth, protocol=protocol, note=note))
    return cases


# ---- writing ---------------------------------------------------------------------------------------------------------


def markdown(results: dict[str, Any]) -> str:
    """The tables of docs/mini.md."""
    mixed = results["depth"]["mixed"]
    height, width = results["size"]
    used = next(iter(mixed.values()))["images"]
    parts = [
        f"Measured on {results['date']} with `benchmarks/quality/mini.py`; {used} held-out scenes of the mixed domain at "
        f"{width} x {height}, ± standard error over images. Depth aligned by least squares per image; sky and beyond "
        "25 m left out.",
        "**Depth, held-out scenes**",
        _grid(("AbsRel ↓", *mixed), _domain_rows(results["depth"], "abs_rel", 3)),
        _grid(("δ1 ↑", *mixed), _domain_rows(results["depth"], "delta1", 3)),
        "A few scenes with something very close carry much of the mean AbsRel; the median image of the mixed domain: "
        + ", ".join(f"{name} {row['abs_rel_median']:.3f}" for name, row in mixed.items() if row["images"])
        + ".",
        "**Normals, held-out scenes** (mean angle in degrees over all pixels)",
        _grid(("mean angle ↓", *results["normals"]["mixed"]), _domain_rows(results["normals"], "mean", 1)),
        _grid(("mixed", "median ↓", "< 11.25° ↑", "< 22.5° ↑", "< 30° ↑"), _normal_rows(results["normals"]["mixed"])),
        *_frame_tables(results["frames"]),
        "**Depth of real photographs** (AbsRel ↓ / δ1 ↑)",
        _grid(("image", *results["real"]["averages"]["over images"]), _real_rows(results["real"])),
    ]
    if results["resolutions"]:
        header = ("longest edge", "AbsRel", "δ1", "mean angle", "real AbsRel", "real δ1", "ms per scene")
        digits = (3, 3, 1, 3, 3, 0)
        rows = [
            (edge, *(f"{value:.{d}f}" for value, d in zip(row.values(), digits, strict=True)))
            for edge, row in results["resolutions"].items()
        ]
        parts += ["**Processing resolution**", _grid(header, rows)]
    return "\n\n".join(parts)


def _frame_tables(frames: dict[str, Any]) -> list[str]:
    """Of each folder of real frames."""
    if not frames:
        return []
    tables = [
        real_frames.table(
            _TIERS.get(tier, tier),
            found["scenes"],
            {role: np.array(values) for role, values in found["abs_rel"].items()},
        )
        for tier, found in frames.items()
    ]
    return [
        "**Depth of real frames**, zero-shot (AbsRel ↓; ± standard errors over scenes, differences paired)",
        *tables,
    ]


def _grid(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, rule, *rows))


def _domain_rows(domains: dict[str, Any], key: str, digits: int) -> list[tuple[str, ...]]:
    return [
        (
            f"{domain.replace('_', ' ')} ({next(iter(roles.values()))['images']})",
            *(_with_error(row[key], row[f"{key}_se"], digits) for row in roles.values()),
        )
        for domain, roles in domains.items()
    ]


def _with_error(value: float | None, error: float | None, digits: int) -> str:
    if value is None:
        return "–"
    return f"{value:.{digits}f}" + (f" ± {error:.{digits}f}" if error is not None else "")


def _normal_rows(roles: dict[str, Any]) -> list[tuple[str, ...]]:
    keys = ("a11_25", "a22_5", "a30")
    return [(name, f"{row['median']:.1f}", *(f"{row[k]:.0f} %" for k in keys)) for name, row in roles.items()]


def _real_rows(real: dict[str, Any]) -> list[tuple[str, ...]]:
    rows = {**real["images"], **{f"average {k}": v for k, v in real["averages"].items()}}
    return [
        (title, *(f"{row['abs_rel']:.3f} / {row['delta1']:.2f}" for row in roles.values()))
        for title, roles in rows.items()
    ]


def insert(path: Path, text: str) -> None:
    """Replace what stands between the markers of `path`; a new file, or one without markers, gets them at its end."""
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    block = f"{BEGIN}\n\n{text}\n\n{END}"
    if BEGIN in old and END in old:
        head, tail = old.split(BEGIN)[0], old.split(END, 1)[1]
        new = head + block + tail
    else:
        new = (old.rstrip() + "\n\n" if old.strip() else "") + block + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(new, encoding="utf-8")


def pictures(folder: Path, scenes: Sequence[Case], models: dict[str, dict[str, Any]]) -> None:
    """Contact sheets: scenes beside their truth, and the photographs whose licence lets everyone show them."""
    folder.mkdir(parents=True, exist_ok=True)
    depth, normals = models["depth"]["model"], models["normals"]["model"]
    rows = [
        [
            Image.fromarray(case.image),
            depth_picture(case),
            depth(case.image).colourise(),
            colourise(np.asarray(case.normals), "normals", case.valid),
            normals(case.image).colourise(),
        ]
        for case in scenes
    ]
    sheet(folder / "mini_scenes.png", rows)
    free = [case.image for case in photographs() if case.name != "motorcycle"]
    cells = [[Image.fromarray(i), depth(i).colourise(), normals(i).colourise()] for i in free]
    sheet(folder / "mini_photographs.png", [cells[k] + cells[k + 1] for k in range(0, len(cells) - 1, 2)])


def sheet(path: Path, rows: Sequence[Sequence[Image.Image]], gap: int = 4) -> None:
    """A grid of pictures, each fitted into a 4:3 tile, as large as the file may be."""
    for width in (208, 192, 176, 160, 144, 128, 112, 96):
        height = width * 3 // 4
        canvas = Image.new("RGB", (len(rows[0]) * (width + gap) - gap, len(rows) * (height + gap) - gap), "white")
        for r, cells in enumerate(rows):
            for c, cell in enumerate(cells):
                tile = cell.convert("RGB")
                tile.thumbnail((width, height), Image.Resampling.LANCZOS)
                place = ((width - tile.width) // 2, (height - tile.height) // 2)
                canvas.paste(tile, (c * (width + gap) + place[0], r * (height + gap) + place[1]))
        canvas.save(path, optimize=True)
        if path.stat().st_size < _PICTURE_BYTES:
            return


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ValueError as error:
        sys.exit(f"error: {error}")
