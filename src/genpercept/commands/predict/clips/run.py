"""Clips through the network, one after another: each into a film of colours, frames, or both, with a sidecar that says all."""

from __future__ import annotations

import shutil
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np

from genpercept.commands.files.results import Job, Output, failure_line, lost, strange
from genpercept.commands.predict import batching
from genpercept.commands.predict.batching import Item
from genpercept.commands.predict.clips import plan
from genpercept.commands.predict.clips.plan import Asked, Clip
from genpercept.commands.predict.clips.results import Results, is_whole, told_of
from genpercept.commands.predict.model import Model
from genpercept.commands.predict.progress import Progress
from genpercept.commands.predict.request import Outcome
from genpercept.commands.predict.stopping import Stop
from genpercept.core import files
from genpercept.core.devices import set_threads, threads
from genpercept.core.said import once, say
from genpercept.core.texts import shown
from genpercept.imaging.kinds import KINDS
from genpercept.imaging.prediction import Prediction
from genpercept.imaging.video import Clip as Source
from genpercept.imaging.video import Damaged, av
from genpercept.pipeline.video.motion import opencv
from genpercept.pipeline.video.stream import How, Video

_PIXELS = 2**25  # of frames that are asked for together, beside as many that are read ahead
_FRAME = Job(Path("frame"), Path("frame"))  # frames are no files of their own
_ABOUT = "clip.json"  # in the folder of the answers: of what they are


def predict(clips: Sequence[Clip], model: Model, asked: Asked, output: Output, outcome: Outcome, stop: Stop) -> None:
    """Fill `outcome`. What is wrong with one clip is its failure; of a film that is cut off, what came before is written.

    What has been computed of a clip stays in a hidden folder until it is done, so that `resume` goes on where a run ended.
    Raises what concerns all: the model that does not load, a lost disk, KeyboardInterrupt when `stop` is asked.
    """
    opencv()  # before any work is done for nothing
    if plan.FILM in asked.formats or not all(clip.files for clip in clips):
        av()
    for clip in clips:
        try:
            opened = clip.opened()
        except (ValueError, OSError) as error:
            outcome.failed[clip.job] = failure_line(clip.job, error)
            continue
        with stop.patience(False):  # a download may take long
            model.load()
        plan.check(asked.formats, model.kind)
        _say_what_stays(model.kind, asked)
        try:
            _one(clip, opened, model, asked, output, outcome, stop)
        except Exception as error:
            if isinstance(error, OSError) and lost(error, output.out):
                raise
            if output.debug:
                traceback.print_exception(error)
            outcome.failed[clip.job] = failure_line(clip.job, error)


def _one(clip: Clip, opened: Source, model: Model, asked: Asked, output: Output, outcome: Outcome, stop: Stop) -> None:
    record = {"request": model.request.record(), "weights": model.weights()}
    whole = {**record, "input": clip.version(), "clip": asked.record()}
    if output.resume and (done := is_whole(clip, model.task, whole)) is not None:
        outcome.skipped += 1
        outcome.problems += [done] if done else []
        return
    if not output.overwrite:
        targets = [clip.film(model.task)] if plan.FILM in asked.formats else []
        if line := strange(clip.job, clip.job.sidecar(model.task), targets):
            raise ValueError(line)
    seen = Outcome()
    with _work(clip.work(model.task), {**record, "input": whole["input"]}, output.resume) as work:
        how = How(asked.smooth, batch_size=_at_once(model, clip.pixels), answers=work)
        with _network(model) as network, Progress(opened.count or 0, seen, noun="frame") as progress:
            damage = _write(Video(opened, network, how), clip, model, asked, output, whole, seen, progress, stop)
    outcome.done += 1
    outcome.problems += [damage] if damage else []


def _write(
    clip_of: Video,
    clip: Clip,
    model: Model,
    asked: Asked,
    output: Output,
    whole: dict[str, Any],
    seen: Outcome,
    progress: Progress,
    stop: Stop,
) -> str:
    """All of a clip's results. Returns what was wrong with it, "" if nothing: what came before is written all the same."""
    damage = ""
    pairs = clip_of.pairs()
    with stop.patience(), Results(clip, model, asked, output, whole) as results:
        while True:
            try:
                found = next(pairs, None)
            except Damaged as error:
                if not error.frames:
                    raise
                damage = str(error)
                break
            if stop.asked:
                pairs.close()  # type: ignore[attr-defined]  a generator
                raise KeyboardInterrupt
            if found is None:
                break
            results.add(*found)
            seen.done += 1
            seen.predicted += 1
            progress.update()
        results.finish(clip_of.report, damage)
    return damage


def _say_what_stays(kind: str, asked: Asked) -> None:
    if asked.smooth and not KINDS[kind].steadies:
        once(
            f"genpercept: --smooth: {kind} are names, points or several images, which cannot be mixed: frames stay as they are"
        )


@contextmanager
def _work(folder: Path, about: dict[str, Any], resume: bool) -> Iterator[Path]:
    """The folder of the network's answers: those of an earlier run, if they are of the same clip, request and weights.

    Gone when the block ends well. ValueError where something else lies there.
    """
    note = folder / _ABOUT
    there = told_of(note)
    if folder.exists() and (there is None or not resume or there != files.plain(about)):
        if there is None and any(folder.iterdir()):
            raise ValueError(f"{shown(folder)}: there already, and not written by this program: move it away")
        shutil.rmtree(folder)
    elif there is not None:
        kept = sum(path.suffix == ".answer" for path in folder.iterdir())
        say(f"genpercept: going on behind {kept:,} frames of an earlier run")
    folder.mkdir(parents=True, exist_ok=True)
    files.sweep(folder)
    files.write_json(note, about)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def _at_once(model: Model, pixels: int) -> int:
    """Frames that are asked for together: a batch for each of the copies, and of the streams on each, if memory allows."""
    copies = model.copies * model.streams(threads())
    wanted = batching.limits(model, copies).most * copies
    return max(1, min(wanted, _PIXELS // max(pixels, 1)))


@contextmanager
def _network(model: Model) -> Iterator[Any]:
    """A function of images to their Predictions, on all devices; when memory is short, in smaller batches."""
    total = threads()
    streams = model.streams(total)
    each = max(1, total // (model.copies * streams)) if model.on_cpu else total
    limits = batching.limits(model, streams)
    with ThreadPoolExecutor(model.copies * streams, "network", set_threads, (each,)) as pool:

        def run(images: list[np.ndarray]) -> list[Prediction]:
            items = [Item(_FRAME, image, model.padded((image.shape[0], image.shape[1]))) for image in images]
            size = limits.capacity(items[0].padded)
            parts = [items[at : at + size] for at in range(0, len(items), size)]
            running = [
                pool.submit(batching.run_batch, part, model, n % model.copies, limits, each)
                for n, part in enumerate(parts)
            ]
            found: dict[int, Prediction] = {}
            for future in running:
                done, failed = future.result()
                if failed:
                    raise failed[0][1]
                found |= {id(item): cast(Prediction, prediction) for item, prediction in done}
            return [found[id(item)] for item in items]

        try:
            yield run
        finally:
            set_threads(total)
