"""One graph of two: what a network does in evaluation mode and what it does in training mode."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, fx

from l0prune.support import schema_of

SWITCH = "by_mode"
"""The child of a graph module that knows which mode it is in: a `ByMode`."""


def merged(
    evaluating: fx.Graph,
    training: fx.Graph,
    constants: Mapping[str, Tensor],
    training_constants: Mapping[str, Tensor],
) -> fx.Graph | None:
    """The graph of training mode, which in evaluation mode computes what that graph does.

    Args:
        evaluating: The graph of evaluation mode.
        training: The graph of training mode; it is spoilt.
        constants: Tensors that the first graph reads, by name.
        training_constants: The same of the second.

    Returns:
        The graph; None where the two differ otherwise than by flags, numbers and operators that training mode adds.
    """
    pairs = _paired(evaluating, training, constants, training_constants)
    return None if pairs is None else _switched(training, pairs)


def _paired(
    evaluating: fx.Graph,
    training: fx.Graph,
    constants: Mapping[str, Tensor],
    training_constants: Mapping[str, Tensor],
) -> dict[fx.Node, fx.Node] | None:
    """For nodes of training mode those of evaluation mode that do the same; all of these are among them."""
    waiting = iter(evaluating.nodes)
    pairs: dict[fx.Node, fx.Node] = {}
    made_of: dict[fx.Node, set[fx.Node]] = {}
    """Of what training mode adds: the nodes of both modes that it is made of."""
    here = next(waiting, None)
    for node in training.nodes:
        if here is not None and _same(node, here, pairs, made_of):
            if node.op == "get_attr" and node.target in constants:
                known = training_constants.get(str(node.target))
                if known is None or not torch.equal(known, constants[str(node.target)]):
                    return None
            pairs[node] = here
            here = next(waiting, None)
        else:
            made_of[node] = {one for a in node.all_input_nodes for one in made_of.get(a, {a})}
    return pairs if here is None else None


def _same(
    node: fx.Node, other: fx.Node, pairs: Mapping[fx.Node, fx.Node], made_of: Mapping[fx.Node, set[fx.Node]]
) -> bool:
    """Whether a node of training mode does what another does in evaluation mode."""
    if (node.op, node.target) != (other.op, other.target):
        return False
    mine, theirs = list(leaves((node.args, node.kwargs))), list(leaves((other.args, other.kwargs)))
    if len(mine) != len(theirs):
        return False
    for one, two in zip(mine, theirs, strict=True):
        if isinstance(one, fx.Node) and isinstance(two, fx.Node):
            if pairs.get(one) is not two and not any(pairs.get(a) is two for a in made_of.get(one, ())):
                return False
        elif type(one) is not type(two) or (one != two and not isinstance(one, bool | float)):
            return False
    return True


def _switched(graph: fx.Graph, pairs: Mapping[fx.Node, fx.Node]) -> fx.Graph | None:
    back = {other: node for node, other in pairs.items()}
    first = next(node for node in graph.nodes if node.op not in ("placeholder", "get_attr"))
    flags: dict[str, fx.Node] = {}
    values: dict[tuple[fx.Node, fx.Node], fx.Node] = {}

    def flag(evaluating: Any, training: Any) -> fx.Node:
        # False equals 0, but is no number.
        key = repr((evaluating, training))
        if key not in flags:
            with graph.inserting_before(first):
                flags[key] = graph.create_node("call_module", SWITCH, (evaluating, training))
        return flags[key]

    for node in list(graph.nodes):
        if node not in pairs:
            if not _may_run_in_both(node, pairs, flag):
                return None
            continue
        theirs = iter([*leaves((pairs[node].args, pairs[node].kwargs))])

        def chosen(mine: Any, node: fx.Node = node, theirs: Iterator[Any] = theirs) -> Any:
            other = next(theirs)
            if not isinstance(mine, fx.Node):
                return mine if mine == other else flag(other, mine)
            if pairs.get(mine) is other:
                return mine
            key = back[other], mine
            if key not in values:
                with graph.inserting_before(node):
                    values[key] = graph.create_node("call_module", SWITCH, key)
            return values[key]

        args, kwargs = mapped((node.args, node.kwargs), chosen)
        node.args, node.kwargs = args, kwargs
    return graph


def _may_run_in_both(node: fx.Node, pairs: Mapping[fx.Node, fx.Node], flag: Any) -> bool:
    """Whether what training mode adds does no harm in evaluation mode; a count of batches does none afterwards."""
    if node.op != "call_function" or not hasattr(node.target, "_schema") or not schema_of(node.target).is_mutable:
        return node.op in ("call_function", "get_attr")
    written = node.args[0]
    if not isinstance(written, fx.Node):
        return False
    if written not in pairs and written.op != "get_attr":
        return True
    if node.target is torch.ops.aten.add_.Tensor and node.args[1] == 1 and written.op == "get_attr":
        node.update_arg(1, flag(0, 1))
        return True
    return False


def leaves(value: Any) -> Iterator[Any]:
    """What stands in nested arguments, in order."""
    if isinstance(value, list | tuple):
        for item in value:
            yield from leaves(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from leaves(item)
    else:
        yield value


def mapped(value: Any, change: Any) -> Any:
    """A function of each of these, nested as they are."""
    if isinstance(value, list | tuple):
        items = [mapped(item, change) for item in value]
        return tuple(items) if isinstance(value, tuple) else items
    if isinstance(value, dict):
        return {key: mapped(item, change) for key, item in value.items()}
    return change(value)
