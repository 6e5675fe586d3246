"""Whole jobs: compress, prune without training, export, evaluate, verify."""

from l0prune.workflows.cutting import cut
from l0prune.workflows.evaluation import evaluate
from l0prune.workflows.exporting import export, formats_of_run, is_run
from l0prune.workflows.observer import LoggingObserver, Observer, register_display
from l0prune.workflows.opening import example_missing, is_own_run, open_run
from l0prune.workflows.overview import inspect_groups, summarise_kinds
from l0prune.workflows.pipeline import compress
from l0prune.workflows.rehearsing import rehearse
from l0prune.workflows.results import Compaction, CompressionReport, CutFacts, ElasticFacts, ElasticPoint
from l0prune.workflows.training_free import prune
from l0prune.workflows.verification import Check, Verification, verify

__all__ = [
    "Check",
    "Compaction",
    "CompressionReport",
    "CutFacts",
    "ElasticFacts",
    "ElasticPoint",
    "LoggingObserver",
    "Observer",
    "Verification",
    "compress",
    "cut",
    "evaluate",
    "example_missing",
    "export",
    "formats_of_run",
    "inspect_groups",
    "is_own_run",
    "is_run",
    "open_run",
    "prune",
    "register_display",
    "rehearse",
    "summarise_kinds",
    "verify",
]
