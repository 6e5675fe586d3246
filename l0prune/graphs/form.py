"""The graph form of a network: one graph for both modes, in which every size follows from the weights."""

import copy
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from l0prune.errors import L0PruneError, TraceError
from l0prune.example import Observe
from l0prune.graphs.exporting import DTYPE, Arguments, Exported, arguments_of, exported, leaves_of
from l0prune.graphs.modes import SWITCH, mapped, merged
from l0prune.graphs.sizes import write_sizes
from l0prune.graphs.switch import ByMode
from l0prune.groups import PruneGroup
from l0prune.removal import GRAPH, RemovalPlan
from l0prune.support import (
    carry_source,
    copied,
    forget_tracer,
    one_line,
    output_tensors,
    own_buffers,
    own_modules,
    own_parameters,
    random_state_kept,
)


@dataclass(frozen=True, eq=False)
class GraphForm:
    """How the graph of a network is made of its tensors, dense or gated."""

    graph: fx.Graph
    constants: Mapping[str, Tensor] = field(default_factory=dict)
    """Tensors that the network's forward pass makes of numbers in its source."""
    notes: tuple[str, ...] = ()
    """What the graph does not hold."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "GraphForm":
        """Itself: it never changes."""
        return self

    def of(self, model: nn.Module) -> fx.GraphModule:
        """The network as a graph that holds the tensors of `model`, which has the names and shapes of the dense one."""
        graph = copy.deepcopy(self.graph)
        holder = _holder_of(model)
        device = next((parameter.device for parameter in model.parameters()), None)
        for name, tensor in self.constants.items():
            holder.register_buffer(name, tensor.clone().to(device))
        if any(node.op == "call_module" and node.target == SWITCH for node in graph.nodes):
            holder.add_module(SWITCH, ByMode())
        return graph_module(holder, graph).train(model.training)

    def plan(self, plan: RemovalPlan) -> RemovalPlan:
        """A plan for the network itself, as one for its graph."""
        shapes = {**plan.shapes, **{name: tuple(tensor.shape) for name, tensor in self.constants.items()}}
        return replace(plan, groups=tuple(map(bare, plan.groups)), shapes=shapes, form=GRAPH)


def bare(group: PruneGroup) -> PruneGroup:
    """A group without what a cut mends in modules: a graph has weights alone."""
    return replace(group, norms=(), attributes=(), calls=())


def graph_module(holder: nn.Module, graph: fx.Graph) -> fx.GraphModule:
    """A module that runs a graph and holds all that `holder` does, in its order."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not reference an nn.Module.*")
        made = fx.GraphModule(holder, graph, class_name="GraphModule")
    for kind in (own_parameters, own_buffers, own_modules):
        held: Any = kind(made)
        held.clear()
        held.update(kind(holder))
    return made


def _holder_of(model: nn.Module) -> nn.Module:
    """A module that has the tensors of another under the same names, and computes nothing."""
    made: dict[int, nn.Module] = {}

    def held(module: nn.Module) -> nn.Module:
        if id(module) not in made:
            holder = made[id(module)] = nn.Module()
            for name, parameter in own_parameters(module).items():
                holder.register_parameter(name, parameter)
            for name, buffer in own_buffers(module).items():
                holder.register_buffer(name, buffer)
            for name, child in own_modules(module).items():
                holder.add_module(name, None if child is None else held(child))
        return made[id(module)]

    return held(model)


def graph_form(
    model: nn.Module,
    groups: Sequence[PruneGroup],
    observe: Observe,
    *,
    time_limit: float = 60.0,
) -> GraphForm:
    """The graph form of a network.

    Args:
        model: The dense network; it is left as it is.
        groups: What may be cut.
        observe: Runs a network on example inputs.
        time_limit: Seconds that following the graph may take.

    Raises:
        TraceError: The network cannot be exported, or the graph cannot be followed.
    """
    try:
        return _form_of(model, groups, observe, time_limit)
    except L0PruneError:
        raise
    except Exception as error:
        got = f"{type(error).__name__}: {one_line(error)}"
        raise TraceError("the graph of the model cannot be followed", where=type(model).__name__, got=got) from error


def _form_of(model: nn.Module, groups: Sequence[PruneGroup], observe: Observe, time_limit: float) -> GraphForm:
    given = arguments_of(copied(model).eval(), observe)
    evaluating = exported(model, given, training=False)
    graph, constants, notes = _both_modes(model, given, evaluating)
    for one in {graph, evaluating.graph}:
        _follow_dtype(one, model)
    if not notes and not _trains_alike(model, GraphForm(graph, constants), observe):
        graph, constants, notes = evaluating.graph, dict(evaluating.constants), [_ONE_MODE]
    dense = GraphForm(graph, constants).of(copied(model).eval())
    graph = dense.graph
    _follow_weights(graph, next(model.parameters()).device)
    write_sizes(dense, [bare(group) for group in groups], evaluating.flat, time_limit)
    _drop_unread(graph)
    forget_tracer(graph)
    if not evaluating.varies:
        notes.append("the graph is made for inputs of exactly the example's shapes")
    return GraphForm(graph, constants, tuple(notes))


@torch.no_grad()
def _trains_alike(model: nn.Module, form: GraphForm, observe: Observe) -> bool:
    """Whether a graph gives in training mode what the network gives, from one random state."""
    found = []
    for one in (copied(model).train(), form.of(copied(model)).train()):
        with random_state_kept():
            torch.manual_seed(0)
            found.append(output_tensors(observe(one)))
    return len(found[0]) == len(found[1]) and all(
        a.shape == b.shape and torch.allclose(a, b, rtol=_ALIKE, atol=_ALIKE, equal_nan=True)
        for a, b in zip(*found, strict=True)
    )


def _follow_dtype(graph: fx.Graph, model: nn.Module) -> None:
    """Let what follows the weights' dtype read it off one of them."""
    floating = {name for name, parameter in model.named_parameters() if parameter.is_floating_point()}
    weight = next((node for node in graph.nodes if node.op == "get_attr" and node.target in floating), None)
    users = [node for node in graph.nodes if DTYPE in leaves_of(node)]
    if not users:
        return
    dtype: Any = next(parameter.dtype for parameter in model.parameters() if parameter.is_floating_point())
    if weight is not None:
        first = next(node for node in graph.nodes if node.op not in ("placeholder", "get_attr"))
        with graph.inserting_before(first):
            dtype = graph.call_function(getattr, (weight, "dtype"))
    for node in users:
        node.args, node.kwargs = mapped((node.args, node.kwargs), lambda x: dtype if x is DTYPE else x)


def _follow_weights(graph: fx.Graph, device: torch.device) -> None:
    """Let what is made on the device of the weights be made where they are by then."""
    weight = next((node for node in graph.nodes if node.op == "get_attr"), None)
    anchor = next(node for node in graph.nodes if node.op not in ("placeholder", "get_attr"))
    where: list[fx.Node] = []

    def moved(value: Any) -> Any:
        if not isinstance(value, torch.device) or value != device or weight is None:
            return value
        if not where:
            with graph.inserting_before(anchor):
                where.append(graph.call_function(getattr, (weight, "device")))
        return where[0]

    for node in list(graph.nodes):
        if node.op == "call_function" and node.target is not getattr:
            node.args, node.kwargs = mapped((node.args, node.kwargs), moved)


def _drop_unread(graph: fx.Graph) -> None:
    """Take out lengths and tensors that nothing reads; all else may draw or write."""
    for node in reversed(graph.nodes):
        is_number = node.op == "call_function" and getattr(node.target, "__module__", "") == "_operator"
        is_length = node.target is torch.ops.aten.sym_size.int
        if not node.users and (node.op == "get_attr" or is_number or is_length):
            graph.erase_node(node)


def _both_modes(
    model: nn.Module, given: Arguments, evaluating: Exported
) -> tuple[fx.Graph, dict[str, Tensor], list[str]]:
    """A graph of both modes, or that of evaluation mode alone and a remark that says so."""
    try:
        training = exported(model, given, training=True)
    except TraceError as error:
        return (
            evaluating.graph,
            dict(evaluating.constants),
            [f"the graph does in training mode what it does in evaluation mode: {error}"],
        )
    graph = merged(evaluating.graph, training.graph, evaluating.constants, training.constants)
    if graph is None:
        return evaluating.graph, dict(evaluating.constants), [_ONE_MODE]
    return graph, dict(training.constants), []


_ALIKE = 1e-4
_ONE_MODE = (
    "the graph does in training mode what it does in evaluation mode, without dropout: the forward pass takes other "
    "ways in training mode than flags, numbers and operators that are added"
)
carry_source(ByMode)
