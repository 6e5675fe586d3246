"""Modules: their names, their modes, copies of them, and what they hold."""

import copy
import copyreg
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from inspect import signature
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from l0prune.errors import GroupError, nearest
from l0prune.support.torch_internals import own_buffers, own_parameters, pre_hooks, tree_leaves

M = TypeVar("M", bound=nn.Module)


def is_inside(name: str, *modules: str) -> bool:
    """Whether what has a name is one of some modules, or stands within one, as parameters and submodules do.

    Args:
        name: Of a module, a parameter or a buffer.
        modules: Dotted names; "" holds everything.
    """
    return any(not path or f"{name}.".startswith(f"{path}.") for path in modules)


def holders_of(name: str) -> list[str]:
    """The dotted names of all modules that a parameter, a buffer or a module of that name stands within."""
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(len(parts))]


def called(path: str) -> str:
    """What a message calls a module of a dotted name, which the model itself lacks."""
    return path or "the model itself"


def several(modules: nn.Module | str | Iterable[nn.Module | str]) -> tuple[nn.Module | str, ...]:
    """Modules or names, one of which may be given by itself."""
    one = isinstance(modules, nn.Module | str) or not isinstance(modules, Iterable)
    return (modules,) if one else tuple(modules)  # pyright: ignore


def path_of(model: nn.Module, module: nn.Module | str) -> str:
    """The dotted name of a module, given itself or as its name.

    Raises:
        GroupError: It is not in the model.
    """
    for path, candidate in model.named_modules():
        if candidate is module or path == module:
            return path
    if isinstance(module, str):
        hint = nearest(module, [path for path, _ in model.named_modules() if path])
        raise GroupError("no such module in the model", where=module, hint=hint)
    hint = "pass a module of this model or its dotted name"
    raise GroupError("no such module in the model", where=type(module).__name__, hint=hint)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode meanwhile; each module gets its own mode back."""
    modes = {module: module.training for module in model.modules()}
    if any(modes.values()):
        model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            if module.training is not training:
                module.training = training


@contextmanager
def without_values() -> Iterator[None]:
    """Networks that are built meanwhile have shapes and no values: they cost no memory and next to no time."""
    with torch.device("meta"), _NormsOfNothing():
        yield


class _NormsOfNothing(TorchFunctionMode):
    """Gives weight norm the shape of its lengths: to work it out, torch would import its compiler, for seconds."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is torch.norm_except_dim and not kwargs and len(args) == 3 and args[2] >= 0:
            weight, _power, dim = args
            return weight.new_empty([extent if d == dim else 1 for d, extent in enumerate(weight.shape)])
        return func(*args, **(kwargs or {}))


def copied(module: M, *, sharing: Iterable[Tensor] = ()) -> M:
    """A deep copy. Activations that a module keeps on itself, an attention map say, are copied without their graph.

    Args:
        module: The module.
        sharing: Tensors of the module that the copy has itself, not copies of them. What is done in place to one of
            them is done to both modules; to replace one is not.

    Raises:
        RuntimeError: A tensor is computed from parameters before each forward pass, by `nn.utils.weight_norm` say.
    """
    memo: dict[int, Any] = {id(tensor): tensor for tensor in sharing}
    for part in module.modules():
        computed = _computed(part)
        for key, value in vars(part).items():
            if type(value) in _CONTAINERS and not value:
                # Each module has ten of hooks. To find that out costs `deepcopy` most of its time.
                memo[id(value)] = type(value)()
            elif type(value) not in _CONSTANTS and key not in computed and key != "_modules":
                for leaf in tree_leaves(value):
                    if isinstance(leaf, Tensor) and leaf.grad_fn is not None:
                        memo[id(leaf)] = leaf.detach()
    return _copy_of(module, memo, {})


_CONTAINERS = (OrderedDict, dict, list, set)
"""Of which an empty one is copied by making another."""
_CONSTANTS = frozenset((bool, int, float, str, type(None)))
"""What is its own copy."""


def _copy_of(module: Any, memo: dict[int, Any], plain: dict[type, bool]) -> Any:
    """What `deepcopy` gives, without its detours for modules and their attributes.

    Args:
        module: The module.
        memo: Copies by the ids of what they are copies of, as `deepcopy` keeps them.
        plain: Classes that are known to be copied attribute by attribute, or in another way.
    """
    kind = type(module)
    if kind not in plain:
        plain[kind] = _is_copied_by_attributes(kind)
    if not plain[kind] or id(module) in memo:
        return copy.deepcopy(module, memo)
    made: Any = object.__new__(kind)
    memo[id(module)] = made
    state: dict[str, Any] = {}
    for key, value in module.__getstate__().items():
        if type(value) in _CONSTANTS:
            state[key] = value
        elif (known := memo.get(id(value))) is not None:
            state[key] = known
        elif key == "_modules" and type(value) is dict and value:
            state[key] = memo[id(value)] = inner = {}
            for name, part in value.items():
                inner[name] = None if part is None else _copy_of(part, memo, plain)
        else:
            state[key] = copy.deepcopy(value, memo)
    made.__setstate__(state)
    return made


_OF_ITS_OWN = ("__deepcopy__", "__getnewargs__", "__getnewargs_ex__", "__slots__")
_AS_EVERY_MODULE = ("__new__", "__reduce_ex__", "__reduce__", "__getstate__", "__getattr__", "__getattribute__")


def _is_copied_by_attributes(kind: type) -> bool:
    """Whether copies of a class of modules have copies of its attributes, and there is no more to them."""
    plain = all(getattr(kind, name, None) is getattr(nn.Module, name, None) for name in _AS_EVERY_MODULE)
    special = kind in copyreg.dispatch_table or issubclass(kind, dict | list)
    return plain and not special and not any(hasattr(kind, name) for name in _OF_ITS_OWN)


def _computed(module: nn.Module) -> set[str]:
    """Names of the tensors that a hook puts on a module: a copy would go on with the values of now."""
    return {str(getattr(hook, "name", "")) for hook in pre_hooks(module)}


def tensors_given(module: nn.Module, run: Callable[[nn.Module], object]) -> tuple[Tensor, ...]:
    """Arguments of the first call of a module in `run(module)`, in the order of its forward pass.

    None where not all of them are tensors, or where some that are given by name do not follow the others.

    Args:
        module: What is called. Methods of it other than its forward pass do not count.
        run: Runs it.
    """
    calls: list[tuple[Tensor, ...]] = []

    def seen(_: nn.Module, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        if named:
            bound = signature(module.forward).bind(*arguments, **named)
            arguments = () if bound.kwargs else bound.args
        plain = all(isinstance(argument, Tensor) for argument in arguments)
        calls.append(tuple(arguments) if plain else ())

    hook = module.register_forward_pre_hook(seen, with_kwargs=True)
    try:
        with torch.no_grad(), evaluating(module):
            run(module)
    finally:
        hook.remove()
    return calls[0] if calls else ()


def output_tensors(outputs: object) -> list[Tensor]:
    """The tensors of a model's outputs: in tuples, lists, mappings and dataclasses."""
    leaves: list[Tensor] = []
    for leaf in tree_leaves(outputs):
        if isinstance(leaf, Tensor):
            leaves.append(leaf)
        elif hasattr(leaf, "__dataclass_fields__"):
            leaves += output_tensors([getattr(leaf, name) for name in leaf.__dataclass_fields__])
    return leaves


def output_numbers(outputs: object) -> list[Tensor]:
    """The tensors of a model's outputs, and as tensors their fractions and arrays of such; whole numbers are sizes."""
    found: list[Tensor] = []
    for leaf in tree_leaves(outputs):
        if isinstance(leaf, float | complex | np.inexact):
            found.append(torch.tensor(complex(leaf), dtype=torch.complex128))
        elif isinstance(leaf, np.ndarray) and leaf.dtype.kind in "fc":
            found.append(torch.from_numpy(leaf.astype(np.complex128)))
        elif isinstance(leaf, Tensor):
            found.append(leaf)
        elif fields := getattr(leaf, "__dataclass_fields__", None):
            found += output_numbers([getattr(leaf, name) for name in fields])
    return found


_OWN = frozenset(vars(nn.Module()))


def kept_values(model: nn.Module) -> dict[str, Tensor | float]:
    """Fractions and tensors that modules keep as plain attributes, by their names: an auxiliary loss, an activation."""
    found: dict[str, Tensor | float] = {}
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if name in _OWN or not isinstance(value, float | Tensor | list | tuple | dict):
                continue
            for number, leaf in enumerate(tree_leaves(value)):
                if type(leaf) is float or (isinstance(leaf, Tensor) and leaf.is_floating_point()):
                    where = name if leaf is value else f"{name}[{number}]"
                    found[f"{path}.{where}" if path else where] = leaf
    return found


def forget_computed(module: nn.Module) -> dict[str, dict[Any, Any]]:
    """Empty what a module calls a cache and keeps tensors in, biases of relative positions by device say.

    Such tensors are computed of weights, once; with other weights they are wrong.

    Returns:
        What it kept, by the names of attributes.
    """
    found = {
        name: value
        for name, value in vars(module).items()
        if "cache" in name.lower() and type(value) is dict and any(isinstance(x, Tensor) for x in value.values())
    }
    for name in found:
        # Copies of a module may share theirs.
        setattr(module, name, {})
    return found


def model_shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """The shape of every parameter and buffer, by name."""
    return {name: tuple(tensor.shape) for name, tensor in [*model.named_parameters(), *model.named_buffers()]}


def owners(model: nn.Module) -> dict[str, list[tuple[nn.Module, str]]]:
    """The modules and attributes that hold each parameter and buffer, by its first name: several where it is tied."""
    names: dict[int, str] = {}
    found: dict[str, dict[tuple[int, str], tuple[nn.Module, str]]] = {}
    for path, module in model.named_modules():
        for name, tensor in [*own_parameters(module).items(), *own_buffers(module).items()]:
            if tensor is not None:
                first = names.setdefault(id(tensor), f"{path}.{name}" if path else name)
                found.setdefault(first, {})[id(module), name] = (module, name)
    return {name: list(holders.values()) for name, holders in found.items()}
