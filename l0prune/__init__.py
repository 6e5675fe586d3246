"""Prune any PyTorch network to an exact budget with Hard Concrete gates.

The names below are the public surface. They are imported at first use, so that importing the package is instant.
Rules for operators and modules are registered in `l0prune.discovery`, layers of one's own in `l0prune.layers`.
"""

from typing import TYPE_CHECKING

from l0prune.support import lazy_names

if TYPE_CHECKING:
    from l0prune import discovery, layers
    from l0prune.adapters.torch_pruning import groups_of_graph
    from l0prune.calibration import Repaired, repair
    from l0prune.config import ControllerConfig, GateConfig, OneShotConfig, RunConfig, StageConfig
    from l0prune.discovery import Discovery, discover
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
    from l0prune.gates import GatedModel
    from l0prune.groups import Attribute, Bypass, Norm, Place, PruneGroup, Role, consecutive
    from l0prune.importance import importances
    from l0prune.measuring import Contender, Load, Measurement, check_variants, measure, pick_device
    from l0prune.plugin import (
        Benchable,
        Evaluation,
        EvaluationSettings,
        EvaluationTask,
        Evaluator,
        Export,
        Exporter,
        ExportFormat,
        LayerComparison,
        Plugin,
        Score,
        Task,
        describe,
        get_plugin,
        plugin_names,
        resolve,
    )
    from l0prune.proof import prove_groups, relative_difference
    from l0prune.pruner import Inspection, L0Pruner, PruningReport, inspect, wrap
    from l0prune.removal import Bypassed, RemovalPlan, apply_plan, plan_of
    from l0prune.report import Report, write_report
    from l0prune.report.figures import draw_evaluation, draw_measurement
    from l0prune.size import SizeModel, mac_size, parameter_size
    from l0prune.storage import load, read_report, save
    from l0prune.support import (
        assembled,
        build,
        check_writable,
        counted,
        duration,
        listed,
        quantity,
        read_toml,
        write_atomic,
        write_json,
        write_toml,
    )
    from l0prune.training import Losses, Objective, Record
    from l0prune.workflows import (
        CompressionReport,
        Observer,
        compress,
        evaluate,
        export,
        inspect_groups,
        prune,
        summarise_kinds,
    )

_HOMES = {
    "adapters.torch_pruning": ("groups_of_graph",),
    "calibration": ("Repaired", "repair"),
    "config": ("ControllerConfig", "GateConfig", "OneShotConfig", "RunConfig", "StageConfig"),
    "discovery": ("Discovery", "discover"),
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
    "gates": ("GatedModel",),
    "groups": ("Attribute", "Bypass", "Norm", "Place", "PruneGroup", "Role", "consecutive"),
    "importance": ("importances",),
    "measuring": ("Contender", "Load", "Measurement", "check_variants", "measure", "pick_device"),
    "plugin": (
        "Benchable",
        "Evaluation",
        "EvaluationSettings",
        "EvaluationTask",
        "Evaluator",
        "Export",
        "Exporter",
        "ExportFormat",
        "LayerComparison",
        "Plugin",
        "Score",
        "Task",
        "describe",
        "get_plugin",
        "plugin_names",
        "resolve",
    ),
    "proof": ("prove_groups", "relative_difference"),
    "pruner": ("Inspection", "L0Pruner", "PruningReport", "inspect", "wrap"),
    "removal": ("Bypassed", "RemovalPlan", "apply_plan", "plan_of"),
    "report": ("Report", "write_report"),
    "report.figures": ("draw_evaluation", "draw_measurement"),
    "size": ("SizeModel", "mac_size", "parameter_size"),
    "storage": ("load", "read_report", "save"),
    "support": (
        "assembled",
        "build",
        "check_writable",
        "counted",
        "duration",
        "listed",
        "quantity",
        "read_toml",
        "write_atomic",
        "write_json",
        "write_toml",
    ),
    "training": ("Losses", "Objective", "Record"),
    "workflows": (
        "CompressionReport",
        "Observer",
        "compress",
        "evaluate",
        "export",
        "inspect_groups",
        "prune",
        "summarise_kinds",
    ),
}
__getattr__, __dir__, __all__ = lazy_names(__name__, _HOMES, folders=("discovery", "layers"))
__version__ = "0.1.0"
