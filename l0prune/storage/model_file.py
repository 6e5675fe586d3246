"""Pruned networks on disk: weights as safetensors, plan and architecture as JSON; no pickle."""

import json
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from os.path import isfile
from pathlib import Path
from typing import Any

import safetensors
from safetensors.torch import save_model
from torch import Tensor, fx, nn

from l0prune.errors import ConfigError, L0PruneError, PlanError, RunError
from l0prune.graphs import graph_from_json, graph_to_json
from l0prune.removal import GRAPH, RemovalPlan, apply_plan, check_shapes, remember
from l0prune.storage.description import (
    DESCRIPTION,
    DIGESTS,
    FORMAT,
    GRAPH_FILE,
    VERSION,
    WEIGHTS,
    build_dense,
    check_description,
    read_description,
    read_plan,
    skeleton,
    stated_digest,
)
from l0prune.storage.probe import PROBE, make_probe, write_probe
from l0prune.support import (
    check_finite,
    check_kinds,
    file_digest,
    json_digest,
    known_arguments,
    load_weights,
    model_shapes,
    named_weights,
    one_line,
    read_json,
    write_atomic,
    write_json,
)


def check_made_by(module: nn.Module, plan: RemovalPlan) -> None:
    """Raise a `PlanError` unless a network has the tensors that a plan leaves; names the first other one."""
    if (got := model_shapes(module)) != (planned := plan.pruned_shapes()):
        name = next(name for name in (*planned, *got) if got.get(name) != planned.get(name))
        raise PlanError(
            "not the network that the plan leaves",
            where=name,
            got=got.get(name, "no such tensor"),
            expected=planned.get(name, "no such tensor"),
            hint="save what finalize() returns, not the model that has gates, is compiled or is dense",
        )


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
    check_made_by(module, plan)
    folder, digests = Path(path), dict[str, str]()
    # As it will be read: JSON has no tuples, and no numbers for keys.
    written = {"format": FORMAT, "version": VERSION, **description, "plan": plan.to_json()}
    content = json.loads(json.dumps(written, allow_nan=False))
    check_finite(named_weights(module).items(), where=folder / WEIGHTS)

    def write(temporary: Path) -> None:
        save_model(module, str(temporary))
        digests[WEIGHTS] = file_digest(temporary)

    if plan.form == GRAPH:
        if not isinstance(module, fx.GraphModule):
            got = type(module).__name__
            raise PlanError("not the network that the plan leaves", got=got, expected="a torch.fx.GraphModule")
        graph = graph_to_json(module)
        write_json(folder / GRAPH_FILE, graph)
        digests[GRAPH_FILE] = json_digest(json.loads(json.dumps(graph)))
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


@known_arguments
def load(path: str | Path, build: Callable[[], nn.Module] | None = None) -> nn.Module:
    """Load a pruned network in evaluation mode.

    Args:
        path: A folder that `save` or a compression run made.
        build: Makes the dense network; a plugin's run directory needs none, and neither does a graph.

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
        pruned = remember(_built(build, description, plan, folder), plan)
    try:
        checked.result()
        check_kinds(_mapped(weights), pruned.state_dict(), weights)
        load_weights(pruned, weights)
    except (OSError, safetensors.SafetensorError) as error:
        raise RunError("damaged or missing weights", where=weights, got=error) from error
    except RuntimeError as error:
        raise PlanError("weights do not fit the plan", where=weights, got=" ".join(str(error).split())) from error
    if not check_description(description, folder):
        said = f"{folder}: saved before there were checksums, so that damage cannot be seen; save it again to have them"
        warnings.warn(said, stacklevel=3)  # Past `known_arguments`.
    return pruned.eval()


def _built(
    build: Callable[[], nn.Module] | None, description: Mapping[str, Any], plan: RemovalPlan, folder: Path
) -> nn.Module:
    """The pruned network without its weights."""
    if plan.form == GRAPH:
        return _of_graph(folder, plan, stated_digest(description, GRAPH_FILE))
    if build is None:
        # As shapes alone, before anything is allocated.
        check_shapes(plan.shapes, model_shapes(skeleton(description, plan, folder)))
    dense = build() if build else build_dense(description, folder)
    if not isinstance(dense, nn.Module):
        raise ConfigError("build returned no network", got=type(dense).__name__, expected="a torch.nn.Module")
    return apply_plan(dense, plan)


def _of_graph(folder: Path, plan: RemovalPlan, stated: str | None) -> nn.Module:
    """The network of a graph file, without its weights."""
    path = folder / GRAPH_FILE
    data = read_json(path)
    if stated is not None and (got := json_digest(data)) != stated:
        hint = "copy it again from where it was made"
        raise RunError("damaged or missing graph", where=path, got=f"SHA-256 {got}", expected=stated, hint=hint)
    module = graph_from_json(data, plan.pruned_shapes(), path)
    check_shapes(plan.pruned_shapes(), model_shapes(module))
    return module


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
