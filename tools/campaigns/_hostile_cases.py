"""Hostile model folders, made by code out of whole ones: what each is, and what is done to it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from genpercept import GenPerceptPipeline
from genpercept.checkpoints import hub, parts
from genpercept.models.heads import HEADS
from tests.support import bases
from tests.support.paths import GOLDEN, SD_TINY

WEIGHTS = "diffusion_pytorch_model.safetensors"
UNET, VAE, HEAD, MANIFEST = "m/unet/config.json", "m/vae/config.json", "m/head/config.json", "m/genpercept.json"
VOCABULARY = "base/tokenizer/vocab.json"
TEXT, TOKENIZER = "base/text_encoder/config.json", "base/tokenizer/tokenizer_config.json"


@dataclass(frozen=True)
class Case:
    """title: what was done to the model `start`, a copy of which is `work`/m. loads: it is harmless, and is to be loaded."""

    title: str
    start: str
    damage: Callable[[Path], object]
    loads: bool = False
    options: dict[str, Any] = field(default_factory=dict)  # of genpercept.load; "base": a folder in `work`


def starts(root: Path) -> dict[str, Path]:
    """Whole models of each kind, each a folder whose `m` is the model; beside it what it comes with."""
    kinds = ("mini", "dpt", "pose", "public", "pixart", "dinov2", "clip", "pair")
    made = {name: root / name for name in kinds}
    GenPerceptPipeline.from_pretrained("mini/depth").save_pretrained(made["mini"] / "m")
    GenPerceptPipeline.from_pretrained("mini/pose").save_pretrained(made["pose"] / "m")
    pipe = GenPerceptPipeline.from_base(SD_TINY, "depth", resolution=0)
    head = parts.load_part(HEADS.find("dpt"), GOLDEN / "dpt_head_identity")
    GenPerceptPipeline.from_parts(
        unet=pipe.unet, vae=pipe.vae, prompt_embeds=pipe.prompt_embeds, task="disparity", head="dpt", head_module=head
    ).save_pretrained(made["dpt"] / "m")
    shutil.copytree(SD_TINY / "unet", made["public"] / "m")
    tensors = load_file(made["public"] / "m" / WEIGHTS)
    save_file(tensors | {"conv_out.bias": tensors["conv_out.bias"] + 0.1}, made["public"] / "m" / WEIGHTS)
    shutil.copytree(SD_TINY, made["public"] / "base")
    bases.pixart_base(made["pixart"] / "base", kind="v_prediction")
    latent: dict[str, Any] = {"paradigm_options": {"prediction_type": "sample"}}
    GenPerceptPipeline.from_base(made["pixart"] / "base", "depth", **latent).save_pretrained(made["pixart"] / "m")
    for name, make in (("dinov2", bases.dinov2_base), ("clip", bases.clip_base)):
        make(made[name] / "base")
        pixels = HEADS.find("dpt").build(
            {"neck_hidden_sizes": [24] * 4, "fusion_hidden_size": 8, "token_map_scales": [4, 2, 1, 0.5]}
        )
        GenPerceptPipeline.from_base(
            made[name] / "base", "depth", paradigm="direct", head="dpt", head_module=pixels
        ).save_pretrained(made[name] / "m")
    pair = GenPerceptPipeline.from_pretrained("mini/depth")
    pair.with_codec(decoder=hub.embedded_root() / "base" / "vae").save_pretrained(made["pair"] / "m")
    return made


# ---- what is done ------------------------------------------------------------------------------------------------------


def settings(path: str, **changes: Any) -> Callable[[Path], None]:
    """Keys of a JSON file, changed."""
    return lambda work: _edit(work / path, lambda value: value.update(changes))


def part(name: str, entry: Any) -> Callable[[Path], None]:
    """What the manifest says of a part."""
    return lambda work: _edit(work / MANIFEST, lambda value: value["parts"].update({name: entry}))


def entry(name: str, **changes: Any) -> Callable[[Path], None]:
    return lambda work: _edit(work / MANIFEST, lambda value: value["parts"][name].update(changes))


def _edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def content(path: str, data: bytes | str) -> Callable[[Path], object]:
    return lambda work: (work / path).write_bytes(data.encode() if isinstance(data, str) else data)


def constant(path: str, key: str, text: str) -> Callable[[Path], object]:
    """A value as JSON itself has no word for."""

    def damage(work: Path) -> None:
        value = json.loads((work / path).read_text()) | {key: "HERE"}
        (work / path).write_text(json.dumps(value).replace('"HERE"', text))

    return damage


def instead(path: str, make: Callable[[Path], object]) -> Callable[[Path], object]:
    """Something else in the place of a file."""

    def damage(work: Path) -> None:
        (work / path).unlink()
        make(work / path)

    return damage


def listening(path: Path) -> None:
    place = os.open(path.parent, os.O_RDONLY)  # the path itself may be too long for a socket's name
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"/proc/self/fd/{place}/{path.name}")
    os.close(place)


def linked(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


def outside(path: str) -> Callable[[Path], None]:
    """The file moved out of the model, and a link to it."""

    def damage(work: Path) -> None:
        shutil.move(work / path, work / "outside")
        (work / path).symlink_to(work / "outside")

    return damage


def header(table: dict[str, Any] | bytes, length: int | None = None, size: int = 64) -> Callable[[Path], None]:
    """A safetensors file with this header in the place of the U-Net's; `size` bytes, with a hole, follow it."""

    def damage(work: Path) -> None:
        text = table if isinstance(table, bytes) else json.dumps(table).encode()
        with (work / "m" / "unet" / WEIGHTS).open("wb") as file:
            file.write(struct.pack("<Q", len(text) if length is None else length) + text)
            file.truncate(8 + len(text) + size)

    return damage


def long_header(work: Path) -> None:
    """A million tensors without values: 90 MB of header."""
    row = b'"layer.%d.weight":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    header(b"{" + b",".join(row % i for i in range(1_000_000)) + b"}", size=0)(work)


def index(weight_map: Any, of: str = "m/unet") -> Callable[[Path], None]:
    def damage(work: Path) -> None:
        (work / of / WEIGHTS).rename(work / of / "a.safetensors")
        (work / of / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": weight_map}))

    return damage


def huge_prompt(work: Path) -> None:
    """A file of 400 GB, nearly all of it a hole."""
    table = {"prompt_embeds": {"dtype": "F32", "shape": [1, 100_000_000, 1000], "data_offsets": [0, 400_000_000_000]}}
    text = json.dumps(table).encode()
    with (work / "m" / "prompt_embeds.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + 400_000_000_000)


class _Payload:
    """Unpickled, it makes a file."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.canary}'",)


def poisoned(work: Path) -> None:
    """The U-Net's weights as a pickle that runs code."""
    (work / "m" / "unet" / WEIGHTS).unlink()
    torch.save({"conv_in.weight": _Payload(work / "canary")}, work / "m" / "unet" / "diffusion_pytorch_model.bin")


def with_code(path: str, **keys: Any) -> Callable[[Path], None]:
    """A config that names code which lies beside it."""

    def damage(work: Path) -> None:
        code = f"open({str(work / 'canary')!r}, 'w')\nclass Model: pass\n"
        (work / path).with_name("payload.py").write_text(code)
        settings(path, **keys)(work)

    return damage


def adapter(work: Path) -> None:
    """transformers would follow it to another folder."""
    (work / "base" / "text_encoder" / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "base_model_name_or_path": str(work / "elsewhere")})
    )


AUTO_MAP = {"AutoModel": "payload.Model", "AutoTokenizer": ["payload.Model", None]}
PUBLIC: dict[str, Any] = {"base": "base", "family": "genpercept", "task": "depth"}


def _unet(title: str, loads: bool = False, **changes: Any) -> Case:
    return Case(f"U-Net: {title}", "mini", settings(UNET, **changes), loads)


def _manifest(title: str, loads: bool = False, **changes: Any) -> Case:
    return Case(f"genpercept.json: {title}", "mini", settings(MANIFEST, **changes), loads)


def cases() -> list[Case]:
    deep = "[" * 100_000
    return [
        # sizes
        _unet("layers_per_block of a million", layers_per_block=1_000_000),
        _unet("layers_per_block of 900", layers_per_block=900),
        _unet("transformer_layers_per_block of 999", transformer_layers_per_block=999),
        _unet("100,000 blocks", block_out_channels=[64] * 100_000, down_block_types=["DownBlock2D"] * 100_000),
        _unet("100 blocks", block_out_channels=[64] * 100, down_block_types=["DownBlock2D"] * 100),
        _unet("channels of a million", block_out_channels=[1_000_000] * 3),
        _unet("channels of 10^18", block_out_channels=[10**18] * 3),
        _unet("channels below 0", block_out_channels=[-64, 96, 112]),
        _unet("norm_num_groups 0", norm_num_groups=0),
        _unet("attention heads of size 0", attention_head_dim=0),
        _unet("in_channels of 1.5", in_channels=1.5),
        _unet("in_channels true", in_channels=True),
        _unet("in_channels null", in_channels=None),
        _unet("in_channels an object", in_channels={"a": 1}),
        _unet("layers_per_block as text", layers_per_block="2"),
        _unet("down_block_types a text", down_block_types="DownBlock2D"),
        _unet("down_block_types of an unknown block", down_block_types=["os.system"] * 3),
        _unet("norm_eps below 0", norm_eps=-1),
        _unet("downsample_padding of a million", downsample_padding=1_000_000),
        _unet("num_class_embeds of a billion", num_class_embeds=10**9),
        _unet("act_fn of 100 KB", act_fn="silu" * 25_000),
        _unet("_class_name with a line break", _class_name="UNet\nRoot:"),
        _unet("_class_name a list", _class_name=["UNet2DConditionModel"]),
        _unet("sample_size of a billion", sample_size=10**9),
        Case("VAE: layers_per_block of a million", "mini", settings(VAE, layers_per_block=1_000_000)),
        Case("VAE: scaling_factor 0", "mini", settings(VAE, scaling_factor=0)),
        Case("VAE: latent_channels a list", "mini", settings(VAE, latent_channels=[4])),
        Case("VAE: a tiny one's class", "mini", settings(VAE, _class_name="AutoencoderTiny")),
        Case(
            "pair: a class of two lines",
            "pair",
            settings(VAE, _class_name="CodecPair", encoder={"_class_name": "a\nb"}, decoder={}),
        ),
        Case("pair: the encoder is a number", "pair", settings(VAE, _class_name="CodecPair", encoder=5, decoder=5)),
        Case("head: fusion_hidden_size of 10^7", "dpt", settings(HEAD, fusion_hidden_size=10**7)),
        Case("head: neck_hidden_sizes a number", "dpt", settings(HEAD, neck_hidden_sizes=7)),
        Case("keypoints: hidden_size null", "pose", settings(HEAD, hidden_size=None)),
        Case("keypoints: grid of a billion", "pose", settings(HEAD, grid=10**9)),
        Case("PixArt: sample_size of a million", "pixart", settings("m/transformer/config.json", sample_size=10**6)),
        Case("PixArt: sample_size 4096", "pixart", settings("m/transformer/config.json", sample_size=4096)),
        Case("PixArt: num_layers 1000", "pixart", settings("m/transformer/config.json", num_layers=1000)),
        Case(
            "DINOv2: num_hidden_layers of 10^7", "dinov2", settings("m/backbone/config.json", num_hidden_layers=10**7)
        ),
        Case("DINOv2: num_labels of a billion", "dinov2", settings("m/backbone/config.json", num_labels=10**9), True),
        Case("DINOv2: pyramid_blocks a text", "dinov2", settings("m/backbone/config.json", pyramid_blocks="all")),
        Case("CLIP: image_size of a billion", "clip", settings("m/backbone/config.json", image_size=10**9)),
        Case("CLIP: image_size 4096", "clip", settings("m/backbone/config.json", image_size=4096)),
        Case("text encoder: 10^6 layers", "public", settings(TEXT, num_hidden_layers=10**6), options=PUBLIC),
        Case("text encoder: 900 layers", "public", settings(TEXT, num_hidden_layers=900), options=PUBLIC),
        Case("text encoder: vocabulary of 10^7", "public", settings(TEXT, vocab_size=10**7), options=PUBLIC),
        Case("text encoder: heads of null", "public", settings(TEXT, num_attention_heads=None), options=PUBLIC),
        Case("text encoder: 10^7 positions", "public", settings(TEXT, max_position_embeddings=10**7), options=PUBLIC),
        # types and values of the manifest
        _manifest("resolution -5", resolution=-5),
        _manifest("resolution of 10^12", resolution=10**12),
        _manifest("resolution as text", resolution="96"),
        _manifest("axes 'x'", axes="x"),
        _manifest("axes with a text inside", axes=[[1, 0, 0], [0, "1", 0], [0, 0, 1]]),
        _manifest("task a list", task=["depth"]),
        _manifest("task_options a list", task_options=[1]),
        _manifest("task_options unknown", task_options={"__class__": 1}),
        _manifest("paradigm_options of wrong types", paradigm_options={"timestep": "1"}),
        _manifest("a class table outside", task="segmentation", task_options={"classes": "/dev/zero.json"}),
        _manifest("prompt a number", prompt=7),
        _manifest("conditions a text", conditions="x"),
        _manifest("num_inference_steps of a billion", num_inference_steps=10**9),
        _manifest("specialised a number", specialised=3),
        _manifest("format true", format=True),
        _manifest("parts a list", parts=["unet"]),
        Case("genpercept.json: a part is a number", "mini", part("unet", 5)),
        Case("genpercept.json: a part is null", "mini", part("unet", None)),
        Case("genpercept.json: a path is a number", "mini", entry("unet", path=5)),
        Case("genpercept.json: a path leads to the parent", "mini", entry("vae", path="../../mini/m/vae")),
        Case("genpercept.json: an absolute path", "mini", entry("vae", path="/etc")),
        Case("genpercept.json: a hash is a number", "mini", entry("unet", sha256=1)),
        # JSON that is none, or too much
        Case("config.json: 100,000 lists in each other", "mini", content(UNET, deep)),
        Case("genpercept.json: 100,000 lists in each other", "mini", content(MANIFEST, deep)),
        Case("config.json: 900 lists in each other", "mini", constant(UNET, "x", "[" * 900 + "]" * 900)),
        Case("config.json: an integer of 100,000 digits", "mini", constant(UNET, "in_channels", "9" * 100_000)),
        Case("config.json: 1e999", "mini", constant(UNET, "norm_eps", "1e999")),
        Case("config.json: NaN", "mini", constant(UNET, "norm_eps", "NaN")),
        Case("config.json: half of a letter", "mini", constant(UNET, "act_fn", '"\\ud800"')),
        Case("config.json: a byte that is no UTF-8", "mini", content(UNET, b'{"a": "\xe9"}')),
        Case("config.json: a list", "mini", content(UNET, "[]")),
        Case("config.json: 100 MB of blanks", "mini", _blanks),
        Case("config.json: with a byte order mark", "mini", _marked, True),
        # what is no file
        Case("config.json: a named pipe", "mini", instead(UNET, os.mkfifo)),
        Case("genpercept.json: a named pipe", "mini", instead(MANIFEST, os.mkfifo)),
        Case("config.json: a socket", "mini", instead(UNET, listening)),
        Case("config.json: a folder", "mini", instead(UNET, Path.mkdir)),
        Case("config.json: a link to /dev/zero", "mini", instead(UNET, linked("/dev/zero"))),
        Case("config.json: a link to itself", "mini", instead(UNET, linked("config.json"))),
        Case("config.json: a link out of the model", "mini", outside(UNET)),
        Case("genpercept.json: a link out of the model", "mini", outside(MANIFEST)),
        Case("prompt: a named pipe", "mini", instead("m/prompt_embeds.safetensors", os.mkfifo)),
        Case("weights: a named pipe", "mini", instead(f"m/unet/{WEIGHTS}", os.mkfifo)),
        Case("weights: a link to /dev/zero", "mini", instead(f"m/unet/{WEIGHTS}", linked("/dev/zero"))),
        Case("text encoder: config.json a named pipe", "public", instead(TEXT, os.mkfifo), options=PUBLIC),
        Case("tokenizer: tokenizer_config.json a named pipe", "public", instead(TOKENIZER, os.mkfifo), options=PUBLIC),
        Case(
            "tokenizer: a link to /dev/zero",
            "public",
            instead(VOCABULARY, linked("/dev/zero")),
            options=PUBLIC,
        ),
        # weights
        Case("weights: a header of 2^63 bytes", "mini", header({}, length=2**63)),
        Case("weights: a header of 90 MB", "mini", long_header),
        Case("weights: a header that is a list", "mini", header(b"[]")),
        Case("weights: a header 100,000 deep", "mini", header(b'{"a":' * 100_000)),
        Case(
            "weights: values that overlap",
            "mini",
            header({"a": _row("F32", [8], 0, 32), "b": _row("F32", [8], 16, 48)}),
        ),
        Case("weights: a tensor beyond the end", "mini", header({"a": _row("F32", [2**40], 0, 2**42)})),
        Case("weights: sizes that overflow", "mini", header({"a": _row("F32", [2**62, 2**62], 0, 64)})),
        Case(
            "weights: an edge of 10^18, empty",
            "mini",
            header({"conv_in.weight": _row("F32", [0, 10**18], 0, 0)}, size=0),
        ),
        Case("weights: an unknown type", "mini", header({"a": _row("F7", [16], 0, 64)})),
        Case("weights: complex numbers", "mini", header({"conv_in.bias": _row("C64", [8], 0, 64)})),
        Case("weights: a name with line breaks", "mini", header({"a\nb\x1b[2J": _row("F32", [16], 0, 64)})),
        Case("prompt: 400 GB, a hole", "mini", huge_prompt),
        Case("index: names a file outside", "mini", index({"conv_in.weight": "../../x.safetensors"})),
        Case("index: names itself", "mini", index({"conv_in.weight": f"{WEIGHTS}.index.json"})),
        Case("index: weight_map a list", "mini", index(["a"])),
        Case("index: 200,000 shards", "mini", index({str(i): f"{i}.safetensors" for i in range(200_000)})),
        # code
        Case("weights: a pickle that runs code", "mini", poisoned),
        Case("the same, with allow_pickle", "mini", poisoned, options={"allow_pickle": True}),
        Case("config.json: auto_map and code beside it", "mini", with_code(UNET, auto_map=AUTO_MAP), True),
        Case(
            "config.json: _target_ names a function",
            "mini",
            settings(UNET, _target_="os.system", args=["x"]),
            True,
        ),
        Case("text encoder: auto_map and code", "public", with_code(TEXT, auto_map=AUTO_MAP), True, PUBLIC),
        Case("tokenizer: auto_map and code", "public", with_code(TOKENIZER, auto_map=AUTO_MAP), True, PUBLIC),
        Case(
            "text encoder: attention by code of a hub id",
            "public",
            settings(TEXT, _attn_implementation="a/b"),
            True,
            PUBLIC,
        ),
        Case("text encoder: an adapter that leads elsewhere", "public", adapter, True, PUBLIC),
        Case(
            "tokenizer: vocab_file /etc/passwd", "public", settings(TOKENIZER, vocab_file="/etc/passwd"), options=PUBLIC
        ),
    ]


def _blanks(work: Path) -> None:
    with (work / UNET).open("wb") as file:  # made when it is wanted: the campaign's own memory is in that of its cases
        for _ in range(100):
            file.write(b" " * 1_000_000)


def _row(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def _marked(work: Path) -> None:
    (work / UNET).write_bytes(b"\xef\xbb\xbf" + (work / UNET).read_bytes())
