"""Graphs as JSON: operators by name, and their arguments. Nothing in such a file is code."""

import builtins
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from l0prune.errors import RunError
from l0prune.graphs.form import graph_module
from l0prune.graphs.modes import SWITCH
from l0prune.graphs.switch import ByMode
from l0prune.support import Operator, conforms, forget_tracer, set_trees, trees_of

GRAPH_VERSION = 1
_NUMBERS = "add sub mul floordiv mod neg pow truediv getitem eq ne lt le gt ge and_ or_ not_"
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{f"operator.{name}": getattr(operator, name) for name in _NUMBERS.split()},
    **{f"math.{name}": getattr(math, name) for name in ("ceil", "floor", "sqrt", "trunc")},
    **{f"builtins.{name}": getattr(builtins, name) for name in ("max", "min", "round", "abs", "int", "float")},
    **{
        f"torch.{name}": getattr(torch, name)
        for name in ("sym_int", "sym_float", "sym_max", "sym_min", "sym_not", "sym_ite", "sym_sum")
        if hasattr(torch, name)
    },
}
"""What a graph may call that is no operator of torch."""
_NAMES = {id(function): name for name, function in _FUNCTIONS.items()}
_READ_OFF = {"device of": "device", "dtype of": "dtype"}
"""Calls that give a tensor's device or its dtype."""
_FOREIGN = ("from_file", "save", "load")
"""Operators that read or write files."""
_KINDS = (torch.dtype, torch.layout, torch.memory_format)
_NODE = {"name": str, "op": str, "target": str, "args": list, "kwargs": dict}
_TENSOR = {"name": str, "parameter": bool, "trained": bool, "dtype": str, "same": (str, None)}
_SCHEMA = {"version": int, "names": [str], "inputs": str, "outputs": str, "nodes": [_NODE], "tensors": [_TENSOR]}
_WORD = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_PATH = re.compile(r"\w+(\.\w+)*", re.ASCII)


def graph_to_json(module: fx.GraphModule) -> dict[str, Any]:
    """What `graph_from_json` reads back.

    Raises:
        RunError: The graph calls what no file may name, or its inputs and outputs have no names in files.
    """
    try:
        names, inputs, outputs = trees_of(module.graph)
    except (NotImplementedError, TypeError, ValueError, AttributeError) as error:
        got = f"{type(error).__name__}: {error}"
        raise RunError("the graph cannot be saved", where="inputs and outputs", got=got) from error
    return {
        "version": GRAPH_VERSION,
        "names": names,
        "inputs": inputs,
        "outputs": outputs,
        "tensors": _tensors_of(module),
        "nodes": [
            {
                "name": node.name,
                "op": node.op,
                "target": _name_of(node),
                "args": [_to_json(value, node) for value in (node.args[:1] if node.target is getattr else node.args)],
                "kwargs": {key: _to_json(value, node) for key, value in node.kwargs.items()},
            }
            for node in module.graph.nodes
        ],
    }


def _tensors_of(module: nn.Module) -> list[dict[str, Any]]:
    first: dict[int, str] = {}
    found = []
    parameters = list(module.named_parameters(remove_duplicate=False))
    for number, (name, tensor) in enumerate([*parameters, *module.named_buffers(remove_duplicate=False)]):
        known = first.setdefault(id(tensor), name)
        found.append(
            {
                "name": name,
                "parameter": number < len(parameters),
                "trained": tensor.requires_grad,
                "dtype": str(tensor.dtype).removeprefix("torch."),
                "same": None if known == name else known,
            }
        )
    return found


def graph_from_json(data: Any, shapes: Mapping[str, tuple[int, ...]], where: object) -> fx.GraphModule:
    """A network of a graph, with tensors of some shapes and any values.

    Args:
        data: What `graph_to_json` returns.
        shapes: Of the network's parameters and buffers, by name.
        where: The file, for messages.

    Raises:
        RunError: It is malformed, of another version, or names what is no operator.
    """
    if not conforms(data, _SCHEMA) or data["version"] != GRAPH_VERSION:
        got = data.get("version") if isinstance(data, Mapping) else type(data).__name__
        raise RunError("not a graph", where=where, got=f"version {got}", expected=f"version {GRAPH_VERSION}")
    graph, nodes = fx.Graph(), dict[str, fx.Node]()
    try:
        holder = _holder(data["tensors"], shapes)
        known = {one["name"] for one in data["tensors"]}
        for one in data["nodes"]:
            args = tuple(_from_json(value, nodes) for value in one["args"])
            kwargs = {_word(key): _from_json(value, nodes) for key, value in one["kwargs"].items()}
            target = _target(one["op"], one["target"], known)
            if target is getattr:
                args = (*args[:1], _READ_OFF[one["target"]])
            nodes[one["name"]] = graph.create_node(one["op"], target, args, kwargs, one["name"])
        set_trees(graph, [_word(name) for name in data["names"]], data["inputs"], data["outputs"])
        forget_tracer(graph)
        if any(node.op == "call_module" for node in graph.nodes):
            holder.add_module(SWITCH, ByMode())
        return graph_module(holder, graph)
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError, SyntaxError) as error:
        hint = "import the library that defines the network's outputs first" if "regist" in str(error) else None
        got = f"{type(error).__name__}: {error}"
        raise RunError("damaged graph", where=where, got=got, hint=hint) from error


def _holder(tensors: Sequence[Mapping[str, Any]], shapes: Mapping[str, tuple[int, ...]]) -> nn.Module:
    """A module with tensors of the given names, which has no values yet."""
    holder, made = nn.Module(), dict[str, Tensor]()
    for one in tensors:
        name = one["name"]
        if not _PATH.fullmatch(name):
            raise ValueError(f"no name of a tensor: {name!r}")
        if one["same"] is not None:
            tensor = made[one["same"]]
        else:
            tensor = torch.empty(shapes[name], dtype=_kind(one["dtype"], torch.dtype))
            tensor = nn.Parameter(tensor, requires_grad=one["trained"]) if one["parameter"] else tensor
        made[name] = tensor
        *path, last = name.split(".")
        module = holder
        for part in path:
            if part not in dict(module.named_children()):
                module.add_module(part, nn.Module())
            module = module.get_submodule(part)
        if isinstance(tensor, nn.Parameter):
            module.register_parameter(last, tensor)
        else:
            module.register_buffer(last, tensor)
    return holder


def _name_of(node: fx.Node) -> str:
    target = node.target
    if isinstance(target, str):
        return target
    if target is getattr:
        return next(name for name, what in _READ_OFF.items() if node.args[1:] == (what,))
    if id(target) in _NAMES:
        return _NAMES[id(target)]
    if isinstance(target, Operator):
        return str(target)
    raise RunError("the graph cannot be saved", where=node.name, got=f"a call of {target}")


def _target(op: str, name: str, known: set[str]) -> Any:
    if op in ("placeholder", "output"):
        return _word(name)
    if op == "get_attr" and name in known:
        return name
    if op == "call_module" and name == SWITCH:
        return name
    if op == "call_function":
        if name in _READ_OFF:
            return getattr
        if name in _FUNCTIONS:
            return _FUNCTIONS[name]
        library, called, overload = name.split(".")
        found = getattr(getattr(getattr(torch.ops, library), called), overload)
        if isinstance(found, Operator) and called not in _FOREIGN:
            return found
    raise ValueError(f"no operator: {op} {name!r}")


def _to_json(value: Any, node: fx.Node) -> Any:  # noqa: PLR0911 - one for each kind
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, fx.Node):
        return {"node": value.name}
    if isinstance(value, list):
        return [_to_json(item, node) for item in value]
    if isinstance(value, tuple):
        return {"tuple": [_to_json(item, node) for item in value]}
    if isinstance(value, torch.device):
        return {"device": str(value)}
    if isinstance(value, _KINDS):
        return {"torch": str(value).removeprefix("torch.")}
    raise RunError("the graph cannot be saved", where=node.name, got=f"an argument of type {type(value).__name__}")


def _from_json(value: Any, nodes: Mapping[str, fx.Node]) -> Any:  # noqa: PLR0911 - one for each kind
    if isinstance(value, list):
        return [_from_json(item, nodes) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, inner),) = value.items()
    if kind == "node":
        return nodes[inner]
    if kind == "float":
        return float(inner)
    if kind == "tuple":
        return tuple(_from_json(item, nodes) for item in inner)
    if kind == "device":
        return torch.device(inner)
    if kind == "torch":
        return _kind(inner, _KINDS)
    raise ValueError(f"no argument: {kind!r}")


def _kind(name: str, kinds: Any) -> Any:
    found = getattr(torch, _word(name))
    if not isinstance(found, kinds):
        raise ValueError(f"no such kind: {name!r}")
    return found


def _word(name: str) -> str:
    """A name that may stand in the source that torch.fx writes."""
    if not _WORD.fullmatch(name):
        raise ValueError(f"no name: {name!r}")
    return name
