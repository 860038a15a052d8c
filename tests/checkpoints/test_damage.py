"""A damaged or mismatched model never speaks: every kind of damage is one line that names the tensor."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import genpercept
from genpercept.checkpoints import weights
from genpercept.checkpoints.parts import headers, sha256
from genpercept.core.files import atomic_folder
from genpercept.models import text
from tests.support.commands import script
from tests.support.paths import GOLDEN

UNET = "unet/diffusion_pytorch_model.safetensors"


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
    "no manifest": (
        lambda m: (m / "genpercept.json").unlink(),
        "a public checkpoint of family 'genpercept' does not say what it predicts",
    ),
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
    return {"path": "unet", "sha256": sha256(model / "unet")}


def edit_json(path: Path, **changes: object) -> None:
    value = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in value.items() if v is not None}))


def edit_manifest(model: Path, **changes: object) -> None:
    edit_json(model / "genpercept.json", **changes)


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_one_clear_line(name: str, saved: Path, tmp_path: Path) -> None:
    damage, message = DAMAGE[name]
    model = tmp_path / "model"
    shutil.copytree(saved, model)
    genpercept.load(model, device="cpu")  # whole before
    damage(model)
    with pytest.raises(ValueError, match=message) as error:
        genpercept.load(model, device="cpu")
    assert "\n" not in str(error.value)


def test_a_failed_save_leaves_the_old_model(saved: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(saved, model)
    with pytest.raises(RuntimeError, match="disk full"), atomic_folder(model) as work:
        (work / "half").write_text("x")
        raise RuntimeError("disk full")
    genpercept.load(model, device="cpu")
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_sharded_weights_load(saved: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(saved, model)
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


# ---- pickles ---------------------------------------------------------------------------------------------------------


class Payload:
    """Pickled, it makes a file when it is read by a reader that runs what it reads."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return open, (str(self.path), "w")


def pickle_of(part: Path, name: str, tensors: object, **options: object) -> None:
    torch.save(tensors, part / name, **options)  # type: ignore[arg-type]
    (part / "diffusion_pytorch_model.safetensors").unlink()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("diffusion_pytorch_model.bin", {}),
        ("model.ckpt", {"_use_new_zipfile_serialization": False}),
        ("weights.pth", {}),
    ],
)
def test_allowed_pickles_give_the_same_model(name: str, options: dict, saved: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(saved, model)
    tensors = load_file(model / UNET)
    content = {"state_dict": tensors, "epoch": 3} if name.endswith(".ckpt") else tensors
    pickle_of(model / "unet", name, content, **options)
    torch.save({"state": {}}, model / "unet" / "optimizer.bin")  # a trainer's own, never taken for weights
    sha = sha256(model / "unet", allow_pickle=True)
    parts = json.loads((model / "genpercept.json").read_text())["parts"]
    edit_manifest(model, parts=parts | {"unet": {"path": "unet", "sha256": sha}})
    with pytest.raises(ValueError, match=r"convert it to safetensors .*, or pass --allow-pickle \(allow_pickle=True\)"):
        genpercept.load(model, device="cpu")
    pipe, whole = (genpercept.load(m, device="cpu", allow_pickle=True) for m in (model, saved))
    assert all(torch.equal(t, whole.unet.state_dict()[k]) for k, t in pipe.unet.state_dict().items())
    shapes = headers(model / "unet" / name, allow_pickle=True)
    assert shapes["conv_in.weight"] == ((16, 4, 3, 3), "float32")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: t.pop("conv_in.bias"), r"missing conv_in\.bias"),
        (lambda t: t.update({"conv_in.bias": torch.zeros(3)}), r"misshaped conv_in\.bias is \[3\], needs \[16\]"),
        (lambda t: t["conv_in.bias"].fill_(float("inf")), r"NaN or infinite values in conv_in\.bias"),
        (lambda t: t.update({"conv_in.bias": [1.0]}), "'conv_in.bias' is a list, not a plain tensor"),
    ],
)
def test_allowed_pickles_are_checked(edit: Callable[[dict], object], message: str, saved: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(saved, model)
    tensors = load_file(model / UNET)
    edit(tensors)
    pickle_of(model / "unet", "diffusion_pytorch_model.bin", tensors)
    with pytest.raises(ValueError, match=message):
        genpercept.load(model, device="cpu", allow_pickle=True)


@pytest.mark.parametrize("allow", [False, True])
@pytest.mark.parametrize("zipped", [False, True])
def test_malicious_pickles_never_run(allow: bool, zipped: bool, saved: Path, tmp_path: Path) -> None:
    model, ran = tmp_path / "model", tmp_path / "ran"
    shutil.copytree(saved, model)
    bad = {"conv_in.weight": Payload(ran)}
    pickle_of(model / "unet", "diffusion_pytorch_model.bin", bad, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"asks for io\.open|a pickle, which can run code") as error:
        genpercept.load(model, device="cpu", allow_pickle=allow)
    assert "\n" not in str(error.value) and not ran.exists()
    torch.load(model / "unet" / "diffusion_pytorch_model.bin", weights_only=False)["conv_in.weight"].close()
    assert ran.exists()  # so it is one


def test_a_text_encoder_is_no_exception(tmp_path: Path) -> None:
    """transformers would take the pickle where safetensors of another name lie beside it."""
    base, part = tmp_path / "base", tmp_path / "base" / "text_encoder"
    shutil.copytree(GOLDEN / "sd-tiny", base)
    want = text.embed(*text.load(base))
    torch.save(load_file(part / "model.safetensors"), part / "pytorch_model.bin")
    assert torch.equal(text.embed(*text.load(base)), want)  # the safetensors come first
    (part / "model.safetensors").rename(part / "other.safetensors")
    with pytest.raises(ValueError, match=r"text_encoder: holds only pytorch_model\.bin, a pickle"):
        text.load(base)
    assert torch.equal(text.embed(*text.load(base, allow_pickle=True)), want)
    (part / "pytorch_model.bin").unlink()
    with pytest.raises(ValueError, match=r"text_encoder: no weights: expected model\.safetensors"):
        text.load(base)


@pytest.mark.parametrize(
    ("suffix", "stems"),
    [
        (".safetensors", ("diffusion_pytorch_model", "model")),
        (".bin", ("diffusion_pytorch_model", "pytorch_model")),
    ],
)
def test_the_likeliest_name_comes_first(suffix: str, stems: tuple[str, str], tmp_path: Path) -> None:
    names = [f"{stem}{kind}{suffix}" for kind in ("", ".fp16") for stem in stems]
    for name in reversed(names):
        (tmp_path / name).write_bytes(b"x")
        assert weights.weight_files(tmp_path, allow_pickle=True) == [tmp_path / name]
    index = tmp_path / f"{names[0]}.index.json"
    (tmp_path / names[0]).rename(tmp_path / f"a{suffix}")
    index.write_text(json.dumps({"weight_map": {"one": f"a{suffix}", "two": names[1]}}))
    assert weights.weight_files(tmp_path, allow_pickle=True) == [tmp_path / f"a{suffix}", tmp_path / names[1]]
    index.write_text(json.dumps({"weight_map": {"one": "a.txt"}}))
    with pytest.raises(ValueError, match=rf"names 'a\.txt', which is no {suffix} file beside it"):
        weights.weight_files(tmp_path, allow_pickle=True)


def test_every_damaged_checkpoint_is_one_line(tmp_path: Path) -> None:
    """The cases of benchmarks/robustness/damaged_checkpoints.py."""
    rows = script("robustness/damaged_checkpoints").run(tmp_path)
    assert len(rows) >= 30 and not [f"{case.title}: {wrong}: {line}" for case, line, wrong in rows if wrong]


def test_hub_errors_leak_no_password(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "https://user:pass-word@models.example.org/path")
    with pytest.raises(ValueError, match=r"models\.example\.org was not asked") as error:
        genpercept.load("nobody-here/none", local_files_only=True, token="hf_pass-word", cache_dir=tmp_path)
    assert "pass-word" not in str(error.value) and str(tmp_path) in str(error.value)


def test_a_tokenizer_of_another_vocabulary_is_named(tmp_path: Path) -> None:
    """A token of its own is one behind the last that the encoder knows."""
    base = tmp_path / "base"
    shutil.copytree(GOLDEN / "sd-tiny", base)
    config = base / "tokenizer" / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"eos_token": "a\nb", "pad_token": "\x1b[2J"}))
    with pytest.raises(
        ValueError, match=r"gives token \d+, but the text encoder knows \d+: tokenizer/ and text_encoder/"
    ):
        text.embed(*text.load(base))
