"""Anomaly detection by one step: the defect map, or the restored image? Both designs, the same base, pairs and budget.

    python benchmarks/quality/anomaly_designs.py --steps 600        # writes anomaly_designs.md beside it

Good images get synthetic defects (`tasks/_defects.py`). "map": the network answers with the defect's map. "restore": with
the image before the defect, and the score is the difference to the input, averaged over the channels and blurred. Beside
them the difference that the codec alone leaves. Tested on held-out scenes with new synthetic defects, and on the world's own
defects (stains, scratches, holes and bumps in the scene's textures), which neither has seen.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage

sys.path.insert(0, str(Path(__file__).parents[2]))  # where `benchmarks` lies
from benchmarks._page import made
from genpercept import GenPerceptPipeline, equations
from genpercept.data import synthetic
from genpercept.metrics.anomaly import AnomalyMetric
from genpercept.tasks._defects import spoil
from genpercept.training.optim.muon import Muon

SIZE = (72, 96)  # what the mini models work at
BATCH = 16
RATE = 1e-3
BLURS = (0.0, 1.0, 2.0, 4.0)  # pixels; the restoring design's best one on the test itself is shown, which favours it


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="mini/base")
    parser.add_argument("--scenes", type=int, default=3000)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--tests", type=int, default=200)
    parser.add_argument(
        "--precision", choices=("bf16", "fp32"), default="bf16", help="of training; see `genpercept doctor`"
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    args = parser.parse_args()
    drawn, own = scenes(args.scenes, "train")
    train = drawn[~own.any((1, 2))]  # good images only
    sets = test_sets(args.tests)
    rows, seconds = [], {}
    for design in ("map", "restore"):
        start = time.perf_counter()
        pipe = learn(design, args.base, train, args.steps, args.precision == "bf16")
        seconds[design] = time.perf_counter() - start
        answers = {name: answer(pipe, design, images) for name, (images, _) in sets.items()}
        rows += report(f"answers with the {design}" if design == "map" else "restores", answers, sets, design != "map")
    codec = GenPerceptPipeline.from_base(args.base, "anomaly")
    answers = {name: differences(codec, images, None) for name, (images, _) in sets.items()}
    rows += report("codec alone", answers, sets, True)
    args.out.write_text(page(rows, args, seconds), encoding="utf-8")
    print(args.out.read_text(encoding="utf-8"))


# ---- data ------------------------------------------------------------------------------------------------------------


def scenes(count: int, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, H, W, 3) float32 in [0, 1] and the world's own defects (N, H, W)."""
    images, defects = [], []
    for start in range(0, count, 100):
        drawn = synthetic.render(range(start, min(start + 100, count)), split=split, size=SIZE, workers=2)
        images.append(drawn.image)
        defects.append(drawn.defect)
    return np.concatenate(images).astype(np.float32) / 255, np.concatenate(defects)


def test_sets(count: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Images and masks, half of them good: new synthetic defects; the world's own."""
    images, own = scenes(3 * count, "test")
    flawed, good = images[own.any((1, 2))], images[~own.any((1, 2))]
    half = min(count // 2, len(flawed), len(good) // 3)
    spoiled = [spoil(image, np.random.default_rng((1, i))) for i, image in enumerate(good[half : 2 * half])]
    none = np.zeros((half, *SIZE), bool)
    return {
        "synthetic": (
            np.concatenate([good[:half], np.stack([x for x, _ in spoiled])]),
            np.concatenate([none, np.stack([mask for _, mask in spoiled])]),
        ),
        "the world's own": (
            np.concatenate([good[:half], flawed[:half]]),
            np.concatenate([none, own[own.any((1, 2))][:half]]),
        ),
    }


def to_batch(images: list[np.ndarray] | np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack(list(images))).permute(0, 3, 1, 2).float() * 2 - 1


# ---- the two designs -------------------------------------------------------------------------------------------------


def learn(design: str, base: str, images: np.ndarray, steps: int, bf16: bool) -> Any:
    """One-step fine-tuning of the whole denoiser with the latent loss (equation of `one_step`); codec frozen."""
    pipe: Any = GenPerceptPipeline.from_base(base, "anomaly", resolution=max(SIZE))
    pipe.unet.train().requires_grad_(True).to(memory_format=torch.channels_last)
    optimiser = Muon([{"params": list(pipe.unet.parameters()), "lr": RATE}])
    codec, context = pipe._codec, pipe.prompt_embeds
    for step in range(steps):
        rate = RATE * min(1.0, (step + 1) / 50) * min(1.0, (steps - step) / (0.3 * steps))
        for group in optimiser.param_groups:
            group["lr"] = rate
        rng = np.random.default_rng((0, step))
        good = images[rng.integers(0, len(images), BATCH)]
        spoiled = [spoil(image, rng) if rng.random() < 0.7 else (image, np.zeros(SIZE, bool)) for image in good]
        painted = [np.repeat(mask[..., None], 3, -1).astype(np.float32) for _, mask in spoiled]
        label = to_batch(painted if design == "map" else good)
        with torch.no_grad():
            z_x, z_y = codec.encode(torch.cat([to_batch([x for x, _ in spoiled]), label])).chunk(2)
        t = torch.full((BATCH,), equations.ONE_STEP_TIMESTEP)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            output = pipe.unet.forward_features(z_x, t, context.expand(BATCH, -1, -1)).latent
        loss = F.mse_loss(output.float(), equations.one_step_target(z_y))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % 100 == 0:
            print(f"{design} {step}/{steps} loss {loss.item():.4f}", flush=True)
    pipe.unet.eval()
    return pipe


@torch.inference_mode()
def answer(pipe: Any, design: str, images: np.ndarray) -> np.ndarray:
    """Maps (N, H, W), higher is stranger."""
    if design == "restore":
        return differences(pipe, images, pipe.unet)
    return np.stack([p.values for p in pipe(list((images * 255).round().astype(np.uint8)), batch_size=BATCH)])


@torch.inference_mode()
def differences(pipe: Any, images: np.ndarray, unet: Any) -> np.ndarray:
    """|restored - input|, mean of the channels; `unet` None: only through the codec."""
    found = []
    for start in range(0, len(images), BATCH):
        x = to_batch(images[start : start + BATCH])
        z = pipe._codec.encode(x)
        if unet is not None:
            t = torch.full((len(z),), equations.ONE_STEP_TIMESTEP)
            out = unet.forward_features(z, t, pipe.prompt_embeds.expand(len(z), -1, -1)).latent
            z = equations.one_step_estimate(out)
        found.append((pipe._codec.decode(z).clamp(-1, 1) - x).abs().mean(1).numpy())
    return np.concatenate(found)


# ---- judging ---------------------------------------------------------------------------------------------------------


def report(name: str, answers: dict[str, np.ndarray], sets: dict[str, Any], blur: bool) -> list[list[str]]:
    rows = []
    for title, (_, masks) in sets.items():
        maps = answers[title]
        options = {
            s: figures([ndimage.gaussian_filter(m, s) for m in maps], masks) for s in (BLURS if blur else BLURS[:1])
        }
        best = max(options, key=lambda s: options[s]["aupro"])
        shown = [f"{options[best][key]:.3f}" for key in ("pixel_auroc", "image_auroc", "aupro")]
        rows.append([name + (f", blur {best:g} px" if blur else ""), title, *shown])
    return rows


def figures(maps: list[np.ndarray], masks: np.ndarray) -> dict[str, float]:
    metric = AnomalyMetric()
    for i, (values, mask) in enumerate(zip(maps, masks, strict=True)):
        metric.update(values.astype(np.float32), mask, name=str(i))
    return metric.compute()


def page(rows: list[list[str]], args: argparse.Namespace, seconds: dict[str, float]) -> str:
    header = ["design", "defects", "pixel AUROC", "image AUROC", "AUPRO"]
    lines = ["| " + " | ".join(row) + " |" for row in (header, ["---", "---", "---:", "---:", "---:"], *rows)]
    took = ", ".join(f"{name} {s / 60:.0f} min" for name, s in seconds.items())
    return (
        "# Anomaly detection: the defect map or the restored image\n\n"
        f"{made(__file__)}. "
        f"{args.base}, latent loss, {args.steps} steps of {BATCH} in {args.precision}; images of {args.scenes} scenes, "
        f"those without defects of their own; {args.tests} test images a set, "
        f"half of them good. Training took: {took}.\n\n" + "\n".join(lines) + "\n"
    )


if __name__ == "__main__":
    main()
