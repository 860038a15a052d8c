"""Public checkpoint layouts."""
