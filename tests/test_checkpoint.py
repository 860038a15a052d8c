"""A damaged or mismatched model never speaks: every kind of damage is one line that names the tensor."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import genpercept
from genpercept import GenPerceptPipeline, checkpoint

GOLDEN = Path(__file__).parent / "golden"
UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "good"
    GenPerceptPipeline.from_base(GOLDEN / "sd-tiny", "depth", resolution=0).save_pretrained(folder)
    return folder


def change(path: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing tensor": (
        lambda m: change(m / UNET, lambda t: t.pop("conv_in.weight")),
        r"missing conv_in\.weight; nothing was loaded",
    ),
    "renamed tensor": (
        lambda m: change(m / UNET, lambda t: t.update(conv_inn=t.pop("conv_in.bias"))),
        r"missing conv_in\.bias; unexpected conv_inn",
    ),
    "misshaped tensor": (
        lambda m: change(m / UNET, lambda t: t.update({"conv_in.weight": torch.zeros(16, 8, 3, 3)})),
        r"misshaped conv_in\.weight is \[16, 8, 3, 3\], needs \[16, 4, 3, 3\]",
    ),
    "nan": (
        lambda m: change(m / UNET, lambda t: t["conv_out.bias"].fill_(float("nan"))),
        r"NaN or infinite values in conv_out\.bias",
    ),
    "other values": (lambda m: change(m / UNET, lambda t: t["conv_out.bias"].add_(1)), "SHA-256 .* changed or damaged"),
    "truncated file": (
        lambda m: (m / UNET).write_bytes((m / UNET).read_bytes()[:5000]),
        "not a readable safetensors file",
    ),
    "no weights": (lambda m: (m / UNET).unlink(), "no weights: expected diffusion_pytorch_model.safetensors"),
    "pickle only": (
        lambda m: (m / UNET).rename(m / "unet" / "diffusion_pytorch_model.bin"),
        "a pickle, which can run code when read",
    ),
    "no part": (lambda m: shutil.rmtree(m / "vae"), r"missing, but genpercept\.json names it as part 'vae'"),
    "no config": (lambda m: (m / "unet" / "config.json").unlink(), r"config\.json: no such file"),
    "config not json": (lambda m: (m / "unet" / "config.json").write_text("{"), "not readable as JSON"),
    "wrong class": (
        lambda m: (m / "unet" / "config.json").write_text('{"_class_name": "PixArtTransformer2DModel"}'),
        "holds a PixArtTransformer2DModel",
    ),
    "no manifest": (lambda m: (m / "genpercept.json").unlink(), "a GenPerceptPipeline, which is not trained"),
    "unknown task": (lambda m: edit_manifest(m, task="dept"), "unknown task 'dept': did you mean 'depth'"),
    "newer format": (lambda m: edit_manifest(m, format=99), "upgrade genpercept"),
    "incomplete manifest": (lambda m: edit_manifest(m, codec=None), "lacks codec"),
    "8 input channels": (
        lambda m: (
            change(m / UNET, lambda t: t.update({"conv_in.weight": torch.zeros(16, 8, 3, 3)})),
            edit_json(m / "unet" / "config.json", in_channels=8),
            edit_manifest(m, parts=json.loads((m / "genpercept.json").read_text())["parts"] | {"unet": part(m)}),
        ),
        "needs a denoiser with 4 input channels; this one has 8",
    ),
}


def part(model: Path) -> dict[str, str]:
    return {"path": "unet", "sha256": checkpoint.sha256(model / "unet")}


def edit_json(path: Path, **changes: object) -> None:
    value = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in value.items() if v is not None}))


def edit_manifest(model: Path, **changes: object) -> None:
    edit_json(model / "genpercept.json", **changes)


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_one_clear_line(name: str, good: Path, tmp_path: Path) -> None:
    damage, message = DAMAGE[name]
    model = tmp_path / "model"
    shutil.copytree(good, model)
    genpercept.load(model, device="cpu")  # whole before
    damage(model)
    with pytest.raises(ValueError, match=message) as error:
        genpercept.load(model, device="cpu")
    assert "\n" not in str(error.value)


def test_a_failed_save_leaves_the_old_model(good: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(good, model)
    with pytest.raises(RuntimeError, match="disk full"), checkpoint.atomic_folder(model) as work:
        (work / "half").write_text("x")
        raise RuntimeError("disk full")
    genpercept.load(model, device="cpu")
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_sharded_weights_load(good: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(good, model)
    tensors = load_file(model / UNET)
    (model / UNET).unlink()
    names = sorted(tensors)
    index = {}
    for i, chunk in enumerate((names[::2], names[1::2])):
        file = f"diffusion_pytorch_model-{i + 1:05d}-of-00002.safetensors"
        save_file({n: tensors[n] for n in chunk}, model / "unet" / file)
        index |= dict.fromkeys(chunk, file)
    (model / f"{UNET}.index.json").write_text(json.dumps({"weight_map": index}))
    edit_manifest(model, parts=json.loads((model / "genpercept.json").read_text())["parts"] | {"unet": part(model)})
    genpercept.load(model, device="cpu")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mini/dept", "did you mean 'mini/depth'"),
        ("no/such/folder", "no such folder; pass a model folder, a hub id"),
        (
            "nobody-here/no-such-model",
            r"not in the cache .*, and huggingface\.co was not asked \(local_files_only\); pass the path of a local folder",
        ),
    ],
)
def test_unknown_models(name: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=message):
        genpercept.load(name, local_files_only=True)
