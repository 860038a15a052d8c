"""What requests may ask for, in their address or as fields of their form, and the line that says what is wrong with it."""

from __future__ import annotations

from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from genpercept.commands.serve import openapi
from genpercept.commands.serve.limits import Asked, FilmAsked, Unacceptable
from genpercept.pipeline.tiles.plan import OVERLAP

P = TypeVar("P", bound="Parameters")


class Parameters(BaseModel):
    """Of images and films alike."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(None, description="One of /v1/models that does the task. Default: the task's first.")
    processing_resolution: int | None = Field(
        None, description="Longest edge the network sees; 0: the image's own. Default: the model's."
    )
    steps: int | None = Field(None, description="Steps, for models that take several.")
    ensemble_size: int = Field(1, description="Runs to merge, for models that start from noise.")
    seed: int = Field(0, description="Of the noise, where there is any.")
    flip_test: bool = Field(False, description="Mean of the image's and its mirror image's answer; twice the time.")
    fov: float | None = Field(None, description="Horizontal field of view in degrees, for points and meshes; else 60.")
    tiles: Literal["auto"] | int | None = Field(
        None,
        description="Large images: also in tiles of so many pixels, joined without seams; auto: by image and model.",
    )
    overlap: float = Field(OVERLAP, description="Least share of a tile's edge that its neighbour has, too.")
    refine: bool = Field(False, description="Bring edges to those of the image.")


class Options(Parameters):
    """Of an image."""

    format: str | None = Field(None, description="Of the answer, in place of Accept: " + openapi.FORMATS)
    threshold: float | None = Field(
        None, description="From which a mask is white (0.5), or a pixel of an overlay is outlined as a defect."
    )
    known: str | None = Field(
        None,
        description="Distances that are known, as text or as a file of the form: x, y (pixels), metres in each line. Depth and "
        "disparity are fitted to them and come back in metres.",
    )

    def asked(self) -> Asked:
        return Asked(**self.model_dump(exclude={"model"}))


class FilmOptions(Parameters):
    """Of a film."""

    format: str | None = Field(None, description="A list with commas: " + openapi.FILM_FORMATS)
    smooth: float = Field(
        0.0, description="Steady each pixel along its motion: the past's weight, from 0 to below 1, such as 0.8."
    )
    side_by_side: bool = Field(False, description="The film beside its colours, in one picture.")

    def asked(self) -> FilmAsked:
        return FilmAsked(**self.model_dump(exclude={"model"}))


def merged(options: P, fields: dict[str, str]) -> P:
    """Options of the address, and those of the form in their place."""
    try:
        return type(options).model_validate(options.model_dump(exclude_unset=True) | fields)
    except ValidationError as error:
        raise Unacceptable(line_of(list(error.errors()), type(options))) from None


def line_of(errors: list[Any], options: type[Parameters]) -> str:
    """pydantic's list as a line: the first thing that is wrong."""
    first = errors[0]
    places = [str(place) for place in first["loc"]]  # the option, and behind it which of its kinds it is not
    name = next((place for place in places if place in options.model_fields), (places or ["options"])[-1])[:60]
    if first["type"] == "extra_forbidden":
        return f"{name}: no such option; there are {', '.join(options.model_fields)}"
    return f"{name}={str(first.get('input'))[:60]!r}: {first['msg'].lower()}"
