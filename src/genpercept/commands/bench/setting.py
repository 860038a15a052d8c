"""What is measured, and how long: plain values that travel to a process of its own as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from genpercept.core import dtypes
from genpercept.core.options import check_choice

SHAPES = ("sd21", "mini")
CODECS = ("kl", "tiny")
HEADS = ("vae", "dpt")
DECODERS = {"": 0, "half": 1, "quarter": 2}  # levels that a guided decoder leaves out, so the size it decodes at
# "slim": a U-Net without some blocks, as training.networks.slim_unet has it and the recipes distil/slim_depth_unet
# and mini/slim_depth_unet. SD 2.1's as BK-SDM-Tiny, and without the attention of its finest level
UNETS: dict[str, dict[str, dict[str, Any]]] = {
    "": {},
    "slim": {
        "sd21": {"blocks": 1, "levels": 1, "middle": False, "without_attention": 1},
        "mini": {"levels": 1, "middle": False, "without_attention": 2},
    },
}
COMPILE = ("", "dynamic", "static")
LAYOUTS = ("auto", "channels_last", "contiguous")
QUANTISE = ("int8wo", "int8dq")
# What runs the network, and the dtypes that it computes in: "torch" any; the others a graph out of `genpercept export`.
RUNTIMES = {"torch": dtypes.NAMES, "onnx": ("fp32",), "openvino": ("fp32", "bf16"), "openvino-int8": ("fp32", "bf16")}


@dataclass(frozen=True)
class Setting:
    """One pipeline on one machine. model: a name or folder to load; None: random weights in a `shape` with `codec` and `head`,
    a `decoder` of DECODERS in place of the codec's, and a `unet` of UNETS.

    resolution: longest edge in pixels that the network sees. compile, cuda_graphs and layout: of genpercept.specialise.
    attention_slicing and vae_tiling: diffusers' remedies for short memory; strips: of genpercept.specialise. threads 0: as
    many as torch takes. runtime: of RUNTIMES; "openvino-int8" has weights and activations in int8, and what is left in `dtype`.
    quantise: of QUANTISE, or "": linear layers as genpercept.load has them.
    """

    model: str | None = None
    shape: str = "sd21"
    codec: str = "kl"
    head: str = "vae"
    resolution: int = 768
    dtype: str = "fp32"
    device: str = "cpu"
    threads: int = 0
    specialised: bool = False
    compile: str = ""
    cuda_graphs: bool = False
    layout: str = "auto"
    attention_slicing: bool = False
    vae_tiling: bool = False
    strips: bool = False
    runtime: str = "torch"
    quantise: str = ""
    decoder: str = ""
    unet: str = ""

    def __post_init__(self) -> None:
        check_choice("shape", self.shape, SHAPES)
        check_choice("codec", self.codec, CODECS)
        check_choice("head", self.head, HEADS)
        check_choice("decoder", self.decoder, tuple(DECODERS))
        check_choice("unet", self.unet, tuple(UNETS))
        dtypes.check(self.dtype)
        check_choice("compile", self.compile, COMPILE)
        check_choice("runtime", self.runtime, tuple(RUNTIMES))
        if self.resolution < 8:
            raise ValueError(f"processing resolution {self.resolution}: must be at least 8 pixels")
        if self.threads < 0:
            raise ValueError(f"threads {self.threads}: must be at least 1, or 0 for as many as torch takes")
        if self.model and (self.codec, self.head, self.decoder, self.unet) != ("kl", "vae", "", ""):
            raise ValueError(f"{self.model}: a model has its own codec and head; choose them with --shape only")
        check_choice("layout", self.layout, LAYOUTS)
        if self.decoder and self.head != "vae":
            raise ValueError(
                f"decoder {self.decoder}: head {self.head} runs none; leave one of --decoder and --head out"
            )
        if (self.compile or self.cuda_graphs) and not self.specialised:
            raise ValueError("compiled code and CUDA graphs are part of specialising: add --specialised")
        if self.layout != "auto" and not self.specialised:
            raise ValueError("a memory format is part of specialising: add --specialised")
        if self.strips and not self.specialised:
            raise ValueError("working in strips is part of specialising: add --specialised")
        check_choice("quantise", self.quantise, ("", *QUANTISE))
        if self.quantise and self.specialised:
            raise ValueError("a quantised pipeline is a plain one: leave out one of --quantise and --specialised")
        if self.runtime != "torch":
            self._check_graph()
        if self.specialised and self.vae_tiling:
            raise ValueError("a specialised pipeline does not tile: leave out one of --specialised and --vae-tiling")

    def _check_graph(self) -> None:
        if self.device != "cpu" or self.specialised or self.attention_slicing or self.vae_tiling or self.quantise:
            raise ValueError(
                f"runtime {self.runtime}: a graph for the CPU, folded already; leave the device and the ways of torch's "
                "pipeline out"
            )
        dtypes.check(self.dtype, RUNTIMES[self.runtime], f"dtype of runtime {self.runtime}")

    @property
    def network(self) -> str:
        """The networks, whatever runs them: equal for settings with equal FLOPs and answers."""
        if self.model:
            return f"{self.model}, {self.resolution} px"
        head = f"{self.decoder} decoder".strip() if self.head == "vae" else self.head
        unet = f", {self.unet} U-Net" if self.unet else ""
        return f"{self.shape}, codec {self.codec}, head {head}{unet}, {self.resolution} px"

    @property
    def label(self) -> str:
        """For a row of a table; the resolution and the device stand above it."""
        ways = [self.dtype] if self.runtime == "torch" else [self.runtime, f"computed in {self.dtype}"]
        ways += [f"linear layers {self.quantise}"] if self.quantise else []
        ways += ["specialised"] if self.specialised else []
        ways += [f"compiled ({self.compile})"] if self.compile else []
        ways += ["CUDA graphs"] if self.cuda_graphs else []
        ways += [self.layout] if self.layout != "auto" else []
        ways += ["sliced attention"] if self.attention_slicing else []
        ways += ["tiled codec"] if self.vae_tiling else []
        ways += ["codec in strips"] if self.strips else []
        return f"{self.network.rpartition(', ')[0]}, {', '.join(ways)}"


@dataclass(frozen=True)
class Effort:
    """Runs without a clock, then `repeats` runs with one, fewer once `seconds` are over, but two where `repeats` allows.

    matmul_seconds: for each size of the matrices whose product is the ceiling. file_to_file: whether reading, all of the
    pipeline and writing are timed as one thing, too. stages: whether the network's are timed apart. host: whether reading,
    resizing and writing are timed, which no device and no dtype changes. limit: seconds after which a process is ended; 0:
    none.
    """

    warmup: int = 1
    repeats: int = 7
    seconds: float = 20.0
    matmul_seconds: float = 0.5
    file_to_file: bool = True
    stages: bool = True
    host: bool = True
    limit: float = 0.0

    def __post_init__(self) -> None:
        if self.warmup < 0 or self.repeats < 1 or self.seconds <= 0:
            raise ValueError(
                f"warm-up {self.warmup}, repeats {self.repeats}, seconds {self.seconds:g}: "
                "at least 0, 1 and more than 0 are needed"
            )
