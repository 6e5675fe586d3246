"""Residual blocks: which additions make one, what of the network serves nothing else, and how it is skipped.

The gate of a block multiplies the weights and biases that make its branches, so that a closed block adds zero. What is
skipped at removal is the module that returns its input then, if there is one. Otherwise it is every module that serves
nothing but the branches: the last ones return zero, the others what they are given.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any

from torch import nn

from l0prune.discovery.recording import LEAVES, Call, Recording, Ref
from l0prune.discovery.residuals import Residual, closed_off, descended, passed, region, residuals
from l0prune.discovery.vanishing import SCALE_FREE, Names, Vanishing, is_product
from l0prune.groups import SKIPS, Bypass
from l0prune.support import is_inside, listed, owners

_OTHERS = 2
"""Other residual blocks inside one from which on it is a stage of the network rather than a block."""


class Refused(Exception):
    """Why a block cannot go."""


@dataclass(frozen=True)
class Unit:
    """Additions whose branches go together."""

    path: str
    """The block's module, or the one that makes the branch."""
    ends: tuple[Residual, ...]
    skipped: int | None = None
    """The call that returns its input without the branches."""


class Blocks:
    """The residual blocks of a forward pass.

    Args:
        model: The model.
        found: Its forward pass.
    """

    def __init__(self, model: nn.Module, found: Recording) -> None:
        self._model, self._found = model, found
        self._modules = dict(model.named_modules())
        self._kinds = Counter(type(module) for module in self._modules.values())
        self._parameters = [(n, value.name) for n, value in enumerate(found.values) if value.name]
        self._sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
        self._owners = owners(model)
        self._regions: dict[Unit, set[int]] = {}
        self._passing_calls: dict[int, tuple[Residual, ...]] = {}
        self._sums = {residual.sum: residual for residual in residuals(found)}
        self._calls: dict[str, list[int]] = defaultdict(list)
        for number, call in enumerate(found.calls):
            self._calls[call.path].append(number)
        self._values = self._by_call(n for n, alive in enumerate(found.alive) if alive)
        self._unmoved: dict[int, list[int]] = defaultdict(list)
        for number, call in enumerate(found.calls):
            if not self._values[number] and call.made is not None and call.made == call.given:
                self._unmoved[call.made].append(number)

    def units(self, *, whole: bool) -> list[Unit]:
        """The units in the order of the forward pass.

        Args:
            whole: All branches of a block make one unit, rather than each by itself.
        """
        left, units = dict(self._sums), []
        for residual in self._sums.values():
            if residual.sum not in left:
                continue
            call, ends = self._passing(residual, whole=whole)
            if call is not None and (whole or len(ends) == 1):
                units.append(Unit(self._found.calls[call].path, ends, call))
                for end in ends:
                    left.pop(end.sum, None)
        together: dict[Any, list[Residual]] = defaultdict(list)
        for residual in left.values():
            element = self._element(residual) if whole else None
            together[residual.sum if element is None else f"element {element}"].append(residual)
        for key, ends in together.items():
            path = key.removeprefix("element ") if isinstance(key, str) else self._maker(ends[0])
            units.append(Unit(path, tuple(ends)))
        # An activation may add what it makes of its input: nothing of the network goes with it.
        return sorted((unit for unit in units if self._weights(unit)), key=lambda unit: unit.ends[0].sum)

    def skips(self, unit: Unit) -> tuple[list[Bypass], Names]:
        """The modules that are skipped without a unit, and the parameters that its gate multiplies.

        Raises:
            Refused: It cannot go.
        """
        inside = self._region(unit)
        if not any(self._weights(unit).values()):
            raise Refused("all of its weights serve other parts of the network, too")
        others = [n for n in inside if n in self._sums and self._sums[n] not in unit.ends]
        if len(others) >= _OTHERS:
            raise Refused("it holds other residual blocks")
        if unit.skipped is None:
            bypasses = self._one_by_one(unit, inside)
        else:
            call = self._found.calls[unit.skipped]
            bypasses = [Bypass(module=call.path, returns=self._form("input", call))]
        paths = [bypass.module for bypass in bypasses]
        return bypasses, self._gated(unit, inside, self._owned(paths))

    def rescaled(self, unit: Unit, gated: Names) -> bool:
        """Whether a norm behind the gated weights takes their scale away: only a closed gate shows then."""
        values = self._found.values
        inside, reached = self._region(unit), set[int]()
        for number in range(min(end.start for end in unit.ends), max(end.branch for end in unit.ends) + 1):
            inputs = values[number].inputs
            weights = any(values[n].name in gated for n in inputs)
            if number in inside and (weights or not reached.isdisjoint(inputs)):
                first = values[number].arguments[:1]
                norm = (
                    values[number].operator in SCALE_FREE and isinstance(first[0], Ref) and first[0].number in reached
                )
                if norm:
                    return True
                reached.add(number)
        return False

    def parameters_of(self, unit: Unit) -> int:
        """How many parameters serve nothing but a unit."""
        return sum(self._sizes[name] for name, alone in self._weights(unit).items() if alone)

    def _region(self, unit: Unit) -> set[int]:
        """Values that serve nothing but a unit."""
        if unit not in self._regions:
            self._regions[unit] = region(self._found, unit.ends)
        return self._regions[unit]

    def _weights(self, unit: Unit) -> dict[str, bool]:
        """The parameters that a unit reads, and whether nothing else does."""
        users, inside = self._found.users, self._region(unit)
        return {
            name: inside.issuperset(users[number])
            for number, name in self._parameters
            if not inside.isdisjoint(users[number])
        }

    def _passing(self, residual: Residual, *, whole: bool) -> tuple[int | None, tuple[Residual, ...]]:
        """The call that returns its input without this branch, and without others of its block, and these."""
        chosen: tuple[int | None, tuple[Residual, ...]] = (None, ())
        for number in self._found.around(self._found.values[residual.sum].call):
            ends = self._passed(number)
            if residual not in ends or ends == chosen[1]:
                continue
            # A stage or an encoder passes its input on, too: it is not one of several, or it holds several of a kind.
            several = len(ends) == 1 or self._kinds[type(self._modules[self._found.calls[number].path])] > 1
            parts = {call for end in ends if (call := self._part(end, number)) is not None}
            kinds = Counter(type(self._modules[self._found.calls[call].path]) for call in parts)
            if not several or max(kinds.values(), default=1) > 1:
                break
            chosen = (number, ends)
            if not whole:
                break
        return chosen

    def _passed(self, number: int) -> tuple[Residual, ...]:
        """The additions without whose branches a call returns its input, in their order; none where it would not."""
        if number not in self._passing_calls:
            path = self._found.calls[number].path
            alone = path and len(self._calls[path]) == 1 and not isinstance(self._modules[path], nn.Sequential)
            ends = passed(self._found, self._sums, number) if alone else None
            self._passing_calls[number] = tuple(reversed(ends)) if ends and closed_off(self._found, number) else ()
        return self._passing_calls[number]

    def _part(self, residual: Residual, whole: int) -> int | None:
        """The outermost call within another that returns its input without an addition's branch."""
        found = None
        for number in self._found.around(self._found.values[residual.sum].call):
            if number == whole:
                return found
            if residual in self._passed(number):
                found = number
        return None

    def _element(self, residual: Residual) -> str | None:
        """The innermost element of a list of modules of one class in which an addition is."""
        for number in self._found.around(self._found.values[residual.sum].call):
            path = self._found.calls[number].path
            holder = self._modules.get(path.rpartition(".")[0]) if path else None
            if isinstance(holder, nn.ModuleList | nn.Sequential | nn.ModuleDict):
                kind = type(self._modules[path])
                if sum(type(module) is kind for module in holder.children()) > 1:
                    return path
        return None

    def _maker(self, residual: Residual) -> str:
        """The largest of the modules that make nothing but a branch; or the one in which the addition is."""
        inside = region(self._found, [residual])
        paths = [
            self._found.calls[call].path
            for call in self._outermost(inside, inside)
            if any(True for _ in self._modules[self._found.calls[call].path].parameters())
        ]
        if paths:
            return max(paths, key=lambda path: sum(p.numel() for p in self._modules[path].parameters()))
        call = self._found.values[residual.sum].call
        return self._found.calls[call].path if call >= 0 else ""

    def _by_call(self, numbers: Any) -> list[int]:
        """How many of some values were made during each call."""
        counts = [0] * len(self._found.calls)
        for number in numbers:
            value = self._found.values[number]
            if value.operator not in LEAVES:
                for call in self._found.around(value.call):
                    counts[call] += 1
        return counts

    def _outermost(self, inside: set[int], reached: set[int]) -> list[int]:
        """Calls, in order, of the outermost modules that make values inside alone, and some of `reached`."""
        candidates = {call for number in reached for call in self._found.around(self._found.values[number].call)}
        counts = Counter(call for n in inside for call in self._found.around(self._found.values[n].call))
        unmoved = {call for number in inside for call in self._unmoved.get(number, ())}

        def is_own(call: int) -> bool:
            return call in unmoved or (self._values[call] > 0 and counts[call] == self._values[call])

        known: dict[str, bool] = {}
        for call in candidates | unmoved:
            path = self._found.calls[call].path
            if path not in known:
                known[path] = bool(path) and all(map(is_own, self._calls[path]))
        return sorted(
            call
            for call in candidates | unmoved
            if known[self._found.calls[call].path]
            and not any(
                known.get(self._found.calls[n].path) for n in self._found.around(self._found.calls[call].parent)
            )
            and type(self._modules[self._found.calls[call].path]) is not nn.Identity
        )

    def _one_by_one(self, unit: Unit, inside: set[int]) -> list[Bypass]:
        """All outermost modules that serve nothing but the branches of a unit."""
        found = self._found
        reached = descended(found, inside, [end.start for end in unit.ends])
        calls = self._outermost(inside, reached)
        own = {n for call in calls for n in range(found.calls[call].first, found.calls[call].last)}
        loose = inside - own
        if odd := {found.values[n].operator for n in loose if is_product(found.values[n].operator)}:
            raise Refused(f"a forward pass outside its modules computes {listed(sorted(odd))}")
        if not calls:
            raise Refused("no module serves it alone")
        made: dict[int, list[int]] = defaultdict(list)
        for call in calls:
            if (number := found.calls[call].made) is not None:
                made[number].append(call)
        # The last to return a value: a dropout that does nothing in evaluation mode returns what it is given.
        last = {found.calls[max(made[number])].path for number in self._reached_from(unit, loose, made)}
        zero = {n: Names() for n, those in made.items() if found.calls[max(those)].path in last}
        vanishing = Vanishing(found, zero, lambda n: n in loose)
        if any(vanishing(end.branch) is None for end in unit.ends):
            raise Refused("what its modules return cannot be left out: the forward pass makes other numbers of it")
        bypasses: dict[str, Bypass] = {}
        for call in calls:
            this = found.calls[call]
            broadcasts = self._may_broadcast(unit, this, {found.calls[n].path for n in calls})
            form = "input" if this.path not in last else "zero" if broadcasts else "zeros"
            bypass = Bypass(module=this.path, returns=self._form(form, this))
            if bypasses.setdefault(this.path, bypass) != bypass:
                raise Refused(f"calls of {this.path} return other things")
        # What names the unit comes first: the last module with parameters.
        return sorted(bypasses.values(), key=lambda bypass: bypass.module not in last)

    def _reached_from(self, unit: Unit, loose: set[int], made: dict[int, list[int]]) -> set[int]:
        """What modules return that the branches are made of without another module between."""
        pending, seen, results = [end.branch for end in unit.ends], set[int](), set[int]()
        while pending:
            number = pending.pop()
            if number in seen:
                continue
            seen.add(number)
            if number in made:
                results.add(number)
            elif number in loose:
                pending += self._found.values[number].inputs
        return results

    def _may_broadcast(self, unit: Unit, call: Call, gone: set[str]) -> bool:
        """Whether one zero is enough: it is added, is not what is added to in place, and no module stays that gets it.

        Stochastic depth, for example, returns what it is given in evaluation mode alone.
        """
        given = () if call.made is None else self._unmoved.get(call.made, ())
        staying = [path for n in given if (path := self._found.calls[n].path) not in gone]
        if any(type(self._modules[path]) not in (nn.Identity, nn.Dropout) for path in staying):
            return False
        ends = [end for end in unit.ends if end.branch == call.made]
        first = [self._found.values[end.sum].arguments[0] for end in ends if self._in_place(end)]
        return bool(ends) and all(argument.number != call.made for argument in first)

    def _in_place(self, end: Residual) -> bool:
        return self._found.values[end.sum].operator.endswith("_")

    def _form(self, form: str, call: Call) -> str:
        returns = form if call.count is None else f"{form} {call.count}"
        if not self._found.returns_one(call) or call.given is None or returns not in SKIPS:
            raise Refused(f"{call.path} returns more than a tensor")
        return returns

    def _owned(self, paths: list[str]) -> Names:
        """The parameters that go with some modules."""
        inner = {id(module) for path in paths for module in self._model.get_submodule(path).modules()}
        owned = set()
        for tensor, holders in self._owners.items():
            if is_inside(tensor, *paths):
                if any(id(module) not in inner for module, _ in holders):
                    raise Refused(f"{tensor} is shared with another part of the model")
                owned.add(tensor)
        return frozenset(owned & self._sizes.keys())

    def _gated(self, unit: Unit, inside: set[int], owned: Names) -> Names:
        """The parameters without which the branches are zero."""
        zero = {n: frozenset({name}) for n, name in self._parameters if name in owned}
        vanishing = Vanishing(self._found, zero, lambda n: n in inside)
        found = [vanishing(end.branch) for end in unit.ends]
        if any(names is None for names in found):
            raise Refused("no weights of its own make it zero")
        names = frozenset().union(*(names for names in found if names is not None))
        if not names:
            raise Refused("no weights of its own make it zero")
        return names
