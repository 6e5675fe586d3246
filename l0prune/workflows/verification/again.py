"""Whether a run is what comes out where it is cut, or made as a whole, once more."""

import tempfile
from collections.abc import Mapping
from os.path import isfile  # Unlike Path.is_file, for any name: it may be longer than a path's.
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import nn

from l0prune.errors import RunError
from l0prune.measuring import parameters
from l0prune.plugin import as_before, get_plugin
from l0prune.removal import RemovalPlan, apply_plan
from l0prune.size import parse_targets
from l0prune.storage import OWN_LOOP, WEIGHTS
from l0prune.support import counted, file_digest, model_shapes, read_toml
from l0prune.workflows.cutting import cut
from l0prune.workflows.pipeline import compress
from l0prune.workflows.verification.common import Unknown, agree, opener


def cut_again(path: Path, description: Mapping[str, Any], plan: RemovalPlan, pruned: nn.Module, teacher: str) -> str:
    """Apply the plan to a dense network anew: shapes and sizes must agree, values may where nothing was trained."""
    name = description.get("plugin")
    if not name:
        raise Unknown("the folder names no plugin that could open a teacher")
    dense = opener(str(name)).open(teacher)
    plan.check(dense)
    cut = apply_plan(dense, plan)
    agree("parameters", {teacher: parameters(cut), "stored": parameters(pruned)}, path)
    if (got := model_shapes(pruned)) != (expected := model_shapes(cut)):
        name = next(name for name in {**expected, **got} if got.get(name) != expected.get(name))
        raise RunError("shapes differ", where=name, got=got.get(name), expected=expected.get(name))
    stored = pruned.state_dict()
    same = sum(torch.equal(tensor, stored[name]) for name, tensor in cut.state_dict().items())
    return (
        f"the plan fits {teacher}: {counted(len(expected), 'tensor')} of the same shapes, "
        f"{parameters(cut):,} parameters; {same} tensors have the teacher's values, training changed the others"
    )


def made_again(path: Path, description: Mapping[str, Any], report: Mapping[str, Any] | None) -> str:
    """Make the run again: the weights must be the same, bit for bit."""
    settings = read_toml(path / "config.toml")
    name = str(settings.get("plugin", ""))
    if settings.get("recipe") == OWN_LOOP:
        raise Unknown("the training loop of its own program made it")
    if report is None or not description.get("plugin"):
        raise Unknown("only a run of an installed plugin can be made again")
    with tempfile.TemporaryDirectory() as place:
        again = Path(place) / "run"
        if (asked := report.get("cut")) is not None:
            if not isfile(Path(asked["of"]) / "order.json"):
                raise Unknown(f"it was cut out of an elastic run that is not there: {asked['of']}")
            targets = parse_targets(",".join(asked["target"].values()))
            made = cut(asked["of"], targets, out=again, polish=asked["polish"])
        else:
            before = as_before(get_plugin(name), settings)
            made = compress(name, config=path / "config.toml", settings=before, out=again)
        difference = _first_difference(path / WEIGHTS, again / WEIGHTS)
    if difference:
        told = report.get("versions", {})
        changed = [f"{p} {told[p]} -> {now}" for p, now in made.versions.items() if told.get(p, now) != now]
        hint = f"versions differ: {', '.join(changed)}" if changed else None
        raise RunError("made again, the run gives other weights", where=path, got=difference, hint=hint)
    begun = "config.toml" if report.get("cut") is None else "the elastic run"
    return f"made again from {begun}, the run gives the same weights, bit for bit"


def _first_difference(stored: Path, again: Path) -> str:
    """How two files of weights differ; nothing where no bit does."""
    if file_digest(stored) == file_digest(again):
        return ""
    with safetensors.safe_open(stored, "pt") as first, safetensors.safe_open(again, "pt") as second:
        names = list(first.keys())
        if names != list(second.keys()):
            return "tensors of other names"
        for name in names:
            before, after = first.get_tensor(name), second.get_tensor(name)
            if before.shape != after.shape:
                return f"{name} of shape {list(after.shape)} in the place of {list(before.shape)}"
            if not torch.equal(before, after):
                return f"{name} differs by up to {float((before - after).abs().max()):.1e}"
    return "another header"
