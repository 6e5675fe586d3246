"""Prune any PyTorch network to an exact budget with Hard Concrete gates.

What `__all__` names is what most programs need; it is imported at first use, so that importing the package is instant.
Everything else is public in the folder of its subject, for example `l0prune.config.StageConfig`, `l0prune.plugin.Task`
or `l0prune.size.Metric`, and `import l0prune` is enough to reach it.
"""

from typing import TYPE_CHECKING

from l0prune.support import lazy_names

if TYPE_CHECKING:
    from l0prune import (
        adapters,
        calibration,
        config,
        discovery,
        errors,
        gates,
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
    from l0prune.adapters.dependency_graphs import groups_of_graph
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
        Opener,
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
        Check,
        CompressionReport,
        Observer,
        Verification,
        compress,
        evaluate,
        export,
        inspect_groups,
        prune,
        rehearse,
        summarise_kinds,
        verify,
    )

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
    "report": ("Report",),
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
    "gates",
    "groups",
    "importance",
    "layers",
    "measuring",
    "plugin",
    "proof",
    "pruner",
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
