"""Prune any PyTorch network to an exact budget with Hard Concrete gates.

The names below are the public surface. They are imported at first use, so that importing the package is instant.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from l0prune.adapters.torch_pruning import groups_of_graph
    from l0prune.calibration.repairing import Repaired, repair
    from l0prune.config import ControllerConfig, GateConfig, OneShotConfig, RunConfig, StageConfig
    from l0prune.discovery.found import Discovery
    from l0prune.discovery.search import discover
    from l0prune.errors import (
        ConfigError,
        DataError,
        GroupError,
        Interrupted,
        L0PruneError,
        PlanError,
        PluginError,
        ProofError,
        RunError,
        TargetError,
        TraceError,
        TrainingError,
        nearest,
    )
    from l0prune.gates.gated_model import GatedModel
    from l0prune.groups import Attribute, Bypass, Norm, Place, PruneGroup, Role, consecutive
    from l0prune.importance.importance import importances
    from l0prune.measuring.benchmark import Measurement, measure
    from l0prune.measuring.machine import pick_device
    from l0prune.measuring.variants import Contender, Load, check_variants
    from l0prune.plugin.find import get_plugin, plugin_names
    from l0prune.plugin.protocols import Benchable, Evaluator, Export, Exporter, ExportFormat, Plugin
    from l0prune.plugin.scores import Evaluation, EvaluationSettings, EvaluationTask, LayerComparison, Score
    from l0prune.plugin.settings import describe, resolve
    from l0prune.plugin.task import Task
    from l0prune.proof.exactness import relative_difference
    from l0prune.proof.trials import prove_groups
    from l0prune.pruner.inspection import Inspection, inspect
    from l0prune.pruner.pruner import L0Pruner, wrap
    from l0prune.pruner.report import PruningReport
    from l0prune.removal.apply import Bypassed, apply_plan
    from l0prune.removal.plan import RemovalPlan, plan_of
    from l0prune.report.figures.bench import draw_measurement
    from l0prune.report.figures.evaluation import draw_evaluation
    from l0prune.report.write import Report, write_report
    from l0prune.size.macs import mac_size
    from l0prune.size.parameters import parameter_size
    from l0prune.size.polynomial import SizeModel
    from l0prune.storage.model_file import load, save
    from l0prune.storage.run_directory import read_report
    from l0prune.support.files import assembled, check_writable, write_atomic, write_json
    from l0prune.support.tables import build, read_toml, write_toml
    from l0prune.support.text import counted, duration, listed, quantity
    from l0prune.training.objective import Losses, Objective
    from l0prune.training.records import Record
    from l0prune.workflows.evaluation import evaluate
    from l0prune.workflows.exporting import export
    from l0prune.workflows.observer import Observer
    from l0prune.workflows.overview import inspect_groups, summarise_kinds
    from l0prune.workflows.pipeline import compress
    from l0prune.workflows.results import CompressionReport
    from l0prune.workflows.training_free import prune

_HOMES = {
    "adapters.torch_pruning": ("groups_of_graph",),
    "calibration.repairing": ("Repaired", "repair"),
    "config": ("ControllerConfig", "GateConfig", "OneShotConfig", "RunConfig", "StageConfig"),
    "discovery.found": ("Discovery",),
    "discovery.search": ("discover",),
    "errors": (
        "ConfigError",
        "DataError",
        "GroupError",
        "Interrupted",
        "L0PruneError",
        "PlanError",
        "PluginError",
        "ProofError",
        "RunError",
        "TargetError",
        "TraceError",
        "TrainingError",
        "nearest",
    ),
    "gates.gated_model": ("GatedModel",),
    "groups": ("Attribute", "Bypass", "Norm", "Place", "PruneGroup", "Role", "consecutive"),
    "importance.importance": ("importances",),
    "measuring.benchmark": ("Measurement", "measure"),
    "measuring.machine": ("pick_device",),
    "measuring.variants": ("Contender", "Load", "check_variants"),
    "plugin.find": ("get_plugin", "plugin_names"),
    "plugin.protocols": ("Benchable", "Evaluator", "Export", "Exporter", "ExportFormat", "Plugin"),
    "plugin.scores": ("Evaluation", "EvaluationSettings", "EvaluationTask", "LayerComparison", "Score"),
    "plugin.settings": ("describe", "resolve"),
    "plugin.task": ("Task",),
    "proof.exactness": ("relative_difference",),
    "proof.trials": ("prove_groups",),
    "pruner.inspection": ("Inspection", "inspect"),
    "pruner.pruner": ("L0Pruner", "wrap"),
    "pruner.report": ("PruningReport",),
    "removal.apply": ("Bypassed", "apply_plan"),
    "removal.plan": ("RemovalPlan", "plan_of"),
    "report.figures.bench": ("draw_measurement",),
    "report.figures.evaluation": ("draw_evaluation",),
    "report.write": ("Report", "write_report"),
    "size.macs": ("mac_size",),
    "size.parameters": ("parameter_size",),
    "size.polynomial": ("SizeModel",),
    "storage.model_file": ("load", "save"),
    "storage.run_directory": ("read_report",),
    "support.files": ("assembled", "check_writable", "write_atomic", "write_json"),
    "support.tables": ("build", "read_toml", "write_toml"),
    "support.text": ("counted", "duration", "listed", "quantity"),
    "training.objective": ("Losses", "Objective"),
    "training.records": ("Record",),
    "workflows.evaluation": ("evaluate",),
    "workflows.exporting": ("export",),
    "workflows.observer": ("Observer",),
    "workflows.overview": ("inspect_groups", "summarise_kinds"),
    "workflows.pipeline": ("compress",),
    "workflows.results": ("CompressionReport",),
    "workflows.training_free": ("prune",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)  # pyright: ignore[reportUnsupportedDunderAll]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"l0prune.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
