"""The part of a report's page that shows several runs beside each other."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from l0prune.report import figures
from l0prune.report.facts import RunFacts
from l0prune.report.figures import Curve, Drawing
from l0prune.report.markup import Markup, Section, table, tag


def comparison(runs: Sequence[RunFacts]) -> Section:
    """Every measure of every run, the settings in which they differ, and their curves on one another.

    Args:
        runs: Two or more.
    """
    headings = ["", *(run.name for run in runs)]
    return Section(
        title="Compared",
        content=(table("Measures", headings, _measures(runs), kind="runs"), _settings(runs, headings)),
        drawings=tuple(_drawings(runs)),
    )


def _measures(runs: Sequence[RunFacts]) -> list[list[str]]:
    found = [{measure.name: measure.text for measure in run.measures} for run in runs]
    state = ["state", *("finished" if run.complete else f"not finished: {run.progress}" for run in runs)]
    return [state, *([name, *(texts.get(name, "") for texts in found)] for name in _merged(found))]


def _merged(tables: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names of all tables, each behind the one that it follows in the first table that has it."""
    names: list[str] = []
    for entries in tables:
        place = 0
        for name in entries:
            if name in names:
                place = names.index(name) + 1
            else:
                names.insert(place, name)
                place += 1
    return names


def _settings(runs: Sequence[RunFacts], headings: Sequence[str]) -> Markup:
    flat = [_flat(run.settings) for run in runs]
    rows = [
        [name, *(settings.get(name, "") for settings in flat)]
        for name in _merged(flat)
        if len({settings.get(name) for settings in flat}) > 1
    ]
    if not rows:
        return tag("p", "The runs have the same settings.", class_="note")
    return table("Settings that differ", headings, rows, kind="runs")


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value if isinstance(value, str) else json.dumps(value)
    return found


def _drawings(runs: Sequence[RunFacts]) -> Iterator[Drawing]:
    losses = [_named(run.name, curve) for run in runs for curve in run.curves.loss]
    if losses:
        yield figures.curve_figure("loss", "Training loss", losses)
    sparsities = [_named(run.name, curve) for run in runs for curve in run.curves.sparsity if curve.name == "sparsity"]
    if sparsities:
        yield figures.curve_figure("sparsity", "Expected sparsity", sparsities)
    ends = [(run.name, run.report) for run in runs if run.report and run.report.get("distill_loss_final") is not None]
    points = [(name, report["params_after"] / 1e6, report["distill_loss_final"]) for name, report in ends]
    if len(points) > 1:
        axes = {"across": "million parameters", "up": "loss"}
        yield figures.scatter_figure("size-and-loss", "Held-out loss at the end against size", points, **axes)


def _named(name: str, curve: Curve) -> Curve:
    return replace(curve, name=name)
