"""Every path that touches a device, on a GPU without values (tests/support/fake_devices.py): nothing may be left on the CPU.

Waits of the host for the device are counted by function; only those in WAITS are meant.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from torch import nn

import genpercept
from genpercept import GenPerceptPipeline
from genpercept.commands.bench import worker
from genpercept.commands.bench.setting import Effort, Setting
from genpercept.commands.predict import model
from genpercept.commands.predict.request import Request
from genpercept.commands.serve import run as server
from genpercept.commands.serve.engine import Engine
from genpercept.core.devices import allow_tf32, pick_device
from genpercept.core.rng import Rng
from genpercept.core.values import Geometry
from genpercept.imaging.kinds import KINDS
from genpercept.models.backbones import BACKBONES
from genpercept.models.backbones.sd21 import SD21_CONFIG
from genpercept.models.codecs import CODECS
from genpercept.models.codecs.kl import SD_VAE_CONFIG
from genpercept.models.heads import HEADS
from genpercept.pipeline import ensemble
from genpercept.pipeline.specialise import layers, memory_format
from genpercept.pipeline.specialise.compiled import Graphed, Pools
from genpercept.pipeline.specialise.layers import is_channels_last
from genpercept.tasks import TASKS
from genpercept.training import recipe as recipes
from genpercept.training.loop import Training
from genpercept.training.losses import LOSSES, needs
from genpercept.training.samples.encoding import in_batches
from tests.support.commands import Call
from tests.support.fake_devices import FakeGPU, devices, fake_gpu
from tests.support.paths import SD_TINY

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

# Where the host may wait for the device, and why.
WAITS = {
    "tasks/_task.py:on_host": "the answer, values and raw map together",
    "tasks/normals.py:decode": "the raw map, of which the host makes the answer",
    "tasks/pose.py:decode": "the raw map, as joints are refined on the host",
    "pipeline/call.py:decode": "the mean raw map of an ensemble",
    "pipeline/ensemble.py:align_affine": "scipy's BFGS runs on the host",
    "pipeline/ensemble.py:cost": "scipy's BFGS runs on the host",
    "pipeline/ensemble.py:<genexpr>": "scipy's BFGS runs on the host",
    "pipeline/specialise/layers.py:exact": "weights are folded in double on the CPU, once",
    "training/loop.py:step": "loss and norm decide whether the step is taken",
    "training/run/sharding.py:gather": "the gradient's norm",
    "training/samples/encoding.py:in_batches": "latents for the cache",
}


@pytest.fixture
def gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGPU]:
    monkeypatch.setenv("GENPERCEPT_CACHE", str(tmp_path))  # for what is measured on this GPU
    with fake_gpu() as found:
        yield found


CODEC: dict[str, Any] = {
    "block_out_channels": [8, 8],
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "layers_per_block": 1,
    "norm_num_groups": 4,
}
UNET: dict[str, Any] = {
    "block_out_channels": [16, 16],
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "layers_per_block": 1,
    "attention_head_dim": [2, 2],
    "cross_attention_dim": 16,
    "norm_num_groups": 4,
}


def small(dtype: str = "fp32", **further: Any) -> GenPerceptPipeline:
    """A predictor of two levels with everything that a Stable Diffusion's has, on the GPU where there is one."""
    channels = 8 if further.get("paradigm") == "stochastic_multi_step" else 4
    unet = BACKBONES.find("sd21").build(SD21_CONFIG | UNET | {"in_channels": channels})
    vae = CODECS.find("kl").build(SD_VAE_CONFIG | CODEC)
    pipe = GenPerceptPipeline.from_parts(
        unet=nn.Module.to(unet, DTYPES[dtype]),
        vae=nn.Module.to(vae, DTYPES[dtype]),
        prompt_embeds=torch.zeros(1, 2, 16),
        **{"task": "depth", "resolution": 0, **further},
    )
    return pipe.to(pick_device("auto"))


def with_head(dtype: str, task: str, head: str, task_options: dict[str, Any] | None = None) -> GenPerceptPipeline:
    """Of four levels, as pyramid heads want them."""
    pipe = GenPerceptPipeline.from_base(SD_TINY, "depth", resolution=0, torch_dtype=DTYPES[dtype])
    width = "fusion_hidden_size" if head == "dpt" else "hidden_size"
    outputs = TASKS.find(task).outputs(TASKS.find(task).spaces[-1])
    module = HEADS.find(head).build(
        {"neck_hidden_sizes": [16, 32, 64, 64], width: 16} | ({} if head == "keypoints" else {"out_channels": outputs})
    )
    found = GenPerceptPipeline.from_parts(
        unet=pipe.unet,
        vae=pipe.vae,
        prompt_embeds=pipe.prompt_embeds,
        task=task,
        task_options=task_options,
        head=head,
        head_module=nn.Module.to(module, DTYPES[dtype]),
        resolution=0,
    )
    return found.to("cuda")


@pytest.fixture(autouse=True)
def no_accelerator_stays() -> Iterator[None]:
    """accelerate keeps a process's device for good: the next test's is no GPU."""
    yield
    AcceleratorState._reset_state(True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a small predictor, to be loaded and trained further."""
    path = tmp_path_factory.mktemp("small") / "depth"
    small().save_pretrained(path)
    return path


def picture(h: int = 24, w: int = 32) -> np.ndarray:
    return np.full((h, w, 3), 128, np.uint8)


def only_meant(gpu: FakeGPU) -> None:
    assert not gpu.waits.keys() - WAITS.keys(), gpu.waits


# ---- inference -------------------------------------------------------------------------------------------------------


def test_loading_onto_a_gpu(folder: Path, gpu: FakeGPU) -> None:
    pipe = genpercept.load(folder, device="cuda")
    assert devices(pipe.unet) == devices(pipe.vae) == {"cuda"} and pipe.device.type == "cuda"
    assert not gpu.waits
    auto = genpercept.load(folder, specialised=True)
    assert auto.device.type == "cuda" and devices(auto._runs) == {"cuda"}


@pytest.mark.parametrize("dtype", DTYPES)
def test_prediction(gpu: FakeGPU, dtype: str) -> None:
    pipe = small(dtype)
    gpu.uploads.clear()
    pipe([picture(), picture()], batch_size=2)
    only_meant(gpu)
    assert gpu.waits == {"tasks/_task.py:on_host": 2}  # one for each image; none within the network
    assert gpu.uploads == {"pipeline/call.py:uploaded": 2, "pipeline/pipeline.py:_answers": 1}  # images, and the prompt


@pytest.mark.parametrize(
    ("dtype", "settings"),
    [
        ("fp32", {"layout": "contiguous"}),
        ("bf16", {"layout": "channels_last"}),
        ("fp16", {"layout": "channels_last"}),
        ("bf16", {"layout": "channels_last", "strips": True}),
        ("fp16", {"layout": "channels_last", "fold": False}),
    ],
)
def test_specialising_what_is_on_the_gpu(
    gpu: FakeGPU, dtype: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layers, "STRIP", 4096)  # so that some maps are larger
    quick = genpercept.specialise(small(dtype), **settings)
    assert devices(quick._runs) == {"cuda"} and quick.unet_dtype == DTYPES[dtype]
    gpu.waits.clear()
    quick(picture())
    assert gpu.waits.keys() == {"tasks/_task.py:on_host"}


def test_the_memory_format_is_measured_on_a_gpu(gpu: FakeGPU) -> None:
    """At a size's first image, in the network's own dtype; what is chosen is what lies there."""
    quick = genpercept.specialise(small("bf16"))
    quick(picture())
    gpu.waits.clear()
    (choice,) = memory_format.all_remembered("no GPU")
    assert (choice.case.dtype, choice.case.edge, choice.seconds.keys()) == (
        "bfloat16",
        32,
        memory_format.FORMATS.keys(),
    )
    kernels = [p for p in quick._runs.parameters() if p.ndim == 4 and p.shape[-1] == 3]
    assert {is_channels_last(p) for p in kernels} == {choice.chosen == "channels_last"}
    assert devices(quick._runs) == {"cuda"} and quick.memory_format == choice.chosen
    quick(picture())
    assert gpu.waits.keys() == {"tasks/_task.py:on_host"}


def test_constants_on_the_cpu_are_found(gpu: FakeGPU, monkeypatch: pytest.MonkeyPatch) -> None:
    """What once crashed on GPUs and on no CPU: weights on the GPU folded with a table on the CPU."""
    monkeypatch.setattr(layers, "exact", lambda x: x.detach().double())
    with pytest.raises(RuntimeError, match=r"same device.*cuda:0 and cpu"):
        layers.Upsample(nn.Conv2d(2, 2, 3, padding=1).to("cuda"))


class Streams:
    """torch.cuda's streams and graphs, of which only is noted on which device they were asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.current, self.pools = [torch.device("cuda", 0)], list[Any]()
        self.made, self.captured, self.replayed = (list[torch.device]() for _ in range(3))
        self.fails = False
        for name in ("device", "stream", "graph"):
            monkeypatch.setattr(torch.cuda, name, getattr(self, name))
        monkeypatch.setattr(torch.cuda, "Stream", self.stream_on)
        monkeypatch.setattr(torch.cuda, "current_stream", self.stream_on)
        monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: object())
        monkeypatch.setattr(
            torch.cuda,
            "CUDAGraph",
            lambda: SimpleNamespace(replay=lambda: self.replayed.append(self.current[-1])),
        )

    @contextmanager
    def device(self, device: torch.device) -> Iterator[None]:
        self.current.append(device)
        yield
        self.current.pop()

    def stream_on(self, device: torch.device | None = None) -> Any:
        self.made.append(device or self.current[-1])
        return SimpleNamespace(wait_stream=lambda other: None)

    @contextmanager
    def stream(self, stream: Any) -> Iterator[None]:
        yield

    @contextmanager
    def graph(self, graph: Any, pool: Any, stream: Any) -> Iterator[None]:
        if self.fails:
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing")
        self.captured.append(self.current[-1])
        self.pools.append(pool)
        yield


def test_graphs_are_of_their_tensors_device(gpu: FakeGPU, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where another device is the current one; and graphs of one device share one pool of memory."""
    streams, pools, second = Streams(monkeypatch), Pools(), torch.device("cuda", 1)
    double, triple = Graphed(lambda x: x * 2, pools), Graphed(lambda x: x * 3, pools)
    for graphed in (double, triple):
        for _ in range(3):
            assert graphed(torch.zeros(2, device=second)).device == second
    assert len(streams.captured) == 2 and len(streams.replayed) == 4
    assert {*streams.made, *streams.captured, *streams.replayed} == {second}
    assert streams.pools[0] is streams.pools[1] and not gpu.waits and not gpu.uploads


def test_graphs_that_cannot_be_recorded_say_so(gpu: FakeGPU, monkeypatch: pytest.MonkeyPatch) -> None:
    streams = Streams(monkeypatch)
    streams.fails = True
    quick = genpercept.specialise(small(), cuda_graphs=True, layout="contiguous")
    quick(picture())
    assert quick.graphs_off == ""  # a size's first call runs as it is
    quick(picture())
    assert quick.graphs_off.startswith("CUDA error: operation not permitted")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("task", "head"), [("disparity", "dpt"), ("segmentation", "upernet")])
def test_heads(gpu: FakeGPU, dtype: str, task: str, head: str) -> None:
    pipe = with_head(dtype, task, head)
    pipe(picture())
    genpercept.specialise(pipe, layout="contiguous")(picture())  # nothing to measure
    only_meant(gpu)


@pytest.mark.slow
def test_people_in_boxes(gpu: FakeGPU) -> None:
    pipe = with_head("fp32", "pose", "keypoints", {"height": 32, "width": 32})
    pipe(picture(), boxes=[[2, 2, 10, 12]], flip_test=True)
    only_meant(gpu)


@pytest.mark.parametrize(
    ("paradigm", "options"),
    [("stochastic_multi_step", {}), ("stochastic_multi_step", {"sampler": "lcm"}), ("deterministic_multi_step", {})],
)
def test_several_steps(gpu: FakeGPU, paradigm: str, options: dict[str, Any]) -> None:
    pipe = small(paradigm=paradigm, paradigm_options=options)
    pipe(picture(), num_inference_steps=2, ensemble_size=2 if "stochastic" in paradigm else 1)
    only_meant(gpu)
    within = [place for place in gpu.waits if place.startswith(("models/", "equations"))]
    assert not within  # no step waits


@pytest.mark.parametrize("kind", [name for name in KINDS if KINDS.find(name).merge is not None])
def test_ensembles(gpu: FakeGPU, kind: str) -> None:
    maps = torch.rand(3, 1 if KINDS.find(kind).merge == "affine" else 3, 8, 8).to("cuda")
    merged, spread = ensemble.merge(kind, maps)
    assert devices((merged, spread, ensemble.settle(kind, merged))) == {"cuda"}
    only_meant(gpu)


def test_closed_form_ensembles_do_not_wait(gpu: FakeGPU) -> None:
    merged, _ = ensemble.merge_affine(torch.rand(3, 1, 8, 8).to("cuda"), solver="least_squares")
    assert merged.is_cuda and not gpu.waits


@pytest.mark.parametrize("name", TASKS.names())
def test_decoding_and_mirroring(gpu: FakeGPU, name: str) -> None:
    task = TASKS.find(name)
    geometry = Geometry((20, 28), (20, 28), (24, 32))
    for space in task.spaces:
        size = (6, 8) if space == "heatmaps" else (24, 32)
        raw = torch.rand(1, task.outputs(space), *size).to("cuda")
        assert task.flip(raw).is_cuda
        task.decode(raw, geometry)
    only_meant(gpu)
    assert sum(gpu.waits.values()) == len(task.spaces)  # an answer is waited for once


# ---- training --------------------------------------------------------------------------------------------------------

# Losses that wait for the device, because what they do depends on the label's values.
WAITING_LOSSES = ("hdn", "vnl", "cross_entropy")


@pytest.mark.parametrize("name", [name for name in LOSSES.names() if name not in WAITING_LOSSES])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_losses(gpu: FakeGPU, name: str, dtype: str) -> None:
    loss = LOSSES.find(name)
    channels = {"angular": 3, "heatmap": 17, "latent": 4}.get(name, 1)
    size = (24, 24)
    pred = torch.rand(2, channels, *size, dtype=DTYPES[dtype]).to("cuda").requires_grad_()
    target = torch.zeros(2, channels, *size).to("cuda")
    valid = torch.ones(2, channels if name == "heatmap" else 1, *size, dtype=torch.bool).to("cuda")
    context = {"rng": Rng(0, 0, (0, 1)), "intrinsics": torch.eye(3).expand(2, 3, 3).to("cuda")}
    found = loss(pred, target, valid, **{key: context[key] for key in needs(loss) if key in context})
    assert found.is_cuda and found.shape == (2,)
    found.mean().backward()
    assert pred.grad is not None and pred.grad.is_cuda
    assert not gpu.waits


FINETUNE = {"stage": "finetune", "task": "depth", "model": {"base": "small"}}
STAGES: dict[str, dict[str, Any]] = {
    "decoded": FINETUNE | {"loss": {"mse": 1.0, "ssi": 1.0, "latent": 1.0}, "pixel_share": 0.5},
    "dpt": FINETUNE | {"model": {"base": str(SD_TINY), "head": "dpt"}, "speed": {"channels_last": True}},
    "multi_step": FINETUNE | {"paradigm": "stochastic_multi_step", "loss": {"latent": 1.0}},
    "checkpointing": FINETUNE | {"loss": {"latent": 1.0}, "speed": {"checkpointing": True}},
    "autoencoder": {"stage": "autoencoder", "model": {"codec_config": CODEC}},
    "denoiser": {
        "stage": "denoiser",
        "model": {"codec": "small", "unet_config": UNET},
        "denoiser": {"sample_steps": 2},
    },
    "distil": {"stage": "distil", "model": {"base": "small"}, "distil": {"width": 0.5, "blocks": 1}},
}
_QUICK = ("decoded-bf16", "autoencoder-fp16")


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        pytest.param(name, precision, id=case, marks=[] if case in _QUICK else pytest.mark.slow)
        for name in STAGES
        for precision in DTYPES
        for case in [f"{name}-{precision}"]
    ],
)
def test_a_training_step(folder: Path, gpu: FakeGPU, name: str, precision: str, tmp_path: Path) -> None:
    model = {key: str(folder) if value == "small" else value for key, value in STAGES[name]["model"].items()}
    settings = STAGES[name] | {
        "model": model,
        "precision": precision,
        "data": [{"count": 2, "size": (32, 32)}],
        "loader": {"batch_size": 2, "cache": False},
        "augment": {"sizes": [(32, 32)]},
        "logging": {"tensorboard": False},
        "ema": {"decay": 0.5},
    }
    training = Training(recipes.parse(settings), tmp_path, resume=False)
    assert training.accelerator.device.type == "cuda" and devices(training.stage.net) == {"cuda"}
    batch = training.stage.make_batch(0, (0, 1))
    gpu.waits.clear()
    figures = training.step([batch])
    assert figures["lr"] > 0
    assert {p.grad is None for p in training.stage.net.parameters()} == {True}  # zeroed after the step
    moments = [value for state in training.optimiser.state.values() for value in state.values() if value.ndim]
    assert moments and devices(moments) == {"cuda"}
    assert set(gpu.waits) <= {"training/loop.py:step", "training/run/sharding.py:gather"}, gpu.waits
    assert sum(gpu.waits.values()) <= len(figures) + 1, gpu.waits  # `tolist` counts once for each figure


def test_a_cache_of_latents(gpu: FakeGPU) -> None:
    images = [torch.rand(3, 16, 16) for _ in range(3)]
    pipe = small()
    found = in_batches(pipe._codec.encode, images, torch.device("cuda"), "bf16")
    assert devices(found) == {"cpu"} and len(found) == 3
    only_meant(gpu)


def test_autocast_is_of_the_device(gpu: FakeGPU) -> None:
    """The stand-in itself: autocast and gradients work as on a GPU, and a tensor of the CPU is refused."""
    layer = nn.Linear(3, 4).to("cuda")
    for dtype in (torch.bfloat16, torch.float16, None):
        with torch.autocast("cuda", dtype) if dtype else nullcontext():
            answer = layer(torch.rand(2, 3).to("cuda"))
        assert answer.dtype == (dtype or torch.float32)
        answer.sum().backward()
    assert layer.bias.grad is not None and layer.bias.grad.shape == (4,) and layer.bias.grad.is_cuda
    with pytest.raises(RuntimeError, match="same device"):
        layer(torch.rand(2, 3))
    assert float(torch.ones(2).to("cuda").sum()) == 0 and gpu.waits == {"outside": 1}


def test_tf32_is_a_choice() -> None:
    parts: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [part.allow_tf32 for part in parts]
    try:
        for on in (True, False):
            allow_tf32(on)
            assert {part.allow_tf32 for part in parts} == {on}
            assert (torch.get_float32_matmul_precision() == "highest") is not on
    finally:
        for part, value in zip(parts, before, strict=True):
            part.allow_tf32 = value
    assert Request(tf32=True).record()["tf32"] and "tf32" not in Request().record()


@pytest.mark.parametrize(("flags", "on"), [((), False), (("--tf32",), True)])
def test_the_server_and_the_app_take_the_choice(
    gpu: FakeGPU, call: Call, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...], on: bool
) -> None:
    """Both load their models on the GPU with it."""
    chosen: list[bool] = []

    def stop(engine: Engine) -> None:
        engine.load()
        raise ValueError("enough")

    def refuse(name: str, **options: Any) -> Any:
        raise ValueError(f"{name} is not loaded on {options['device']}")

    monkeypatch.setattr(model, "allow_tf32", chosen.append)
    monkeypatch.setattr(model, "genpercept_load", refuse)
    monkeypatch.setattr(server, "make_app", lambda engine, **_: stop(engine))
    for command in ("serve", "app"):
        code, _, err = call(command, "--model", "mini/depth", "--port", 0, *flags)
        assert code == 2 and "mini/depth is not loaded on cuda" in err
    assert chosen == [on, on]


def test_a_job_that_takes_too_long_is_ended() -> None:
    with pytest.raises(ValueError, match=r"measure was ended after 0.05 s"):
        worker.run("measure", Setting(shape="mini", resolution=32), Effort(limit=0.05))
