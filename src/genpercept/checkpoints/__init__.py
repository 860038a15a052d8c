"""Weights on disk, checked to the last tensor: parts, where models come from, pickles, low-rank parts, the embedded models."""
