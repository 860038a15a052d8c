"""Write src/genpercept/checkpoints/assets/mini from finished training runs: float16, parts shared by hash, a model card each.

    python tools/embed_mini.py --base runs/base/model depth=runs/depth/model normals=runs/normals/model

A predictor's prompt is the base's own, and so is its codec, which is stored once, in mini/base, and named by path in
genpercept.json; one whose decoder was taught with it has its codec in its own folder. Without models it only brings the
cautions and sizes of those that are embedded up to date.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from genpercept.checkpoints import lowrank, parts
from genpercept.checkpoints.weights import weight_files
from genpercept.core.files import atomic_folder
from genpercept.models import adapters
from genpercept.models.codecs import half as half_of
from genpercept.pipeline.folder import DIFFERENCE, PROMPT_FILE
from genpercept.pipeline.manifest import SEAL, sealed
from genpercept.pipeline.pipeline import GenPerceptPipeline

ASSETS = Path(__file__).parent.parent / "src" / "genpercept" / "checkpoints" / "assets" / "mini"
BUDGET_MB = 64
CAUTIONS = {  # what everybody who loads the model is told
    "segmentation": "has seen synthetic scenes alone: on photographs many classes are wrong, people above all",
    "dis": "has seen synthetic scenes alone: on photographs it often takes too much or too little for the main thing",
    "matting": "has seen synthetic scenes alone: on photographs it often takes too much or too little for the main thing",
    "pose": "has seen synthetic people alone: on photographs most joints are misplaced",
    "anomaly": "has seen synthetic defects alone: on photographs it marks what stands out of an even surface",
}
# At which size each sees an image, where real frames or scenes say otherwise than its training (docs/development/log.md)
SIZES: dict[str, dict[str, Any]] = {
    "depth": {"resolution": 112, "resize_mode": "area"},
    "disparity": {"resize_mode": "area"},
    "matting": {"resolution": 112},
}


def main() -> None:
    """Embed what the command line names; SystemExit where that is more than the budget."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, help="the text-to-image model; left out: that which is embedded stays")
    parser.add_argument(
        "--licence", default="Apache-2.0", help="of the predictors' weights, by what they were trained on"
    )
    parser.add_argument("models", nargs="*", help="name=folder of each predictor")
    args = parser.parse_args()
    if args.base:
        write_base(args.base, ASSETS / "base")
    for item in args.models:
        name, _, folder = item.partition("=")
        write_predictor(Path(folder), ASSETS / name, args.licence)
    for name in CAUTIONS | SIZES:
        said = {"caution": CAUTIONS[name]} if name in CAUTIONS else {}
        write_settings(ASSETS / name / parts.MANIFEST, SIZES.get(name, {}) | said)
    size = sum(p.stat().st_size for p in ASSETS.rglob("*") if p.is_file()) / 1e6
    print(f"{ASSETS}: {size:.1f} MB")
    if size > BUDGET_MB:
        raise SystemExit(f"over the budget of {BUDGET_MB} MB")


def keep_card(target: Path, work: Path) -> None:
    """The model card, which is written by hand: bring its figures up to date after embedding."""
    if (target / "README.md").is_file():
        shutil.copyfile(target / "README.md", work / "README.md")


def write_settings(path: Path, changed: dict[str, Any]) -> None:
    """Into a model's genpercept.json, whose seal is made anew; its weights stay."""
    settings = {k: v for k, v in parts.read_json(path).items() if k != SEAL}
    parts.write_config(path, sealed(settings | changed))


def write_base(source: Path, target: Path) -> None:
    """The base in diffusers' StableDiffusionPipeline layout, every weight in float16."""
    with atomic_folder(target) as work:
        keep_card(target, work)
        for path in sorted(source.rglob("*")):
            copy = work / path.relative_to(source)
            if path.is_dir():
                copy.mkdir(exist_ok=True)
            elif path.suffix == ".safetensors":
                save_file({k: half(v) for k, v in load_file(path).items()}, copy, metadata={"format": "pt"})
            else:
                shutil.copyfile(path, copy)


def write_predictor(source: Path, target: Path, licence: str) -> None:
    """A predictor on the base's codec: only the denoiser is stored in its own folder, and a decoder of its own."""
    pipe = GenPerceptPipeline.from_pretrained(source)
    shared = ASSETS / "base" / "vae"
    check_encoder(pipe, shared, source)
    own = pipe.info["codec"] == "pair"
    round_weights(pipe)
    with atomic_folder(target) as work:
        pipe.save_pretrained(work / "full")
        keep_card(target, work)
        (work / "full" / PROMPT_FILE).rename(work / PROMPT_FILE)
        manifest: dict[str, Any] = parts.read_json(work / "full" / parts.MANIFEST)
        if own:
            (work / "full" / "vae").rename(work / "vae")
        else:
            manifest["parts"]["vae"] = {"path": "../base/vae"} | parts.hashes(shared)
        manifest["parts"] |= denoiser_parts(source, work, manifest["recipe"])
        if (work / "full" / "head").is_dir():
            (work / "full" / "head").rename(work / "head")
        manifest |= {"base": "mini/base", "licence": licence}
        manifest["recipe"] = portable(manifest["recipe"])
        parts.write_config(work / parts.MANIFEST, sealed(manifest))
        (work / "full" / "model_index.json").rename(work / "model_index.json")
        shutil.rmtree(work / "full")


def check_encoder(pipe: GenPerceptPipeline, shared: Path, source: Path) -> None:
    """SystemExit where what encodes, or all of an unpaired codec, is not the base's: latents would be of another space."""
    stored = load_file(weight_files(shared)[0])
    encoding = half_of(pipe.vae, "encoder").state_dict()
    for name, tensor in encoding.items():
        if not torch.equal(half(tensor), stored[name]):
            raise SystemExit(f"{source}: its codec differs from the base's at {name}: it cannot be shared")


def denoiser_parts(source: Path, work: Path, recipe: dict[str, Any]) -> dict[str, Any]:
    """The denoiser in full; or, trained by LoRA from an embedded model, that model's and the difference to it."""
    base = recipe["model"]["base"]
    if not (source / "lora").is_dir() or not base.startswith("mini/"):
        (work / "full" / "unet").rename(work / "unet")
        return {"unet": {"path": "unet"} | parts.hashes(work / "unet")}
    denoiser = GenPerceptPipeline.from_pretrained(base).unet
    adapters.load_lora(denoiser, source / "lora")
    path = work / f"{DIFFERENCE}.safetensors"
    save_file({name: half(tensor) for name, tensor in lowrank.from_lora(denoiser).items()}, path)
    shared = ASSETS / base.removeprefix("mini/") / "unet"
    return {
        "unet": {"path": f"../{shared.parent.name}/unet"} | parts.hashes(shared),
        DIFFERENCE: {"path": path.name} | parts.hashes(path),
    }


def round_weights(pipe: GenPerceptPipeline) -> None:
    for module in filter(None, (pipe.unet, pipe.vae, pipe.head)):
        module.load_state_dict({name: half(tensor) for name, tensor in module.state_dict().items()})
    pipe.to(torch.float16)


def portable(recipe: dict[str, Any]) -> dict[str, Any]:
    """The recipe without folders of the machine that it ran on."""
    recipe.get("loader", {}).pop("cache_dir", None)
    return recipe


def half(tensor: torch.Tensor) -> torch.Tensor:
    """float16 rounded to bfloat16's eight bits, which pack a third smaller in git and in wheels. SystemExit on overflow."""
    if not tensor.is_floating_point():
        return tensor
    small = tensor.to(torch.bfloat16).to(torch.float16)
    if not bool(torch.isfinite(small).all()):
        raise SystemExit("a weight is beyond float16's range")
    return small.contiguous()


if __name__ == "__main__":
    main()
