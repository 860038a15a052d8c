"""GenPercept: one-step dense perception from pretrained diffusion models."""

__version__ = "0.1.0"
