"""Clips: one Prediction after another, on one range per shot, steadied along the motion. See `stream.py`."""
