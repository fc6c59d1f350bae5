"""Optimisation: strategy, optimizer, loop, checkpoints."""
