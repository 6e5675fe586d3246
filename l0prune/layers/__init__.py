"""Layers whose channels can be gated and cut, one file a family."""
