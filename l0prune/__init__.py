"""Prune any PyTorch network to an exact budget with Hard Concrete gates.

The names below are the public surface. They are imported at first use, so that importing the package is instant.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from l0prune.adapters.torch_pruning import groups_of_graph
    from l0prune.calibration.repairing import Repaired, repair
    from l0prune.config import ControllerConfig, GateConfig, OneShotConfig, RunConfig, StageConfig
    from l0prune.discovery.search import Discovery, discover
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
    from l0prune.measuring.count import pick_device
    from l0prune.measuring.variants import Contender, Load, check_variants
    from l0prune.plugin.scores import Evaluation, EvaluationSettings, EvaluationTask, LayerComparison, Score
    from l0prune.plugin.settings import describe, resolve
    from l0prune.plugin.task import (
        Benchable,
        Evaluator,
        Export,
        Exporter,
        ExportFormat,
        Plugin,
        Task,
        get_plugin,
        plugin_names,
    )
    from l0prune.proof.exactness import relative_difference
    from l0prune.proof.trials import prove_groups
    from l0prune.pruner.inspection import Inspection, inspect, inspect_groups, summarise_kinds
    from l0prune.pruner.pruner import L0Pruner, wrap
    from l0prune.removal.apply import Bypassed, apply_plan
    from l0prune.removal.plan import RemovalPlan, plan_of
    from l0prune.report.figures.bench import draw_measurement
    from l0prune.report.figures.evaluation import draw_evaluation
    from l0prune.report.write import Report, write_report
    from l0prune.size.macs import mac_size
    from l0prune.size.polynomial import SizeModel, parameter_size
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
    from l0prune.workflows.pipeline import compress
    from l0prune.workflows.results import CompressionReport, PruningReport
    from l0prune.workflows.training_free import prune

_HOMES = {
    "report.figures.bench": ("draw_measurement",),
    "measuring.benchmark": ("Measurement", "measure"),
    "config": ("ControllerConfig", "GateConfig", "OneShotConfig", "RunConfig", "StageConfig"),
    "support.tables": ("build", "read_toml", "write_toml"),
    "discovery.search": ("Discovery", "discover"),
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
    "workflows.evaluation": ("evaluate",),
    "report.figures.evaluation": ("draw_evaluation",),
    "workflows.exporting": ("export",),
    "support.files": ("assembled", "check_writable", "write_atomic", "write_json"),
    "gates.gated_model": ("GatedModel",),
    "groups": ("Attribute", "Bypass", "Norm", "Place", "PruneGroup", "Role", "consecutive"),
    "importance.importance": ("importances",),
    "pruner.inspection": ("Inspection", "inspect", "inspect_groups", "summarise_kinds"),
    "size.macs": ("mac_size",),
    "measuring.count": ("pick_device",),
    "storage.model_file": ("load", "save"),
    "workflows.observer": ("Observer",),
    "workflows.pipeline": ("compress",),
    "training.objective": ("Losses", "Objective"),
    "removal.plan": ("RemovalPlan", "plan_of"),
    "plugin.task": (
        "Benchable",
        "Evaluator",
        "Export",
        "ExportFormat",
        "Exporter",
        "Plugin",
        "Task",
        "get_plugin",
        "plugin_names",
    ),
    "proof.exactness": ("relative_difference",),
    "proof.trials": ("prove_groups",),
    "pruner.pruner": ("L0Pruner", "wrap"),
    "adapters.torch_pruning": ("groups_of_graph",),
    "removal.apply": ("Bypassed", "apply_plan"),
    "training.records": ("Record",),
    "calibration.repairing": ("Repaired", "repair"),
    "workflows.results": ("CompressionReport", "PruningReport"),
    "report.write": ("Report", "write_report"),
    "storage.run_directory": ("read_report",),
    "plugin.scores": ("Evaluation", "EvaluationSettings", "EvaluationTask", "LayerComparison", "Score"),
    "plugin.settings": ("describe", "resolve"),
    "size.polynomial": ("SizeModel", "parameter_size"),
    "workflows.training_free": ("prune",),
    "measuring.variants": ("Contender", "Load", "check_variants"),
    "support.text": ("counted", "duration", "listed", "quantity"),
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
