"""Checks of a run, and of a folder of `save`."""

import math
import warnings
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from torch import nn

from l0prune.errors import RunError
from l0prune.measuring import parameters
from l0prune.removal import RemovalPlan
from l0prune.size import parameter_size
from l0prune.storage import (
    DESCRIPTION,
    PROBE,
    PROBE_TOLERANCE,
    WEIGHTS,
    check_description,
    load,
    probe_difference,
    read_description,
    read_plan,
    read_probe,
    read_report,
    skeleton,
    stated_digest,
)
from l0prune.support import (
    check_finite,
    counted,
    file_digest,
    model_shapes,
    read_toml,
)
from l0prune.workflows.counting import macs_on
from l0prune.workflows.verification.again import cut_again, made_again
from l0prune.workflows.verification.common import Checks, Unknown, agree

_OLD = "it was saved before there were checksums"
_SAME_IN_BOTH = ("plugin", "recipe", "metric", "seed", "precision")
"""What report.json repeats from the settings."""


class Saved:
    """A folder with model.json.

    Args:
        path: The folder.
        build: Makes the dense network, where no plugin does.
    """

    def __init__(self, path: Path, build: Callable[[], nn.Module] | None) -> None:
        self.path, self._build = path, build

    def checks(self, against: str | None, repeat: bool) -> Checks:
        """Names and checks, in an order in which each may rely on those before."""
        yield "description", self._described
        yield "weights", self._weights
        yield "plan", self._planned
        yield "network", self._network
        yield "size", self._size
        yield "outputs", self._outputs
        yield "report", self._reported
        if against is not None:
            yield "against", lambda: cut_again(self.path, self.description, self.plan, self.pruned, against)
        if repeat:
            yield "repeat", lambda: made_again(self.path, self.description, self.report)

    @cached_property
    def description(self) -> Mapping[str, Any]:
        """model.json."""
        if not (self.path / DESCRIPTION).is_file():
            raise RunError("the run has no model yet", where=self.path, hint="finish it with --resume")
        return read_description(self.path)

    @cached_property
    def plan(self) -> RemovalPlan:
        """What was removed."""
        return read_plan(self.description, self.path)

    @cached_property
    def report(self) -> Mapping[str, Any] | None:
        """report.json, where this is a run."""
        return read_report(self.path)

    @cached_property
    def pruned(self) -> nn.Module:
        """The network, loaded as anybody loads it."""
        with warnings.catch_warnings():
            # The checks before have said that there are no checksums.
            warnings.simplefilter("ignore")
            return load(self.path, self._build)

    def dense(self) -> nn.Module:
        """The network that the plan was made for, without values."""
        if self._build is not None:
            return self._build()
        return skeleton(self.description, self.plan, self.path)

    def _need_network(self) -> None:
        if self._build is None and not self.description.get("plugin"):
            raise Unknown("nothing tells how to build the network: --build MODULE:FUNCTION, or build in Python")

    def _described(self) -> str:
        if not check_description(self.description, self.path):
            raise Unknown(_OLD)
        return f"the SHA-256 that {DESCRIPTION} states of itself"

    def _weights(self) -> str:
        path = self.path / WEIGHTS
        try:
            with safetensors.safe_open(path, "pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            got, stated = file_digest(path), stated_digest(self.description, WEIGHTS)
        except (OSError, safetensors.SafetensorError) as error:
            if stated_digest(self.description, WEIGHTS) is None:
                raise RunError("damaged or missing weights", where=path, got=error) from error
            tensors, got, stated = {}, str(error), stated_digest(self.description, WEIGHTS)
        if stated is not None and got != stated:
            raise RunError("damaged or missing weights", where=path, got=f"SHA-256 {got}", expected=stated)
        check_finite(tensors.items(), path)
        if stated is None:
            raise Unknown(f"{_OLD}; {counted(len(tensors), 'tensor')} can be read, all finite")
        return f"SHA-256 {stated}; {counted(len(tensors), 'tensor')}, all finite"

    def _planned(self) -> str:
        plan = self.plan
        kept = sum(plan.kept_counts.values())
        units = sum(group.units for group in plan.groups)
        return f"{kept:,} of {counted(units, 'unit')} in {counted(len(plan.groups), 'group')} stay"

    def _network(self) -> str:
        self._need_network()
        self.plan.check(self.dense())
        shapes = model_shapes(self.pruned)
        return f"architecture, plan and weights fit: {counted(len(shapes), 'tensor')} of the planned shapes"

    def _size(self) -> str:
        self._need_network()
        numbers = np.array([self.plan.kept_counts[group.name] for group in self.plan.groups])
        sizes = {
            "counted": parameters(self.pruned),
            "predicted": parameter_size(self.dense(), self.plan.groups).exact(numbers),
        }
        if self.report is not None:
            sizes["reported"] = self.report.get("params_after", "nothing")
        agree("parameters", sizes, self.path)
        return f"{sizes['counted']:,} parameters {' = '.join(sizes)}"

    def _outputs(self) -> str:
        stated, path = stated_digest(self.description, PROBE), self.path / PROBE
        if stated is None:
            raise Unknown("no outputs were kept when it was saved")
        try:
            got = file_digest(path)
        except OSError as error:
            raise RunError("damaged or missing probe", where=path, got=error.strerror) from error
        if got != stated:
            raise RunError("damaged or missing probe", where=path, got=f"SHA-256 {got}", expected=stated)
        self._need_network()
        difference = probe_difference(read_probe(path), self.pruned)
        if not difference <= PROBE_TOLERANCE:
            raise RunError(
                "outputs are not those of when it was saved",
                where=path,
                got=f"a relative difference of {difference:.1e}",
                expected=f"at most {PROBE_TOLERANCE}",
            )
        return f"a relative difference of {difference:.1e} from those of when it was saved, at most {PROBE_TOLERANCE}"

    def _reported(self) -> str:
        """Compare report.json with what the other files say."""
        if self.report is None:
            if (self.path / "config.toml").is_file():
                raise RunError("the run has no report", where=self.path, hint="finish it with --resume")
            raise Unknown("it is no run: it has no report.json")
        report, where = self.report, self.path / "report.json"
        settings = read_toml(self.path / "config.toml")
        for key in _SAME_IN_BOTH:
            if key in settings:
                agree(key, {"report.json": report.get(key), "config.toml": settings[key]}, where)
        provenance = self.description.get("provenance", {})
        for key in ("teacher", "versions"):
            if key in provenance:
                agree(key, {"report.json": report.get(key), DESCRIPTION: provenance[key]}, where)
        checked = ["settings", *self._sizes_reported(report, where)]
        return f"{', '.join(checked)} are those of the other files; losses and times are not computed anew"

    def _sizes_reported(self, report: Mapping[str, Any], where: Path) -> list[str]:
        """Compute what is left anew; returns what could be."""
        checked: list[str] = []
        plan = self.plan
        units = {name: row.get("units") for name, row in report.get("kept_units", {}).items()}
        again = units != {group.name: group.units for group in plan.groups}
        # What was pruned before is reported in the units it had then, and the plan is in those of the first network.
        if not again:
            kept = {name: row.get("kept") for name, row in report["kept_units"].items()}
            agree("kept_units", {"report.json": kept, DESCRIPTION: plan.kept_counts}, where)
            checked.append("kept units")
        sizes = {"params": ("params_before", "params_after"), "macs": ("macs_before", "macs_after")}
        if self._build is not None or self.description.get("plugin"):
            networks = {"params_after": self.pruned, **({} if again else {"params_before": self.dense()})}
            for key, network in networks.items():
                agree(key, {"report.json": report.get(key), "counted": parameters(network)}, where)
            checked.append("parameters")
            for key, network in networks.items():
                name = key.replace("params", "macs")
                if (found := macs_on(self.description.get("counted_on"), network)) is not None:
                    agree(name, {"report.json": report.get(name), "counted": found}, where)
                    checked = [*dict.fromkeys([*checked, "multiply-accumulates"])]
        before, after = (report.get(key) for key in sizes.get(report.get("metric", "params"), ("", "")))
        if before and after is not None:
            removed, stated = 1 - after / before, float(report.get("sparsity", math.nan))
            if not math.isclose(removed, stated, abs_tol=1e-9):
                raise RunError(
                    "report.json contradicts itself", where=f"{where}: sparsity", got=stated, expected=removed
                )
            checked.append("sparsity")
        return checked
