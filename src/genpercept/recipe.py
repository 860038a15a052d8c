"""A training run, written down: TOML in, checked models out. A recipe holds only what differs from the defaults here.

Unknown keys are refused with a suggestion: a key that nothing reads is a mistake that nobody sees.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from genpercept.core.texts import toml_value
from genpercept.names import hint

Stage = Literal["autoencoder", "denoiser", "finetune", "distil"]
STAGE_ALIASES = {"one_step": "finetune"}  # what the stage was called while it had one paradigm


def default_cache() -> Path:
    """Where rendered scenes and latents are kept between runs; GENPERCEPT_CACHE moves it."""
    root = (
        os.environ.get("GENPERCEPT_CACHE")
        or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "genpercept"
    )
    return Path(root)


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


S = TypeVar("S", bound=Section)


class Model(Section):
    """The parts. A path is a folder in diffusers' layout; a config is a table as in its config.json."""

    # What fine-tuning starts from: a text-to-image model's folder or hub id in diffusers' layout, a DINOv2's or CLIP's in
    # transformers', an embedded model's name, or a predictor that is to be trained further, or taught another task
    base: str = ""
    codec: str = ""  # a folder with an AutoencoderKL (or one with vae/ in it); default: the base's
    init: Literal["base", "scratch"] = "base"  # "scratch": the base's sizes with random weights
    head: str = ""  # finetune stage; default: the task's own ("vae", the codec's decoder)
    head_config: dict[str, Any] = Field(default_factory=dict)  # finetune stage, as in the head's config.json
    codec_config: dict[str, Any] = Field(default_factory=dict)  # autoencoder stage
    backbone: str = ""  # denoiser stage: "sd21" unless given, or "pixart_alpha"; fine-tuning takes the base's
    backbone_config: dict[str, Any] = Field(default_factory=dict)  # denoiser stage
    pyramid_blocks: tuple[
        int, ...
    ] = ()  # finetune stage, transformers: those a head reads; default: four, evenly spaced
    text_config: dict[str, Any] = Field(default_factory=dict)  # denoiser stage: CLIPTextConfig
    prompt_length: int = Field(default=32, ge=3)  # tokens of a padded caption, begin and end included
    train_decoder: bool = False  # the same as learn.decoder = "finetune"


class Learn(Section):
    """finetune stage: which parts learn, and from what. "finetune" starts at the base's weights, "scratch" at random ones."""

    denoiser: Literal["finetune", "scratch", "frozen", "lora", "controlnet"] = "finetune"
    decoder: Literal["frozen", "finetune", "scratch"] = "frozen"  # of the codec; needs a loss behind it
    # A head with weights of its own. "finetune" goes on from the base's head where the base is a predictor that has one
    head: Literal["finetune", "scratch", "frozen"] = "finetune"


class Lora(Section):
    """Low-rank adapters (Hu et al. 2021) by peft."""

    rank: int = Field(default=16, ge=1)
    alpha: int = Field(default=0, ge=0)  # 0: as rank, so that the update is B A, unscaled
    targets: tuple[str, ...] = ()  # ends of layers' names; default: the attention projections; ("all",): every layer


class Prompt(Section):
    """finetune stage: what the denoiser's cross-attention reads."""

    kind: Literal["empty", "fixed", "random"] = "empty"
    text: str = ""  # fixed
    texts: tuple[str, ...] = ()  # random: drawn from for each sample; none: sentences of random words of the vocabulary
    padded: bool = False  # to the tokenizer's full length (v1); random prompts always are

    @model_validator(mode="after")
    def _used(self) -> Prompt:
        if (self.kind == "fixed") != bool(self.text):
            raise ValueError('prompt: kind "fixed" and a text go together')
        if self.texts and self.kind != "random":
            raise ValueError('prompt.texts: only read when prompt.kind is "random"')
        return self


class DataSet(Section):
    name: str = "synthetic"
    domain: str = "mixed"
    split: str = "train"
    root: Path | None = None  # None: the data set makes its own images
    count: int = Field(default=0, ge=0)  # first entries only; 0: all (a data set without an end needs a count)
    fraction: float = Field(default=1.0, gt=0, le=1)  # of a set of files: as many entries, chosen by data.seed
    size: tuple[int, int] = (128, 128)  # rendered height, width
    sizes: tuple[tuple[int, int], ...] = ()  # of its batches, with loader.one_set_per_batch; default: augment.sizes
    seed: int = 0
    far: float = Field(default=0.0, ge=0)  # metres at which depth is cut off; the sky counts as that far. 0: as it is
    weight: float = Field(default=1.0, gt=0)  # share of the samples, relative to the other sets
    # synthetic, cached: only scenes that have it. keypoints: 8 labelled joints or more; mask: 2 % to 90 % of the pixels; defect
    having: Literal["", "keypoints", "mask", "defect"] = ""
    options: dict[str, Any] = Field(default_factory=dict)  # of the data set's plugin
    # A sample that cannot be read is left out, counted and listed, and the next one takes its place. False: it is an error
    skip_bad: bool = False


class Loader(Section):
    batch_size: int = Field(default=16, ge=1)  # over all processes
    cache: bool = True  # rendered scenes are kept on disk; False: rendered anew each time
    cache_dir: Path = Field(default_factory=default_cache)
    one_set_per_batch: bool = False
    # finetune stage, latent loss only, and distil stage: latents of so many augmented variants of each sample (image and label;
    # what the whole end is given or gives) are made once and kept on disk. 0: images are augmented and encoded in every step
    latent_variants: int = Field(default=0, ge=0)
    workers: int = Field(default=0, ge=0)  # processes that render the cache; 0: one per core
    threads: int = Field(default=1, ge=1)  # that make batches beside the step
    prefetch: int = Field(default=4, ge=1)  # batches kept ready


class Augment(Section):
    """What is done to images and labels afresh each time, keyed by (seed, step, sample). 0 switches a part off."""

    flip: float = Field(default=0.5, ge=0, le=1)  # probability; negates the x component of normals
    crop: tuple[float, float] = (1.0, 1.0)  # edge of the crop relative to the largest that fits: low, high
    centre: bool = False  # crops lie in the middle; False: anywhere
    sizes: tuple[tuple[int, int], ...] = ()  # height, width, drawn per batch; default: the first data set's size
    colour: float = Field(
        default=0.0, ge=0, le=1
    )  # strength of brightness, contrast, saturation, hue, gamma, white balance
    grayscale: float = Field(default=0.0, ge=0, le=1)  # probability
    blur: float = Field(default=0.0, ge=0, le=1)  # probability, radius up to 2 pixels
    noise: float = Field(default=0.0, ge=0, le=1)  # probability, standard deviation up to 0.06
    jpeg: float = Field(default=0.0, ge=0, le=1)  # probability, quality 25 to 90


class Autoencoder(Section):
    kl: float = Field(
        default=1e-6, ge=0
    )  # weight of the posterior's divergence from a unit normal (mean over latent values)
    # Share of the batch that is a painted label instead of the photograph, so that labels survive the codec.
    paint: dict[str, float] = Field(
        default_factory=lambda: {"depth": 0.12, "disparity": 0.08, "normals": 0.15, "mask": 0.05}
    )


class Distil(Section):
    """distil stage: one end of the base's codec, an AutoencoderKL's, made cheaper and taught to answer as the whole one."""

    part: Literal["decoder", "encoder"] = "decoder"
    # slim: the same network, pruned. tiny: the tiny autoencoder's (TAESD's), from random weights
    form: Literal["slim", "tiny"] = "slim"
    # slim: share of the channels that are kept, in whole groups of the normalisation. tiny: share of TAESD's 64
    width: float = Field(default=0.5, gt=0, le=1)
    blocks: int = Field(default=0, ge=0)  # residual blocks per level; 0: as many as there are, or as TAESD has
    attention: bool = True  # False: without that in the middle, whose cost is quadratic in the pixels; tiny has none
    channels: Literal[0, 1, 3] = (
        0  # of a decoder's answer; 1: the mean of the three. 0: 1 for tasks of one value per pixel
    )


class Denoiser(Section):
    empty_prompt: float = Field(default=0.1, ge=0, le=1)  # share of captions replaced by "" (for guidance)
    text_lr: float = Field(default=0.0, ge=0)  # 0: as optim.lr
    min_snr_gamma: float = Field(default=0.0, ge=0)  # 0: plain MSE on v; 5: min-SNR weighting (Hang et al. 2023) for v
    cached_latents: bool = True  # encoded once, without crops and colour changes; False: encoded in the step, augmented
    variants: int = Field(default=2, ge=1, le=2)  # cached latents per image: 1 as is, 2 also mirrored
    sample_steps: int = Field(default=25, ge=1)  # DDIM steps of the validation picture
    guidance: float = Field(default=3.0, ge=0)


class Optim(Section):
    # adamw: torch's; fused: the same in one kernel; adam: weight decay added to the gradient; 8bit: AdamW of bitsandbytes;
    # muon: orthogonal updates of weight matrices and AdamW for the rest (fewer steps, each a little slower)
    kind: Literal["adam", "adamw", "fused", "8bit", "muon"] = "fused"
    lr: float = Field(default=1e-4, gt=0)  # of the denoiser, its adapters, or whatever else the stage trains
    lr_decoder: float = Field(default=0.0, ge=0)  # 0: as lr
    lr_head: float = Field(default=0.0, ge=0)  # 0: as lr
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = Field(default=0.01, ge=0)
    eps: float = Field(default=1e-8, gt=0)
    warmup: int = Field(default=100, ge=0)  # steps of linear rise
    decay: Literal["constant", "linear", "cosine", "exponential"] = "cosine"
    final: float = Field(default=0.01, gt=0, le=1)  # learning rate at the end, relative to lr
    decay_steps: int = Field(default=0, ge=0)  # 0: over the whole run
    grad_clip: float = Field(default=1.0, ge=0)  # 0: none
    accumulation: int = Field(default=1, ge=1)  # batches of loader.batch_size per step


class Ema(Section):
    decay: float = Field(default=0.999, ge=0, lt=1)  # 0: none
    warmup: bool = True  # decay at step s is at most (1 + s) / (10 + s)


class Validation(Section):
    every: int = Field(default=500, ge=0)  # steps; 0: only at the end
    count: int = Field(default=32, ge=1)  # samples scored
    pictures: int = Field(default=6, ge=1)  # of them drawn
    split: str = "val"
    domain: str = ""  # default: the first data set's
    steps: int = Field(default=0, ge=0)  # of inference; 0: the paradigm's own
    prompts: tuple[str, ...] = ()  # denoiser stage; default: captions of validation samples


class Checkpoint(Section):
    every: int = Field(default=500, ge=0)  # steps; 0: only when stopped and at the end
    every_minutes: float = Field(default=0.0, ge=0)  # also after this long; 0: no
    keep: int = Field(default=2, ge=1)  # latest ones kept, beside the best


class Logging(Section):
    every: int = Field(default=20, ge=1)  # steps between TensorBoard points
    seconds: float = Field(default=30.0, gt=0)  # between plain lines where there is no terminal
    tensorboard: bool = True
    trackers: tuple[Literal["wandb", "trackio"], ...] = ()  # beside it, where they are installed
    project: str = "genpercept"  # of the trackers


class Speed(Section):
    threads: int = Field(default=0, ge=0)  # of the network's arithmetic on the CPU; 0: torch's choice
    processes: int = Field(default=1, ge=1)  # on this machine, each with its share of every batch
    channels_last: bool = False
    checkpointing: bool = (
        False  # activations are computed again in the backward pass: less memory, about a third more time
    )
    compile: bool = False
    # plain: matrix products and softmax, which auto takes for bf16 on the CPU
    attention: Literal["auto", "plain", "fused"] = "auto"


class Guard(Section):
    """A step whose loss or gradient is not finite, or far above what is usual, is left out and counted."""

    spike: float = Field(
        default=20.0, ge=0
    )  # times the running mean of the gradient norm; 0: only non-finite steps are left out
    limit: int = Field(default=25, ge=1)  # left-out steps in a row that stop the run


class Recipe(Section):
    stage: Stage
    name: str = ""
    seed: int = Field(default=0, ge=0)
    task: str = "depth"
    task_options: dict[str, Any] = Field(
        default_factory=dict
    )  # such as classes of segmentation, height and width of pose
    paradigm: str = "one_step"
    paradigm_options: dict[str, Any] = Field(
        default_factory=dict
    )  # such as betas; timestep and random_timestep of one_step
    steps: int = Field(default=1000, ge=1)
    max_minutes: float = Field(
        default=0.0, ge=0
    )  # wall clock; 0: none. See train.progress: such a run is not bit-reproducible
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    resolution: int = Field(
        default=0, ge=0
    )  # default processing resolution of the saved model; 0: longest training edge
    model: Model = Model()
    learn: Learn = Learn()
    lora: Lora = Lora()
    prompt: Prompt = Prompt()
    data: tuple[DataSet, ...] = (DataSet(count=1000),)
    loader: Loader = Loader()
    augment: Augment = Augment()
    # name -> weight; "latent" compares before the decoder, the others behind it. Empty: the task's own
    loss: dict[str, float] = Field(default_factory=dict)
    # Share of a batch that the losses behind the decoder see, scaled to keep their weight: the decoder is most of a step.
    pixel_share: float = Field(default=1.0, gt=0, le=1)
    loss_options: dict[str, dict[str, Any]] = Field(default_factory=dict)  # name -> its options, such as paper_exact
    autoencoder: Autoencoder = Autoencoder()
    denoiser: Denoiser = Denoiser()
    distil: Distil = Distil()
    optim: Optim = Optim()
    ema: Ema = Ema()
    validation: Validation = Validation()
    checkpoint: Checkpoint = Checkpoint()
    logging: Logging = Logging()
    speed: Speed = Speed()
    guard: Guard = Guard()

    @model_validator(mode="before")
    @classmethod
    def _older_keys(cls, table: Any) -> Any:
        """stage "one_step", model.unet_config, model.train_decoder and, when fine-tuning, model.init, in today's terms."""
        if not isinstance(table, dict):
            return table
        model, learn = table.get("model", {}), table.get("learn", {})
        if isinstance(model, dict) and "unet_config" in model and "backbone_config" not in model:
            model = {"backbone_config" if key == "unet_config" else key: value for key, value in model.items()}
            table = table | {"model": model}
        stage = STAGE_ALIASES.get(table.get("stage", ""), table.get("stage"))
        if isinstance(model, dict) and isinstance(learn, dict) and stage == "finetune":
            if model.get("init") == "scratch":
                learn = {"denoiser": "scratch"} | learn
            if model.get("train_decoder") is True:
                learn = {"decoder": "finetune"} | learn
        return table | ({"stage": stage} if stage else {}) | ({"learn": learn} if learn else {})

    @model_validator(mode="after")
    def _complete(self) -> Recipe:
        if not self.data:
            raise ValueError("data: at least one data set is needed")
        if any(d.sizes for d in self.data) and not self.loader.one_set_per_batch:
            raise ValueError("data.sizes: sets of different sizes cannot share a batch: set loader.one_set_per_batch")
        if any(weight < 0 for weight in self.loss.values()):
            raise ValueError(f"loss: weights must not be negative, got {self.loss}")
        if self.stage != "autoencoder" and not self.model.base and not self.model.codec:
            raise ValueError(f"model.codec: stage {self.stage!r} needs a trained codec (or model.base, which has one)")
        if self.model.backbone and self.stage != "denoiser":
            raise ValueError(
                "model.backbone: only the denoiser stage makes one; fine-tuning takes its base's, leave it out"
            )
        if self.stage == "finetune":
            self._check_finetune()
        if self.stage == "distil":
            self._check_distil()
        return self

    def _check_distil(self) -> None:
        if not self.model.base:
            raise ValueError("model.base: stage 'distil' starts from a trained predictor: its folder or embedded name")
        unread = [k for k, v in self.model.model_dump(exclude_defaults=True).items() if k != "base"]
        if unread:
            raise ValueError(f"model.{unread[0]}: stage 'distil' keeps all parts of its base but one; leave it out")

    def _check_finetune(self) -> None:
        if not self.model.base:
            raise ValueError(
                "model.base: stage 'finetune' starts from a base model's folder "
                '(learn.denoiser = "scratch" takes its sizes only)'
            )

    def sizes(self, which: int = 0) -> tuple[tuple[int, int], ...]:
        """Training sizes (height, width), one of which each batch (of set `which`, where sets differ) has."""
        return self.data[which].sizes or self.augment.sizes or (self.data[0].size,)

    def resolved(self) -> dict[str, Any]:
        """Everything, defaults included, as JSON types."""
        return self.model_dump(mode="json")


def load(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a TOML file with `a.b=value` overrides (TOML values) applied. ValueError in one line names file and key."""
    table = read_table(path)
    for text in overrides:
        override(table, text)
    return parse(table, str(path))


def read_table(path: Path) -> dict[str, Any]:
    """A TOML file. ValueError in one line when there is none, or it is something else."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path}: no such recipe") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, IsADirectoryError) as error:
        raise ValueError(f"{path}: not a TOML file: {error}") from None


def parse(table: dict[str, Any], source: str = "recipe") -> Recipe:
    """A table as the recipe it is. ValueError lists what is wrong, with a suggestion for unknown keys."""
    return validate(Recipe, table, source)


def validate(model: type[S], table: dict[str, Any], source: str) -> S:
    """A table as the model it is. ValueError on one line, begun by `source`."""
    try:
        return model.model_validate(table)
    except ValidationError as error:
        raise ValueError(f"{source}: " + "; ".join(_explain(e, model) for e in error.errors())) from None


def override(table: dict[str, Any], text: str) -> None:
    """Apply `a.b=value`; `data.0.count=5` reaches into a list. A value that is no TOML is taken as a string."""
    key, separator, value = text.partition("=")
    if not separator or not key.strip():
        raise ValueError(f"--set {text!r}: write key=value, as in optim.lr=1e-4")
    assign(table, key.strip(), toml_value(value), f"--set {text!r}")


def assign(table: dict[str, Any], key: str, value: Any, source: str) -> None:
    """Set `a.b.c` in nested tables, in place, making those that are missing. ValueError, begun by `source`, where it cannot."""
    *path, last = key.split(".")
    node: Any = table
    for name in path:
        node = _child(node, name, source)
    if isinstance(node, list):
        node[_position(node, last, source)] = value
    elif isinstance(node, dict):
        node[last] = value
    else:
        raise ValueError(f"{source}: {'.'.join(path)} is a value, not a section")


def _child(node: Any, name: str, source: str) -> Any:
    if isinstance(node, list):
        return node[_position(node, name, source)]
    if not isinstance(node, dict):
        raise ValueError(f"{source}: {name!r} lies inside a value, not a section")
    return node.setdefault(name, {})


def _position(node: list[Any], name: str, source: str) -> int:
    if not name.isdigit() or int(name) >= len(node):
        raise ValueError(f"{source}: {name!r} is no position in a list of {len(node)}")
    return int(name)


def _explain(error: Any, model: type[Section]) -> str:
    """One pydantic error as `section.key: what is wrong`."""
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] != "extra_forbidden":
        message = error["msg"].removeprefix("Value error, ")
        return message if not where else f"{where}: {message} (got {_shorten(error.get('input'))})"
    known = _keys_at(error["loc"][:-1], model)
    return f"{where}: unknown key; {hint(error['loc'][-1], known)}"


def _keys_at(path: tuple[str | int, ...], model: type[Section]) -> list[str]:
    """The keys of the section of `model` that `path` leads to."""
    section: Any = model
    for part in path:
        if isinstance(part, int):
            continue
        annotation = section.model_fields[part].annotation
        section = next(
            (a for a in (annotation, *get_args(annotation)) if isinstance(a, type) and issubclass(a, Section)), Section
        )
    return list(section.model_fields)


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def to_json(recipe: Recipe) -> str:
    return json.dumps(recipe.resolved(), indent=2)
