"""Pruned networks on disk: weights as safetensors, plan and architecture as JSON; no pickle."""

import json
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import count
from os.path import isfile
from pathlib import Path
from typing import Any

import safetensors
from safetensors.torch import load_model, save_model
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

from l0prune.errors import ConfigError, GroupError, L0PruneError, PlanError, RunError
from l0prune.groups import check_groups
from l0prune.plugin import get_plugin
from l0prune.removal import RemovalPlan, apply_plan, check_shapes, remember
from l0prune.storage.probe import PROBE, make_probe, write_probe
from l0prune.support import (
    check_finite,
    check_kinds,
    file_digest,
    json_digest,
    model_shapes,
    named_weights,
    one_line,
    read_json,
    without_values,
    write_atomic,
    write_json,
)

FORMAT, VERSION = "l0prune", 1
WEIGHTS, DESCRIPTION = "model.safetensors", "model.json"
DIGESTS = "sha256"
"""Entry of the description: by file name the SHA-256 of what stands beside it, and that of all else it holds itself."""


def save(
    module: nn.Module,
    plan: RemovalPlan,
    path: str | Path,
    *,
    example_inputs: Tensor | Sequence[Tensor] = (),
    **description: Any,
) -> None:
    """Save a pruned network as `model.safetensors` and `model.json`, with checksums for `load` and `verify`.

    Args:
        module: The pruned network.
        plan: The plan that made it.
        path: A folder; it is made if need be.
        example_inputs: The network's positional arguments. They are kept, with what it gives for them, so that
            `verify` can compare; what is large is not kept.
        description: More JSON for `model.json`: plugin, architecture, provenance.

    Raises:
        PlanError: The plan did not make this network; nothing is written then.
        RunError: A weight is not finite or cannot be saved, or the folder cannot be written.
    """
    if (got := model_shapes(module)) != (planned := plan.pruned_shapes()):
        name = next(name for name in (*planned, *got) if got.get(name) != planned.get(name))
        raise PlanError(
            "not the network that the plan leaves",
            where=name,
            got=got.get(name, "no such tensor"),
            expected=planned.get(name, "no such tensor"),
            hint="save what finalize() returns, not the model that has gates, is compiled or is dense",
        )
    folder, digests = Path(path), dict[str, str]()
    # As it will be read: JSON has no tuples, and no numbers for keys.
    written = {"format": FORMAT, "version": VERSION, **description, "plan": plan.to_json()}
    content = json.loads(json.dumps(written, allow_nan=False))
    check_finite(named_weights(module).items(), where=folder / WEIGHTS)

    def write(temporary: Path) -> None:
        save_model(module, str(temporary))
        digests[WEIGHTS] = file_digest(temporary)

    inputs = (example_inputs,) if isinstance(example_inputs, Tensor) else tuple(example_inputs)
    if probe := make_probe(module, inputs):
        write_probe(probe, folder / PROBE)
        digests[PROBE] = file_digest(folder / PROBE)
    try:
        write_atomic(folder / WEIGHTS, write)
    except (RuntimeError, ValueError) as error:
        # Tensors that share memory in part, for example.
        raise RunError("the network cannot be saved", where=type(module).__name__, got=one_line(error)) from error
    content[DIGESTS] = digests
    digests[DESCRIPTION] = json_digest(content)
    write_json(folder / DESCRIPTION, content)


def load(path: str | Path, build: Callable[[], nn.Module] | None = None) -> nn.Module:
    """Load a pruned network in evaluation mode.

    Args:
        path: A folder that `save` or a compression run made.
        build: Makes the dense network; a plugin's run directory needs none.

    Returns:
        The pruned network, with the interface that its plugin gives it.

    Raises:
        ConfigError: `build` is no function that returns a network.
        RunError: Files are missing, of another version, or not what was saved, by their checksums; weights are
            quantised or not finite. What was saved before there were checksums is opened with a warning.
        PlanError: `build` makes another network than the one that was pruned; names the first difference.
        L0PruneError: The run's plugin is missing, or `build` is.
    """
    if build is not None and not callable(build):
        expected = "a function that makes the dense network"
        raise ConfigError("build has the wrong type", got=type(build).__name__, expected=expected)
    folder = Path(path)
    if not isfile(folder / DESCRIPTION):
        if isfile(folder / "config.toml"):
            raise RunError("the run has no model yet", where=folder, hint="finish it with --resume")
        raise RunError("no pruned model here", where=folder, expected="a folder with model.json and model.safetensors")
    description = read_description(folder)
    plan = read_plan(description, folder)
    weights = folder / WEIGHTS
    # The network is built meanwhile, which takes longer.
    with ThreadPoolExecutor(1) as beside:
        checked = beside.submit(_check_weights, weights, stated_digest(description, WEIGHTS))
        try:
            _check_header(weights, plan)
        except L0PruneError as error:
            # Where the file has changed, that is the reason.
            reason = checked.exception()
            raise reason if isinstance(reason, L0PruneError) else error from error
        if build is None:
            # As shapes alone, before anything is allocated.
            check_shapes(plan.shapes, model_shapes(skeleton(description, plan, folder)))
        dense = build() if build else build_dense(description, folder)
        if not isinstance(dense, nn.Module):
            raise ConfigError("build returned no network", got=type(dense).__name__, expected="a torch.nn.Module")
        pruned = remember(apply_plan(dense, plan), plan)
    try:
        checked.result()
        check_kinds(_mapped(weights), pruned.state_dict(), weights)
        load_model(pruned, weights)
    except (OSError, safetensors.SafetensorError) as error:
        raise RunError("damaged or missing weights", where=weights, got=error) from error
    except RuntimeError as error:
        raise PlanError("weights do not fit the plan", where=weights, got=" ".join(str(error).split())) from error
    if not check_description(description, folder):
        said = f"{folder}: saved before there were checksums, so that damage cannot be seen; save it again to have them"
        warnings.warn(said, stacklevel=2)
    return pruned.eval()


def stated_digest(description: Mapping[str, Any], name: str) -> str | None:
    """The digest that a description states of a file; None in one of before there were any."""
    digests = description.get(DIGESTS)
    return str(digests[name]) if isinstance(digests, Mapping) and name in digests else None


def _check_weights(weights: Path, stated: str | None) -> None:
    if stated is not None and (got := file_digest(weights)) != stated:
        hint = "copy it again from where it was made"
        what = "damaged or missing weights"
        raise RunError(what, where=weights, got=f"SHA-256 {got}", expected=stated, hint=hint)
    check_finite(_mapped(weights).items(), weights)


def _mapped(weights: Path) -> dict[str, Tensor]:
    """The tensors of a file, none of which is read before it is looked at."""
    with safetensors.safe_open(weights, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def check_description(description: Mapping[str, Any], folder: Path) -> bool:
    """Whether a description states a checksum of itself.

    Args:
        description: What `read_description` returns.
        folder: Where it was read.

    Raises:
        RunError: It states one, of another content.
    """
    stated = stated_digest(description, DESCRIPTION)
    if stated is None:
        return False
    others = {name: digest for name, digest in description[DIGESTS].items() if name != DESCRIPTION}
    got = json_digest({**description, DIGESTS: others})
    if got != stated:
        hint = f"if you have changed it yourself, remove its entry {DIGESTS!r}"
        what = "damaged description: its checksum is wrong"
        raise RunError(what, where=folder / DESCRIPTION, got=got, expected=stated, hint=hint)
    return True


def read_description(folder: Path) -> Mapping[str, Any]:
    """The JSON beside a pruned network's weights.

    Raises:
        RunError: It is missing, damaged or of another version.
    """
    description = read_json(folder / DESCRIPTION)
    got = (description.get("format"), description.get("version")) if isinstance(description, dict) else None
    if got != (FORMAT, VERSION):
        raise RunError("not a pruned model", where=folder / DESCRIPTION, got=got, expected=(FORMAT, VERSION))
    return description


def build_dense(description: Mapping[str, Any], folder: Path) -> nn.Module:
    """The dense network of a plugin's run, with any weights.

    Args:
        description: What `read_description` returns.
        folder: Where it was read, for messages.

    Raises:
        L0PruneError: The run names no plugin, the plugin is missing, or the architecture is damaged.
    """
    if not description.get("plugin"):
        hint = f"open it in Python: l0prune.load({str(folder)!r}, build), where build() makes the dense network"
        raise L0PruneError("nothing tells how to build the dense network", where=folder, hint=hint)
    plugin = get_plugin(str(description["plugin"]))
    try:
        return plugin.build(description["architecture"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise RunError(
            "damaged architecture", where=folder / DESCRIPTION, got=f"{type(error).__name__}: {error}"
        ) from error


def read_plan(description: Mapping[str, Any], folder: Path) -> RemovalPlan:
    """The plan of a pruned network, found to agree with itself.

    Args:
        description: What `read_description` returns.
        folder: Where it was read, for messages.

    Raises:
        RunError: It is malformed, or its groups do not fit its shapes.
    """
    try:
        plan = RemovalPlan.from_json(description.get("plan", {}))
        check_groups(plan.groups, plan.shapes)
    except (PlanError, GroupError) as error:
        raise RunError("damaged plan", where=folder / DESCRIPTION, got=error) from error
    return plan


def skeleton(description: Mapping[str, Any], plan: RemovalPlan, folder: Path) -> nn.Module:
    """The dense network of a plugin's run without weights: shapes, and a forward pass that computes nothing.

    Args:
        description: What `read_description` returns.
        plan: Its plan. The network may not have many more modules than this has tensors.
        folder: Where it was read, for messages.

    Raises:
        L0PruneError: As `build_dense`, or the architecture is larger than the plan.
    """
    with without_values(), _at_most(1000 + 20 * len(plan.shapes), folder):
        return build_dense(description, folder).eval()


@contextmanager
def _at_most(most: int, folder: Path) -> Iterator[None]:
    """Refuse to go on with building a network that has more modules and parameters than `most`."""
    numbers = count()

    def check(*_registered: object) -> None:
        if next(numbers) > most:
            got, where = "a network of more modules than its plan has tensors", folder / DESCRIPTION
            raise RunError("damaged architecture", where=where, got=got)

    with ExitStack() as stack:
        for register in (register_module_module_registration_hook, register_module_parameter_registration_hook):
            stack.callback(register(check).remove)
        yield


def _check_header(weights: Path, plan: RemovalPlan) -> None:
    """Compare the names and shapes that a file's header gives with those that the plan leaves."""
    try:
        with safetensors.safe_open(weights, "pt") as file:
            stored = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            others = file.metadata() or {}
    except (OSError, safetensors.SafetensorError) as error:
        raise RunError("damaged or missing weights", where=weights, got=error) from error
    planned = plan.pruned_shapes()
    # Tied tensors are stored under one of their names, not always the one that the plan has.
    names = {name: other for other, name in others.items() if name not in planned and other in planned}
    found = {names.get(name, name): shape for name, shape in stored.items()}
    for name, shape in found.items():
        if planned.get(name) != shape:
            expected = planned.get(name, "no such tensor")
            raise PlanError("weights do not fit the plan", where=weights, got=f"{name} {shape}", expected=expected)
    # Tied tensors are stored once, and some buffers not at all: no more than that may be missing.
    absent = {name: math.prod(shape) for name, shape in planned.items() if name not in found}
    if sum(absent.values()) > 10**6 + 2 * sum(map(math.prod, found.values())):
        name = max(absent, key=absent.__getitem__)
        expected = f"{name} {planned[name]}"
        raise PlanError("weights do not fit the plan", where=weights, got="no such tensor", expected=expected)
