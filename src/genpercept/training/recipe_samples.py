"""The sections of a recipe that say which samples a run sees: data sets, batches, augmentation.

`genpercept train --explain` and docs/recipe.md print what stands here; see `recipe_reference`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import Field, field_validator, model_validator

from genpercept.core.labels import LABELS
from genpercept.core.names import choose
from genpercept.core.places import cache_folder
from genpercept.training.recipe_fields import Section


def choose_domain(name: str, where: str = "") -> str:
    """The domain of the synthetic world, if there is one of that name. ValueError with those there are."""
    from genpercept.data.synthetic import DOMAINS  # which brings torch, and a recipe's keys are explained without it

    return choose("domain", name, DOMAINS, where)


class DataSet(Section):
    """A set of images and labels; several [[data]] tables are mixed by their weights. Without one: 1,000 synthetic scenes."""

    name: str = Field(
        default="synthetic",
        description="The data set; folder is your own images and labels.",
        json_schema_extra={"plugins": "datasets"},
    )
    domain: str = Field(
        default="mixed",
        description="synthetic: what the scenes show: indoor, outdoor, closeup, mixed, heldout_shapes or heldout_textures.",
    )
    split: str = Field(
        default="train", description="The part of the set, such as train; `genpercept data list --json` has all."
    )
    root: Path | None = Field(
        default=None, description="Folder of the set, in its published layout. Left out: the set makes its own images."
    )
    count: int = Field(
        default=0, ge=0, description="Only so many entries, the first. 0: all; a set without an end needs a count."
    )
    drawn: bool = Field(
        default=False, description="The count's entries are drawn from all of a set of files, by the set's seed."
    )
    fraction: float = Field(
        default=1.0, gt=0, le=1, description="Share of a set of files' entries, chosen by the set's seed."
    )
    size: tuple[int, int] = Field(
        default=(128, 128),
        description="Height and width in pixels of rendered scenes, and of what is trained on by default.",
    )
    sizes: tuple[tuple[int, int], ...] = Field(
        default=(),
        description="Heights and widths in pixels of its batches, with loader.one_set_per_batch. []: augment.sizes.",
    )
    seed: int = Field(
        default=0,
        description="synthetic: which world is rendered. Files: which entries are drawn, and kept by a fraction.",
    )
    far: float = Field(
        default=0.0,
        ge=0,
        description="Metres at which depth is cut off; the sky counts as that far. 0: depth stays as it is.",
    )
    weight: float = Field(default=1.0, gt=0, description="Share of the samples, relative to the other sets'.")
    having: str = Field(
        default="",
        description="synthetic, cached: only scenes that have enough of this label, as its row of genpercept.core.labels says: "
        'keypoints: 8 labelled joints or more; mask: 2 % to 90 % of the pixels; defect. "": all scenes.',
    )
    options: dict[str, Any] = Field(
        default_factory=dict, description="Options of the data set, as docs/datasets.md has them."
    )
    skip_bad: bool = Field(
        default=False,
        description="A sample that cannot be read is left out, counted and listed, and the next one takes its place. false: it "
        "is an error.",
    )

    @property
    def called(self) -> str:
        """What lines about the set call it: one that renders its own images by what they show."""
        return self.name if self.root else f"{self.name}/{self.domain}"

    @model_validator(mode="after")
    def _a_domain(self) -> Self:
        if self.name == "synthetic" and self.domain != "mixed":
            choose_domain(self.domain)
        return self

    @field_validator("having")
    @classmethod
    def _can_be_asked_for(cls, having: str) -> str:
        return choose("label", having, ["", *(name for name, row in LABELS.items() if row.enough)])


class HeldOut(DataSet):
    """finetune, distil stage: a set that the model is scored on by the task's metric, each image at its own size, as
    `genpercept evaluate` scores the saved model. Several are several tables."""

    unread: ClassVar[tuple[str, ...]] = ("weight", "sizes")  # of what a data set has

    title: str = Field(
        default="",
        description='What its figures are called: TITLE/abs_rel. "": the data set\'s name, or of rendered scenes their domain.',
    )
    split: str = Field(default="test", description="The part of the set, such as test or val.")
    protocol: str = Field(
        default="",
        description='Named rules of the metric, such as nyu. "": the data set\'s own, where it has some, as in `evaluate`.',
    )

    @property
    def label(self) -> str:
        """What its figures are called."""
        return self.title or (self.name if self.root else self.domain)

    def data(self) -> DataSet:
        """The set alone, as sources take it."""
        return DataSet(**self.model_dump(include=set(DataSet.model_fields)))

    @model_validator(mode="after")
    def _read(self) -> HeldOut:
        if given := [key for key in self.unread if getattr(self, key) != type(self).model_fields[key].default]:
            raise ValueError(f"{given[0]}: nothing is trained on {self.label}, which is only scored; leave it out")
        return self


class Validation(Section):
    """Figures and pictures during the run; the best model so far is kept."""

    every: int = Field(default=500, ge=0, description="Steps between two validations. 0: only at the end.")
    count: int = Field(default=32, ge=1, description="Samples scored, the first of the split.")
    pictures: int = Field(default=6, ge=1, description="Samples drawn as pictures, of those scored.")
    split: str = Field(default="val", description="Split of the first data set that is scored.")
    domain: str = Field(default="", description='synthetic: what the scenes show. "": as the first data set\'s.')
    steps: int = Field(default=0, ge=0, description="Steps of inference. 0: the paradigm's own.")
    best: str = Field(
        default="",
        description="The figure that says which model is best: loss or any other that validation reports, such as abs_rel, or "
        'TITLE/abs_rel of one of its sets. "": the loss, or an autoencoder\'s psnr.',
    )
    prompts: tuple[str, ...] = Field(
        default=(), description="denoiser stage: what is drawn. []: captions of validation samples."
    )
    sets: tuple[HeldOut, ...] = ()

    @model_validator(mode="after")
    def _told_apart(self) -> Validation:
        names = [data.label for data in self.sets]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"validation.sets: two are called {', '.join(repeated)}; give each a title of its own")
        return self


class Loader(Section):
    """Batches, and what is kept on disk between runs. See docs/training.md."""

    batch_size: int = Field(
        default=16, ge=1, description="Samples of one step of the optimiser, over all processes: the effective batch."
    )
    micro_batch: int = Field(
        default=0,
        ge=0,
        description="Samples of one process that go through the network at once; a step makes as many passes as the process's "
        "share of the batch needs, with the same result. 0: the whole share; on a GPU half of it, a quarter and so on where it "
        "does not fit, found out before the first step.",
    )
    cache: bool = Field(default=True, description="Rendered scenes are kept on disk. false: rendered anew each time.")
    cache_dir: Path = Field(
        default_factory=cache_folder,
        description="Folder of rendered scenes and latents.",
        json_schema_extra={"default": "$GENPERCEPT_CACHE, else $XDG_CACHE_HOME/genpercept, else ~/.cache/genpercept"},
    )
    one_set_per_batch: bool = Field(default=False, description="All samples of a batch come from one data set.")
    latent_variants: int = Field(
        default=0,
        ge=0,
        description="finetune stage with the latent loss alone, and distil stage: latents of so many augmented variants of "
        "each sample (image and label; what the whole end is given or gives) are made once and kept on disk. 0: images are "
        "augmented and encoded in every step.",
    )
    workers: int = Field(
        default=0,
        ge=0,
        description="Processes, for each one that trains, that read and augment beside the step: as many as keep it from "
        "waiting. 0: threads do. The batches are the same bits.",
    )
    threads: int = Field(default=1, ge=1, description="Threads that make batches beside the step, without workers.")
    prefetch: int = Field(default=4, ge=1, description="Batches kept ready; at least one per worker.")
    render_workers: int = Field(default=0, ge=0, description="Processes that render the cache. 0: one per core.")


class Augment(Section):
    """What is done to images and labels afresh each time, keyed by (seed, step, sample). 0 switches a part off."""

    flip: float = Field(
        default=0.5, ge=0, le=1, description="Probability of a mirror image; the x component of normals is negated."
    )
    crop: tuple[float, float] = Field(
        default=(1.0, 1.0),
        description="Edge of the crop relative to the largest that fits, drawn between the two: low, high.",
    )
    centre: bool = Field(default=False, description="Crops lie in the middle. false: anywhere.")
    sizes: tuple[tuple[int, int], ...] = Field(
        default=(),
        description="Heights and widths in pixels, one of which is drawn for each batch. []: the first data set's size.",
    )
    colour: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Strength of brightness, contrast, saturation, hue, gamma and white balance.",
    )
    grayscale: float = Field(default=0.0, ge=0, le=1, description="Probability of a picture without colours.")
    blur: float = Field(default=0.0, ge=0, le=1, description="Probability of a Gaussian blur, radius up to 2 pixels.")
    noise: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Probability of Gaussian noise, standard deviation up to 0.06 of the full range.",
    )
    jpeg: float = Field(default=0.0, ge=0, le=1, description="Probability of JPEG compression, quality 25 to 90.")
