"""What was measured after a run and put into its folder: probes and latency."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from l0prune.support.files import read_json
from l0prune.support.forms import NUMBER, NUMBER_OR_NOTHING, checked, rows_of

_PROBE = {"model": str, "task": str, "metric": str, "mean": NUMBER}
_MORE_PROBE = {"deviation": NUMBER_OR_NOTHING}
_LAYER = {"model": str, "layer": int, "measures": dict}
_BENCH_ROW = {"model": str, "load": str, "dtype": str, "backend": str, "latency_ms": NUMBER}
_MORE_BENCH_ROW = {
    "latency_p95_ms": NUMBER_OR_NOTHING,
    "speedup": (None, dict.fromkeys(("median", "low", "high"), NUMBER)),
}


def read_probes(path: Path) -> tuple[Mapping[str, Any], ...]:
    """Rows of model, task, metric, mean and deviation; none where there is no file.

    Args:
        path: Such rows as JSON, or an evaluation's scores beside its tasks.

    Raises:
        RunError: It is damaged.
    """
    if not path.is_file():
        return ()
    content = read_json(path)
    if isinstance(content, dict):
        content = _scores(checked(content, {"scores": list}, path, {"tasks": {str: dict}}), path)
    return rows_of(content, path, _PROBE, _MORE_PROBE)


def read_layers(path: Path) -> tuple[Mapping[str, Any], ...]:
    """Rows of model, layer and measures, each layer beside one of the teacher's; none where there are none.

    Args:
        path: What `l0prune evaluate` writes.

    Raises:
        RunError: It is damaged.
    """
    content = read_json(path) if path.is_file() else {}
    rows = content.get("layers", []) if isinstance(content, dict) else []
    rows = rows_of(rows, path, _LAYER)
    for number, row in enumerate(rows, start=1):
        checked(row["measures"], {}, f"{path}, layer {number}", dict.fromkeys(row["measures"], NUMBER_OR_NOTHING))
    return rows


def _scores(evaluation: Mapping[str, Any], path: Path) -> list[dict[str, Any]]:
    """Each score with its task's metric; numbers of shuffled labels must not pass for others."""
    tasks, shuffled = evaluation.get("tasks", {}), ", labels shuffled" if evaluation.get("shuffled_labels") else ""
    scores = rows_of(evaluation["scores"], path, {"model": str, "task": str, "mean": NUMBER})
    return [
        {
            **{key: score.get(key) for key in ("model", "task", "mean", "deviation")},
            "metric": f"{tasks.get(score['task'], {}).get('metric', '')}{shuffled}",
        }
        for score in scores
    ]


def read_bench(path: Path) -> Mapping[str, Any] | None:
    """A benchmark as `l0prune bench --json` printed it; None where there is no file.

    Args:
        path: A JSON file.

    Raises:
        RunError: It is damaged.
    """
    if not path.is_file():
        return None
    content = checked(read_json(path), {"models": dict, "rows": list}, path)
    return {**content, "rows": rows_of(content["rows"], path, _BENCH_ROW, _MORE_BENCH_ROW)}
