"""Experiments: every setting in `schema`, one file per experiment."""
