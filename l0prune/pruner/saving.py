"""What one's own training loop has made, as a run folder that the commands read."""

from collections.abc import Callable, Iterable, Mapping
from math import isfinite
from numbers import Real
from pathlib import Path
from typing import Any

import torch
from torch import nn

from l0prune.errors import ConfigError
from l0prune.measuring import macs, parameters
from l0prune.plugin import get_plugin
from l0prune.pruner.report import PruningReport
from l0prune.removal import RemovalPlan
from l0prune.report.figures import draw_kept_units
from l0prune.storage import LOOP, OWN_LOOP, RunDirectory, check_made_by, save
from l0prune.support import assembled, evaluating, tensors_given, versions, write_json, write_text, write_toml

_OF_A_STEP = ("sparsity", "target", "parameters", "step_seconds")
"""What a row of metrics may hold beside step, loss and parts of the loss."""


def save_run(
    folder: Path,
    module: nn.Module,
    plan: RemovalPlan,
    found: PruningReport,
    *,
    observe: Callable[[nn.Module], Any],
    settings: Mapping[str, Any],
    name: str,
    plugin: str | None,
    architecture: Mapping[str, Any] | None,
    metrics: Iterable[Mapping[str, Any]],
    final_loss: float | None,
    seed: int,
) -> Path:
    """Write a run folder in one step.

    Args:
        folder: The folder to make.
        module: The pruned network, trained on or not.
        plan: What was removed, from the first dense network on.
        found: What the cut achieved.
        observe: Runs a network on the example inputs.
        settings: More for config.toml: what the pruner was told.
        name: As the arguments of `L0Pruner.save_run`, like all that follow.
        plugin: Who builds the dense network.
        architecture: From what.
        metrics: A mapping for each logging step.
        final_loss: Of `module`, on held-out data.
        seed: Of the training.
    """
    if (plugin is None) != (architecture is None):
        given, hint = "plugin" if plugin else "architecture", "the plugin's build(architecture) makes the dense network"
        raise ConfigError("plugin and architecture go together", got=f"{given} alone", hint=hint)
    if plugin is not None:
        get_plugin(plugin)
    check_made_by(module, plan)
    rows = [_row(row, number, found.steps) for number, row in enumerate(metrics, start=1)]
    inputs = tensors_given(module, observe)
    report = {
        "plugin": plugin or LOOP,
        "recipe": OWN_LOOP,
        "teacher": name,
        "run_directory": str(folder),
        "seed": seed,
        "distill_loss_final": final_loss,
        **_facts(module, found, observe),
    }
    settings = {key: report[key] for key in ("plugin", "recipe", "metric", "target_sparsity", "seed")} | dict(settings)
    said: dict[str, Any] = {"plugin": plugin, "architecture": dict(architecture or {})}
    said["provenance"] = {"teacher": name, "settings": settings, "versions": report["versions"]}
    if inputs and report["macs_after"]:
        shapes = [{"shape": [*x.shape], "dtype": str(x.dtype).removeprefix("torch.")} for x in inputs]
        said["counted_on"] = {"inputs": shapes, "scale": 1.0}
    with assembled(folder) as place:
        made = RunDirectory(place)
        save(module, plan, place, example_inputs=inputs, **said)
        draw_kept_units(plan, made.picture)
        write_text(made.settings, write_toml(settings))
        for row in rows:
            made.append_metrics(row)
        write_json(made.report, report)
    return folder


def _facts(module: nn.Module, found: PruningReport, observe: Callable[[nn.Module], Any]) -> dict[str, Any]:
    """What report.json says of the cut and of the network."""
    weight = next(module.parameters())
    with torch.no_grad(), evaluating(module):
        macs_after = macs(lambda: observe(module)) if found.macs_before else None
    return {
        "params_before": found.params_before,
        "params_after": parameters(module),
        "metric": found.metric,
        "target_sparsity": found.target_sparsity,
        "sparsity": found.sparsity,
        "macs_before": found.macs_before,
        "macs_after": macs_after,
        "macs_per": "example input",
        "kinds": {},
        "kept_units": found.kept_units,
        "max_relative_difference": found.max_relative_difference,
        "distill_loss_before_removal": None,
        "distill_loss_gated": found.loss_before_cut,
        "distill_loss_after_removal": found.loss_after_cut,
        "losses_final": {},
        "forced_units": found.forced_units,
        "expected_sparsity_at_cut": found.expected_sparsity,
        "device": str(weight.device),
        "precision": str(weight.dtype).removeprefix("torch."),
        "versions": versions(),
        "steps": found.steps,
        "left_alone": found.left_alone,
        "widths": found.widths,
        "targets": [dict(row) for row in found.targets],
        "selection_gap": found.selection_gap,
        **found.measured,
        "round_to": found.round_to,
    }


def _row(given: Mapping[str, Any], number: int, total: int) -> dict[str, Any]:
    """A line of metrics.jsonl."""
    where, step, loss = f"metrics, row {number}", given.get("step"), given.get("loss")
    if not isinstance(step, int) or isinstance(step, bool) or not isinstance(loss, Real):
        got = f"step={step!r}, loss={loss!r}"
        raise ConfigError("a row needs a step and a loss", where=where, got=got, expected="step=10, loss=0.5")
    parts = dict(given.get("parts") or {})
    more = {key: given[key] for key in _OF_A_STEP if given.get(key) is not None}
    for key, value in {**parts, **more}.items():
        if not isinstance(value, Real):
            raise ConfigError("not a number", where=f"{where}, {key}", got=repr(value))
    if unknown := sorted(given.keys() - {"step", "loss", "parts", *_OF_A_STEP}):
        expected = ", ".join(("step", "loss", "parts", *_OF_A_STEP))
        raise ConfigError("nothing that a row holds", where=f"{where}, {unknown[0]}", expected=expected)
    whole = {"position": step, "stage": OWN_LOOP, "step": step, "steps": max(total, step), "parts": parts}
    return {**whole, "loss": float(loss) if isfinite(loss) else None, **more}
