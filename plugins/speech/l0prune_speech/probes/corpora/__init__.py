"""Labelled speech from the places where it is kept."""

from l0prune_speech.probes.corpora.find import open_sets

__all__ = ["open_sets"]
