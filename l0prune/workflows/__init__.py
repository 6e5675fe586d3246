"""Whole jobs: compress, prune without training, export, evaluate."""
