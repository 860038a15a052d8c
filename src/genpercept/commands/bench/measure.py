"""The figures of one setting: stages apart and together, memory, FLOPs, cold start, the answer itself."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from genpercept.commands.bench import build, ceiling, flops, machine
from genpercept.commands.bench.clock import enough, summary, timed
from genpercept.commands.bench.setting import Effort, Setting
from genpercept.commands.bench.stages import NETWORK, watched
from genpercept.core.devices import synchronise
from genpercept.core.values import to_tensor
from genpercept.imaging.read import read
from genpercept.imaging.write import default_formats
from genpercept.pipeline.call import Run
from genpercept.pipeline.pipeline import GenPerceptPipeline

FILE_SCALE = 1.5  # the image file's edge over the network's
_QUALITY = 92  # of its JPEG


def photograph(path: Path, edge: int) -> Path:
    """A JPEG (edge, edge) of random smooth shapes with a little grain, whose size on disk is about a photograph's."""
    draw = np.random.default_rng(0)
    coarse = Image.fromarray(draw.integers(0, 256, (12, 12, 3), np.uint8)).resize(
        (edge, edge), Image.Resampling.BICUBIC
    )
    grain = draw.normal(0, 4, (edge, edge, 1))
    pixels = np.clip(np.asarray(coarse) + grain, 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(path, quality=_QUALITY)
    return path


def setting(
    of: Setting,
    batches: Sequence[int],
    effort: Effort,
    counts: dict[str, Any] | None = None,
    graph: Path | None = None,
) -> dict[str, Any]:
    """All figures of a setting but the cold start. counts: FLOPs by stage, where they are known already. graph: its file."""
    start = time.perf_counter()
    pipe: Any = build.pipeline(of, graph)
    synchronise(of.device)
    result: dict[str, Any] = {"load_s": time.perf_counter() - start, "load_peak": machine.peak(of.device)}
    own = pipe if graph is None else build.networks(of)
    result["parameters"] = sum(p.numel() for part in (own.unet, own.vae, own.head) if part for p in part.parameters())
    with tempfile.TemporaryDirectory(prefix="genpercept_bench_") as temp:
        edge = round(of.resolution * FILE_SCALE)
        work = _Work(pipe, of, effort, photograph(Path(temp) / "photograph.jpg", edge), Path(temp) / "out")
        result["padded"] = list(work.geometry.padded)
        result["flops"] = flops.by_stage(own, work.geometry.padded) if counts is None else counts
        result["batches"] = [work.batch(size) for size in batches]
    if of.layout == "auto" and (chosen := getattr(pipe, "memory_format", "")):
        result["memory_format"] = chosen  # by the rule, or measured at the first run
    result["ceiling"] = ceiling.measure(of.dtype, of.device, effort)
    return result


class _Work:
    """One pipeline and one image, in batches of it."""

    def __init__(self, pipe: GenPerceptPipeline, of: Setting, effort: Effort, photo: Path, out: Path) -> None:
        self.pipe, self.of, self.effort, self.photo, self.out = pipe, of, effort, photo, out
        self.pixels = read(photo)
        self.geometry = pipe.geometry(self.pixels.shape[:2], of.resolution)
        chosen = pipe.paradigm()
        self.run = Run(chosen, pipe.default_steps(chosen))

    @torch.inference_mode()
    def batch(self, size: int) -> dict[str, Any]:
        """Seconds of a whole batch: {stages, network, together}; peak bytes: {peak, stage_peaks}. A graph has no stages."""
        device, effort, task = self.of.device, self.effort, self.pipe.task_plugin
        run = Run(self.run.paradigm, self.run.steps, batch_size=size)
        x = self._resized().expand(size, -1, -1, -1).contiguous()
        x = x.to(self.pipe.device)  # as the peers' input: its copy is no part of the network's time

        raw = x  # until the network has run

        def network() -> None:
            nonlocal raw
            raw = self.pipe._forward(x, run, None)

        stages: dict[str, Any] = {}
        if effort.host:
            stages["read"] = timed(lambda: [read(self.photo) for _ in range(size)], "cpu", effort)
            stages["resize"] = timed(lambda: [self._resized() for _ in range(size)], "cpu", effort)
        machine.reset_peak(device)
        whole = timed(network, device, effort)
        peak = machine.peak(device)
        if reason := getattr(self.pipe, "graphs_off", ""):
            raise ValueError(f"CUDA graphs could not be recorded, and their times would be of something else: {reason}")
        apart, peaks = self._apart(network) if effort.stages and self.of.runtime == "torch" else ({}, {})
        stages |= apart
        predictions = [task.decode(one, self.geometry) for one in raw.split(1)]
        stages["decode"] = timed(lambda: [task.decode(one, self.geometry) for one in raw.split(1)], device, effort)
        if effort.host:
            stages["write"] = timed(lambda: [self._save(p, i) for i, p in enumerate(predictions)], "cpu", effort)
        return {
            "batch": size,
            "stages": stages,
            "network": whole,
            "together": timed(lambda: self._together(size), device, replace(effort, warmup=0))
            if effort.file_to_file
            else None,
            "peak": peak,
            "stage_peaks": peaks,
        }

    def _resized(self) -> Tensor:
        return self.geometry.apply_array(self.pixels)

    def _save(self, prediction: Any, number: int) -> None:
        self.out.mkdir(exist_ok=True)
        formats = default_formats(prediction.kind)
        prediction.save(self.out / f"{number}.json", formats, image=self.pixels)

    def _together(self, size: int) -> None:
        """File to file, one thing after the other; `genpercept predict` reads and writes beside the network."""
        images = [read(self.photo) for _ in range(size)]
        answers = self.pipe(images, processing_resolution=self.of.resolution, batch_size=size)
        for i, prediction in enumerate(answers):
            self._save(prediction, i)

    def _apart(self, network: Callable[[], None]) -> tuple[dict[str, Any], dict[str, int]]:
        """Of each stage of the network: seconds, the device waited for at each border, and peak bytes while it runs.

        A peak includes what was there before.
        """
        device, rounds = self.of.device, list[dict[str, float]]()
        peaks = dict.fromkeys(NETWORK, 0)

        @contextmanager
        def meter(stage: str) -> Iterator[None]:
            synchronise(device)
            machine.reset_peak(device)
            start = time.perf_counter()
            yield
            synchronise(device)
            rounds[-1][stage] += time.perf_counter() - start
            peaks[stage] = max(peaks[stage], machine.peak(device))

        with watched(self.pipe, meter):
            while not enough([sum(each.values()) for each in rounds], self.effort):
                rounds.append(dict.fromkeys(NETWORK, 0.0))
                network()
        return {stage: summary([each[stage] for each in rounds]) for stage in NETWORK}, peaks


@torch.inference_mode()
def answer(of: Setting, graph: Path | None = None) -> np.ndarray:
    """The raw map (1, C, H, W) float32 of a fixed image, for comparing settings of equal networks."""
    pipe = build.pipeline(of, graph)
    edge = -(-of.resolution // pipe.stride) * pipe.stride
    with tempfile.TemporaryDirectory(prefix="genpercept_bench_") as temp:
        image = to_tensor(read(photograph(Path(temp) / "photograph.jpg", edge)))
    chosen = pipe.paradigm()
    return pipe._forward(image, Run(chosen, pipe.default_steps(chosen)), None).float().cpu().numpy()


def apart(got: np.ndarray, wanted: np.ndarray) -> dict[str, float]:
    """How far two raw maps are apart: largest and root mean square difference, both over the standard deviation of `wanted`."""
    difference, scale = got.astype(np.float64) - wanted, float(wanted.astype(np.float64).std())
    if not np.isfinite(got).all() or scale == 0:
        return {"max": float("nan"), "rms": float("nan")}
    return {"max": float(np.abs(difference).max()) / scale, "rms": float(np.sqrt((difference**2).mean())) / scale}
