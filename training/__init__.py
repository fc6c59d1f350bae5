"""Optimisation: strategy, optimizer, loop, checkpoints, tracking."""
