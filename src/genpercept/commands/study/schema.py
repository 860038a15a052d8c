"""What a study's TOML file may say: arms, the bases that they start from, parts, and what they are scored on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from genpercept.commands.study.measure import Inference, Test
from genpercept.core.names import choose
from genpercept.training.recipe import DataSet, Section

FOLDERS = ("photographs", "frames")  # that the command's options of these names give; a root may begin with {NAME}


class Arm(Section):
    name: str = Field(min_length=1)
    base: Path = Path()  # a recipe of its own: a file, from the study's folder, or a name; default: the study's
    set: dict[str, Any] = Field(default_factory=dict)  # "a.b" -> value, as --set has them
    pretrained: str = ""  # the [[pretraining]] whose model it starts from; default: the recipe's model.base
    labels: tuple[int, ...] = ()  # numbers of labels it is run with; default: the study's
    inference: tuple[Inference, ...] = Field(default=(Inference(),), min_length=1)
    cost: float = Field(default=1.0, gt=0)  # time per training image, relative to an arm of 1; for the estimate only

    @model_validator(mode="after")
    def _distinct(self) -> Arm:
        all_different([way.title for way in self.inference], f"arm {self.name!r}: two inferences are called")
        return self


class Pretraining(Section):
    """A base that the study makes before its arms: a run of the denoiser stage, once for all seeds."""

    name: str = Field(min_length=1)
    base: Path  # a recipe of the denoiser stage: a file, from the study's folder, or a name
    set: dict[str, Any] = Field(default_factory=dict)  # "a.b" -> value, as --set has them
    data: DataSet | None = None  # in place of all of the recipe's; its root may begin with {photographs}
    untrained: bool = False  # saved at its random weights, without a step
    cost: float = Field(default=1.0, gt=0)  # as an arm's


class Shape(Section):
    """What all runs take from one base, whatever it is: pretraining its codec and its denoiser's sizes, with random weights,
    and all the size in pixels of the images that they learn from."""

    base: str  # a text-to-image model in diffusers' layout: a folder, a hub id or an embedded name
    latent: tuple[int, int]  # height and width in cells of its codec's latent


class Rates(Section):
    """For --dry-run's estimate of the time, on the machine the study is meant for."""

    images: float = Field(default=0.0, ge=0)  # training images/s of an arm of cost 1; 0: unknown
    passes: float = Field(default=0.0, ge=0)  # calls of the denoiser per second when measuring, images one by one


class Suite(Section):
    """Sets of a suite of `genpercept evaluate` as tests, with the splits, options and protocols that it says.

    A study has it as a table, as the suite's name alone, or as a .toml file beside it that other studies share.
    """

    name: str
    sets: tuple[str, ...] = ()  # ids or data sets; default: all
    root: Path = Path("data")  # has a folder for each data set
    roots: dict[str, Path] = Field(default_factory=dict)  # id or data set -> another folder
    options: dict[str, dict[str, Any]] = Field(default_factory=dict)  # id or data set -> options beside the suite's


class Part(Section):
    """Some arms of a study once more, otherwise set and scored, with tables of their own."""

    name: str = Field(min_length=1)
    about: str = ""  # a paragraph under its heading
    arms: tuple[str, ...] = ()  # default: all
    set: dict[str, Any] = Field(default_factory=dict)  # beside the study's; an arm's own come last
    labels: tuple[int, ...] = ()  # the rest as the study has it, where it is left out
    metrics: tuple[str, ...] = ()
    test: tuple[Test, ...] = ()
    cost: float = Field(default=1.0, gt=0)  # of its arms, times their own


class Study(Section):
    """A study's TOML file."""

    name: str
    about: str = ""  # a paragraph for the report
    base: Path  # a recipe: a file, from the study's folder, or one of the package's by its name
    shape: Shape | None = None
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    set: dict[str, Any] = Field(default_factory=dict)  # for all arms
    labels: tuple[int, ...] = ()  # numbers of labels (data.0.count); none: as the recipe has it
    with_labels: dict[int, dict[str, Any]] = Field(default_factory=dict)  # number of labels -> what such runs set, too
    pretraining: tuple[Pretraining, ...] = ()
    arm: tuple[Arm, ...] = Field(min_length=1)
    part: tuple[Part, ...] = ()  # none: the study is one
    reference: str = ""  # arm that the others are compared with, in its first inference; default: the first
    against: tuple[str, ...] = ()  # further ones, by the first of the metrics
    # figures of the task's metric, the first of which is drawn; default: the first two of its table
    metrics: tuple[str, ...] = ()
    test: tuple[Test, ...] = ()
    suite: Suite | None = None  # its sets come before those of test
    draw: Literal["steps", "labels"] = "steps"  # validation during training, or the test sets by the number of labels
    keep_models: bool = True  # False: they are removed once they are measured
    rates: Rates = Rates()

    @model_validator(mode="after")
    def _consistent(self) -> Study:
        names, bases = [arm.name for arm in self.arm], [base.name for base in self.pretraining]
        for what, found in (("arm", names), ("pretraining", bases), ("part", [part.name for part in self.part])):
            all_different(found, f"{what}: two {what}s are called")
            all_different([slug(name) for name in found], f"{what}: two {what}s have the folder name")
        for tests in (self.test, *(part.test for part in self.part)):
            all_different([data.label for data in tests], "test: two sets are called")
        if unknown := [name for name in (self.reference, *self.against) if name and name not in names]:
            raise ValueError(f"reference: {unknown[0]!r} is no arm; choose from {', '.join(names)}")
        for name in [name for part in self.part for name in part.arms]:
            choose("arm", name, names, "part.arms: ")
        for arm in self.arm:
            if arm.pretrained:
                choose("pretraining", arm.pretrained, bases, f"arm {arm.name!r}: ")
        counts = (self.labels, *(arm.labels for arm in self.arm), *(part.labels for part in self.part))
        if any(n < 1 for count in counts for n in count):
            raise ValueError("labels: must be at least 1")
        return self

    @property
    def reference_arm(self) -> str:
        return self.reference or self.arm[0].name

    def pieces(self) -> list[Piece]:
        """Each part as a study of its own, under its title; the study itself, under none, where it has no parts."""
        if not self.part:
            return [Piece("", self)]
        return [Piece(part.name, self._piece(part)) for part in self.part]

    def _piece(self, part: Part) -> Study:
        given = {key: getattr(part, key) for key in ("labels", "metrics", "test") if getattr(part, key)}
        chosen = [arm for arm in self.arm if not part.arms or arm.name in part.arms]
        arms = tuple(arm.model_copy(update={"cost": arm.cost * part.cost}) for arm in chosen)
        names = [arm.name for arm in arms]
        compared = {
            "reference": self.reference_arm if self.reference_arm in names else names[0],
            "against": tuple(name for name in self.against if name in names),
        }
        whole = {"about": part.about, "arm": arms, "part": (), "set": {**self.set, **part.set}}
        return self.model_copy(update={**whole, **compared, **given})


@dataclass(frozen=True)
class Piece:
    """A part of a study, as what it is: a study."""

    title: str
    study: Study


def all_different(names: Sequence[str], what: str) -> None:
    """ValueError, begun by `what`, for names that are there twice."""
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{what} {', '.join(repeated)}")


def slug(name: str) -> str:
    """A name as part of a folder's: `RGB blending (1, 1)` -> `rgb-blending-1-1`."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.")
