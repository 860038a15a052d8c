"""Damaged and mismatched checkpoints, each loaded through the public entry: the error line that each gives.

    python benchmarks/robustness/damaged_checkpoints.py          # writes damaged_checkpoints.md beside it

Exit code 1 if one of them loads, or answers with anything but a ValueError of one line.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).parents[2]))  # where `benchmarks` lies
import genpercept
from benchmarks import _damaged_depthfm
from benchmarks._page import made
from genpercept import GenPerceptPipeline
from genpercept.checkpoints import hub, parts
from genpercept.models import adapters
from genpercept.models.heads import HEADS

GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "golden"
BASE = GOLDEN / "sd-tiny"
WEIGHTS = "diffusion_pytorch_model.safetensors"
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 3463726498\n"
OUTPUT = ("conv_norm_out.weight", "conv_norm_out.bias", "conv_out.weight", "conv_out.bias")


@dataclass(frozen=True)
class Case:
    """start: which whole checkpoint; damage(work) changes it. options: of genpercept.load; path: what is loaded, in work."""

    title: str
    start: str
    damage: Callable[[Path], object]
    options: dict[str, Any] = field(default_factory=dict)
    path: str = "m"
    run: Callable[[Path], object] | None = None  # in place of genpercept.load


# ---- whole checkpoints -----------------------------------------------------------------------------------------------


def starts(root: Path) -> dict[str, Path]:
    """A folder for each kind, whole: a predictor of ours, a GenPercept U-Net, an 8-channel one, a base, an adapter, ..."""
    kinds = ("ours", "dpt", "v2", "marigold", "base", "lora", "mini", "depthmaster", "depthfm")
    made = {name: root / name for name in kinds}
    pipe = GenPerceptPipeline.from_base(BASE, "depth", resolution=0)
    pipe.save_pretrained(made["ours"])
    head = parts.load_part(HEADS.find("dpt"), GOLDEN / "dpt_head_identity")
    GenPerceptPipeline.from_parts(
        unet=pipe.unet, vae=pipe.vae, prompt_embeds=pipe.prompt_embeds, task="disparity", head="dpt", head_module=head
    ).save_pretrained(made["dpt"])
    shutil.copytree(BASE / "unet", made["v2"])
    change(made["v2"] / WEIGHTS, lambda t: t["conv_out.bias"].add_(0.1))
    shutil.copytree(GOLDEN / "marigold-unet8", made["marigold"])
    shutil.copytree(BASE, made["base"])
    shutil.copytree(GOLDEN / "depthfm" / "base" / "vae", made["depthfm"] / "vae")
    shutil.copy(GOLDEN / "depthfm" / _damaged_depthfm.FILE, made["depthfm"])
    adapters.add_lora(pipe.unet, 4)
    adapters.save_lora(pipe.unet, made["lora"])
    shutil.copytree(hub.embedded_root(), made["mini"])
    shutil.copytree(BASE, made["depthmaster"], ignore=shutil.ignore_patterns("scheduler", "model_index.json"))
    block = load_file(GOLDEN / "depthmaster" / "block.safetensors")
    change(made["depthmaster"] / "unet" / WEIGHTS, lambda t: t.update({f"fftblock.{k}": v for k, v in block.items()}))
    return made


# ---- damage ----------------------------------------------------------------------------------------------------------


def change(path: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(path)
    edit(tensors)
    save_file({k: t.contiguous() for k, t in tensors.items()}, path)


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def tensors(path: str, edit: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    return lambda work: change(work / path, edit)


def settings(path: str, **changes: Any) -> Callable[[Path], None]:
    return lambda work: edit_json(work / path, **changes)


def content(path: str, data: bytes | str) -> Callable[[Path], object]:
    return lambda work: (work / path).write_bytes(data.encode() if isinstance(data, str) else data)


def pickled(name: str) -> Callable[[Path], None]:
    """The U-Net's weights as a pickle and nothing else."""

    def damage(work: Path) -> None:
        torch.save(load_file(work / "m" / WEIGHTS), work / "m" / name)
        (work / "m" / WEIGHTS).unlink()

    return damage


class Payload:
    """Pickled, it would write a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"echo ran > '{self.path}'",)


def malicious(work: Path) -> None:
    torch.save({"conv_in.weight": Payload(work / "ran")}, work / "m" / "diffusion_pytorch_model.bin")
    (work / "m" / WEIGHTS).unlink()


def sharded(index: dict[str, str] | str) -> Callable[[Path], None]:
    """An index in place of the file; its shards are whatever is there."""

    def damage(work: Path) -> None:
        (work / "m" / WEIGHTS).rename(work / "m" / "diffusion_pytorch_model-00001-of-00002.safetensors")
        (work / "m" / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": index}))

    return damage


def both_shards(work: Path) -> None:
    shutil.copy(work / "m" / WEIGHTS, work / "m" / "b.safetensors")
    (work / "m" / WEIGHTS).rename(work / "m" / "a.safetensors")
    (work / "m" / f"{WEIGHTS}.index.json").write_text(
        json.dumps({"weight_map": {"conv_in.weight": "a.safetensors", "conv_in.bias": "b.safetensors"}})
    )


def cut(path: str, keep: int) -> Callable[[Path], object]:
    return lambda work: (work / path).write_bytes((work / path).read_bytes()[:keep])


def nan(name: str, value: float = float("nan")) -> Callable[[dict[str, torch.Tensor]], object]:
    return lambda t: t[name].fill_(value)


def headless(work: Path) -> None:
    change(work / "m" / WEIGHTS, lambda t: [t.pop(name) for name in OUTPUT])


def wrong_width(work: Path) -> None:
    shutil.copytree(hub.embedded_root() / "base", work / "other")


def load_lora(work: Path) -> None:
    adapters.load_lora(GenPerceptPipeline.from_base(BASE, "depth").unet, work / "m")


# ---- the cases -------------------------------------------------------------------------------------------------------

V2 = {"base": BASE, "family": "genpercept", "task": "depth"}
MARIGOLD = {"base": BASE, "family": "marigold", "task": "depth"}
ON_BASE = {"family": "genpercept", "task": "depth", "base": "base"}
UNET = f"m/unet/{WEIGHTS}"


def cases() -> Iterator[Case]:
    yield Case("U-Net: a tensor is missing", "ours", tensors(UNET, lambda t: t.pop("conv_in.weight")))
    yield Case("U-Net: a tensor too many", "ours", tensors(UNET, lambda t: t.update(extra=torch.zeros(1))))
    yield Case("U-Net: a misshaped tensor", "ours", tensors(UNET, lambda t: t.update({"conv_in.bias": torch.zeros(3)})))
    yield Case("U-Net: NaN", "ours", tensors(UNET, nan("conv_out.bias")))
    yield Case("U-Net: an infinity", "ours", tensors(UNET, nan("conv_out.bias", float("inf"))))
    yield Case("U-Net: other values than those saved", "ours", tensors(UNET, lambda t: t["conv_out.bias"].add_(1)))
    yield Case("VAE: a tensor is missing", "ours", tensors(f"m/vae/{WEIGHTS}", lambda t: t.pop("decoder.conv_in.bias")))
    yield Case("VAE: NaN", "ours", tensors(f"m/vae/{WEIGHTS}", nan("decoder.conv_in.bias")))
    yield Case("VAE: its folder is gone", "ours", lambda work: shutil.rmtree(work / "m" / "vae"))
    yield Case(
        "head: a tensor is missing", "dpt", tensors(f"m/head/{WEIGHTS}", lambda t: t.pop("head.projection.bias"))
    )
    yield Case("head: NaN", "dpt", tensors(f"m/head/{WEIGHTS}", nan("head.projection.bias")))
    prompt = "m/prompt_embeds.safetensors"
    yield Case("prompt: NaN", "ours", tensors(prompt, nan("prompt_embeds")))
    yield Case("prompt: another tensor in its file", "ours", tensors(prompt, lambda t: t.update(x=torch.zeros(1))))
    yield Case("manifest of a newer format", "ours", settings("m/genpercept.json", format=99))
    yield Case("manifest without its parts", "ours", content("m/genpercept.json", '{"format": 1}'))
    yield Case("manifest: an unknown task", "ours", settings("m/genpercept.json", task="dept"))
    yield Case("asked for another task than the model's", "ours", lambda work: None, {"task": "normals"})
    yield Case("config.json is gone", "ours", lambda work: (work / "m/unet/config.json").unlink())
    yield Case("config.json: broken JSON", "ours", content("m/unet/config.json", "{"))
    yield Case("config.json: 0 bytes", "ours", content("m/unet/config.json", ""))
    yield Case("config.json: NaN", "ours", content("m/unet/config.json", '{"in_channels": NaN}'))
    yield Case(
        "config.json of another class", "ours", settings("m/unet/config.json", _class_name="FluxTransformer2DModel")
    )
    yield Case("weights: a Git LFS pointer", "v2", content(f"m/{WEIGHTS}", LFS), V2)
    yield Case("weights: a web page", "v2", content(f"m/{WEIGHTS}", "<!DOCTYPE html><html>Sign in</html>"), V2)
    yield Case("weights: cut off", "v2", cut(f"m/{WEIGHTS}", 50_000), V2)
    yield Case("weights: 0 bytes", "v2", content(f"m/{WEIGHTS}", ""), V2)
    yield Case("weights: none", "v2", lambda work: (work / "m" / WEIGHTS).unlink(), V2)
    yield Case("weights: only a .bin", "v2", pickled("diffusion_pytorch_model.bin"), V2)
    yield Case("weights: only a .ckpt", "v2", pickled("model.ckpt"), V2)
    yield Case("weights: only a .bin, malicious", "v2", malicious, V2)
    yield Case("the same with allow_pickle", "v2", malicious, {**V2, "allow_pickle": True})
    yield Case(
        "weights: a .bin cut off, with allow_pickle",
        "v2",
        lambda work: (pickled("model.bin")(work), cut("m/model.bin", 50_000)(work)),
        {**V2, "allow_pickle": True},
    )
    yield Case("index names a shard that is not there", "v2", sharded({"conv_in.weight": "b.safetensors"}), V2)
    yield Case("index names a file elsewhere", "v2", sharded({"conv_in.weight": "../../x.safetensors"}), V2)
    yield Case("index is no index", "v2", sharded("nothing"), V2)
    yield Case("two shards hold the same tensors", "v2", both_shards, V2)
    yield Case(
        "U-Net of GenPercept v2: a tensor is missing",
        "v2",
        tensors(f"m/{WEIGHTS}", lambda t: t.pop("conv_in.bias")),
        V2,
    )
    yield Case("U-Net without output layers, and no DPT head", "v2", headless, {"base": BASE, "task": "disparity"})
    yield Case(
        "U-Net bit by bit its base's", "v2", lambda work: shutil.copy(BASE / "unet" / WEIGHTS, work / "m" / WEIGHTS), V2
    )
    yield Case("base of another cross-attention width", "v2", wrong_width, {**V2, "base": "other"})
    yield Case(
        "base that predicts epsilon",
        "v2",
        settings("base/scheduler/scheduler_config.json", prediction_type="epsilon"),
        ON_BASE,
    )
    yield Case(
        "base of another scaling factor", "v2", settings("base/vae/config.json", scaling_factor=0.13025), ON_BASE
    )
    yield Case("base without a text encoder", "v2", lambda work: shutil.rmtree(work / "base/text_encoder"), ON_BASE)
    yield Case(
        "base's text encoder: a tensor is missing",
        "v2",
        tensors("base/text_encoder/model.safetensors", lambda t: t.pop(sorted(t)[0])),
        ON_BASE,
    )
    yield Case("U-Net of 5 input channels", "marigold", five_channels, MARIGOLD)
    yield Case(
        "config.json of 4 channels over weights of 8", "marigold", settings("m/config.json", in_channels=4), MARIGOLD
    )
    yield Case("8 channels loaded as GenPercept", "marigold", lambda work: None, {**MARIGOLD, "family": "genpercept"})
    yield Case("ambiguous: Marigold or E2E-FT", "marigold", lambda work: None, {"base": BASE, "task": "depth"})
    yield Case("ambiguous: depth or normals", "marigold", lambda work: None, {"base": BASE, "family": "marigold"})
    yield Case("no base for a U-Net alone", "marigold", lambda work: None, {"family": "marigold", "task": "depth"})
    yield Case("unknown family", "v2", lambda work: None, {**V2, "family": "genprecept"})
    yield Case("a base taken for a predictor", "v2", lambda work: None, {}, "base")
    yield Case("a file where a folder is meant", "v2", lambda work: None, V2, f"m/{WEIGHTS}")
    yield Case("subfolder that is not there", "ours", lambda work: None, {"subfolder": "unet_depth_v3"})
    yield Case(
        "hub id without a network", "v2", lambda work: None, {"local_files_only": True}, "nobody-here/no-such-model"
    )
    yield Case(
        "LoRA: its tensors have another rank than its config",
        "lora",
        settings("m/adapter_config.json", r=8),
        run=load_lora,
    )
    yield Case(
        "embedded mini/depth: a misshaped tensor",
        "mini",
        tensors(f"m/depth/unet/{WEIGHTS}", lambda t: t.update({"conv_in.weight": torch.zeros(4, 4, 3, 3)})),
        {},
        "m/depth",
    )
    block = f"m/unet/{WEIGHTS}"
    yield Case(
        "DepthMaster: a layer of its block is missing",
        "depthmaster",
        tensors(block, lambda t: [t.pop(f"fftblock.conv_f4.{k}") for k in ("weight", "bias")]),
    )
    yield Case(
        "DepthMaster loaded as GenPercept, which would drop its block",
        "depthmaster",
        lambda work: None,
        {"family": "genpercept", "task": "disparity"},
    )
    yield Case(
        "DepthMaster: its block is gone",
        "depthmaster",
        tensors(block, lambda t: [t.pop(name) for name in list(t) if name.startswith("fftblock.")]),
        {"family": "depthmaster", "task": "disparity"},
    )
    yield Case(
        "DepthMaster, which predicts roots of disparity, asked for depth",
        "depthmaster",
        lambda work: None,
        {"task": "depth"},
    )
    for title, damage in _damaged_depthfm.cases():
        yield Case(title, "depthfm", damage, {"allow_pickle": True})
    yield Case("DepthFM: not allowed to be read", "depthfm", lambda work: None)


def five_channels(work: Path) -> None:
    change(work / "m" / WEIGHTS, lambda t: t.update({"conv_in.weight": torch.zeros(16, 5, 3, 3)}))
    edit_json(work / "m" / "config.json", in_channels=5)


# ---- running them ----------------------------------------------------------------------------------------------------


def outcome(case: Case, whole: dict[str, Path], work: Path) -> tuple[str, str]:
    """(error line with paths shortened, what is wrong with the outcome: "" when it is one line of a ValueError)."""
    shutil.copytree(whole[case.start], work / "m")
    if case.options.get("base") == "base" or case.path == "base":
        shutil.copytree(whole["base"], work / "base")
    case.damage(work)
    options = dict(case.options)
    if options.get("base") in ("base", "other"):
        options["base"] = work / options["base"]
    name = case.path if "nobody" in case.path else work / case.path
    try:
        if case.run is not None:
            case.run(work)
        else:
            genpercept.load(name, device="cpu", **options)
    except ValueError as error:
        wrong = "more than one line" if "\n" in str(error) else ""
        wrong = "the payload ran" if (work / "ran").exists() else wrong
        return shorten(str(error), work), wrong
    except Exception as error:  # noqa: BLE001  # that is what is looked for
        return shorten(str(error), work), f"a {type(error).__name__}, not a ValueError"
    return "", "it loads"


def shorten(text: str, work: Path) -> str:
    from huggingface_hub.constants import HF_HUB_CACHE

    for path, name in (
        (work, "."),
        (work.resolve(), "."),
        (BASE, "sd-tiny"),
        (GOLDEN, "golden"),
        (Path(HF_HUB_CACHE), "CACHE"),
    ):
        text = text.replace(f"{path}/", f"{name}/" if name != "." else "").replace(str(path), name)
    return text.replace("\n", "\\n")


def run(root: Path) -> list[tuple[Case, str, str]]:
    """Every case with its line and what is wrong with it."""
    os.environ.pop("GENPERCEPT_BASE", None)
    whole = starts(root / "whole")
    rows = []
    for number, case in enumerate(cases()):
        work = root / f"{number:02d}"
        work.mkdir()
        rows.append((case, *outcome(case, whole, work)))
        shutil.rmtree(work)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    out: Path = parser.parse_args().out
    with tempfile.TemporaryDirectory() as folder:
        rows = run(Path(folder))
    lines = [
        "# Damaged and mismatched checkpoints",
        "",
        f"{made(__file__)}.",
        f"{len(rows)} checkpoints, made from the tests' tiny models and the embedded ones, loaded with `genpercept.load`.",
        "Each is refused with one line. Paths are shortened: `m` is the checkpoint, `base` a copy of the base `sd-tiny`.",
        "",
        "| | what was done | the error |",
        "| --- | --- | --- |",
    ]
    lines += [f"| {i} | {c.title} | {e.replace('|', chr(92) + '|')} |" for i, (c, e, _) in enumerate(rows, 1)]
    out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    wrong = [f"{c.title}: {w}: {e}" for c, e, w in rows if w]
    print("\n".join(wrong) or f"{len(rows)} cases, each one line of a ValueError")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
