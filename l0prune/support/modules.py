"""Dotted names of modules."""

from collections.abc import Iterable

from torch import nn

from l0prune.errors import GroupError, nearest


def is_inside(name: str, *modules: str) -> bool:
    """Whether what has a name is one of some modules, or stands within one, as parameters and submodules do.

    Args:
        name: Of a module, a parameter or a buffer.
        modules: Dotted names; "" holds everything.
    """
    return any(not path or f"{name}.".startswith(f"{path}.") for path in modules)


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
