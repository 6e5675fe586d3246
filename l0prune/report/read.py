"""What a run's folder holds, read without building a network; an unfinished run holds less."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from l0prune.errors import RunError
from l0prune.plugin import STAGES
from l0prune.report.figures import score_rows
from l0prune.storage import RunDirectory, read_description
from l0prune.support import NUMBER, NUMBER_OR_NOTHING, checked, parse_json, read_json, read_toml, rows_of

_SETTINGS = {
    **dict.fromkeys(("plugin", "recipe", "metric"), str),
    **dict.fromkeys(STAGES, dict),
}
_REPORT = {
    "teacher": str,
    "params_before": int,
    "params_after": int,
    "macs_before": (int, None),
    "macs_after": (int, None),
    "macs_per": str,
    "sparsity": NUMBER,
    "target_sparsity": NUMBER,
    "versions": {str: str},
    "seed": int,
}
"""What the page cannot do without."""
_MORE = {
    **dict.fromkeys(("metric", "run_directory"), str),
    "kinds": {str: {"title": str, "axis": str}},
    "compactions": list,
    "targets": [
        {
            **dict.fromkeys(("metric", "counts"), str),
            **dict.fromkeys(("unit", "size", "budget", "dense", "alone_units"), NUMBER),
            "binds": bool,
            "alone": {str: NUMBER},
        }
    ],
    "elastic": (
        None,
        {
            **dict.fromkeys(("smallest", "largest"), NUMBER),
            "metric": str,
            "curve": [{**dict.fromkeys(("asked", "left"), NUMBER), "parameters": int, "loss": NUMBER_OR_NOTHING}],
        },
    ),
    "cut": (None, {"of": str, "target": {str: str}, "polish": (int, None), "seconds": NUMBER}),
    **{key: {str: NUMBER} for key in ("losses_final", "stage_seconds", "step_seconds")},
    **dict.fromkeys(("distill_loss_before_removal", "distill_loss_after_removal"), NUMBER_OR_NOTHING),
    **dict.fromkeys(("distill_loss_final", "max_relative_difference"), NUMBER_OR_NOTHING),
    **dict.fromkeys(("speedup", "latency_before_ms", "latency_after_ms"), NUMBER_OR_NOTHING),
    **dict.fromkeys(("latency_model_error", "peak_memory_bytes", "skipped_steps"), NUMBER_OR_NOTHING),
}
"""What it shows where it is there."""
_METRICS = {
    "position": int,
    "stage": str,
    "step": int,
    "steps": int,
    "loss": NUMBER_OR_NOTHING,
    "parts": {str: NUMBER_OR_NOTHING},
}
_MORE_METRICS = {
    **dict.fromkeys(("sparsity", "target", "parameters", "step_seconds", "forced_units"), NUMBER_OR_NOTHING),
    "multipliers": (None, [NUMBER_OR_NOTHING]),
}


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run as its folder tells it."""

    path: Path
    settings: Mapping[str, Any]
    metrics: Sequence[Mapping[str, Any]]
    """One row a logging step."""
    report: Mapping[str, Any] | None
    """None while the run is not finished."""
    description: Mapping[str, Any] | None
    """model.json."""
    probes: Sequence[Mapping[str, Any]]
    """Rows of evaluation.json: model, task, metric, mean; where known also deviation, higher_is_better, chance."""
    layers: Sequence[Mapping[str, Any]]
    """Rows of evaluation.json: model, layer, and measures beside a layer of the teacher's."""
    bench: Mapping[str, Any] | None
    """What `l0prune bench --json` printed."""

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.resolve().name


def read_run(path: Path) -> Run:
    """Read what there is of a run.

    Args:
        path: A run directory.

    Raises:
        RunError: It is none, or a file in it is damaged: names the file, and the line of metrics.jsonl.
        ConfigError: The settings are damaged.
    """
    try:
        return _read_run(path)
    except OSError as error:
        # Already asking whether a file is there may be refused.
        raise RunError("cannot read", where=path, got=error.strerror) from error


def _read_run(path: Path) -> Run:
    what = "no such folder" if not path.is_dir() else "no run here" if not (path / "config.toml").is_file() else ""
    if what:
        raise RunError(what, where=path, expected="a run directory: it holds config.toml")
    folder = RunDirectory(path)
    return Run(
        path=path,
        settings=_read_settings(folder.settings),
        metrics=_read_metrics(folder.metrics) if folder.metrics.is_file() else (),
        report=_read_report(folder.report) if folder.report.is_file() else None,
        description=read_description(path) if (path / "model.json").is_file() else None,
        probes=read_probes(path / "evaluation.json"),
        layers=read_layers(path / "evaluation.json"),
        bench=read_bench(path / "bench.json"),
    )


def _read_settings(path: Path) -> dict[str, Any]:
    settings = checked(read_toml(path), {}, path, _SETTINGS)
    for stage in STAGES:
        checked(settings.get(stage, {}), {}, f"{path}, [{stage}]", {"steps": int})
    _check_values(settings, path, "")
    return settings


def _check_values(value: object, path: Path, key: str) -> None:
    """Raise a `RunError` for what TOML has and no setting is: a date or a time of day."""
    if isinstance(value, dict):
        for name, item in value.items():
            _check_values(item, path, f"{key}.{name}" if key else name)
    elif isinstance(value, list):
        for item in value:
            _check_values(item, path, key)
    elif not isinstance(value, str | int | float):
        raise RunError("damaged file", where=f"{path}: {key}", got=value, expected="text or a number")


def _read_report(path: Path) -> dict[str, Any]:
    report = checked(read_json(path), _REPORT, path, _MORE)
    if report["params_before"] < 1:
        got = report["params_before"]
        raise RunError("damaged file", where=f"{path}: params_before", got=got, expected="1 or more")
    if report.get("speedup"):
        checked(report, dict.fromkeys(("latency_before_ms", "latency_after_ms"), NUMBER), path)
    return report


def _read_metrics(path: Path) -> tuple[Mapping[str, Any], ...]:
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise RunError("cannot read", where=path, got=error.strerror) from error
    rows = []
    for number, line in enumerate(lines, start=1):
        # A line without an end is one that a running or killed process was about to write.
        if line.endswith(b"\n"):
            where = f"{path}, line {number}"
            try:
                row = parse_json(line.decode("utf-8"))
            except ValueError as error:
                raise RunError("damaged line", where=where, got=error, hint="remove it") from error
            rows.append(checked(row, _METRICS, where, _MORE_METRICS))
            if not 2 <= len(row.get("multipliers") or (0, 0)) <= _MOST_MULTIPLIERS:
                what = f"{where}: multipliers"
                raise RunError("damaged file", where=what, got=row["multipliers"], expected="two numbers a target")
    return tuple(rows)


_MOST_MULTIPLIERS = 64
_PROBE = {"model": str, "task": str, "metric": str, "mean": NUMBER}
_TASK = {"higher_is_better": (bool, None), "chance": NUMBER_OR_NOTHING, "data": (str, None)}
_MORE_PROBE = {"deviation": NUMBER_OR_NOTHING, **_TASK}
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
    """Each score with what is known of its task."""
    for name, task in evaluation.get("tasks", {}).items():
        checked(task, {}, f"{path}, task {name}", {"metric": str, **_TASK})
    rows_of(evaluation["scores"], path, {"model": str, "task": str, "mean": NUMBER})
    return score_rows(evaluation)


def read_bench(path: Path) -> Mapping[str, Any] | None:
    """A benchmark as `l0prune bench --json` printed it; None where there is no file.

    Args:
        path: A JSON file.

    Raises:
        RunError: It is damaged.
    """
    if not path.is_file():
        return None
    content = checked(read_json(path), {"models": {str: dict}, "rows": list}, path, {"against": (str, None)})
    for name, facts in content["models"].items():
        checked(facts, {}, f"{path}, model {name}", {"parameters": (int, None)})
    return {**content, "rows": rows_of(content["rows"], path, _BENCH_ROW, _MORE_BENCH_ROW)}
