"""What the files say: a map of three numbers per pixel, between 0 and 1."""

from genpercept.core.labels import Label

PLUGIN = Label(
    "albedo",
    "share of the light that a surface reflects: red, green, blue",
    channels=3,
    limits=(0, 1),
    resampling="bilinear",
    kind="albedo",
)
