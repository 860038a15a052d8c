"""DepthFM, GeoWizard and DepthMaster by `genpercept predict` alone, against what their own code answered, key by key.

    python benchmarks/quality/families.py            # of tests/golden; writes families.md beside it
    python benchmarks/quality/families.py FOLDER     # of another set of tiny checkpoints, laid out as FACTS says

FOLDER holds depthfm/ and geowizard/. Every case is one run of the command in this process: a PNG and a file of noise go
in, and what is compared is the file that it wrote; what lies on the way is read off the networks during the same run. Exit
code 1 where a difference is above its tolerance, a wrong way is not told apart, or a key is neither compared nor accounted for.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2]))  # where `benchmarks` lies
from benchmarks._page import made, show
from benchmarks._watched import Watched, watched
from genpercept.commands.cli import cli
from genpercept.imaging.prediction import Prediction
from tests.support.depthmaster import ANSWERS, checkpoint
from tests.support.paths import GOLDEN

Answers = Mapping[str, np.ndarray]
FILE, WAY, APART = "the file", "on the way", "told apart"
GIVEN, ELSEWHERE = "given to it", "no part of it"
APART_BY = 0.01  # least difference of a wrong way: hundred times the tolerance of depth
LEFT = (-1, 1, 1)  # GeoWizard's axes: x left
ONE_CALL = "one call of the U-Net on random numbers: {}"


@dataclass(frozen=True)
class Found:
    """What the command gave for a key, `where`; the tolerance of its largest difference; APART: what must differ."""

    key: str
    values: np.ndarray
    where: str = FILE
    tolerance: float = 1e-4


@dataclass(frozen=True)
class Row:
    """A key of the answers. largest: difference; None where there is nothing to compare, for the reason in `where`."""

    family: str
    key: str
    where: str
    largest: float | None = None
    tolerance: float = 0.0

    @property
    def fine(self) -> bool:
        if self.largest is None:
            return self.where.startswith((GIVEN, ELSEWHERE))
        return self.largest > self.tolerance if self.where == APART else self.largest <= self.tolerance


@dataclass
class Desk:
    """Runs the command, each run in a folder of its own."""

    folder: Path
    runs: int = 0

    def predict(
        self, model: Path, image: np.ndarray, words: Sequence[Any] = (), noise: np.ndarray | None = None
    ) -> tuple[dict[str, Prediction], Watched]:
        """What it wrote, by task, and what was seen on the way."""
        self.runs += 1
        work = self.folder / str(self.runs)
        work.mkdir()
        Image.fromarray(image).save(work / "photo.png")
        line = [
            "predict",
            work / "photo.png",
            "-m",
            model,
            "-o",
            work / "out",
            "--format",
            "npz",
            "--device",
            "cpu",
            *words,
        ]
        if noise is not None:
            np.save(work / "noise.npy", noise)
            line += ["--noise", work / "noise.npy"]
        with watched() as seen, contextlib.redirect_stdout(io.StringIO()):
            if (code := cli.main([str(word) for word in line], standalone_mode=False)) != 0:
                raise RuntimeError(f"genpercept {' '.join(map(str, line))}: exit code {code}")
        files = sorted((work / "out").glob("photo_*.npz"))
        return {path.stem.removeprefix("photo_"): Prediction.load(path) for path in files}, seen


# ---- DepthFM ---------------------------------------------------------------------------------------------------------


def depthfm(root: Path, answers: Answers, desk: Desk) -> Iterator[Found]:
    def run(way: str, image: str, noise: str | None, *words: Any) -> tuple[Prediction, Watched]:
        line = [*words, "--base", root / "base", "--allow-pickle"]
        line += [] if "--family" in words else ["--family", f"depthfm,attention={way}"]
        start = None if noise is None else answers[f"noise_{noise}"]
        found, seen = desk.predict(root / "depthfm-v1.ckpt", answers[image], line, start)
        return found["depth"], seen

    for way in ("plain", "rescaled"):
        tag, other = ("", "_rescaled") if way == "plain" else ("_rescaled", "")
        for steps, members in ((1, 1), (2, 1), (4, 1), (10, 1), (1, 3), (2, 3)):
            name = "a" if members == 1 else "ens3_a"
            found, seen = run(way, "image_a", name, "--steps", steps, "--ensemble-size", members)
            yield Found(f"depth{tag}_steps{steps}_{name}", found.values)
            yield Found(f"depth{other}_steps{steps}_{name}", found.values, APART, APART_BY)
            yield from _flow(seen, tag, f"steps{steps}_{name}", name, members)
        family = f"depthfm,attention={way},noising_step=0"
        yield Found(f"depth{tag}_steps2_noising0_a", run(way, "image_a", None, "--family", family)[0].values)
        for name, resolution in (("b", 0), ("b_res64", 64)):
            words = ("--resize-mode", "official", "--processing-resolution", resolution)
            found, seen = run(way, "image_b", name, *words)
            yield from _flow(seen, tag, f"steps2_{name}", name, 1)
            if way == "plain":  # theirs is 8 bits before it is resized, so that one of 255 steps is rounding
                yield Found(f"gray8_steps2_{name}", found.values * 255, tolerance=2)
            assert found.raw is not None
            yield Found(f"depth{tag}_steps2_{name}", _from_logarithm(found.raw))


def _flow(seen: Watched, tag: str, key: str, name: str, members: int) -> Iterator[Found]:
    """What lies between the image and the answer, which of the rescaled attention nobody stored but the latent."""
    x, t, out = (seen.column(i) for i in (0, 1, 4))
    by_step: Callable[[np.ndarray], np.ndarray] = lambda a: a[:, 0].reshape(members, -1, *a.shape[2:]).swapaxes(0, 1)  # noqa: E731
    image = name.removeprefix("ens3_")
    yield Found(f"input_{image}", seen.images[0], WAY)
    yield Found(f"image_latent_{image}", seen.encoded[0], WAY)
    yield Found(f"source_{name}", by_step(x[:, :, :4])[0], WAY)
    yield Found(f"latent{tag}_{key}", np.concatenate(seen.latents), WAY)
    if not tag:
        yield Found(f"decoded_{key}", np.concatenate(seen.decoded), WAY)
        yield Found(f"velocity_{key}", by_step(out), WAY)
        yield Found(f"times_{key}", by_step(t[..., None])[:, 0, ...].reshape(-1), WAY)


def _from_logarithm(raw_CHW: np.ndarray) -> np.ndarray:
    """Depth at the network's own size, of what the file keeps of it."""
    depth = np.exp(raw_CHW.astype(np.float64).mean(0))
    return (depth - depth.min()) / (depth.max() - depth.min())


# ---- GeoWizard -------------------------------------------------------------------------------------------------------


def geowizard(root: Path, answers: Answers, desk: Desk) -> Iterator[Found]:
    work = desk.folder / "geowizard"
    shutil.copytree(root, work / "own")
    shutil.copytree(root / "base" if (root / "base").is_dir() else root, work / "base", ignore=_NETWORKS)
    for version in ("v1", "v2"):
        yield from _version(version, work, answers, desk)
    for folder in ("own", "base"):
        path = work / folder / "scheduler" / "scheduler_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"prediction_type": "epsilon"}))
    for version in ("v1", "v2"):
        found, seen = _both(version, work, answers, desk, "indoor", "--steps", 4)
        yield from _pair(found, seen, f"{version}_epsilon_indoor_steps4_a")


_NETWORKS = shutil.ignore_patterns("unet*", "image_encoder", "feature_extractor", "base", "answers.npz", "*.md")


def _version(version: str, work: Path, answers: Answers, desk: Desk) -> Iterator[Found]:
    for domain, steps in (("indoor", 1), ("indoor", 4), ("indoor", 10), ("indoor", 2), ("outdoor", 2), ("object", 2)):
        key = f"{version}_{domain}_steps{steps}_a"
        found, seen = _both(version, work, answers, desk, domain, "--steps", steps)
        yield from _pair(found, seen, key)
        if steps == 2:
            yield from _on_the_way(seen, key, version, domain)
        if (domain, steps) == ("indoor", 2):
            yield from (
                replace(one, where=APART, tolerance=APART_BY)
                for one in _pair(found, seen, f"{version}_no_joint_indoor_steps2_a")
            )
    found, seen = _both(
        version, work, answers, desk, "indoor", "--steps", 2, "--ensemble-size", 3, noise=answers["noise_ens3_a"]
    )
    key = f"{version}_indoor_steps2_ens3_a"
    yield from _pair(found, seen, key)
    yield Found(f"uncertainty_{key}", np.asarray(found["depth"].uncertainty))
    alone = [
        _both(version, work, answers, desk, "indoor", "--steps", 2, noise=start[None])[0]
        for start in answers["noise_ens3_a"]
    ]
    depths = [(np.clip(np.asarray(one["depth"].raw).mean(0), -1, 1) + 1) / 2 for one in alone]
    yield Found(f"members_depth_{version}", np.stack(depths))
    normals = [(one["normals"].values * LEFT).transpose(2, 0, 1) for one in alone]
    yield Found(f"members_normal_{version}", np.stack(normals), tolerance=1e-3)
    for name, resolution in (("b", 0), ("b_res64", 64)):
        words = ("--steps", 2, "--resize-mode", "official", "--processing-resolution", resolution)
        found, seen = _both(
            version, work, answers, desk, "object", *words, image="image_b", noise=answers[f"noise_{name}"]
        )
        yield from _pair(found, seen, f"{version}_object_steps2_{name}")
        if resolution:
            pixels = ((seen.images[0][0] + 1) * 127.5).round().transpose(1, 2, 0)
            yield Found(f"resized_{name}", pixels, WAY, 0)


def _both(
    version: str,
    work: Path,
    answers: Answers,
    desk: Desk,
    domain: str,
    *words: Any,
    image: str = "image_a",
    noise: np.ndarray | None = None,
) -> tuple[dict[str, Prediction], Watched]:
    """Depth and normals out of one run."""
    line = ["-t", "depth,normals", "--family", f"geowizard,domain={domain}", *words]
    line += [] if "--processing-resolution" in words else ["--processing-resolution", 0]
    line += [] if version == "v1" else ["--base", work / "base"]
    model = work / "own" if version == "v1" else work / "own" / "unet_v2"
    return desk.predict(model, answers[image], line, answers["noise_a"] if noise is None else noise)


def _pair(found: Mapping[str, Prediction], seen: Watched, key: str) -> Iterator[Found]:
    yield Found(f"depth_{key}", found["depth"].values)
    yield Found(f"normal_{key}", found["normals"].values * LEFT, tolerance=1e-3)
    yield Found(f"latent_{key}", np.concatenate(seen.latents[-2:]), WAY)  # of the last run, as theirs keeps it


def _on_the_way(seen: Watched, key: str, version: str, domain: str) -> Iterator[Found]:
    x, t, context, labels, out = (seen.column(i) for i in range(5))
    last = np.concatenate(seen.latents)[None]
    yield Found(f"latents_{key}", np.concatenate([x[1:, :, 4:], last]), WAY)
    yield Found(f"outputs_{key}", out, WAY)
    yield Found(f"timesteps_{key}", t.reshape(len(t), -1)[:, 0], WAY, 0)
    yield Found(f"context_{key}", context[0], WAY)
    yield Found(f"class_{key}", labels[0], WAY)
    yield Found("rgb_latent_a", seen.encoded[0], WAY)
    if version == "v1":
        yield Found("image_embed_a", context[0][:1], WAY)
    else:
        yield Found(f"token_ids_{domain}", seen.words[0][0], WAY, 0)


# ---- DepthMaster -----------------------------------------------------------------------------------------------------


def depthmaster(root: Path, answers: Answers, desk: Desk) -> Iterator[Found]:
    model = checkpoint(desk.folder / "depthmaster")
    cases = [(name, name, 0) for name in ("square", "odd", "tall", "wide")]
    for name, image, resolution in [*cases, ("official", "odd", 50), ("enlarged", "odd", 128)]:
        words = ("--resize-mode", "official", "--processing-resolution", resolution)
        found, seen = desk.predict(model, answers[f"image_{image}"], words)
        yield Found(f"answer_{name}", found["disparity"].values, tolerance=2e-5)
        if not resolution:
            yield Found(f"latent_{name}", seen.column(0)[0], WAY)
            yield Found(f"before_{name}", seen.blocks[0][0], WAY, 1e-3)  # of up to 194: 1.8e-4 is a millionth of it
            yield Found(f"after_{name}", seen.blocks[0][1], WAY)
            yield Found(f"output_{name}", seen.column(4)[0], WAY)
            yield Found("prompt", seen.column(2)[0], WAY, 1e-5)
        if name == "wide":
            yield Found("answer_wide_stock", found["disparity"].values, APART, APART_BY)


# ---- the table -------------------------------------------------------------------------------------------------------

FAMILIES: dict[str, Callable[[Path, Answers, Desk], Iterator[Found]]] = {
    "depthfm": depthfm,
    "geowizard": geowizard,
    "depthmaster": depthmaster,
}
INPUTS = ("image_a", "image_b", "image_square", "image_odd", "image_tall", "image_wide", "noise_")
APARTS = {  # keys that no prediction has, and where they are compared
    ("depthfm", "alpha_bar"): "the noise schedule as a table: tests/test_equations.py; a run's own is in source_*",
    ("depthfm", "unet_"): ONE_CALL.format("tests/pipeline/test_depthfm.py"),
    ("geowizard", "unet_"): ONE_CALL.format("tests/pipeline/test_geowizard.py"),
}


def compared(family: str, answers: Answers, found: Iterator[Found]) -> list[Row]:
    """A row for each key, the worst of several runs; those told apart beside the right ones; then what is no part of it."""
    rows: dict[tuple[str, str], Row] = {}
    for one in found:
        if one.key not in answers:
            continue
        wanted = answers[one.key]
        if one.values.shape != wanted.shape:
            raise ValueError(f"{family}, {one.key}: {list(one.values.shape)}, theirs is {list(wanted.shape)}")
        largest = float(np.abs(one.values.astype(np.float64) - wanted).max())
        kind = (one.key, APART if one.where == APART else "")
        if kind in rows:
            least = min if one.where == APART else max
            largest = least(largest, rows[kind].largest or 0.0)
        rows[kind] = Row(family, one.key, one.where, largest, one.tolerance)
    known = {key for key, _ in rows}
    for key in answers:
        if key not in known:
            rows[key, ""] = Row(family, key, _reason(family, key))
    return [rows[place] for place in sorted(rows)]


def _reason(family: str, key: str) -> str:
    if key.startswith(INPUTS):
        return GIVEN
    why = next((words for (name, begin), words in APARTS.items() if name == family and key.startswith(begin)), "")
    return f"{ELSEWHERE}: {why}" if why else "not compared"


def measured(names: Sequence[str], reference: Path, work: Path) -> tuple[list[Row], int]:
    """The rows of these families, and how often the command ran."""
    rows: list[Row] = []
    desk = Desk(work)
    for name in names:
        root = reference / name
        with np.load(ANSWERS if name == "depthmaster" else root / "answers.npz") as file:
            answers = dict(file)
        rows += compared(name, answers, FAMILIES[name](root, answers, desk))
    return rows, desk.runs


def page(rows: Sequence[Row], runs: int) -> list[str]:
    lines = [
        "# DepthFM, GeoWizard and DepthMaster by `predict`, key by key",
        "",
        f"{made(__file__)}.",
        f"{runs} runs of `genpercept predict` on tiny checkpoints, compared with what each project's own code answers for "
        "the same image and noise.",
        f"Where: {FILE} that the command wrote; {WAY}, read off the networks during that run; {APART}: a wrong way, from "
        "which the file must be farther than the limit.",
        "",
    ]
    for family in dict.fromkeys(row.family for row in rows):
        own = [row for row in rows if row.family == family]
        done = [row for row in own if row.largest is not None]
        count = {where: sum(row.where == where for row in done) for where in (FILE, WAY, APART)}
        lines += [
            f"## {family}",
            "",
            f"{len({row.key for row in own})} keys: " + ", ".join(f"{where} {n}" for where, n in count.items()) + ".",
            "",
        ]
        lines += ["| key | where | largest difference | tolerance | ok |", "| --- | --- | ---: | ---: | --- |"]
        for row in done:
            limit = f"> {row.tolerance:g}" if row.where == APART else f"{row.tolerance:g}"
            lines.append(
                f"| {row.key} | {row.where} | {row.largest:.1e} | {limit} | {'yes' if row.fine else '**no**'} |"
            )
        lines.append("")
        for where in dict.fromkeys(row.where for row in own if row.largest is None):
            keys = ", ".join(row.key for row in own if row.where == where and row.largest is None)
            lines += [f"{where[0].upper()}{where[1:]}: {keys}.", ""]
    return lines[:-1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=GOLDEN)
    parser.add_argument("--family", action="append", choices=list(FAMILIES), help="Only this one; may be repeated.")
    parser.add_argument("--out", type=Path, help="The page.  [default: of tests/golden: families.md beside the script]")
    given = parser.parse_args()
    names = given.family or [name for name in FAMILIES if name == "depthmaster" or (given.folder / name).is_dir()]
    usual = Path(__file__).with_suffix(".md") if given.folder == GOLDEN and not given.family else None
    with tempfile.TemporaryDirectory() as work:
        rows, runs = measured(names, given.folder, Path(work))
    show(page(rows, runs), given.out or usual)
    return 0 if all(row.fine for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
