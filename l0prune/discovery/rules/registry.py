"""How rules are written and found. A rule takes the tracer, the operator's arguments by position and its result."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn

from l0prune.discovery.traced import Atoms, Block
from l0prune.discovery.tracer import Tracer

Rule = Callable[[Tracer, Sequence[Any], Any], None]
ModuleRule = Callable[[Tracer, nn.Module, tuple, dict, Any], None]

RULES: dict[str, Rule] = {}


def rule(names: str) -> Callable[[Rule], Rule]:
    """Register a rule for operators, named as in ATen and separated by blanks."""

    def register(rule: Rule) -> Rule:
        RULES.update(dict.fromkeys(names.split(), rule))
        return rule

    return register


def across(tracer: Tracer, atoms: Atoms | None, groups: int) -> Atoms | None:
    """Tie the j-th channels of all groups; the first group's atoms."""
    if atoms is None:
        return None
    table = atoms.reshape(groups, -1)
    tracer.unify(table, np.broadcast_to(table[0], table.shape))
    return table[0]


def tensors(values: Any) -> list[Tensor]:
    """The tensors among arguments or results, in lists too."""
    found = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += tensors(value)
    return found


def move(blocks: Sequence[Block], where: Callable[[int], int]) -> list[Block]:
    """Blocks with each dimension put where `where` says."""
    return [Block(tuple(where(d) for d in block.dims), block.atoms) for block in blocks]
