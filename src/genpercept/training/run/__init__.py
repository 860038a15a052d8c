"""A run: its state on disk, its processes, its log and meters."""
