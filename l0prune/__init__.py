"""Prune any PyTorch network to an exact budget with Hard Concrete gates.

What `__all__` names is what most programs need; it is imported at first use, so that importing the package is instant.
Everything else is public in the folder of its subject, for example `l0prune.config.StageConfig`, `l0prune.plugin.Task`
or `l0prune.size.Metric`, and `import l0prune` is enough to reach it.
"""

from typing import TYPE_CHECKING

from l0prune.support import lazy_names

# Aliases export a name to type checkers that is not in `__all__`.
if TYPE_CHECKING:
    from l0prune import (
        adapters,
        calibration,
        config,
        discovery,
        errors,
        formats,
        gates,
        graphs,
        groups,
        importance,
        layers,
        measuring,
        plugin,
        proof,
        pruner,
        removal,
        report,
        size,
        storage,
        support,
        training,
        workflows,
    )
    from l0prune.adapters.dependency_graphs import groups_of_graph as groups_of_graph
    from l0prune.calibration import Repaired as Repaired
    from l0prune.calibration import repair as repair
    from l0prune.config import ControllerConfig as ControllerConfig
    from l0prune.config import GateConfig as GateConfig
    from l0prune.config import OneShotConfig as OneShotConfig
    from l0prune.config import RunConfig as RunConfig
    from l0prune.config import StageConfig as StageConfig
    from l0prune.discovery import Discovery as Discovery
    from l0prune.discovery import discover
    from l0prune.errors import ConfigError as ConfigError
    from l0prune.errors import DataError as DataError
    from l0prune.errors import GroupError as GroupError
    from l0prune.errors import Interrupted as Interrupted
    from l0prune.errors import L0PruneError
    from l0prune.errors import PlanError as PlanError
    from l0prune.errors import PluginError as PluginError
    from l0prune.errors import ProofError as ProofError
    from l0prune.errors import RunError as RunError
    from l0prune.errors import TargetError as TargetError
    from l0prune.errors import TraceError as TraceError
    from l0prune.errors import TrainingError as TrainingError
    from l0prune.errors import nearest as nearest
    from l0prune.gates import GatedModel as GatedModel
    from l0prune.groups import Attribute as Attribute
    from l0prune.groups import Bypass as Bypass
    from l0prune.groups import Norm as Norm
    from l0prune.groups import Place as Place
    from l0prune.groups import PruneGroup as PruneGroup
    from l0prune.groups import Role as Role
    from l0prune.groups import consecutive as consecutive
    from l0prune.importance import importances as importances
    from l0prune.measuring import Contender as Contender
    from l0prune.measuring import Load as Load
    from l0prune.measuring import Measurement as Measurement
    from l0prune.measuring import check_variants as check_variants
    from l0prune.measuring import measure
    from l0prune.measuring import pick_device as pick_device
    from l0prune.plugin import Benchable as Benchable
    from l0prune.plugin import Evaluation as Evaluation
    from l0prune.plugin import EvaluationSettings as EvaluationSettings
    from l0prune.plugin import EvaluationTask as EvaluationTask
    from l0prune.plugin import Evaluator as Evaluator
    from l0prune.plugin import Export as Export
    from l0prune.plugin import Exporter as Exporter
    from l0prune.plugin import ExportFormat as ExportFormat
    from l0prune.plugin import LayerComparison as LayerComparison
    from l0prune.plugin import Opener as Opener
    from l0prune.plugin import Plugin as Plugin
    from l0prune.plugin import Score as Score
    from l0prune.plugin import Task as Task
    from l0prune.plugin import describe as describe
    from l0prune.plugin import get_plugin as get_plugin
    from l0prune.plugin import plugin_names as plugin_names
    from l0prune.plugin import resolve as resolve
    from l0prune.proof import prove_groups as prove_groups
    from l0prune.proof import relative_difference as relative_difference
    from l0prune.pruner import Inspection as Inspection
    from l0prune.pruner import L0Pruner, inspect, wrap
    from l0prune.pruner import PruningReport as PruningReport
    from l0prune.removal import Bypassed as Bypassed
    from l0prune.removal import RemovalPlan as RemovalPlan
    from l0prune.removal import apply_plan as apply_plan
    from l0prune.removal import plan_of as plan_of
    from l0prune.report import Pareto as Pareto
    from l0prune.report import Report as Report
    from l0prune.report import write_pareto as write_pareto
    from l0prune.report import write_report
    from l0prune.report.figures import draw_evaluation as draw_evaluation
    from l0prune.report.figures import draw_measurement as draw_measurement
    from l0prune.size import SizeModel as SizeModel
    from l0prune.size import mac_size as mac_size
    from l0prune.size import parameter_size as parameter_size
    from l0prune.storage import load, save
    from l0prune.storage import read_report as read_report
    from l0prune.support import assembled as assembled
    from l0prune.support import build as build
    from l0prune.support import check_writable as check_writable
    from l0prune.support import counted as counted
    from l0prune.support import duration as duration
    from l0prune.support import listed as listed
    from l0prune.support import quantity as quantity
    from l0prune.support import read_toml as read_toml
    from l0prune.support import write_atomic as write_atomic
    from l0prune.support import write_json as write_json
    from l0prune.support import write_toml as write_toml
    from l0prune.training import Losses as Losses
    from l0prune.training import Objective as Objective
    from l0prune.training import Record as Record
    from l0prune.workflows import Check as Check
    from l0prune.workflows import CompressionReport as CompressionReport
    from l0prune.workflows import Observer as Observer
    from l0prune.workflows import Verification as Verification
    from l0prune.workflows import compress, evaluate, export, prune
    from l0prune.workflows import cut as cut
    from l0prune.workflows import inspect_groups as inspect_groups
    from l0prune.workflows import rehearse as rehearse
    from l0prune.workflows import summarise_kinds as summarise_kinds
    from l0prune.workflows import verify as verify

    __all__ = [
        "L0PruneError",
        "L0Pruner",
        "__version__",
        "compress",
        "discover",
        "evaluate",
        "export",
        "inspect",
        "load",
        "measure",
        "prune",
        "save",
        "wrap",
        "write_report",
    ]

_HOMES = {
    "discovery": ("discover",),
    "errors": ("L0PruneError",),
    "measuring": ("measure",),
    "pruner": (
        "L0Pruner",
        "inspect",
        "wrap",
    ),
    "report": ("write_report",),
    "storage": (
        "load",
        "save",
    ),
    "workflows": (
        "compress",
        "evaluate",
        "export",
        "prune",
    ),
}
_MORE = {
    "adapters.dependency_graphs": ("groups_of_graph",),
    "calibration": (
        "Repaired",
        "repair",
    ),
    "config": (
        "ControllerConfig",
        "GateConfig",
        "OneShotConfig",
        "RunConfig",
        "StageConfig",
    ),
    "discovery": ("Discovery",),
    "errors": (
        "ConfigError",
        "DataError",
        "GroupError",
        "Interrupted",
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
    "groups": (
        "Attribute",
        "Bypass",
        "Norm",
        "Place",
        "PruneGroup",
        "Role",
        "consecutive",
    ),
    "importance": ("importances",),
    "measuring": (
        "Contender",
        "Load",
        "Measurement",
        "check_variants",
        "pick_device",
    ),
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
        "Opener",
        "Plugin",
        "Score",
        "Task",
        "describe",
        "get_plugin",
        "plugin_names",
        "resolve",
    ),
    "proof": (
        "prove_groups",
        "relative_difference",
    ),
    "pruner": (
        "Inspection",
        "PruningReport",
    ),
    "removal": (
        "Bypassed",
        "RemovalPlan",
        "apply_plan",
        "plan_of",
    ),
    "report": (
        "Pareto",
        "Report",
        "write_pareto",
    ),
    "report.figures": (
        "draw_evaluation",
        "draw_measurement",
    ),
    "size": (
        "SizeModel",
        "mac_size",
        "parameter_size",
    ),
    "storage": ("read_report",),
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
    "training": (
        "Losses",
        "Objective",
        "Record",
    ),
    "workflows": (
        "Check",
        "CompressionReport",
        "Observer",
        "Verification",
        "cut",
        "inspect_groups",
        "rehearse",
        "summarise_kinds",
        "verify",
    ),
}
"""Names of other folders that can be imported from here, too, and are not part of the list."""
_FOLDERS = (
    "adapters",
    "calibration",
    "config",
    "discovery",
    "errors",
    "formats",
    "gates",
    "graphs",
    "groups",
    "importance",
    "layers",
    "measuring",
    "plugin",
    "proof",
    "pruner",
    "quantisation",
    "removal",
    "report",
    "size",
    "storage",
    "support",
    "training",
    "workflows",
)

__version__ = "0.1.0"
if not TYPE_CHECKING:
    __getattr__, __dir__, __all__ = lazy_names(__name__, _HOMES, more=_MORE, folders=_FOLDERS)
    __all__ = sorted([*__all__, "__version__"])
