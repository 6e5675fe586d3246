"""The description beside a pruned network's weights: its checksums, its plan, and how the dense network is built."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from torch import nn
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

from l0prune.errors import GroupError, L0PruneError, PlanError, RunError
from l0prune.groups import check_groups
from l0prune.plugin import get_plugin
from l0prune.removal import RemovalPlan
from l0prune.support import (
    json_digest,
    read_json,
    without_values,
)

FORMAT, VERSION = "l0prune", 1
WEIGHTS, DESCRIPTION = "model.safetensors", "model.json"
GRAPH_FILE = "graph.json"
"""What a network of the graph form computes."""
DIGESTS = "sha256"
"""Entry of the description: by file name the SHA-256 of what stands beside it, and that of all else it holds itself."""


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


def stated_digest(description: Mapping[str, Any], name: str) -> str | None:
    """The digest that a description states of a file; None in one of before there were any."""
    digests = description.get(DIGESTS)
    return str(digests[name]) if isinstance(digests, Mapping) and name in digests else None


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


def build_dense(description: Mapping[str, Any], folder: Path) -> nn.Module:
    """The dense network of a plugin's run, with any weights.

    Args:
        description: What `read_description` returns.
        folder: Where it was read, for messages.

    Raises:
        L0PruneError: The run names no plugin, the plugin is missing, or the architecture is damaged.
    """
    if not description.get("plugin"):
        hint = f"give what makes it: --build MODULE:FUNCTION, or l0prune.load({str(folder)!r}, build) in Python"
        raise L0PruneError("nothing tells how to build the dense network", where=folder, hint=hint)
    plugin = get_plugin(str(description["plugin"]))
    try:
        return plugin.build(description["architecture"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise RunError(
            "damaged architecture", where=folder / DESCRIPTION, got=f"{type(error).__name__}: {error}"
        ) from error


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
