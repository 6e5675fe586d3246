"""Encoders out: written for other stacks, made ready to run, measured."""

from l0prune_speech.deploy.benching import contender, load
from l0prune_speech.deploy.exporting import export_network
from l0prune_speech.deploy.inference import for_inference
from l0prune_speech.deploy.own_networks import export_own

__all__ = ["contender", "export_network", "export_own", "for_inference", "load"]
