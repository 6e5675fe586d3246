"""Deep copies of modules, in a quarter of the time that `copy.deepcopy` takes for them."""

import copy
import copyreg
import functools
from typing import Any, TypeVar

from torch import Tensor, nn

from l0prune.support.rewriting import class_without_sizes
from l0prune.support.torch_internals import (
    OWN_ATTRIBUTES,
    copies_as_parametrized,
    pre_hooks,
    tree_leaves,
)

M = TypeVar("M", bound=nn.Module)

_WITH_TENSORS = ("_parameters", "_buffers")
_ATOMS = (bool, int, float, str, type(None), type)


def copied(module: M, *, sharing_parameters: bool = False) -> M:
    """A deep copy. Activations that a module keeps on itself, an attention map say, are copied without their graph.

    Args:
        module: The module.
        sharing_parameters: Let the copy have the parameters of the module itself, not copies. What is done in place to
            one of them is done to both modules; to replace one is not.

    Raises:
        RuntimeError: A tensor is computed from parameters before each forward pass, by `nn.utils.weight_norm` say.
    """
    memo: dict[int, Any] = {}
    parts = list(module.modules())
    if sharing_parameters:
        memo |= {id(parameter): parameter for parameter in module.parameters()}
    for part in parts:
        _without_graph(part, memo)
    # What is a copy of what comes first: modules may refer to each other in any order.
    plain = [(part, object.__new__(type(part))) for part in parts if _is_plain(part)]
    memo |= {id(part): twin for part, twin in plain}
    for part, twin in plain:
        parametrized = copies_as_parametrized(type(part))
        given = vars(part) if parametrized or not hasattr(part, "__getstate__") else part.__getstate__()
        state = {name: _value(name, value, memo) for name, value in given.items()}
        vars(twin).update(state) if parametrized else twin.__setstate__(state)
    return copy.deepcopy(module, memo)


def _without_graph(module: nn.Module, memo: dict[int, Any]) -> None:
    """Enter what a module keeps of a graph, without it, as its copy."""
    computed = _computed(module)
    for name, value in vars(module).items():
        if name in computed or isinstance(value, _ATOMS) or (name in OWN_ATTRIBUTES and name not in _WITH_TENSORS):
            continue
        for leaf in (value,) if isinstance(value, Tensor) else tree_leaves(value):
            if isinstance(leaf, Tensor) and leaf.grad_fn is not None:
                memo[id(leaf)] = leaf.detach()


def _computed(module: nn.Module) -> set[str]:
    """Names of the tensors that a hook puts on a module: a copy would go on with the values of now."""
    return {str(getattr(hook, "name", "")) for hook in pre_hooks(module)}


def _value(name: str, value: Any, memo: dict[int, Any]) -> Any:
    """A copy of what a module has under a name: most of it dictionaries of torch's own, nearly all of them empty."""
    kind = type(value)
    if kind in _ATOMS:
        return value
    if name not in OWN_ATTRIBUTES or kind not in _DICTIONARIES or id(value) in memo:
        return copy.deepcopy(value, memo)
    twin = memo[id(value)] = kind()
    for key, inner in value.items():
        twin[copy.deepcopy(key, memo)] = memo[id(inner)] if id(inner) in memo else copy.deepcopy(inner, memo)
    return twin


_DICTIONARIES = (dict, type(vars(nn.Module())["_forward_hooks"]))


def _is_plain(module: nn.Module) -> bool:
    """Whether `copy.deepcopy` would make an object of the same class and copy all attributes, no more."""
    # Classes with sizes are one and the same in a process: only files need more.
    kind = class_without_sizes(type(module))
    if kind in copyreg.dispatch_table or not _makes_plain_objects(kind):
        return False
    return copies_as_parametrized(kind) or getattr(module, "__deepcopy__", None) is None


@functools.lru_cache(maxsize=1024)
def _makes_plain_objects(kind: type) -> bool:
    # Parametrized modules refuse to be pickled, but have a method for copies that is asked first.
    names = ("__new__", "__getnewargs__", "__getnewargs_ex__")
    if not copies_as_parametrized(kind):
        names += ("__reduce__", "__reduce_ex__", "__getstate__")
    slots = any(vars(base).get("__slots__") for base in kind.__mro__)
    return not slots and all(getattr(kind, name, None) is getattr(nn.Module, name, None) for name in names)
