"""A network's forward pass as a graph, by torch.export, in evaluation mode and in training mode."""

import operator
import os
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from l0prune.errors import TraceError
from l0prune.example import Observe
from l0prune.graphs.modes import leaves, mapped
from l0prune.support import copied, one_line, plain_attention, refuse_operator, sizes_of_one_vary, tree_leaves

_TORCH, _OWN = (f"{Path(str(module.__file__)).parent}{os.sep}" for module in (torch, __import__("l0prune")))
_UNCHECKED = ("_assert_tensor_metadata",)
"""Operators that check what the dense network has, and compute nothing."""


@dataclass(frozen=True)
class Exported:
    """What torch.export has made of a network in one mode."""

    graph: fx.Graph
    constants: Mapping[str, Tensor]
    """Tensors that the forward pass makes of numbers in the source, by the names under which the graph reads them."""
    flat: Sequence[Any]
    """The arguments in the order of the graph's placeholders."""
    varies: bool
    """Whether any dimension of an input may have another length."""


@dataclass
class Arguments:
    """What a network's own call is given."""

    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    calls: int = 0


def arguments_of(model: nn.Module, observe: Observe) -> Arguments:
    """The arguments of the first call of a network while `observe` runs it.

    Raises:
        TraceError: The network itself is never called.
    """
    found = Arguments()

    def note(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not found.calls:
            found.args, found.kwargs = args, dict(kwargs)
        found.calls += 1

    hook = model.register_forward_pre_hook(note, with_kwargs=True)
    try:
        with torch.no_grad():
            observe(model)
    finally:
        hook.remove()
    if not found.calls:
        hint = "forward_fn has to call the model itself: model(...), not a method of it"
        raise TraceError("the graph form needs a call of the model", where=type(model).__name__, hint=hint)
    return found


def exported(model: nn.Module, given: Arguments, *, training: bool) -> Exported:
    """A network's forward pass in one mode, for other batch sizes and lengths too where it allows them.

    Args:
        model: The network; it is left as it is.
        given: Its arguments.
        training: Which mode.

    Raises:
        TraceError: torch.export refuses the network; says at which line of whose source, where that is known.
    """
    found = _widest(copied(model).train(training), given, type(model).__name__)
    return _with_dtypes_told(found, model, given, training=training)


def _widest(twin: nn.Module, given: Arguments, where: str) -> Exported:
    """The export of a network, which may be changed, with as many dimensions that may vary as it allows."""
    failure: Exception | None = None
    for varying in _widest_first(given):
        try:
            return _program(twin, given, varying)
        except TraceError:
            raise
        except Exception as error:
            # Without a dimension that may vary the reason is the network's own.
            failure = error
    assert failure is not None
    raise TraceError(
        "the model cannot be exported as a graph",
        where=line_of(failure) or where,
        got=f"{type(failure).__name__}: {_first_line(failure)}",
        hint='form="module" needs no graph',
    ) from failure


DTYPE = "dtype of the weights"
"""Stands in a graph for the dtype of the network's weights, wherever the source says `x.to(other.dtype)`."""
_ANOTHER = torch.float64


def _with_dtypes_told(found: Exported, model: nn.Module, given: Arguments, *, training: bool) -> Exported:
    """Tell a dtype that follows the weights' from one that the source names: with other weights the first differs.

    Where the graph of the other weights does not do the same, node by node, all dtypes stay as they are.
    """
    dtypes = {p.dtype for p in model.parameters() if p.is_floating_point()}
    own = next(iter(dtypes), None)
    if len(dtypes) != 1 or own is _ANOTHER or not any(own in leaves_of(node) for node in found.graph.nodes):
        return found
    args, kwargs = mapped((given.args, given.kwargs), lambda x: x.to(_ANOTHER) if _is_floating(x) else x)
    try:
        twin = copied(model).to(_ANOTHER).train(training)
        other = _widest(twin, Arguments(args, kwargs), type(model).__name__)
    except Exception:
        # Operators that know no such numbers.
        return found
    pairs = list(zip(found.graph.nodes, other.graph.nodes, strict=False))
    alike = len(found.graph.nodes) == len(other.graph.nodes) and all(_do_the_same(*pair, own) for pair in pairs)
    for node, twin_node in pairs if alike else ():
        told = iter(list(leaves_of(twin_node)))
        node.args, node.kwargs = mapped(
            (node.args, node.kwargs), lambda mine, told=told: DTYPE if next(told) is _ANOTHER and mine is own else mine
        )
    return found


def _is_floating(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def leaves_of(node: fx.Node) -> list[Any]:
    """A node's arguments, in the order in which `mapped` meets them."""
    return list(leaves((node.args, node.kwargs)))


def _do_the_same(node: fx.Node, other: fx.Node, own: Any) -> bool:
    """Whether two nodes differ in nothing but the dtype of the weights, and in numbers that follow from it."""
    mine, theirs = leaves_of(node), leaves_of(other)
    if (node.op, str(node.target), len(mine)) != (other.op, str(other.target), len(theirs)):
        return False
    return all(
        type(a) is type(b) and (a == b or isinstance(a, float | fx.Node) or (a is own and b is _ANOTHER))
        for a, b in zip(mine, theirs, strict=True)
    )


def _widest_first(given: Arguments) -> Iterator[Callable[[Tensor], Sequence[int]]]:
    """Which dimensions of a tensor may vary: all, the batch, none."""
    yield lambda x: range(x.ndim)
    if any(isinstance(x, Tensor) and x.ndim > 1 for x in tree_leaves((given.args, given.kwargs))):
        yield lambda x: range(min(x.ndim, 1))
    yield lambda x: ()


def _program(model: nn.Module, given: Arguments, varying: Callable[[Tensor], Sequence[int]]) -> Exported:
    lengths = torch.export.ShapesCollection()
    flat = tree_leaves((given.args, given.kwargs))
    for leaf in flat:
        if isinstance(leaf, Tensor) and (dims := list(varying(leaf))):
            lengths[leaf] = {dim: torch.export.Dim.AUTO for dim in dims}
    # It costs time, so that it is left out where no length is 1.
    ones = any(isinstance(leaf, Tensor) and 1 in leaf.shape for leaf in flat)
    with plain_attention(), sizes_of_one_vary() if ones else nullcontext(), torch.random.fork_rng():
        shapes = lengths.dynamic_shapes(model, given.args, given.kwargs)
        program = torch.export.export(model, given.args, given.kwargs, dynamic_shapes=shapes, strict=False)
    module = program.module(check_guards=False)
    assert isinstance(module, fx.GraphModule)
    graph = module.graph
    _inline(module, graph)
    named = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    named |= {name for name, _ in model.named_buffers(remove_duplicate=False)}
    constants: dict[str, Tensor] = {}
    for node in list(graph.nodes):
        if node.op == "call_function" and any(name in str(node.target) for name in _UNCHECKED):
            graph.erase_node(node)
        elif node.op == "get_attr" and node.target not in named:
            value = _attribute(module, node.target)
            if not isinstance(value, Tensor):
                got = f"{type(value).__name__} {node.target}"
                raise TraceError("the graph holds what is neither operator nor tensor", where=_place(node), got=got)
            constants[node.target] = value.detach()
    if odd := next((node for node in graph.nodes if node.op in ("call_module", "call_method")), None):
        raise TraceError("the graph holds a call that is no operator", where=_place(odd), got=odd.target)
    varies = _check_lengths(graph, flat)
    for node in graph.nodes:
        node.meta = {key: value for key, value in node.meta.items() if key == "stack_trace"}
    return Exported(graph, constants, flat, varies)


def _attribute(module: nn.Module, target: Any) -> Any:
    value: Any = module
    for name in str(target).split("."):
        value = getattr(value, name)
    return value


def _inline(module: fx.GraphModule, graph: fx.Graph) -> None:
    """Put regions without gradients, or with another autocast, in the place of the calls that run them."""
    for node in list(graph.nodes):
        name = str(getattr(node.target, "__name__", node.target))
        if node.op != "call_function" or not name.startswith("wrap_with_"):
            continue
        if name not in ("wrap_with_set_grad_enabled", "wrap_with_autocast"):
            raise TraceError("the graph holds a region of an unknown kind", where=_place(node), got=name)
        (at,) = [i for i, a in enumerate(node.args) if isinstance(a, fx.Node) and _is_region(module, a)]
        if name == "wrap_with_autocast" and node.args[1] is None and node.args[2]:
            raise TraceError("the graph holds a region of autocast", where=_place(node))
        region = _attribute(module, node.args[at].target)
        _inline(region, region.graph)
        inputs = iter(node.args[at + 1 :])
        known: dict[fx.Node, Any] = {n: next(inputs) for n in region.graph.nodes if n.op == "placeholder"}
        without = name == "wrap_with_set_grad_enabled" and node.args[0] is False
        with graph.inserting_before(node):
            returned = graph.graph_copy(region.graph, known)
            for inner in region.graph.nodes:
                if inner.op == "get_attr":
                    setattr(module, inner.target, getattr(region, inner.target))
            results = returned if isinstance(returned, list | tuple) else [returned]
            if without:
                results = [graph.call_function(torch.ops.aten.detach.default, (r,)) for r in results]
        for user in list(node.users):
            user.replace_all_uses_with(results[user.args[1]])
            graph.erase_node(user)
        held = node.args[at]
        graph.erase_node(node)
        if not held.users:
            graph.erase_node(held)


def _is_region(module: nn.Module, node: fx.Node) -> bool:
    return node.op == "get_attr" and isinstance(_attribute(module, node.target), fx.GraphModule)


def _check_lengths(graph: fx.Graph, flat: Sequence[Any]) -> bool:
    """Let the graph refuse inputs of a length that it is not made for; whether any length may vary."""
    given = [node for node in graph.nodes if node.op == "placeholder"]
    anchor = next(node for node in graph.nodes if node.op not in ("placeholder", "get_attr"))
    varies = False
    with graph.inserting_before(anchor):
        for node, leaf in zip(given, flat, strict=True):
            fake = node.meta.get("val")
            if not isinstance(leaf, Tensor):
                if type(leaf) in (bool, int, float, str):
                    same = graph.call_function(operator.eq, (node, leaf))
                    said = f"exported with {node.name}={leaf!r}, and for no other value"
                    graph.call_function(refuse_operator(), (same, said))
                continue
            for dim, length in enumerate(fake.shape if isinstance(fake, Tensor) else leaf.shape):
                if not isinstance(length, int):
                    varies = True
                    continue
                size = graph.call_function(torch.ops.aten.sym_size.int, (node, dim))
                same = graph.call_function(operator.eq, (size, length))
                said = f"dimension {dim} of {node.name} has to be {length}, as in the example"
                graph.call_function(refuse_operator(), (same, said))
    return varies


def line_of(error: BaseException) -> str:
    """The innermost line of a source that is neither torch's nor our own, through which an error has come."""
    found = ""
    seen: BaseException | None = error
    while seen is not None:
        for frame in traceback.extract_tb(seen.__traceback__):
            if not frame.filename.startswith((_TORCH, _OWN)) and not frame.filename.startswith("<"):
                found = f"{frame.filename}:{frame.lineno}"
        seen = seen.__cause__
    return found


def _place(node: fx.Node) -> str:
    """Where a node comes from."""
    trace = str(node.meta.get("stack_trace") or "")
    lines = [line.strip() for line in trace.splitlines() if line.strip().startswith("File ")]
    own = [line for line in lines if _TORCH not in line] or lines
    if not own:
        return str(node.name)
    file, line, *_ = own[-1].removeprefix("File ").split(", ")
    return f"{file.strip(chr(34))}:{line.removeprefix('line ')}"


def _first_line(error: BaseException) -> str:
    return one_line(error).split(" Caused by:")[0][:300]
