"""Whole volumes: tiling, merging, the SavedModel and what reads it."""
