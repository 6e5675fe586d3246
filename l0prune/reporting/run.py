"""What a run's folder holds, read without building a network; an unfinished run holds less."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from l0prune.config import read_toml
from l0prune.errors import RunError
from l0prune.files import read_json
from l0prune.groups import conforms
from l0prune.model_file import read_description
from l0prune.run_directory import RunDirectory

_NUMBER = (int, float)
_NUMBER_OR_NOTHING = (int, float, None)
_SETTINGS = {
    **dict.fromkeys(("plugin", "recipe", "metric"), str),
    **dict.fromkeys(("joint", "further"), dict),
}
_REPORT = {
    "teacher": str,
    "params_before": int,
    "params_after": int,
    "macs_before": int,
    "macs_after": int,
    "macs_per": str,
    "sparsity": _NUMBER,
    "target_sparsity": _NUMBER,
    "versions": {str: str},
    "seed": int,
}
"""What the page cannot do without."""
_MORE = {
    "metric": str,
    **{key: {str: _NUMBER} for key in ("losses_final", "stage_seconds", "step_seconds")},
    **dict.fromkeys(("distill_loss_before_removal", "distill_loss_after_removal"), _NUMBER_OR_NOTHING),
    **dict.fromkeys(("distill_loss_final", "max_relative_difference"), _NUMBER_OR_NOTHING),
    **dict.fromkeys(("speedup", "latency_before_ms", "latency_after_ms"), _NUMBER_OR_NOTHING),
    **dict.fromkeys(("latency_model_error", "peak_memory_bytes", "skipped_steps"), _NUMBER_OR_NOTHING),
}
"""What it shows where it is there."""
_METRICS = {
    "position": int,
    "stage": str,
    "step": int,
    "steps": int,
    "loss": _NUMBER_OR_NOTHING,
    "parts": {str: _NUMBER_OR_NOTHING},
}
_MORE_METRICS = {
    **dict.fromkeys(("sparsity", "target", "parameters", "step_seconds"), _NUMBER_OR_NOTHING),
    "multipliers": (None, [_NUMBER_OR_NOTHING]),
}
_PROBE = {"model": str, "task": str, "metric": str, "mean": _NUMBER}
_MORE_PROBE = {"deviation": _NUMBER_OR_NOTHING}
_BENCH_ROW = {"model": str, "load": str, "dtype": str, "backend": str, "latency_ms": _NUMBER}


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
    """Rows of evaluation.json: model, task, metric, mean, and deviation where there is one."""
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
    folder = RunDirectory(path)
    if not folder.settings.is_file():
        what = "no such folder" if not path.is_dir() else "no run here"
        raise RunError(what, where=path, expected="a run directory: it holds config.toml")
    return Run(
        path=path,
        settings=_checked(read_toml(folder.settings), {}, folder.settings, _SETTINGS),
        metrics=_read_metrics(folder.metrics) if folder.metrics.is_file() else (),
        report=_read_report(folder.report) if folder.report.is_file() else None,
        description=read_description(path) if (path / "model.json").is_file() else None,
        probes=_read_rows(path / "evaluation.json", _PROBE, _MORE_PROBE),
        bench=_read_bench(path / "bench.json"),
    )


def _read_report(path: Path) -> dict[str, Any]:
    return _checked(read_json(path), _REPORT, path, _MORE)


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
                row = json.loads(line)
            except ValueError as error:
                raise RunError("damaged line", where=where, got=error, hint="remove it") from error
            rows.append(_checked(row, _METRICS, where, _MORE_METRICS))
    return tuple(rows)


def _read_rows(
    path: Path, form: Mapping[str, Any], more: Mapping[str, Any] | None = None
) -> tuple[Mapping[str, Any], ...]:
    """A JSON file's list of rows, or the list at its key `rows`; none where there is no file."""
    if not path.is_file():
        return ()
    content = read_json(path)
    rows = content.get("rows") if isinstance(content, dict) else content
    if not isinstance(rows, list):
        raise RunError("damaged file", where=path, expected="a list of rows")
    return tuple(_checked(row, form, f"{path}, row {number}", more) for number, row in enumerate(rows, start=1))


def _read_bench(path: Path) -> Mapping[str, Any] | None:
    if not path.is_file():
        return None
    rows = _read_rows(path, _BENCH_ROW)
    return {**_checked(read_json(path), {"models": dict}, path), "rows": rows}


def _checked(
    value: Any, form: Mapping[str, Any], where: object, more: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The object, if what `form` names is there, and has its form, as has what `more` names where it is there."""
    if not isinstance(value, dict):
        raise RunError("damaged file", where=where, got=type(value).__name__, expected="an object")
    for key, schema in {**form, **(more or {})}.items():
        missing = key not in value
        if key in form if missing else not conforms(value[key], schema):
            raise RunError("damaged file", where=f"{where}: {key}", got="nothing" if missing else repr(value[key]))
    return value
