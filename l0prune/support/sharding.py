"""Models whose parameters torch's `fully_shard` (FSDP2) has spread over processes."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from l0prune.support.torch_internals import COMPOSED, MODULE_HOOKS, own_parameters


def sharded_parts(model: nn.Module) -> list[nn.Module]:
    """The modules of a model that `fully_shard` was called with, the model itself first if it is one."""
    # Where nobody has imported it, nothing is sharded.
    kind = getattr(sys.modules.get("torch.distributed.fsdp"), "FSDPModule", None)
    return [] if kind is None else [module for module in model.modules() if isinstance(module, kind)]


def is_sharded(tensor: object) -> bool:
    """Whether a tensor is the part that this process holds of one that is spread over several."""
    kind = getattr(sys.modules.get("torch.distributed.tensor"), "DTensor", None)
    return kind is not None and isinstance(tensor, kind)


@contextmanager
def whole(model: nn.Module) -> Iterator[None]:
    """Let a sharded model be a plain one meanwhile, in every process: it can be copied, and run by one alone.

    Its parameters are whole copies; what is written to them is lost. All processes have to take part.
    """
    parts = sharded_parts(model)
    for part in parts:
        part.reshard()  # type: ignore[operator]
    replaced: list[tuple[dict[str, nn.Parameter | None], str, nn.Parameter]] = []
    copies: dict[int, nn.Parameter] = {}
    kinds = [(part, type(part)) for part in parts]
    taken: list[_Taken] = []
    try:
        for module in list(model.modules()) if parts else ():
            own = own_parameters(module)
            for name, parameter in own.items():
                if parameter is not None and is_sharded(parameter):
                    if id(parameter) not in copies:
                        full: Tensor = parameter.detach().full_tensor()  # type: ignore[attr-defined]
                        copies[id(parameter)] = nn.Parameter(full, requires_grad=parameter.requires_grad)
                    replaced.append((own, name, parameter))
                    own[name] = copies[id(parameter)]
            _take_sharding(module, taken)
        for part in parts:
            # The class is one of torch's making, of its mix-in and the class that the module had.
            part.__class__ = type(part).__mro__[2]
        yield
    finally:
        for part, kind in kinds:
            part.__class__ = kind
        for contents, before, in_order in taken:
            if in_order:
                contents.clear()
            contents.update(before)
        for own, name, parameter in replaced:
            own[name] = parameter


_Taken = tuple[dict[Any, Any], dict[Any, Any], bool]
"""What things have been taken out of, those that have to be put back, and whether these are all, in their order."""


def _take_sharding(module: nn.Module, taken: list[_Taken]) -> None:
    """Take hooks and states of sharding out of a module, in place: others may share its hooks.

    Args:
        module: The module.
        taken: Grows by what has been done.
    """
    own = module.__dict__
    for contents in (hooks for name in MODULE_HOOKS if (hooks := own.get(name))):
        if any(map(_shards, contents.values())):
            taken.append((contents, dict(contents), True))
            for key in [key for key, hook in contents.items() if _shards(hook)]:
                del contents[key]
    if states := [name for name in own if name.startswith(COMPOSED)]:
        taken.append((own, {name: own.pop(name) for name in states}, False))


def _shards(hook: Any) -> bool:
    hook = getattr(hook, "hook", hook)
    return (getattr(hook, "__module__", None) or "").startswith("torch.distributed.")
