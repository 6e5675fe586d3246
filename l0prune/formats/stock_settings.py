"""Settings with which a stock class of transformers has the widths of a pruned network, where there are such."""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

Path = tuple[str | int, ...]
"""Where a whole number stands in a configuration: attributes, of nested ones too, and places in lists."""
_MOST_BUILDS = 300
_LONGEST = 64
"""Lists that hold more than a number a layer, as those of labels, are no widths."""


def stock_config(model: Any) -> Any:
    """A configuration whose class makes a network of exactly these tensors, or None.

    Fields are tried whose number is a width that has changed, or divides one, as the number of heads does. A change is
    taken if it mends tensors and spoils none. Nothing is allocated.

    Args:
        model: A model of transformers, with the configuration of the dense one.
    """
    wanted, config = _shapes(model), copy.deepcopy(model.config)
    left, builds = _differing(type(model), config, wanted), 0
    while left:
        for trial in _trials(config, left):
            builds += 1
            if builds > _MOST_BUILDS:
                return None
            rest = _differing(type(model), trial, wanted)
            if rest is not None and rest.items() < left.items():
                config, left = trial, rest
                break
        else:
            return None
    return None if left is None else config


def _shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _differing(
    cls: type, config: Any, wanted: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]] | None:
    """Tensors of other shapes than wanted, (there, wanted); None where there is no such network."""
    try:
        with torch.device("meta"):
            found = _shapes(cls(copy.deepcopy(config)))
    except Exception:
        # A configuration may refuse numbers by whatever error it likes.
        return None
    if found.keys() != wanted.keys():
        return None
    return {name: (shape, wanted[name]) for name, shape in found.items() if shape != wanted[name]}


def _trials(config: Any, left: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]) -> Iterator[Any]:
    """Configurations with one number changed."""
    changes = {(a, b) for old, new in left.values() for a, b in zip(old, new, strict=False) if a != b}
    for path, value in _numbers(config):
        proposals = {new for old, new in changes if old == value}
        proposals |= {
            new * value // old for old, new in changes if old != value and not old % value and not new * value % old
        }
        for proposal in sorted(proposals - {0, value}):
            trial = copy.deepcopy(config)
            _put(trial, path, proposal)
            yield trial
            # Where the width of a head follows from the number of heads, it is said, so that it stays.
            if getattr(trial, "head_dim", 0) is None:
                for width in sorted({old // value for old, _ in changes if not old % value}):
                    said = copy.deepcopy(trial)
                    said.head_dim = width
                    yield said


def _numbers(config: Any, path: Path = ()) -> Iterator[tuple[Path, int]]:
    """Whole numbers from 2 on, of a configuration and those nested in it."""
    for name, value in vars(config).items():
        if isinstance(value, int) and not isinstance(value, bool) and value > 1:
            yield (*path, name), value
        elif isinstance(value, list) and len(value) <= _LONGEST:
            for number, item in enumerate(value):
                if isinstance(item, int) and not isinstance(item, bool) and item > 1:
                    yield (*path, name, number), item
        elif hasattr(value, "to_diff_dict"):
            yield from _numbers(value, (*path, name))


def _put(config: Any, path: Path, value: int) -> None:
    home = config
    for step in path[:-1]:
        home = home[step] if isinstance(step, int) else getattr(home, step)
    if isinstance(path[-1], int):
        home[path[-1]] = value
    else:
        setattr(home, path[-1], value)
