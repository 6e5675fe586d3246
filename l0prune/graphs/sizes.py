"""Fixed sizes in a graph, written as what they are: so many of the units that are kept.

Legend: A atoms, L the length of a dimension, n places of other dimensions that it depends on together with them.
"""

import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, fx

from l0prune.discovery import Tracer, apply_rule, enter_module, rule_of
from l0prune.groups import PruneGroup
from l0prune.support import operator_name, plain_attention


class Size(NamedTuple):
    """A number among a node's arguments that is the length of a dimension, or of a part of one."""

    node: fx.Node
    place: tuple[int, ...]
    """The argument, and where in it if that is a list."""
    atoms: np.ndarray
    """(L, n) of the dimension, as `Tracer` carries them."""
    sign: int = 1
    """-1 for a place that is counted from the end."""


def write_sizes(module: fx.GraphModule, groups: Sequence[PruneGroup], flat: Sequence[Any], time_limit: float) -> int:
    """Let fixed sizes follow from the shapes of the weights.

    Args:
        module: The dense network as a graph, which is changed and not recompiled.
        groups: Prune groups, by the names that the weights have here too.
        flat: Example inputs, in the order of the placeholders.
        time_limit: Seconds that following the graph may take.

    Returns:
        How many sizes are written anew.
    """
    follower = _Follower(module, time_limit)
    follower.follow(flat)
    counting = _Counting(follower.tracer, groups)
    writer = _Writer(module, groups)
    return sum(writer.write(size, counting(size.atoms)) for size in follower.sizes)


class _Follower(fx.Interpreter):
    """Runs a graph node by node under a `Tracer`, and notes the sizes that nodes are given."""

    def __init__(self, module: fx.GraphModule, time_limit: float) -> None:
        super().__init__(module)
        self.tracer = Tracer(module, apply_rule, rule_of, enter_module, time_limit)
        self.sizes: list[Size] = []

    def follow(self, flat: Sequence[Any]) -> None:
        with plain_attention(), torch.random.fork_rng(), torch.no_grad():
            self.tracer.watch(lambda: self.run(*flat, enable_io_processing=False))

    def run_node(self, n: fx.Node) -> Any:
        out = super().run_node(n)
        name = _name_of(n.target) if n.op == "call_function" else None
        if name is not None:
            args, _ = self.fetch_args_kwargs_from_env(n)
            if name in _MADE and isinstance(out, Tensor):
                # What it meets later says what stands on its dimensions.
                self.tracer.carry_new(out)
            if (sized := _SIZED.get(name)) is not None:
                self.sizes += [Size(n, *found) for found in sized(self.tracer, args, out)]
        return out


def _name_of(target: Any) -> str | None:
    """An operator's name without library and overload."""
    name = operator_name(target)
    return None if name is None else name.partition("::")[2].rstrip("_")


def _rows(tracer: Tracer, x: Tensor, dim: int) -> np.ndarray | None:
    """(L, n) atoms of a dimension; None where it has none."""
    for block in tracer.carried_by(x):
        if dim % x.ndim in block.dims:
            axis = block.dims.index(dim % x.ndim)
            return np.moveaxis(block.atoms, axis, 0).reshape(x.shape[dim], -1)
    return None


Found = list[tuple[Any, ...]]


def _shape_at(place: int, first_dim: Callable[[Sequence[Any]], int] | None = None) -> Callable[..., Found]:
    """Sizes of operators that are given the shape of their result."""

    def found(tracer: Tracer, args: Sequence[Any], out: Tensor) -> Found:
        given = args[place]
        first = out.ndim - len(given) if first_dim is None else first_dim(args)
        rows = [(i, _rows(tracer, out, first + i)) for i in range(len(given))]
        return [((place, i), atoms) for i, atoms in rows if atoms is not None and given[i] != -1]

    return found


def _of_norm(tracer: Tracer, args: Sequence[Any], out: Any) -> Found:
    x, shape = args[0], args[1]
    rows = [(i, _rows(tracer, x, x.ndim - len(shape) + i)) for i in range(len(shape))]
    return [((1, i), atoms) for i, atoms in rows if atoms is not None]


def _of_split(tracer: Tracer, args: Sequence[Any], out: Any) -> Found:
    dim, sizes = args[2] if len(args) > 2 else 0, args[1]
    if isinstance(sizes, int):
        rows = _rows(tracer, out[0], dim)
        return [] if rows is None or len(rows) != sizes else [((1,), rows)]
    parts = [(i, _rows(tracer, part, dim)) for i, part in enumerate(out)]
    return [((1, i), atoms) for i, atoms in parts if atoms is not None]


def _of_slice(tracer: Tracer, args: Sequence[Any], out: Any) -> Found:
    x, dim = args[0], args[1] if len(args) > 1 else 0
    rows, found = _rows(tracer, x, dim), []
    if rows is None:
        return []
    for place in (2, 3):
        at = args[place] if len(args) > place else None
        if isinstance(at, int) and 0 < at < len(rows):
            found.append(((place,), rows[:at]))
        elif isinstance(at, int) and -len(rows) < at < 0:
            found.append(((place,), rows[at:], -1))
    return found


def _of_narrow(tracer: Tracer, args: Sequence[Any], out: Any) -> Found:
    x, dim, start = args[:3]
    rows, part = _rows(tracer, x, dim), _rows(tracer, out, dim)
    if rows is None or part is None:
        return []
    before = [((2,), rows[:start])] if isinstance(start, int) and start > 0 else []
    return [*before, ((3,), part)]


def _of_convolution(place: int) -> Callable[..., Found]:
    def found(tracer: Tracer, args: Sequence[Any], out: Any) -> Found:
        channels = len(args) > place and args[place] > 1 and args[place] == args[0].shape[-_dims_of(args)]
        rows = _rows(tracer, args[0], -_dims_of(args)) if channels else None
        return [] if rows is None else [((place,), rows)]

    return found


def _dims_of(args: Sequence[Any]) -> int:
    """Channels of a convolution's input stand on this dimension, counted from the end."""
    return args[1].ndim - 1


def _of_group_norm(tracer: Tracer, args: Sequence[Any], out: Any) -> Found:
    rows = _rows(tracer, args[0], 1) if args[1] == args[0].shape[1] else None
    return [] if rows is None else [((1,), rows)]


_MADE = {"zeros", "ones", "full", "empty", "new_zeros", "new_ones", "new_full", "new_empty"}
_SIZED: dict[str, Callable[..., Found]] = {
    **dict.fromkeys(("view", "reshape", "_unsafe_view", "view_copy", "expand", "expand_copy"), _shape_at(1)),
    **dict.fromkeys(("zeros", "ones", "full", "empty", "rand", "randn"), _shape_at(0)),
    **dict.fromkeys(("new_zeros", "new_ones", "new_full", "new_empty"), _shape_at(1)),
    "unflatten": _shape_at(2, lambda args: args[1] % args[0].ndim),
    **dict.fromkeys(("layer_norm", "native_layer_norm", "rms_norm"), _of_norm),
    **dict.fromkeys(("split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes", "split_copy"), _of_split),
    "slice": _of_slice,
    "narrow": _of_narrow,
    **{f"conv{transposed}{n}d": _of_convolution(6) for n in (1, 2, 3) for transposed in ("", "_transpose")},
    "convolution": _of_convolution(8),
    "group_norm": _of_group_norm,
}
"""By operator, the sizes among its arguments with what stands on those dimensions."""


class Count(NamedTuple):
    """So many units of groups, by the number of the group, and so many that never go."""

    units: dict[int, int]
    fixed: int


class _Counting:
    """What lengths count.

    Args:
        tracer: What has followed the graph.
        groups: The groups.
    """

    def __init__(self, tracer: Tracer, groups: Sequence[PruneGroup]) -> None:
        trace = tracer.trace
        self.classes = trace.classes()
        self.starts = np.concatenate([[0], np.cumsum([group.units for group in groups])]).astype(np.int64)
        self.unit = np.full(trace.size, -1)
        for start, group in zip(self.starts, groups, strict=False):
            for place in group.places:
                if place.dim is not None and place.tensor in trace.leaves:
                    atoms = trace.leaves[place.tensor][place.dim][place.index]
                    self.unit[self.classes[atoms]] = (start + np.arange(group.units))[:, None]

    def __call__(self, atoms: np.ndarray) -> Count | None:
        """What a dimension (L, n) counts; None where it is no sum of such."""
        units = self.unit[self.classes[atoms]]
        if (units == units[:1]).all():
            # Every place of it has all of what the others have: of three, queries, keys and values, each stays.
            return Count({}, len(units)) if units.shape[1] > 1 or units[0, 0] < 0 else self._of(units[:, 0])
        return self._of(units[:, 0]) if (units == units[:, :1]).all() else None

    def _of(self, units: np.ndarray) -> Count | None:
        found: dict[int, int] = {}
        here = units[units >= 0]
        for g in np.unique(np.searchsorted(self.starts, here, side="right") - 1).tolist():
            start, end = self.starts[g], self.starts[g + 1]
            counts = np.bincount(here[(here >= start) & (here < end)] - start, minlength=end - start)
            if (counts != counts[0]).any():
                return None
            found[g] = int(counts[0])
        return Count(found, int((units < 0).sum()))


class _Writer:
    """Writes sizes anew in a graph."""

    def __init__(self, module: fx.GraphModule, groups: Sequence[PruneGroup]) -> None:
        self.graph, self.groups = module.graph, groups
        self.shapes = {
            name: tuple(tensor.shape)
            for some in (module.named_parameters(), module.named_buffers())
            for name, tensor in some
        }
        self.read = {str(node.target): node for node in self.graph.nodes if node.op == "get_attr"}
        self.anchor = next(node for node in self.graph.nodes if node.op not in ("placeholder", "get_attr"))
        self._known: dict[Any, fx.Node] = {}

    def write(self, size: Size, count: Count | None) -> bool:
        """Write one size anew, if it counts units."""
        if count is not None and not count.units:
            return False
        given = size.node.args[size.place[0]]
        many = isinstance(given, list | tuple)
        old = given[size.place[1]] if many else given
        new = self._instead(size, old, count)
        if new is None and many and not any(type(other) is int and other == -1 for other in given):
            # What the others leave; not for sizes that have to be named.
            new = -1 if "view" in str(size.node.target) or "reshape" in str(size.node.target) else None
        if new is None:
            return False
        args = list(size.node.args)
        if many:
            listed = list(given)
            listed[size.place[1]] = new
            args[size.place[0]] = listed
        else:
            args[size.place[0]] = new
        size.node.args = tuple(args)
        return True

    def _instead(self, size: Size, old: Any, count: Count | None) -> fx.Node | None:
        """What takes a size's place; None where that is not known."""
        if count is None:
            return None
        if isinstance(old, fx.Node):
            return self._times_length(size, old, count)
        dense = sum(each * self.groups[g].units for g, each in count.units.items()) + count.fixed
        terms: list[Any] = [self._kept(g, each) for g, each in count.units.items()]
        if size.sign * dense != old or None in terms:
            return None
        whole = terms[0]
        for term in (*terms[1:], *([count.fixed] if count.fixed else [])):
            whole = self._at_top(operator.add, whole, term)
        return whole if size.sign > 0 else self._at_top(operator.neg, whole)

    def _times_length(self, size: Size, old: fx.Node, count: Count) -> fx.Node | None:
        """The same for so many units times a batch or a length: it shrinks as the units do."""
        if len(count.units) != 1 or count.fixed:
            return None
        (g,) = count.units
        kept = self._kept(g, 1)
        if kept is None:
            return None
        with self.graph.inserting_before(size.node):
            product = self.graph.call_function(operator.mul, (old, kept))
            return self.graph.call_function(operator.floordiv, (product, self.groups[g].units))

    def _kept(self, g: int, each: int) -> fx.Node | None:
        """`each` times the kept units of a group: the length of a weight where nothing else stands."""
        alone = [
            place
            for place in self.groups[g].places
            if place.dim is not None and place.index.size == self.shapes.get(place.tensor, (0,) * 9)[place.dim]
        ]
        if not alone:
            return None
        place = min(alone, key=lambda p: (p.width != each, each % p.width != 0, p.width))
        assert place.dim is not None
        if place.tensor not in self.read:
            with self.graph.inserting_before(next(iter(self.graph.nodes))):
                self.read[place.tensor] = self.graph.get_attr(place.tensor)
        length = self._at_top(torch.ops.aten.sym_size.int, self.read[place.tensor], place.dim)
        if each % place.width == 0:
            return length if each == place.width else self._at_top(operator.mul, length, each // place.width)
        units = self._at_top(operator.floordiv, length, place.width)
        return units if each == 1 else self._at_top(operator.mul, units, each)

    def _at_top(self, function: Any, *args: Any) -> fx.Node:
        """A call that stands before all others, once."""
        key = function, args
        if key not in self._known:
            with self.graph.inserting_before(self.anchor):
                self._known[key] = self.graph.call_function(function, args)
        return self._known[key]
