"""Films, and images as the frames of a clip, under `genpercept predict`."""
