"""What a model answers: a map of three numbers per pixel, between 0 and 1."""

from genpercept.imaging.kinds import Kind

PLUGIN = Kind("albedo", "share of the light that a surface reflects", axes=(None, None, 3), limits=(0, 1))
