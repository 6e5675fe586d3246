"""What each operator does to the atoms of its operands (see `tracer`).

Operators without a rule pin their operands: a missing rule costs reach, never correctness.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from l0prune.discovery.rules import (  # noqa: F401 - they register rules
    elementwise,
    parts,
    products,
    reductions,
    shapes,
    windows,
)
from l0prune.discovery.rules.elementwise import pointwise, shaped_like
from l0prune.discovery.rules.experts import enter_module, follow_numbers
from l0prune.discovery.rules.products import consume, extent
from l0prune.discovery.rules.registry import RULES, across, module_rule, operator_rule, tensors
from l0prune.discovery.rules.sized_calls import SIZED, note_sizes
from l0prune.discovery.rules.whole_modules import rule_of
from l0prune.discovery.tracer import Tracer
from l0prune.support import schema_of

__all__ = [
    "across",
    "apply_rule",
    "consume",
    "enter_module",
    "extent",
    "module_rule",
    "operator_rule",
    "rule_of",
    "tensors",
]


def apply_rule(tracer: Tracer, func: Any, args: Sequence[Any], kwargs: dict[str, Any], out: Any) -> None:
    """Carry atoms from an operator's operands to its results.

    Args:
        tracer: Holds the atoms.
        func: The overload.
        args: Its arguments.
        kwargs: Its keyword arguments.
        out: What it returned.
    """
    full = schema_of(func).name
    name = full.removeprefix("aten::")
    operands = [*tensors(args), *tensors(kwargs.values())]
    # All are asked: to ask is to read. Before the rule, which may say something else of an operand that is written to.
    constant = [tracer.facts(operand).constant for operand in operands]
    # In-place variants follow the rule of the plain operator.
    rule = RULES.get(full) or RULES.get(full.rstrip("_"))
    if rule is not None:
        rule(tracer, _positional(func, args, kwargs), out)
    elif torch.Tag.pointwise in func.tags:
        pointwise(tracer, operands, out)
    elif name.endswith("_like") or name.startswith("new_"):
        shaped_like(tracer, operands, out)
    else:
        for operand in operands:
            tracer.pin_all(operand, f"read by {name}, which has no rule,")
    follow_numbers(tracer, name, operands, out)
    if name in SIZED:
        note_sizes(tracer, name, args, out)
    if operands and all(constant):
        for result in tensors([out]):
            tracer.set(result, tracer.facts(result).blocks, constant=True)
            if terms := _TERMS.get(name.rstrip("_")):
                _tell_terms(tracer, [x for x in operands[terms] if x.is_floating_point()], result)


_EVERY = slice(None)
_TERMS: dict[str, slice] = {
    "add": _EVERY, "sub": _EVERY, "rsub": _EVERY, "cat": _EVERY, "stack": _EVERY, "addmm": _EVERY, "baddbmm": _EVERY,
    "where": slice(1, None), "lerp": slice(2), "addcmul": slice(2), "addcdiv": slice(2),
}  # fmt: skip
"""Operators that add up, or put together, several tensors, and which operands those are: each has to be gated."""


def _tell_terms(tracer: Tracer, terms: Sequence[Tensor], result: Tensor) -> None:
    """A weight made of several tensors: what reads it reads every one of them."""
    for block in tracer.facts(result).blocks:
        for term in terms:
            for other in tracer.facts(term).blocks:
                if other.atoms is not block.atoms and other.atoms.shape == block.atoms.shape:
                    tracer.trace.terms.append((block.atoms, other.atoms))


def _positional(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> list[Any]:
    """All arguments in the schema's order, defaults filled in."""
    schema = schema_of(func).arguments
    rest = [kwargs.get(a.name, a.default_value) for a in schema[len(args) :]]
    return [*args, *rest]
