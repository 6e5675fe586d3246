"""Pruned networks on disk: weights as safetensors, plan and architecture as JSON; no pickle."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors
from safetensors.torch import load_model, save_model
from torch import nn

from l0prune.errors import ConfigError, L0PruneError, PlanError, RunError
from l0prune.plugin import get_plugin
from l0prune.removal import RemovalPlan, apply_plan, remember
from l0prune.support import model_shapes, read_json, write_atomic, write_json

FORMAT, VERSION = "l0prune", 1


def save(module: nn.Module, plan: RemovalPlan, path: str | Path, **description: Any) -> None:
    """Save a pruned network as `model.safetensors` and `model.json`.

    Args:
        module: The pruned network.
        plan: The plan that made it.
        path: A folder; it is made if need be.
        description: More JSON for `model.json`: plugin, architecture, provenance.

    Raises:
        PlanError: The plan did not make this network; nothing is written then.
        RunError: The folder cannot be written.
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
    folder = Path(path)
    write_atomic(folder / "model.safetensors", lambda temporary: save_model(module, str(temporary)))
    write_json(folder / "model.json", {"format": FORMAT, "version": VERSION, **description, "plan": plan.to_json()})


def load(path: str | Path, build: Callable[[], nn.Module] | None = None) -> nn.Module:
    """Load a pruned network in evaluation mode.

    Args:
        path: A folder that `save` or a compression run made.
        build: Makes the dense network; a plugin's run directory needs none.

    Returns:
        The pruned network: for a speech run a module with torchaudio's interface.

    Raises:
        ConfigError: `build` is no function that returns a network.
        RunError: Files are missing, damaged or of another version.
        PlanError: `build` makes another network than the one that was pruned; names the first difference.
        L0PruneError: The run's plugin is missing, or `build` is.
    """
    if build is not None and not callable(build):
        expected = "a function that makes the dense network"
        raise ConfigError("build has the wrong type", got=type(build).__name__, expected=expected)
    folder = Path(path)
    if not (folder / "model.json").is_file():
        if (folder / "config.toml").is_file():
            raise RunError("the run has no model yet", where=folder, hint="finish it with --resume")
        raise RunError("no pruned model here", where=folder, expected="a folder with model.json and model.safetensors")
    description = read_description(folder)
    dense = build() if build else build_dense(description, folder)
    if not isinstance(dense, nn.Module):
        raise ConfigError("build returned no network", got=type(dense).__name__, expected="a torch.nn.Module")
    plan = RemovalPlan.from_json(description.get("plan", {}))
    pruned = remember(apply_plan(dense, plan), plan)
    weights = folder / "model.safetensors"
    try:
        load_model(pruned, weights)
    except (OSError, safetensors.SafetensorError) as error:
        raise RunError("damaged or missing weights", where=weights, got=error) from error
    except RuntimeError as error:
        raise PlanError("weights do not fit the plan", where=weights, got=" ".join(str(error).split())) from error
    return pruned.eval()


def read_description(folder: Path) -> Mapping[str, Any]:
    """The JSON beside a pruned network's weights.

    Raises:
        RunError: It is missing, damaged or of another version.
    """
    description = read_json(folder / "model.json")
    got = (description.get("format"), description.get("version")) if isinstance(description, dict) else None
    if got != (FORMAT, VERSION):
        raise RunError("not a pruned model", where=folder / "model.json", got=got, expected=(FORMAT, VERSION))
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
        raise L0PruneError(
            "nothing tells how to build the dense network", where=folder, hint="pass `build`, a function that makes it"
        )
    plugin = get_plugin(str(description["plugin"]))
    try:
        return plugin.build(description["architecture"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise RunError(
            "damaged architecture", where=folder / "model.json", got=f"{type(error).__name__}: {error}"
        ) from error
