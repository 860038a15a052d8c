"""Families: layouts of public checkpoints, which hold only what was trained; the rest comes from their base model."""

from __future__ import annotations

from genpercept.core.registry import Registry
from genpercept.pipeline.families._candidate import Candidate, Family
from genpercept.pipeline.families._family import UNetFamily
from genpercept.pipeline.families._from_base import Base
from genpercept.pipeline.families._headers import Layout

__all__ = ["FAMILIES", "Base", "Candidate", "Family", "Layout", "UNetFamily", "find"]

FAMILIES = Registry[Family](__name__, "family", "genpercept.families", Family)
find = FAMILIES.find
