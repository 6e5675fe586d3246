"""The plugin seam: what a plugin gives, and how plugins are found."""

from l0prune.plugin.find import get_plugin, plugin_names
from l0prune.plugin.protocols import (
    Benchable,
    CalibratedExporter,
    Carded,
    CardFacts,
    Evaluator,
    Export,
    Exporter,
    ExportFormat,
    FormatsBySource,
    Opener,
    Plugin,
    SelfChecking,
)
from l0prune.plugin.scores import Evaluation, EvaluationSettings, EvaluationTask, LayerComparison, Score
from l0prune.plugin.settings import STAGES, as_before, came_later, describe, may_change, resolve, wish_of
from l0prune.plugin.task import OwnTask, Task, UnitKind

__all__ = [
    "STAGES",
    "Benchable",
    "CalibratedExporter",
    "CardFacts",
    "Carded",
    "Evaluation",
    "EvaluationSettings",
    "EvaluationTask",
    "Evaluator",
    "Export",
    "ExportFormat",
    "Exporter",
    "FormatsBySource",
    "LayerComparison",
    "Opener",
    "OwnTask",
    "Plugin",
    "Score",
    "SelfChecking",
    "Task",
    "UnitKind",
    "as_before",
    "came_later",
    "describe",
    "get_plugin",
    "may_change",
    "plugin_names",
    "resolve",
    "wish_of",
]
