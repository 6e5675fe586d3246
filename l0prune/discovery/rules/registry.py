"""How rules are written and found.

A rule says what an operator, or a module that is understood as a whole, does to the units of its operands. It is given
the tracer, which it asks what stands on a tensor's dimensions and tells what has to go together:

- `tracer.along(tensor, dim)` gives the units along a dimension, an opaque array with one entry for each index; None
  where the dimension is fixed.
- `tracer.unify(one, other)` says that the units of two dimensions go together, index by index. `across(tracer, units,
  groups)` ties the j-th of every group.
- `tracer.consume(units)` says that a weight's dimension is contracted with the units: their gates stand there.
- `tracer.pin(units, reason)` says that units can never be cut, `tracer.pin_all(tensor, reason)` all of a tensor's.
- `tracer.cost(factor, *extents)` counts multiply-accumulates: `factor` times the lengths of units.
- `tracer.normed(dim, units)` says that the running module, a normalisation, takes statistics over the units.

It returns what its results carry: `{dim: units}` for a single tensor, a list of those for several; dimensions that it
leaves out are fixed. (The built-in rules of operators say it by `tracer.set`, in blocks of several dimensions too.) A
rule that raises, or returns what does not fit, costs the units of its operands: they are left alone, and its name is in
the reason. What it says wrongly shows when groups are proved.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from torch import Tensor, nn

from l0prune.discovery.rules.guard import Carried, guarded
from l0prune.discovery.traced import Atoms, Block
from l0prune.discovery.tracer import Tracer
from l0prune.errors import ConfigError
from l0prune.support import ClassRegistry, Registry, operator_name, spelled

Rule = Callable[[Tracer, Sequence[Any], Any], Carried]
"""(tracer, the operator's arguments by position with defaults filled in, its result) -> what the result carries."""
ModuleRule = Callable[[Tracer, Any, tuple, dict, Any], Carried]
"""(tracer, the module, its arguments, its keyword arguments, its result) -> what the result carries."""

R = TypeVar("R", bound=Rule)
M = TypeVar("M", bound=ModuleRule)

RULES: Registry[str, Rule] = Registry("rule", taken="operator has a rule already")
"""By the operator's qualified name."""
MODULE_RULES: ClassRegistry[ModuleRule] = ClassRegistry("rule", taken="module class has a rule already")


def operator_rule(*operators: Any, replace: bool = False) -> Callable[[R], R]:
    """Register a rule for operators, all overloads of each; in-place variants follow it where they have none.

    Args:
        operators: Each an operator (`torch.ops.library.name`, an overload of it, what `torch.library.custom_op` has
            made) or its qualified name, "library::name".
        replace: Take the place of earlier registrations.

    Returns:
        A decorator that returns the rule as it is.

    Raises:
        ConfigError: Something is no operator, or has a rule already.
    """
    names = [operator_name(operator) for operator in operators]
    for name, operator in zip(names, operators, strict=True):
        if name is None:
            expected = 'an operator or its qualified name, "library::name"'
            raise ConfigError("cannot register a rule for an operator", got=operator, expected=expected)

    def guard(name: str, rule: Rule) -> Rule:
        return lambda tracer, args, out: guarded(tracer, name, args, out, lambda: rule(tracer, args, out))

    return _register(RULES, "operator", [str(name) for name in names], guard, replace)


def module_rule(*kinds: type[nn.Module], replace: bool = False) -> Callable[[M], M]:
    """Register a rule for classes of modules as a whole, and for those that derive from them without one.

    The operators inside are not followed. In the rule, the module's parameters and buffers carry units as any tensor.

    Args:
        kinds: The classes.
        replace: Take the place of earlier registrations.

    Returns:
        A decorator that returns the rule as it is.

    Raises:
        ConfigError: Something is no class of modules, or has a rule already.
    """
    for kind in kinds:
        if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
            expected = "a class that derives from nn.Module"
            raise ConfigError("cannot register a rule for a module", got=kind, expected=expected)

    def guard(kind: type[nn.Module], rule: ModuleRule) -> ModuleRule:
        def apply(tracer: Tracer, module: nn.Module, args: tuple, kwargs: dict, out: Any) -> None:
            operands = [args, kwargs, *module.parameters(), *module.buffers()]
            guarded(tracer, type(module).__name__, operands, out, lambda: rule(tracer, module, args, kwargs, out))

        return apply

    return _register(MODULE_RULES, "module class", kinds, guard, replace)


def rule(names: str) -> Callable[[R], R]:
    """Register a built-in rule for operators, by their names in ATen or qualified ones, separated by blanks.

    It is called without a guard, which would take a fifth of the time of discovery: what is wrong with it is ours.
    """
    return _register(RULES, "operator", [n if "::" in n else f"aten::{n}" for n in names.split()])


def module_rule_of(module: nn.Module) -> ModuleRule | None:
    """The rule of the nearest class of a module that has one."""
    return MODULE_RULES.nearest_to(type(module))[1]


def _register(
    registry: Registry[Any, Any],
    what: str,
    keys: Sequence[Any],
    guard: Callable[[Any, Any], Any] = lambda key, rule: rule,
    replace: bool = False,
) -> Callable[[Any], Any]:
    if not keys:
        raise ConfigError("a rule is for nothing", expected=f"at least one {what}")
    registry.check_free(keys, replace=replace)

    def register(rule: Any) -> Any:
        if not callable(rule):
            raise ConfigError("a rule is no function", where=spelled(keys[0]), got=rule)
        for key in keys:
            registry.register(key, guard(key, rule), replace=replace)
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
