"""Whole jobs: compress, prune without training, export, evaluate, verify."""

from l0prune.workflows.evaluation import evaluate
from l0prune.workflows.exporting import export
from l0prune.workflows.observer import LoggingObserver, Observer
from l0prune.workflows.overview import inspect_groups, summarise_kinds
from l0prune.workflows.pipeline import compress
from l0prune.workflows.rehearsing import rehearse
from l0prune.workflows.results import CompressionReport
from l0prune.workflows.training_free import prune
from l0prune.workflows.verification import Check, Verification, verify

__all__ = [
    "Check",
    "CompressionReport",
    "LoggingObserver",
    "Observer",
    "Verification",
    "compress",
    "evaluate",
    "export",
    "inspect_groups",
    "prune",
    "rehearse",
    "summarise_kinds",
    "verify",
]
