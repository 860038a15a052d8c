"""A training run, written down: TOML in, checked models out. A recipe holds only what differs from the defaults here.

Unknown keys are refused with a suggestion: a key that nothing reads is a mistake that nobody sees.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from pydantic import Field, ValidationError, model_validator

from genpercept.core.names import hint
from genpercept.core.texts import read_toml, toml_value
from genpercept.training import recipe_names
from genpercept.training.recipe_fields import (
    Autoencoder,
    Checkpoint,
    Denoiser,
    Distil,
    Ema,
    Guard,
    Learn,
    Logging,
    Lora,
    Model,
    Optim,
    Prompt,
    Section,
    Speed,
)
from genpercept.training.recipe_samples import Augment, DataSet, Loader, Validation, choose_domain

Stage = Literal["autoencoder", "denoiser", "finetune", "distil"]
STAGE_ALIASES = {"one_step": "finetune"}  # what the stage was called while it had one paradigm


# Keys of [distil] that are read for some forms of a codec's end, or for the denoiser, alone
_DISTIL_KEYS: dict[str, tuple[str, ...]] = dict.fromkeys(("middle", "without_attention", "features"), ("denoiser",))
_DISTIL_KEYS |= dict.fromkeys(("form", "width", "attention", "channels"), ("slim", "tiny", "guided"))
_DISTIL_KEYS |= {"levels": ("guided", "denoiser")}

S = TypeVar("S", bound=Section)


class Recipe(Section):
    """A whole run. Keys without a section stand at the top of the file."""

    stage: Stage = Field(
        description="What is trained: autoencoder a codec, denoiser a text-to-image model, finetune a predictor (formerly "
        "one_step), distil a cheaper end of a predictor's codec, or a cheaper U-Net."
    )
    name: str = Field(default="", description="The run's name, for those who read the recipe.")
    seed: int = Field(
        default=0, ge=0, description="Seed of the initial weights, the order of the samples, augmentation and noise."
    )
    task: str = Field(
        default="depth",
        description="finetune, distil stage: what is predicted.",
        json_schema_extra={"plugins": "tasks"},
    )
    task_options: dict[str, Any] = Field(
        default_factory=dict,
        description="Options of the task, such as classes of segmentation, height and width of pose.",
    )
    paradigm: str = Field(
        default="one_step",
        description="finetune stage: how the denoiser makes the answer.",
        json_schema_extra={"plugins": "paradigms"},
    )
    paradigm_options: dict[str, Any] = Field(
        default_factory=dict,
        description="Options of the paradigm, such as betas; timestep and random_timestep of one_step.",
    )
    steps: int = Field(default=1000, ge=1, description="Steps of the optimiser.")
    max_minutes: float = Field(
        default=0.0,
        ge=0,
        description="Minutes of training after which the run ends early, its learning rate fallen; such a run is not "
        "bit-reproducible. 0: none.",
    )
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        default="fp32",
        description="Precision of the network's arithmetic; weights are float32, lower precisions are mixed.",
    )
    resolution: int = Field(
        default=0,
        ge=0,
        description="Default processing resolution of the saved model, in pixels. 0: the longest training edge.",
    )
    resize_mode: Literal["fit", "area"] = Field(
        default="fit",
        description="What that resolution means for the saved model. fit: pixels along the longest edge; area: as many "
        "pixels in all as a 4:3 image of that edge has, so that wide images are not starved.",
    )
    model: Model = Model()
    learn: Learn = Learn()
    lora: Lora = Lora()
    prompt: Prompt = Prompt()
    data: tuple[DataSet, ...] = (DataSet(count=1000),)
    loader: Loader = Loader()
    augment: Augment = Augment()
    loss: dict[str, float] = Field(
        default_factory=dict,
        description="Weights of the losses, 0 or more, by name; latent compares before the decoder, the others behind it. {}: "
        "the task's own.",
        json_schema_extra={"plugins": "losses"},
    )
    pixel_share: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="Share of a batch that the losses behind the decoder see, scaled to keep their weight: the decoder is most "
        "of a step.",
    )
    loss_options: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="Options of the losses by name, such as paper_exact."
    )
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
        """stage "one_step", model.unet_config, model.train_decoder, optim.accumulation and, when fine-tuning, model.init, in
        today's terms."""
        if not isinstance(table, dict):
            return table
        table = _without_accumulation(table)
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
        if self.validation.domain and self.data[0].name == "synthetic":
            choose_domain(self.validation.domain, "validation.domain: ")
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
        distil = self.distil
        of = "denoiser" if distil.part == "denoiser" else distil.form
        strange = [key for key in distil.model_dump(exclude_defaults=True) if of not in _DISTIL_KEYS.get(key, (of,))]
        if strange:
            wants = " and ".join(_DISTIL_KEYS[strange[0]])
            raise ValueError(f"distil.{strange[0]}: is read for {wants} alone, and this distils {of}; leave it out")
        if distil.form == "guided" and distil.part != "decoder":
            raise ValueError(f'distil.form "guided": makes a decoder, not a {distil.part}; set distil.part = "decoder"')

    def _check_finetune(self) -> None:
        if not self.model.base:
            raise ValueError(
                "model.base: stage 'finetune' starts from a base model's folder "
                '(learn.denoiser = "scratch" takes its sizes only)'
            )

    def sizes(self, which: int = 0) -> tuple[tuple[int, int], ...]:
        """Training sizes (height, width), one of which each batch (of set `which`, where sets differ) has."""
        return self.data[which].sizes or self.augment.sizes or (self.data[0].size,)

    def held_out(self) -> DataSet:
        """The first data set as validation opens it."""
        data, chosen = self.data[0], self.validation
        changes = {"split": chosen.split, "count": chosen.count, "domain": chosen.domain or data.domain}
        return data.model_copy(update={**changes, "drawn": False, "fraction": 1.0})

    def resolved(self) -> dict[str, Any]:
        """Everything, defaults included, as JSON types."""
        return self.model_dump(mode="json")


def _without_accumulation(table: dict[str, Any]) -> dict[str, Any]:
    """optim.accumulation, which counted batches per step, in today's terms: loader.batch_size is all of a step's samples.

    ValueError for a recipe that mixes both, where nobody can say which batch is meant.
    """
    optim, loader = table.get("optim", {}), table.get("loader", {})
    if not (isinstance(optim, dict) and isinstance(loader, dict) and "accumulation" in optim):
        return table
    times, size = optim["accumulation"], loader.get("batch_size", Loader().batch_size)
    if not (isinstance(times, int) and isinstance(size, int) and times > 0):
        raise ValueError(
            f"optim.accumulation {times!r}: leave it out; loader.batch_size is all of a step's samples now"
        )
    if "micro_batch" in loader and times > 1:
        raise ValueError(
            f"optim.accumulation {times}: leave it out beside loader.micro_batch; loader.batch_size is all of a step's samples"
        )
    today = {"batch_size": times * size, "micro_batch": size} if times > 1 else {}
    optim = {key: value for key, value in optim.items() if key != "accumulation"}
    return table | {"optim": optim, "loader": loader | today}


def load(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe with `a.b=value` overrides (TOML values) applied. ValueError in one line names file and key.

    path: of a TOML file, or the name of one of the package's (recipe_names).
    """
    table = read_table(path)
    for text in overrides:
        override(table, text)
    return parse(table, str(path))


def read_table(path: str | Path) -> dict[str, Any]:
    """A TOML file, or the package's recipe of that name. ValueError in one line when there is none, or it is something else."""
    return read_toml(recipe_names.find(path), " as a recipe")


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
        section = section_of(section.model_fields[part].annotation) or Section
    return list(section.model_fields)


def section_of(annotation: Any) -> type[Section] | None:
    """The section that a field of this type holds, or holds a list of; None where it holds a value."""
    found = (a for a in (annotation, *get_args(annotation)) if isinstance(a, type) and issubclass(a, Section))
    return next(found, None)


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def to_json(recipe: Recipe) -> str:
    return json.dumps(recipe.resolved(), indent=2)
