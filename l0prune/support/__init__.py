"""Nothing of pruning: files, tables, text, signals, modules."""

from typing import TYPE_CHECKING

from l0prune.support.lazy import lazy_names

if TYPE_CHECKING:
    from l0prune.support.files import (
        assembled,
        check_writable,
        free_bytes,
        read_json,
        write_atomic,
        write_json,
        write_text,
    )
    from l0prune.support.forms import NUMBER, NUMBER_OR_NOTHING, checked, conforms, rows_of
    from l0prune.support.modules import (
        copied,
        evaluating,
        is_inside,
        model_shapes,
        output_tensors,
        owners,
        path_of,
        several,
    )
    from l0prune.support.packages import versions
    from l0prune.support.signals import catch_signals
    from l0prune.support.tables import build, merge, read_toml, to_mapping, write_toml
    from l0prune.support.text import (
        counted,
        duration,
        figure_label,
        figure_names,
        listed,
        one_line,
        plain,
        printable,
        quantity,
        score,
        shortest_endings,
    )
    from l0prune.support.torch_internals import (
        in_backward,
        in_checkpoint,
        operator_name,
        operators_are_plain,
        plain_attention,
        random_state,
        restore_random_state,
    )

_HOMES = {
    "files": (
        "assembled",
        "check_writable",
        "free_bytes",
        "read_json",
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
    "modules": (
        "copied",
        "evaluating",
        "is_inside",
        "model_shapes",
        "output_tensors",
        "owners",
        "path_of",
        "several",
    ),
    "packages": ("versions",),
    "signals": ("catch_signals",),
    "tables": (
        "build",
        "merge",
        "read_toml",
        "to_mapping",
        "write_toml",
    ),
    "text": (
        "counted",
        "duration",
        "figure_label",
        "figure_names",
        "listed",
        "one_line",
        "plain",
        "printable",
        "quantity",
        "score",
        "shortest_endings",
    ),
    "torch_internals": (
        "in_backward",
        "in_checkpoint",
        "operator_name",
        "operators_are_plain",
        "plain_attention",
        "random_state",
        "restore_random_state",
    ),
}

__getattr__, __dir__, __all__ = lazy_names(__name__, _HOMES)
