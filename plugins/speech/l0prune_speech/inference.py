"""Encoders in the form in which they run, under the name that users know."""

from l0prune_speech.deploy import for_inference

__all__ = ["for_inference"]
