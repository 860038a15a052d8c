"""What `genpercept predict` writes: every format of every task, and what its options change."""

from __future__ import annotations

import json
from pathlib import Path

from bits import inputs
from bits.command import genpercept
from bits.entries import Entries

MAPS = "png,color,npy,npz,exr"
FORMATS = {
    "depth": f"{MAPS},ply",
    "disparity": f"{MAPS},ply",
    "normals": MAPS,
    "segmentation": MAPS,
    "anomaly": MAPS,
    "dis": f"{MAPS},mask,cutout",
    "matting": f"{MAPS},mask,cutout",
    "pose": "coco,color,npy,npz",
}
NOISE = ("--model", "noisy", "--steps", "2", "--format", "npy,png")
OPTIONS: dict[str, tuple[str, ...]] = {
    "plain": (),
    "resolution": ("--processing-resolution", "40", "--format", "npz"),
    "own-size": ("--processing-resolution", "0", "--format", "npz"),
    "batch": ("--batch-size", "2", "--format", "npz"),
    "auto-batch": ("--batch-size", "auto", "--format", "npz"),
    "flip": ("--flip-test", "--format", "npz"),
    "bf16": ("--dtype", "bf16", "--format", "npz"),
    "specialised": ("--specialised", "--format", "npz"),
    "strips": ("--strips", "--format", "npz"),
    "slices-and-tiles": ("--vae-slicing", "--vae-tiling", "--format", "npz"),
    "fov": ("--fov", "35", "--format", "ply"),
    "decoder": ("--decoder", "mini/normals", "--format", "npz"),
    "noise": (*NOISE, "--seed", "3"),
    "ensemble": (*NOISE, "--seed", "3", "--ensemble-size", "3", "--batch-size", "2"),
    "family": ("--model", "golden/sd-tiny", "--family", "genpercept", "--task", "normals", "--format", "npz"),
    "base": ("--model", "golden/marigold-unet8", "--base", "golden/sd-tiny", "--family", "e2e_ft", "--task", "depth"),
    "boxes": ("--task", "pose", "--boxes", "boxes.json", "--box-score", "0.2"),
    "detector": ("--task", "pose", "--detector", "yolos=bases/yolos", "--box-score", "0.05"),
}


def run(entries: Entries) -> None:
    from genpercept import GenPerceptPipeline

    inputs.golden()
    inputs.images()
    inputs.yolos()
    boxes = {"p48x64.png": [[3, 2, 30, 40, 0.9], [20, 10, 25, 36, 0.1]], "p37x53.png": [[5, 4, 20, 30]]}
    Path("boxes.json").write_text(json.dumps(boxes), encoding="utf-8")
    noisy = GenPerceptPipeline.from_base(inputs.BASE, "depth", paradigm="stochastic_multi_step", resolution=64)
    noisy.save_pretrained("noisy")
    for task, formats in FORMATS.items():
        predict(entries, f"formats/{task}", "--task", task, "--format", formats)
    for name, words in OPTIONS.items():
        predict(entries, f"options/{name}", *words)
    predict(entries, "options/plain", "--resume", again="resumed")
    predict(entries, "options/broken", given=("images/*.png", "boxes.json"))


def predict(entries: Entries, name: str, *words: str, given: tuple[str, ...] = ("images",), again: str = "") -> None:
    """Files, exit code and stdout of `genpercept predict` into out/NAME."""
    key = f"{name}/{again}" if again else name
    with entries.case(key):
        answer = genpercept("predict", *given, "--out", f"out/{name}", "--device", "cpu", *words)
        entries.json(f"{key}/said", answer.timeless)
        entries.folder(f"{key}/files", Path("out") / name)
