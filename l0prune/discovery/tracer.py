"""Which indices of which tensors live and die together: a forward pass, watched operator by operator.

Every index of every dimension of a parameter is an atom. Operators carry atoms along and unify those that have to go
together: an addition unifies the channels of its operands, a matrix product the features it contracts with the weight
that reads them. What an operator mixes in a way that removal would change is pinned, with the reason. `rules`
holds the rules; what has none pins its operands, so that nothing is cut that is not understood.

Legend: A atoms; atom 0 stands for what can never be cut.
"""

import sys
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from torch import Tensor, nn

from l0prune.discovery.by_tensor import ByTensor
from l0prune.discovery.lifetimes import Lifetimes
from l0prune.discovery.scratch import scratch
from l0prune.discovery.traced import OUTPUT, Atoms, Block, Cost, Facts, NormCall, Ranking, Reading, Trace
from l0prune.errors import TraceError
from l0prune.support import Convolution, TorchDispatchMode, kept_values, output_tensors, tree_leaves

_NOTHING = Facts()


class Tracer(TorchDispatchMode):
    """Follows atoms through the operators of a forward pass.

    Args:
        model: The model to run; hooks are left on it.
        operator_rule: Carries atoms through an operator: (tracer, operator, arguments, keywords, result).
        module_rule: Gives the rule of a module that is understood as a whole, (tracer, module, arguments, keywords,
            result), or None for one that is followed operator by operator.
        enter_module: Told of each module that begins to run: (tracer, path, module, arguments, keywords).
        time_limit: Seconds after which tracing gives up.
    """

    def __init__(
        self,
        model: nn.Module,
        operator_rule: Callable[..., None],
        module_rule: Callable[[nn.Module], Callable[..., Any] | None],
        enter_module: Callable[..., None],
        time_limit: float,
    ) -> None:
        super().__init__()
        self._operator_rule, self._module_rule, self._enter_module = operator_rule, module_rule, enter_module
        self._facts: ByTensor[Facts] = ByTensor()
        self._names: ByTensor[str] = ByTensor()
        self._debts: ByTensor[list[tuple[Atoms, str, str]]] = ByTensor()
        self._single: ByTensor[frozenset[int]] = ByTensor()
        self._numbers: ByTensor[Atoms] = ByTensor()
        self._unless_ranked: list[tuple[Atoms, str]] = []
        self.experts: set[int] = set()
        """First atoms of the dimensions along which modules pick experts by numbers that they are given."""
        self.gated_experts: dict[int, tuple[int, Atoms]] = {}
        """By the first atom of a router, experts' places in the weights that are picked last, and how many dimensions
        these have."""
        self._blank: dict[int, weakref.ref[Tensor]] = {}
        self._failure: tuple[BaseException, str] | None = None
        self._paths: list[str] = []
        self._inputs: list[Any] = []
        self._suspended = False
        self._inside: ByTensor[tuple[Block, ...]] = ByTensor()
        self.lifetimes: Lifetimes | None = None
        """Notes what is in memory, where somebody wants to know."""
        self._first_of_buffers: int | None = None
        self._time_limit, self._deadline = time_limit, 0.0
        self._model, self.modules = model, dict(model.named_modules())
        leaves: dict[str, list[Atoms]] = {}
        start = 1
        parameters = dict(model.named_parameters())
        for name, tensor in [*parameters.items(), *model.named_buffers()]:
            if name not in parameters and self._first_of_buffers is None:
                self._first_of_buffers = start
            leaves[name] = []
            for extent in tensor.shape:
                leaves[name].append(np.arange(start, start + extent))
                start += extent
            # The places of a convolution's kernel never go.
            dims = leaves[name][:2] if self._is_of_convolution(name) else leaves[name]
            blocks = [Block((d,), atoms) for d, atoms in enumerate(dims) if len(atoms) > 1]
            self._facts[tensor] = Facts(tuple(blocks), constant=True)
            self._names[tensor] = name
            if single := frozenset(int(atoms[0]) for atoms in leaves[name] if len(atoms) == 1):
                self._single[tensor] = single
        self.trace = Trace(leaves, start)
        self._heads: set[tuple[int, int]] = set()
        self._heads_known = 0
        self._free = start
        self._first_of_buffers = start if self._first_of_buffers is None else self._first_of_buffers
        for path, module in self.modules.items():
            self._follow(path, module)

    @property
    def here(self) -> str:
        """Path of the module whose forward is running."""
        return self._paths[-1] if self._paths else ""

    @property
    def _where(self) -> str:
        return f" in {self.here}" if self.here else ""

    def culprit(self, error: BaseException) -> str:
        """Path of the innermost module through which an error has come."""
        return self._failure[1] if self._failure and self._failure[0] is error else self.here

    @property
    def input_here(self) -> Tensor | None:
        """First argument of the module whose forward is running."""
        value = self._inputs[-1] if self._inputs else None
        return value if isinstance(value, Tensor) else None

    def watch(self, run: Callable[[], Any]) -> None:
        """Run and follow; whatever tensors come out are pinned."""
        self._deadline = time.monotonic() + self._time_limit
        self._paths.clear()
        self._inputs.clear()
        with self:
            outputs = run()
        ranked = {ranking.atoms.tobytes() for ranking in self.trace.rankings}
        # They were told before what has become of the same units since then.
        unranked = [(atoms, reason) for atoms, reason in self._unless_ranked if atoms.tobytes() not in ranked]
        self.trace.pins[:0] = unranked
        self._unless_ranked.clear()
        for _, atoms in self.gated_experts.values():
            self.consume(atoms)
        self.gated_experts.clear()
        for leaf in output_tensors(outputs):
            for block in self.facts(leaf).blocks:
                self.pin(block.atoms, OUTPUT)
            self.pin(np.array(sorted(self._single.get(leaf) or ()), dtype=np.int64), OUTPUT)
        # A number that a module keeps may be a loss: whatever it sums up is read.
        for value in kept_values(self._model).values():
            if isinstance(value, Tensor) and value.numel() == 1:
                self.facts(value)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Run an operator, then carry the atoms of its operands over to its results."""
        lifetimes = self.lifetimes if self._paths else None
        if lifetimes is not None:
            lifetimes.before(leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor))
        out = func(*args, **(kwargs or {}))
        if not self._suspended:
            if time.monotonic() > self._deadline:
                raise TraceError(
                    "tracing took too long",
                    where=self.here or None,
                    expected=f"at most {self._time_limit:g} seconds",
                    hint="pass smaller example inputs, a larger `time_limit`, or write the groups yourself (`groups=`)",
                )
            self._operator_rule(self, func, args, kwargs or {}, out)
            self._carry_single((args, kwargs), out)
        if lifetimes is not None:
            results = [(result, self._carried_by_result(result, args)) for result in output_tensors(out)]
            lifetimes.after(results, self.here, scratch(func, args, out, self.carried_by))
        return out

    def _carried_by_result(self, result: Tensor, args: tuple) -> tuple[Block, ...]:
        """What a result carries, as far as is known.

        Inside a module that is understood as a whole no operator is followed: what has the shape of an operand carries
        the same.
        """
        if not self._suspended:
            return self.carried_by(result)
        alike = (leaf for leaf in args if isinstance(leaf, Tensor) and leaf.shape == result.shape)
        blocks = next((found for leaf in alike if (found := self.carried_by(leaf) or self._inside.get(leaf))), ())
        self._inside[result] = blocks
        return blocks

    def _carry_single(self, arguments: object, out: object) -> None:
        """Follow the unit of layers that have but one, up to the next layer: it is never cut, but may be the output."""
        if not self._single:
            return
        operands = [leaf for leaf in tree_leaves(arguments) if isinstance(leaf, Tensor)]
        weights = [x for x in operands if x.ndim > 1 and (self._facts.get(x) or _NOTHING).constant]
        carried = frozenset[int]().union(*(self._single.get(x) or () for x in weights or operands))
        for result in output_tensors(out) if carried else ():
            self._single[result] = carried

    def _is_of_convolution(self, name: str) -> bool:
        """Whether a parameter or buffer belongs to a convolution, computed from others or not."""
        return isinstance(self.modules.get(name.partition("parametrizations.")[0].rpartition(".")[0]), Convolution)

    # What rules ask and say.

    def facts(self, tensor: Tensor) -> Facts:
        """What is known of a tensor; nothing of one that appears from outside."""
        if (name := self._names.get(tensor)) is not None:
            self.trace.used.add(name)
        for atoms, reason, where in self._debts.pop(tensor) or ():
            self.trace.pins.append((atoms, f"{reason}{where}"))
        return self._facts.get(tensor) or _NOTHING

    def carried_by(self, tensor: Tensor) -> tuple[Block, ...]:
        """What a tensor carries as far as has been said; unlike `facts`, this is no reading of it."""
        found = self._facts.get(tensor)
        return found.blocks if found is not None else ()

    def set(self, tensor: Tensor, blocks: Sequence[Block], *, constant: bool = False) -> None:
        """Say what a result's dimensions carry."""
        self._facts[tensor] = Facts(tuple(b for b in blocks if b.atoms.size > 1 and b.atoms.any()), constant)

    def make_blank(self, tensor: Tensor) -> None:
        """Say that a tensor has just been made, of one value: what is written to it decides what it carries."""
        if self._paths:  # Not what is made outside the model: that is its input.
            self._blank[tensor.untyped_storage().data_ptr()] = weakref.ref(tensor)

    def carry_new(self, tensor: Tensor) -> None:
        """Say that a tensor has just been made, and that its dimensions are worth following."""
        lengths = [(dim, extent) for dim, extent in enumerate(tensor.shape) if extent > 1]
        self.set(tensor, [Block((dim,), self.new_atoms(extent)) for dim, extent in lengths])

    def blank_under(self, view: Tensor) -> Tensor | None:
        """The blank tensor that `view` shows a part of."""
        found = self._blank.get(view.untyped_storage().data_ptr())
        return found() if found else None

    def along(self, tensor: Tensor, dim: int) -> Atoms | None:
        """Atoms along one dimension, None where it is fixed. Joint dimensions are settled first."""
        facts = self.facts(tensor)
        dim %= max(tensor.ndim, 1)
        for block in facts.blocks:
            if dim in block.dims:
                if len(block.dims) > 1:
                    self.settle(tensor)
                    return self.along(tensor, dim)
                return block.atoms
        return None

    def new_atoms(self, extent: int) -> Atoms:
        """Atoms of a dimension that is constant along its length: whatever it meets decides how long it is."""
        start = self.trace.size
        self.trace.size += extent
        return np.arange(start, start + extent)

    def is_new(self, atoms: np.ndarray) -> bool:
        """Whether no parameter or buffer has these atoms."""
        return bool((atoms >= self._free).all())

    def is_of_no_layer(self, atoms: np.ndarray) -> bool:
        """Whether no parameter has these atoms: a mask's places, say, or what was expanded."""
        return bool((atoms >= self._first_of_buffers).all())

    def are_heads(self, atoms: np.ndarray) -> bool:
        """Whether atoms, (n,) or with further axes of length 1, stand for the heads of an attention."""
        for heads in self.trace.heads[self._heads_known :]:
            self._heads.add((len(heads), int(heads[0]) if len(heads) else 0))
        self._heads_known = len(self.trace.heads)
        return (atoms.size, int(atoms.flat[0]) if atoms.size else 0) in self._heads

    def settle(self, tensor: Tensor) -> None:
        """Let the units of every joint block be those of its first dimension: heads, not places within them."""
        facts = self.facts(tensor)
        if any(len(block.dims) > 1 for block in facts.blocks):
            settled = tuple(self.tie(block, 0) if len(block.dims) > 1 else block for block in facts.blocks)
            self._facts[tensor] = Facts(settled, facts.constant)

    def tie(self, block: Block, axis: int, *, heads: bool = True) -> Block:
        """Tie a joint block over all its axes but one."""
        rest = tuple(a for a in range(len(block.dims)) if a != axis)
        first = block.atoms[tuple(slice(None) if a == axis else 0 for a in range(len(block.dims)))]
        self.unify(block.atoms, np.broadcast_to(np.expand_dims(first, rest), block.atoms.shape), "is reshaped")
        if heads:
            self.trace.heads.append(first)
            self.read(first)
        return Block((block.dims[axis],), first)

    def unify(self, one: np.ndarray | None, other: np.ndarray | None, fixed: str = "meets fixed features") -> None:
        """Let two dimensions' indices live and die together; pin what meets a fixed one."""
        if one is other or (one is None and other is None):
            return
        if one is None or other is None:
            self.pin(one if one is not None else other, fixed)  # type: ignore[arg-type]
            return
        if one.shape != other.shape:
            self.pin(one, "is reused at another length")
            self.pin(other, "is reused at another length")
            return
        free = (one != 0) & (other != 0)
        differ = free & (one != other)
        if differ.any():
            self.trace.same.append((one[differ], other[differ]))
        if not free.all():
            self.pin(one[~free], fixed)
            self.pin(other[~free], fixed)

    def pin(self, atoms: np.ndarray, reason: str) -> None:
        """Say that indices can never be cut."""
        atoms = atoms[atoms != 0]
        if atoms.size:
            self.trace.pins.append((atoms.ravel(), f"{reason}{self._where}"))

    def pin_if_read(self, results: Sequence[Tensor], atoms: np.ndarray, reason: str) -> None:
        """Pin indices once any of the results that mix them is read; nobody may want it."""
        for result in results:
            debt = (atoms[atoms != 0].ravel(), reason, self._where)
            self._debts[result] = [*(self._debts.get(result) or ()), debt]

    def pin_unless_ranked(self, atoms: np.ndarray, reason: str) -> None:
        """Pin indices, unless a router picks the highest of them: then closed ones are the lowest already."""
        self._unless_ranked.append((atoms, f"{reason}{self._where}"))

    def ranked(self, atoms: Atoms, picked: int, along: str, module: str) -> None:
        """Say that the highest of some units' scores are picked, and which module makes them, or picks."""
        self.trace.rankings.append(Ranking(atoms, picked, along))
        self.trace.norms.append(NormCall(module, -1, atoms))

    def number(self, tensor: Tensor, atoms: Atoms | None) -> None:
        """Say that an integer tensor holds numbers of units."""
        if atoms is not None:
            self._numbers[tensor] = atoms

    def numbered(self, tensor: Any) -> Atoms | None:
        """The units whose numbers a tensor holds, None where it holds something else."""
        return self._numbers.get(tensor) if isinstance(tensor, Tensor) else None

    def leaf_of(self, atoms: Atoms) -> tuple[str, int] | None:
        """The parameter and the dimension of it that have these atoms, if they are one's."""
        for name, dims in self.trace.leaves.items():
            for dim, leaf in enumerate(dims):
                if len(leaf) == atoms.size and np.array_equal(leaf, atoms):
                    return name, dim
        return None

    def pin_all(self, tensor: Tensor, reason: str) -> None:
        """Pin everything a tensor carries."""
        for block in self.facts(tensor).blocks:
            self.pin(block.atoms, reason)

    def consume(self, atoms: Atoms | None) -> None:
        """Say that a weight's dimension reads the units it carries: their gates act there."""
        if atoms is not None:
            self.trace.consumed.append(atoms)

    def cost(self, factor: int, *extents: Atoms | int | None) -> None:
        """Count multiply-accumulates."""
        arrays = tuple(e for e in extents if isinstance(e, np.ndarray))
        for extent in extents:
            factor *= extent if isinstance(extent, int) else 1
        self.trace.costs.append(Cost(self.here, factor, arrays))

    def normed(self, channel_dim: int, atoms: Atoms) -> None:
        """Say that the module here takes statistics over channels with atoms."""
        self.trace.norms.append(NormCall(self.here, channel_dim, atoms))

    def read(self, atoms: np.ndarray) -> None:
        """Say that the module here reshapes or splits to a dimension of this length."""
        if atoms.ndim == 1 and self.here is not None:
            self.trace.readings.append(Reading(self.here, atoms))

    # What the guard of rules asks.

    def mark(self) -> tuple[int, ...]:
        """How much has been said so far."""
        return tuple(map(len, self._said))

    def said_since(self, mark: tuple[int, ...]) -> Iterator[np.ndarray]:
        """The atoms of all that has been said since."""
        same, pins, consumed, heads, costs, norms, readings = (
            told[start:] for told, start in zip(self._said, mark, strict=True)
        )
        for one, other in same:
            yield from (one, other)
        yield from (atoms for atoms, _ in pins)
        yield from (*consumed, *heads)
        yield from (atoms for cost in costs for atoms in cost.extents)
        yield from (told.atoms for told in (*norms, *readings))

    def take_back(self, mark: tuple[int, ...], keep: Callable[[np.ndarray], bool]) -> None:
        """Forget what has been said since; what was tied or pinned stays where `keep` finds its atoms right."""
        same, pins, *others = self._said
        same[mark[0] :] = [pair for pair in same[mark[0] :] if all(map(keep, pair))]
        pins[mark[1] :] = [pin for pin in pins[mark[1] :] if keep(pin[0])]
        for told, start in zip(others, mark[2:], strict=True):
            del told[start:]
        self._heads, self._heads_known = set(), 0

    @property
    def _said(self) -> tuple[list[Any], ...]:
        found = self.trace
        return found.same, found.pins, found.consumed, found.heads, found.costs, found.norms, found.readings

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Run operators without following them."""
        self._suspended = True
        try:
            yield
        finally:
            self._suspended = False

    def _follow(self, path: str, module: nn.Module) -> None:
        # Before there are hooks: a module without is tried once for all that are alike.
        rule = self._module_rule(module)

        def enter(module: nn.Module, args: tuple, kwargs: dict) -> None:
            self._paths.append(path)
            self._inputs.append(next(iter([*args, *kwargs.values()]), None))
            if not self._suspended:
                self._enter_module(self, path, module, args, kwargs)

        def leave(*_: object) -> None:
            self._paths.pop()
            self._inputs.pop()
            error = sys.exception()
            if error is not None and not (self._failure and self._failure[0] is error):
                self._failure = (error, path)

        module.register_forward_pre_hook(enter, with_kwargs=True, prepend=True)
        module.register_forward_hook(leave, always_call=True)
        if rule is not None:
            forward = module.forward

            def follow(*args: Any, **kwargs: Any) -> Any:
                if self._suspended:
                    return forward(*args, **kwargs)
                with self.suspended():
                    out = forward(*args, **kwargs)
                    rule(self, module, args, kwargs, out)
                return out

            module.forward = follow
