"""All that a report says of a run; its JSON is the report for programs."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from l0prune.plugin import STAGES
from l0prune.report.curves import Curves, read_curves
from l0prune.report.figures import KeptUnits, kept_units
from l0prune.report.measures import Measure, measures, own_scores
from l0prune.report.parts import Parts, network_parts
from l0prune.report.read import Run, read_run
from l0prune.storage import OWN_LOOP, read_plan


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """One run."""

    name: str
    path: str
    complete: bool
    progress: str
    """Where an unfinished run stands; empty for a complete one."""
    teacher: str
    plugin: str
    recipe: str
    report: Mapping[str, Any] | None
    """report.json."""
    measures: tuple[Measure, ...]
    kept: tuple[KeptUnits, ...]
    parts: Parts | None
    """None before there is a plan."""
    curves: Curves
    probes: Sequence[Mapping[str, Any]]
    scores: Sequence[Mapping[str, Any]]
    """The run's own rows of evaluation.json, with the data they were scored on."""
    layers: Sequence[Mapping[str, Any]]
    bench: Mapping[str, Any] | None
    settings: Mapping[str, Any]
    versions: Mapping[str, str]
    repeat: str
    """The command that repeats the run, or goes on with an unfinished one; nothing of one's own training loop."""

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return asdict(self)


def run_facts(path: Path, name: str) -> RunFacts:
    """Read and count all that a report says of a run.

    Args:
        path: A run directory.
        name: What to call it.

    Raises:
        L0PruneError: It is no run directory, or a file in it is damaged.
    """
    run = read_run(path)
    report = run.report or {}
    plugin = str(run.settings.get("plugin", ""))
    options = run.settings.get(plugin, {})
    return RunFacts(
        name=name,
        path=str(path),
        complete=run.report is not None,
        progress="" if run.report else _progress(run),
        teacher=str(report.get("teacher") or (options.get("teacher", "") if isinstance(options, Mapping) else "")),
        plugin=plugin,
        recipe=str(run.settings.get("recipe", "")),
        report=run.report,
        measures=measures(run),
        kept=kept_units(read_plan(run.description, path)) if run.description else (),
        parts=network_parts(run.description, path) if run.description else None,
        curves=read_curves(run.metrics),
        probes=run.probes,
        scores=own_scores(run),
        layers=run.layers,
        bench=run.bench,
        settings=run.settings,
        versions=report.get("versions", {}),
        repeat=_command(run, plugin),
    )


def _progress(run: Run) -> str:
    if not run.metrics:
        return "no step is on record yet"
    last = run.metrics[-1]
    stage = STAGES.get(last["stage"], last["stage"])
    return f"on record are {last['step']:,} of {last['steps']:,} steps of the {stage}"


def _command(run: Run, plugin: str) -> str:
    # "." and ".." have no name to put another in the place of.
    base = run.path if run.path.name not in ("", "..") else run.path.resolve()
    config, out = run.path / "config.toml", base.with_name(f"{run.name}-again") if run.report else run.path
    if run.settings.get("recipe") == OWN_LOOP:
        return ""
    if (made := (run.report or {}).get("cut")) is not None:
        words = ["l0prune", "cut", made["of"], "--target", ",".join(made["target"].values()), "--out", str(out)]
        return shlex.join([*words, "--polish", str(made["polish"])] if made["polish"] is not None else words)
    if plugin == "task":
        return f"l0prune.compress(task, config={str(config)!r}, out={str(out)!r}, resume={run.report is None})"
    words = ["l0prune", "compress", "--plugin", plugin, "--config", str(config), "--out", str(out)]
    return shlex.join(words if run.report else [*words, "--resume"])
