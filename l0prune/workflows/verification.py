"""Whether a run or an export is what was made, found out from its files."""

import math
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from os.path import exists, isfile  # Unlike those of a Path, for any name: it may be longer than a path's.
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from torch import nn

from l0prune.errors import ConfigError, GroupError, L0PruneError, RunError
from l0prune.groups import check_groups
from l0prune.measuring import macs, parameters
from l0prune.plugin import Opener, get_plugin
from l0prune.removal import RemovalPlan, apply_plan
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
    read_probe,
    read_report,
    skeleton,
    stated_digest,
)
from l0prune.support import (
    check_archive,
    check_finite,
    check_stamp,
    copied,
    counted,
    file_digest,
    model_shapes,
    named_weights,
    read_toml,
)
from l0prune.workflows.pipeline import compress

_OLD = "it was saved before there were checksums"
_ZIP = b"PK\x03\x04"
_PROGRAM_PARTS = ("constants.pkl", "archive_format")
"""Parts of the archives that TorchScript and torch.export write: programs, which hold no network to be opened."""
_SAME_IN_BOTH = ("plugin", "recipe", "metric", "seed", "precision")
"""What report.json repeats from the settings."""


class _Unknown(Exception):
    """There is nothing to check by; says why."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked at."""

    name: str
    holds: bool | None
    """None where there is nothing to check by."""
    said: str
    """What was found, or why it cannot be checked."""


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What was found of one source; the last check is the first that does not hold, if there is one."""

    source: str
    checks: tuple[Check, ...]

    @property
    def broken(self) -> Check | None:
        """The check that does not hold."""
        return next((check for check in self.checks if check.holds is False), None)

    def to_json(self) -> dict[str, Any]:
        """A JSON object; `holds` is false where a check does not hold."""
        return {**asdict(self), "holds": self.broken is None}


def verify(
    source: str | Path,
    *,
    build: Callable[[], nn.Module] | None = None,
    against: str | None = None,
    repeat: bool = False,
    plugin: str | None = None,
) -> Verification:
    """Check that a run, a saved network or an export is whole, and that it is what it says. Nothing is written.

    Args:
        source: A run directory, a folder of `save`, or an exported file or folder.
        build: Makes the dense network of a folder that names no plugin.
        against: A teacher, to which the stored plan is applied anew.
        repeat: Make the run again from its config.toml, in a temporary folder, and compare the weights bit for bit.
        plugin: Who opens what is no run; a run names its own.

    Returns:
        The checks in their order, up to the first that does not hold.

    Raises:
        ConfigError: There is no such file, or `against` or `repeat` are asked of what is no run.
    """
    path = Path(source)
    is_run = isfile(path / DESCRIPTION) or isfile(path / "config.toml")
    if is_run:
        subject = _Saved(path, build)
        checks = subject.checks(against, repeat)
    elif against is not None or repeat:
        raise ConfigError("only a run can be made again or compared with a teacher", where=source)
    elif not exists(path):
        raise ConfigError("no such file or folder", where=source)
    else:
        checks = _export_checks(path, plugin)
    found: list[Check] = []
    for name, check in checks:
        found.append(_tried(name, check))
        if found[-1].holds is False:
            break
    return Verification(source=str(source), checks=tuple(found))


_Checks = Iterator[tuple[str, Callable[[], str]]]


def _tried(name: str, check: Callable[[], str]) -> Check:
    try:
        return Check(name=name, holds=True, said=check())
    except _Unknown as reason:
        return Check(name=name, holds=None, said=str(reason))
    except L0PruneError as error:
        return Check(name=name, holds=False, said=str(error))
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        # What a foreign file holds in the place of what was expected.
        return Check(name=name, holds=False, said=f"not understood: {type(error).__name__}: {error}")


class _Saved:
    """A folder with model.json.

    Args:
        path: The folder.
        build: Makes the dense network, where no plugin does.
    """

    def __init__(self, path: Path, build: Callable[[], nn.Module] | None) -> None:
        self.path, self._build = path, build

    def checks(self, against: str | None, repeat: bool) -> _Checks:
        """Names and checks, in an order in which each may rely on those before."""
        yield "description", self._described
        yield "weights", self._weights
        yield "plan", self._planned
        yield "network", self._network
        yield "size", self._size
        yield "outputs", self._outputs
        yield "report", self._reported
        if against is not None:
            yield "against", lambda: self._against(against)
        if repeat:
            yield "repeat", self._repeated

    @cached_property
    def description(self) -> Mapping[str, Any]:
        """model.json."""
        if not (self.path / DESCRIPTION).is_file():
            raise RunError("the run has no model yet", where=self.path, hint="finish it with --resume")
        return read_description(self.path)

    @cached_property
    def plan(self) -> RemovalPlan:
        """What was removed."""
        return RemovalPlan.from_json(self.description.get("plan", {}))

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
            raise _Unknown("nothing tells how to build the network: pass `build` to l0prune.verify")

    def _described(self) -> str:
        if not check_description(self.description, self.path):
            raise _Unknown(_OLD)
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
            raise _Unknown(f"{_OLD}; {counted(len(tensors), 'tensor')} can be read, all finite")
        return f"SHA-256 {stated}; {counted(len(tensors), 'tensor')}, all finite"

    def _planned(self) -> str:
        plan = self.plan
        try:
            check_groups(plan.groups, plan.shapes)
        except GroupError as error:
            raise RunError("damaged plan", where=self.path / DESCRIPTION, got=error) from error
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
        _agree("parameters", sizes, self.path)
        return f"{sizes['counted']:,} parameters {' = '.join(sizes)}"

    def _outputs(self) -> str:
        stated, path = stated_digest(self.description, PROBE), self.path / PROBE
        if stated is None:
            raise _Unknown("no outputs were kept when it was saved")
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
            raise _Unknown("it is no run: it has no report.json")
        report, where = self.report, self.path / "report.json"
        settings = read_toml(self.path / "config.toml")
        for key in _SAME_IN_BOTH:
            if key in settings:
                _agree(key, {"report.json": report.get(key), "config.toml": settings[key]}, where)
        provenance = self.description.get("provenance", {})
        for key in ("teacher", "versions"):
            if key in provenance:
                _agree(key, {"report.json": report.get(key), DESCRIPTION: provenance[key]}, where)
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
            _agree("kept_units", {"report.json": kept, DESCRIPTION: plan.kept_counts}, where)
            checked.append("kept units")
        sizes = {"params": ("params_before", "params_after"), "macs": ("macs_before", "macs_after")}
        if self._build is not None or self.description.get("plugin"):
            networks = {"params_after": self.pruned, **({} if again else {"params_before": self.dense()})}
            for key, network in networks.items():
                _agree(key, {"report.json": report.get(key), "counted": parameters(network)}, where)
            checked.append("parameters")
            for key, network in networks.items():
                name = key.replace("params", "macs")
                if (found := _macs_on(self.description.get("counted_on"), network)) is not None:
                    _agree(name, {"report.json": report.get(name), "counted": found}, where)
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

    def _against(self, teacher: str) -> str:
        """Apply the plan to a dense network anew: shapes and sizes must agree, values may where nothing was trained."""
        name = self.description.get("plugin")
        if not name:
            raise _Unknown("the folder names no plugin that could open a teacher")
        dense = _opener(str(name)).open(teacher)
        self.plan.check(dense)
        cut, pruned = apply_plan(dense, self.plan), self.pruned
        _agree("parameters", {teacher: parameters(cut), "stored": parameters(pruned)}, self.path)
        if (got := model_shapes(pruned)) != (expected := model_shapes(cut)):
            name = next(name for name in {**expected, **got} if got.get(name) != expected.get(name))
            raise RunError("shapes differ", where=name, got=got.get(name), expected=expected.get(name))
        stored = pruned.state_dict()
        same = sum(torch.equal(tensor, stored[name]) for name, tensor in cut.state_dict().items())
        return (
            f"the plan fits {teacher}: {counted(len(expected), 'tensor')} of the same shapes, "
            f"{parameters(cut):,} parameters; {same} tensors have the teacher's values, training changed the others"
        )

    def _repeated(self) -> str:
        """Make the run again."""
        settings = read_toml(self.path / "config.toml")
        name = str(settings.get("plugin", ""))
        if self.report is None or not self.description.get("plugin"):
            raise _Unknown("only a run of an installed plugin can be made again")
        with tempfile.TemporaryDirectory() as place:
            again = Path(place) / "run"
            made = compress(name, config=self.path / "config.toml", out=again)
            difference = _first_difference(self.path / WEIGHTS, again / WEIGHTS)
        if difference:
            told = self.report.get("versions", {})
            changed = [f"{p} {told[p]} -> {now}" for p, now in made.versions.items() if told.get(p, now) != now]
            hint = f"versions differ: {', '.join(changed)}" if changed else None
            raise RunError("made again, the run gives other weights", where=self.path, got=difference, hint=hint)
        return "made again from config.toml, the run gives the same weights, bit for bit"


def _agree(what: str, values: Mapping[str, Any], where: Path) -> None:
    """Raise a `RunError` unless all values are the same."""
    (first, expected), *others = values.items()
    for name, value in others:
        if value != expected:
            raise RunError(f"{what} differ", where=where, got=f"{name} {value}", expected=f"{first} {expected}")


def _macs_on(on: Any, network: nn.Module) -> int | None:
    """Multiply-accumulates on inputs of the shapes that the description states; None where they cannot be counted."""
    try:
        shapes = [(row["shape"], getattr(torch, row["dtype"])) for row in on["inputs"]]
        inputs = [torch.zeros(shape, dtype=dtype, device="meta") for shape, dtype in shapes]
        bare = copied(network).eval().to("meta")
        return round(macs(lambda: bare(*inputs)) * on["scale"])
    except (AttributeError, LookupError, TypeError, RuntimeError):
        # None are stated, or a forward pass that computes nothing cannot be made.
        return None


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


def _opener(plugin: str | None) -> Opener:
    if plugin is None:
        raise _Unknown("no plugin is named that could open it")
    chosen = get_plugin(plugin)
    if not isinstance(chosen, Opener):
        raise _Unknown(f"the plugin {plugin!r} opens no files")
    return chosen


def _export_checks(path: Path, plugin: str | None) -> _Checks:
    """Checks of what is no run."""
    yield "checksum", lambda: _checksum(path, plugin)
    yield "network", lambda: _opened(path, plugin)


def _checksum(path: Path, plugin: str | None) -> str:
    if path.is_dir():
        if not (said := _opener(plugin).checksum(str(path))):
            raise _Unknown("it carries no checksum")
        return said
    if _is_archive(path):
        return _archive(path)
    if not check_stamp(path):
        raise _Unknown("it carries no checksum")
    return "the SHA-256 in its metadata"


def _is_archive(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(_ZIP)) == _ZIP
    except OSError as error:
        raise RunError("cannot read", where=path, got=error.strerror) from error


def _archive(path: Path) -> str:
    try:
        check_archive(path)
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
    except (zipfile.BadZipFile, OSError, RuntimeError, ValueError) as error:
        raise RunError("damaged archive", where=path, got=error) from error
    if not any(part.CRC for part in parts):
        raise _Unknown("the archive was written without checksums")
    return f"the CRC-32 of {counted(len(parts), 'part')}"


def _opened(path: Path, plugin: str | None) -> str:
    if path.suffix == ".onnx":
        raise _Unknown("a program holds no network to be opened; l0prune bench runs it")
    if path.is_file() and _is_archive(path):
        with zipfile.ZipFile(path) as archive:
            if any(name.endswith(_PROGRAM_PARTS) for name in archive.namelist()):
                raise _Unknown("a program holds no network to be opened")
    network = _opener(plugin).open(str(path))
    check_finite(named_weights(network).items(), path)
    return f"{parameters(network):,} parameters, all finite"
