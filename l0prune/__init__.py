"""Prune any PyTorch network to an exact budget with Hard Concrete gates.

The names below are the public surface. They are imported at first use, so that importing the package is instant.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from l0prune.bench_figure import draw_measurement
    from l0prune.benchmark import Measurement, measure
    from l0prune.config import ControllerConfig, GateConfig, OneShotConfig, RunConfig, StageConfig
    from l0prune.counting import pick_device
    from l0prune.dependency import Discovery, discover
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
    from l0prune.evaluation import evaluate
    from l0prune.evaluation_figure import draw_evaluation
    from l0prune.exactness import relative_difference
    from l0prune.exporting import export
    from l0prune.files import assembled, check_writable, write_atomic, write_json
    from l0prune.gating import GatedModel
    from l0prune.groups import Attribute, Bypass, Norm, Place, PruneGroup, Role, consecutive
    from l0prune.importance import importances
    from l0prune.inspection import Inspection, inspect, inspect_groups, summarise_kinds
    from l0prune.mac_model import mac_size
    from l0prune.model_file import load, save
    from l0prune.objective import Losses, Objective
    from l0prune.observer import Observer
    from l0prune.pipeline import compress
    from l0prune.plan import RemovalPlan, plan_of
    from l0prune.plugin import (
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
    from l0prune.proof import prove_groups
    from l0prune.pruner import L0Pruner, wrap
    from l0prune.pruning_graph import groups_of_graph
    from l0prune.records import Record
    from l0prune.removal import Bypassed, apply_plan
    from l0prune.repairing import Repaired, repair
    from l0prune.report import CompressionReport, PruningReport
    from l0prune.reporting.report import Report, write_report
    from l0prune.run_directory import read_report
    from l0prune.scores import Evaluation, EvaluationSettings, EvaluationTask, LayerComparison, Score
    from l0prune.settings import describe, resolve
    from l0prune.size_model import SizeModel, parameter_size
    from l0prune.tables import build, read_toml, write_toml
    from l0prune.training_free import prune
    from l0prune.variants import Contender, Load, check_variants
    from l0prune.wording import counted, duration, listed, quantity

_HOMES = {
    "bench_figure": ("draw_measurement",),
    "benchmark": ("Measurement", "measure"),
    "config": ("ControllerConfig", "GateConfig", "OneShotConfig", "RunConfig", "StageConfig"),
    "tables": ("build", "read_toml", "write_toml"),
    "dependency": ("Discovery", "discover"),
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
    "evaluation": ("evaluate",),
    "evaluation_figure": ("draw_evaluation",),
    "exporting": ("export",),
    "files": ("assembled", "check_writable", "write_atomic", "write_json"),
    "gating": ("GatedModel",),
    "groups": ("Attribute", "Bypass", "Norm", "Place", "PruneGroup", "Role", "consecutive"),
    "importance": ("importances",),
    "inspection": ("Inspection", "inspect", "inspect_groups", "summarise_kinds"),
    "mac_model": ("mac_size",),
    "counting": ("pick_device",),
    "model_file": ("load", "save"),
    "observer": ("Observer",),
    "pipeline": ("compress",),
    "objective": ("Losses", "Objective"),
    "plan": ("RemovalPlan", "plan_of"),
    "plugin": (
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
    "exactness": ("relative_difference",),
    "proof": ("prove_groups",),
    "pruner": ("L0Pruner", "wrap"),
    "pruning_graph": ("groups_of_graph",),
    "removal": ("Bypassed", "apply_plan"),
    "records": ("Record",),
    "repairing": ("Repaired", "repair"),
    "report": ("CompressionReport", "PruningReport"),
    "reporting.report": ("Report", "write_report"),
    "run_directory": ("read_report",),
    "scores": ("Evaluation", "EvaluationSettings", "EvaluationTask", "LayerComparison", "Score"),
    "settings": ("describe", "resolve"),
    "size_model": ("SizeModel", "parameter_size"),
    "training_free": ("prune",),
    "variants": ("Contender", "Load", "check_variants"),
    "wording": ("counted", "duration", "listed", "quantity"),
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
