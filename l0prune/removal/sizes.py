"""Modules whose methods derive sizes from which units are gone: they keep the sizes, as attributes that a cut mends."""

from collections.abc import Iterable, Mapping

from torch import nn

from l0prune.errors import PlanError
from l0prune.groups import PruneGroup, SizedCall
from l0prune.support import class_with_sizes, digest_of, is_inside, kept_sizes


def check_calls(model: nn.Module, groups: Iterable[PruneGroup]) -> None:
    """Check that the methods whose sizes a plan mends are those it was made for.

    Raises:
        PlanError: A module, or a method of it, is not there or has another source.
    """
    known: dict[tuple[type, str, str], bool] = {}
    for path, calls in _missing(model, groups).items():
        kind = type(model.get_submodule(path))
        for call in calls:
            key = kind, call.method, call.digest
            if key not in known:
                known[key] = digest_of(kind, call.method) == call.digest
            if not known[key]:
                raise PlanError(
                    "the plan was made for another version of a method",
                    where=f"{path}, {kind.__name__}.{call.method}",
                    hint="install the version of the network's library that it was pruned with",
                )
        _written(kind, calls)


def keep_sizes(model: nn.Module, groups: Iterable[PruneGroup], *, without: Iterable[str] = ()) -> None:
    """Let modules keep the sizes that their methods' calls are given, as they are in the dense model.

    Args:
        model: The model.
        groups: Groups whose `calls` say which.
        without: Modules that are left out, with all inside them.
    """
    for path, calls in _missing(model, groups, without).items():
        module = model.get_submodule(path)
        module.__class__ = _written(type(module), calls)
        for call in calls:
            for name, size in call.attributes.items():
                setattr(module, name, size)


def _missing(
    model: nn.Module, groups: Iterable[PruneGroup], without: Iterable[str] = ()
) -> Mapping[str, list[SizedCall]]:
    """By path, the calls of modules that do not keep their sizes yet.

    Raises:
        PlanError: There is no such module.
    """
    wanted: dict[str, dict[SizedCall, None]] = {}
    for group in groups:
        for call in group.calls:
            if not is_inside(call.module, *without):
                wanted.setdefault(call.module, {})[call] = None
    missing = {}
    for path, calls in wanted.items():
        try:
            module = model.get_submodule(path)
        except AttributeError as error:
            raise PlanError("no such module in the model", where=path) from error
        if not all(call.place in kept_sizes(type(module)).get(call.method, ()) for call in calls):
            missing[path] = list(calls)
    return missing


def _written(kind: type, calls: Iterable[SizedCall]) -> type:
    sizes: dict[str, dict[tuple[int, int], tuple[str, ...]]] = {}
    for call in calls:
        sizes.setdefault(call.method, {})[call.place] = call.ways
    try:
        return class_with_sizes(kind, sizes)
    except (ValueError, TypeError, LookupError, AttributeError, OSError, SyntaxError) as error:
        raise PlanError("a method's sizes cannot be written anew", where=kind.__name__, got=error) from error
