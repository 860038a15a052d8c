"""Families: layouts of public checkpoints, which hold only what was trained; the rest comes from their base model."""

from __future__ import annotations

import json
from typing import Any

from genpercept.core.registry import Registry
from genpercept.pipeline.families._candidate import Candidate, Family, FullFolder
from genpercept.pipeline.families._family import UNetFamily
from genpercept.pipeline.families._from_base import Base
from genpercept.pipeline.families._headers import Layout

__all__ = ["FAMILIES", "Base", "Candidate", "Family", "FullFolder", "Layout", "UNetFamily", "find"]

FAMILIES = Registry[Family](__name__, "family", "genpercept.families", Family)
find = FAMILIES.find


def asked(text: str) -> Family:
    """The family of this name, or of a name with choices: "depthfm,attention=rescaled". ValueError for what there is not."""
    name, *rest = text.split(",")
    return FAMILIES.find(name.strip()).with_options(**choices(text)) if rest else FAMILIES.find(name.strip())


def choices(text: str) -> dict[str, Any]:
    """The choices in a family's name; {} for a plain one. Numbers, true, false and null are JSON's, all else is text."""
    found: dict[str, Any] = {}
    for item in text.split(",")[1:]:
        key, equals, value = item.partition("=")
        if not equals:
            raise ValueError(
                f"family {text!r}: {item!r} is no choice: write NAME,KEY=VALUE, such as depthfm,attention=plain"
            )
        try:
            found[key.strip()] = json.loads(value)
        except ValueError:
            found[key.strip()] = value.strip()
    return found
