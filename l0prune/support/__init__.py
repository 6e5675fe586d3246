"""Nothing of pruning: files, tables, text, signals, modules."""

from typing import TYPE_CHECKING

from l0prune.support.lazy import lazy_names

if TYPE_CHECKING:
    from l0prune.support.assignments import read_assignments, read_value
    from l0prune.support.carrying import carry_source
    from l0prune.support.digests import STAMP, check_archive, check_stamp, file_digest, json_digest, stamp
    from l0prune.support.fields import Field, Setting, alternatives, check_fields, fields_of, table_of, words_of
    from l0prune.support.files import (
        assembled,
        cache_folder,
        check_inside,
        check_writable,
        free_bytes,
        read_json,
        remove,
        write_atomic,
        write_json,
        write_text,
    )
    from l0prune.support.forms import NUMBER, NUMBER_OR_NOTHING, checked, conforms, rows_of
    from l0prune.support.locks import Busy, locked
    from l0prune.support.modules import (
        called,
        copied,
        evaluating,
        is_inside,
        kept_values,
        model_shapes,
        output_numbers,
        output_tensors,
        owners,
        path_of,
        several,
        tensors_given,
        without_values,
    )
    from l0prune.support.notes import say
    from l0prune.support.packages import versions
    from l0prune.support.parsing import parse_json
    from l0prune.support.pickles import pickled_names
    from l0prune.support.processes import python, safe_children
    from l0prune.support.registry import ClassRegistry, Registry, spelled
    from l0prune.support.signals import catch_signals
    from l0prune.support.tables import merge, read_toml, to_mapping, write_toml
    from l0prune.support.text import (
        counted,
        duration,
        figure_label,
        figure_labels,
        listed,
        one_line,
        plain,
        printable,
        quantity,
        score,
        shortest_endings,
    )
    from l0prune.support.torch_internals import (
        DDP_IGNORES,
        BatchNorm,
        Convolution,
        NormWithStatistics,
        TorchDispatchMode,
        backward_pass,
        base_of,
        compiled_from,
        cpu_multiplies_bfloat16,
        flat_weight_names,
        flattened,
        forget_load_hooks,
        in_backward,
        in_checkpoint,
        operator_name,
        operators_are_plain,
        own_buffers,
        own_modules,
        own_parameters,
        padding_of,
        parametrizations_cached,
        parametrized_anew,
        plain_attention,
        pre_hooks,
        random_state,
        random_state_kept,
        refuse_fused_attention,
        restore_random_state,
        saving_hooks,
        schema_of,
        set_flat_weights,
        share_contents,
        share_hooks,
        state_to_pickle,
        tree_leaves,
        tree_map,
        unflattened,
        version_of,
    )
    from l0prune.support.typed import build
    from l0prune.support.weights import check_finite, check_kinds, named_weights

_HOMES = {
    "assignments": ("read_assignments", "read_value"),
    "digests": ("STAMP", "check_archive", "check_stamp", "file_digest", "json_digest", "stamp"),
    "carrying": ("carry_source",),
    "fields": ("Field", "Setting", "alternatives", "check_fields", "fields_of", "table_of", "words_of"),
    "files": (
        "assembled",
        "cache_folder",
        "check_inside",
        "check_writable",
        "free_bytes",
        "read_json",
        "remove",
        "write_atomic",
        "write_json",
        "write_text",
    ),
    "forms": (
        "NUMBER",
        "NUMBER_OR_NOTHING",
        "checked",
        "conforms",
        "rows_of",
    ),
    "locks": ("Busy", "locked"),
    "modules": (
        "called",
        "copied",
        "evaluating",
        "is_inside",
        "kept_values",
        "model_shapes",
        "output_numbers",
        "output_tensors",
        "owners",
        "path_of",
        "several",
        "tensors_given",
        "without_values",
    ),
    "notes": ("say",),
    "packages": ("versions",),
    "processes": ("python", "safe_children"),
    "parsing": ("parse_json",),
    "pickles": ("pickled_names",),
    "registry": ("ClassRegistry", "Registry", "spelled"),
    "signals": ("catch_signals",),
    "tables": (
        "merge",
        "read_toml",
        "to_mapping",
        "write_toml",
    ),
    "text": (
        "counted",
        "duration",
        "figure_label",
        "figure_labels",
        "listed",
        "one_line",
        "plain",
        "printable",
        "quantity",
        "score",
        "shortest_endings",
    ),
    "torch_internals": (
        "BatchNorm",
        "Convolution",
        "DDP_IGNORES",
        "NormWithStatistics",
        "TorchDispatchMode",
        "backward_pass",
        "base_of",
        "compiled_from",
        "cpu_multiplies_bfloat16",
        "flat_weight_names",
        "flattened",
        "forget_load_hooks",
        "in_backward",
        "in_checkpoint",
        "operator_name",
        "operators_are_plain",
        "own_buffers",
        "own_modules",
        "own_parameters",
        "padding_of",
        "parametrizations_cached",
        "parametrized_anew",
        "plain_attention",
        "pre_hooks",
        "random_state",
        "random_state_kept",
        "refuse_fused_attention",
        "restore_random_state",
        "saving_hooks",
        "schema_of",
        "set_flat_weights",
        "share_contents",
        "share_hooks",
        "state_to_pickle",
        "tree_leaves",
        "tree_map",
        "unflattened",
        "version_of",
    ),
    "typed": ("build",),
    "weights": ("check_finite", "check_kinds", "named_weights"),
}

if not TYPE_CHECKING:
    __getattr__, __dir__, __all__ = lazy_names(__name__, _HOMES)
