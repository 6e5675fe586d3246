"""Texts of methods in which sizes that they derive, `x.reshape(B, N, C)` say, are numbers that the module keeps."""

import ast
import functools
import hashlib
import inspect
import textwrap
import threading
from collections.abc import Iterable, Mapping, Sequence
from types import CodeType
from typing import Any

from l0prune.support.sized_classes import HELPER, KEPT, Place, Sizes, Ways, class_of, methods_of, source_of

PRODUCT, LEFT = "*", "left"
_THIS = "sized_module"
_METHODS = {"reshape", "view", "expand", "split"}
_made: dict[Any, type] = {}
_making = threading.RLock()


def _text_of(function: Any) -> str:
    """A function's source."""
    code = function.__code__
    return _text_of_code(code, code.co_filename)


@functools.lru_cache(maxsize=512)
def _text_of_code(code: CodeType, _: str) -> str:
    """The same, read once for each file: equal code may stand in several."""
    return inspect.getsource(code)


def digest_of(kind: type, name: str) -> str | None:
    """Of a method's source: another version of it may have its calls elsewhere. None where there is no source."""
    try:
        return hashlib.sha256(_text_of(source_of(kind, name)).encode()).hexdigest()[:16]
    except (OSError, TypeError, ValueError, AttributeError, KeyError, SyntaxError):
        return None


def names_sizes(kind: type, name: str) -> bool:
    """Whether the code of a method, or a function that stands inside, names a call that takes sizes.

    It costs next to nothing; `can_write` reads the source.
    """
    try:
        return _names_sizes(source_of(kind, name).__code__)
    except (AttributeError, KeyError, ValueError):
        return False


def _names_sizes(code: CodeType) -> bool:
    inside = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return not _METHODS.isdisjoint(code.co_names) or any(map(_names_sizes, inside))


def can_write(kind: type, name: str, place: Place, ways: Ways) -> bool:
    """Whether the call that ends at a place of a method takes sizes that can be written anew."""
    sizes = {name: {place: ways}}
    try:
        if hasattr(kind, KEPT) or not methods_of(kind, _texts(kind, sizes)):
            return False
        # Only a class that is told of those that derive from it can refuse one: others need not be made for a trial.
        return not hasattr(kind.__init_subclass__, "__func__") or bool(class_with_sizes(kind, sizes))
    except Exception:
        # What decorators and classes raise is theirs to choose.
        return False


def size_name(place: Place, dim: int) -> str:
    """The attribute that holds a size: which of a call's sizes, and where the call ends."""
    return f"size_{place[0]}_{place[1]}_{dim}"


def class_with_sizes(kind: type, sizes: Sizes) -> type:
    """A class like another, whose methods read some sizes from the instance (`size_name`).

    Raises:
        ValueError: A call is not there.
    """
    key = (kind, tuple((name, tuple(sorted(calls.items()))) for name, calls in sorted(sizes.items())))
    with _making:
        if key not in _made:
            if hasattr(kind, KEPT):
                raise ValueError("its methods are written anew already")
            _made[key] = class_of(kind, _texts(kind, sizes), {name: dict(calls) for name, calls in sizes.items()})
        return _made[key]


def _texts(kind: type, sizes: Sizes) -> dict[str, str]:
    """By name, methods and the functions that they call, as they are with sizes that the module keeps."""
    texts: dict[str, str] = {}
    for method in {name.partition("/")[0] for name in sizes}:
        helpers = {name.partition("/")[2] for name in sizes if name.startswith(f"{method}/")}
        texts[method] = _text(source_of(kind, method), sizes.get(method, {}), helpers)
    for name in sizes:
        if "/" in name:
            texts[name] = _text(source_of(kind, name), sizes[name], is_helper=True)
    return texts


def _parsed(function: Any) -> tuple[ast.Module, int]:
    """A function's syntax, and how far its source is indented."""
    source = _text_of(function)
    plain = textwrap.dedent(source)
    return ast.parse(plain), len(source.splitlines()[0]) - len(plain.splitlines()[0])


def _text(function: Any, calls: Mapping[Place, Ways], helpers: Iterable[str] = (), *, is_helper: bool = False) -> str:
    """A function's source with sizes that the module keeps.

    Args:
        function: The function.
        calls: In it.
        helpers: Functions it calls, which have become methods.
        is_helper: Whether it is to become one itself.
    """
    tree, indent = _parsed(function)
    (definition,) = tree.body
    if not isinstance(definition, ast.FunctionDef) or any(map(_is_private, ast.walk(tree))):
        raise ValueError("not a method whose source says all")
    moved = {(line, column - indent): (ways, (line, column)) for (line, column), ways in calls.items()}
    if is_helper:
        (definition.args.posonlyargs or definition.args.args).insert(0, ast.arg(_THIS))
        definition.name = HELPER + definition.name
    writer = _Writer([*definition.args.posonlyargs, *definition.args.args][0].arg, moved, helpers)
    definition = writer.visit(definition)
    if len(writer.found) != len(calls):
        raise ValueError("a call that takes sizes is not in the method's source")
    definition = _Deriver(writer.derived, definition).visit(definition)
    arguments = definition.args
    for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg):
        if argument is not None:
            argument.annotation = None
    definition.returns, definition.decorator_list = None, []
    # The values of defaults are those of the original.
    arguments.defaults = [ast.Constant(None) for _ in arguments.defaults]
    arguments.kw_defaults = [default and ast.Constant(None) for default in arguments.kw_defaults]
    return ast.unparse(ast.fix_missing_locations(definition))


class _Deriver(ast.NodeTransformer):
    """Lets a quotient that is such a size, `C // self.num_heads` say, be that size wherever else it stands."""

    def __init__(self, derived: Mapping[str, ast.expr], definition: ast.FunctionDef) -> None:
        self.derived = derived
        stores = [node.id for node in ast.walk(definition) if isinstance(node, ast.Name) and _is_stored(node)]
        self.once = {name for name in stores if stores.count(name) == 1}

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        if isinstance(node.op, ast.FloorDiv) and ast.dump(node) in self.derived:
            return self.derived[ast.dump(node)]
        return self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> ast.AST:
        target = node.targets[0]
        is_quotient = isinstance(node.value, ast.BinOp) and isinstance(node.value.op, ast.FloorDiv)
        if isinstance(target, ast.Name) and target.id in self.once and is_quotient:
            node.value = self.derived.get(ast.dump(ast.Name(target.id, ast.Load())), node.value)
        return self.generic_visit(node)


def _is_stored(name: ast.Name) -> bool:
    return isinstance(name.ctx, ast.Store)


def _is_private(node: ast.AST) -> bool:
    """Whether a name is one that Python spells by the class around it."""
    name = getattr(node, "attr", "")
    return name.startswith("__") and not name.endswith("__")


class _Writer(ast.NodeTransformer):
    def __init__(self, this: str, calls: Mapping[Place, tuple[Ways, Place]], helpers: Iterable[str]) -> None:
        self.this, self.calls, self.found, self.helpers = this, calls, set[Place](), set(helpers)
        self.derived: dict[str, ast.expr] = {}
        """What takes the place of a size that the method derives, by its syntax."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        at = node.end_lineno - 1, node.end_col_offset
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and node.func.id in self.helpers:
            node.func = ast.Attribute(ast.Name(self.this, ast.Load()), HELPER + node.func.id, ast.Load())
        if at in self.calls:
            ways, place = self.calls[at]
            if _with_sizes(node, self.this, place, ways, self.derived):
                self.found.add(at)
        return node

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        at = node.end_lineno - 1, node.end_col_offset
        self.generic_visit(node)
        if at in self.calls:
            ways, place = self.calls[at]
            if _with_bounds(node, self.this, place, ways):
                self.found.add(at)
        return node


def _with_bounds(node: ast.Subscript, this: str, place: Place, ways: Ways) -> bool:
    """Let the one slice of a subscript begin and end where the module says."""
    parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    slices = [part for part in parts if isinstance(part, ast.Slice) and (part.lower or part.upper or part.step)]
    if len(slices) != 1 or len(ways) != _BOUNDS:
        return False
    for dim, name in enumerate(("lower", "upper")):
        if ways[dim] == "kept":
            if getattr(slices[0], name) is None:
                return False
            setattr(slices[0], name, _kept(this, place, dim))
    return True


_BOUNDS = 2


def _is_open(way: str) -> bool:
    """Whether a size may be what the others leave."""
    return way == "rest" or PRODUCT in way


def _resolved(ways: Ways, left_over: Sequence[bool]) -> Ways:
    """Ways by which -1 stands once: where the method itself has it, or else for the one size that others leave.

    Args:
        ways: As they were found.
        left_over: Whether the method itself has -1 there.
    """
    found = [dim for dim, way in enumerate(ways) if _is_open(way)]
    alone = len(found) == 1 and not any(left_over)
    return tuple(
        way if dim not in found else "rest" if alone else "own" if left_over[dim] or PRODUCT not in way else way
        for dim, way in enumerate(ways)
    )


def _kept(this: str, place: Place, dim: int) -> ast.expr:
    return ast.Attribute(ast.Name(this, ast.Load()), size_name(place, dim), ast.Load())


def _with_sizes(node: Any, this: str, place: Place, ways: Ways, derived: dict[str, ast.expr]) -> bool:
    """Let a call take its sizes where they are to come from; False where its form is none that is known.

    What it would have derived those from that the module keeps is added to `derived`.
    """
    function = node.func
    known = isinstance(function, ast.Attribute) and function.attr in _METHODS
    first = 1 if known and _is_of_torch(node) else 0
    if not known or len(node.args) <= first or any(isinstance(given, ast.Starred) for given in node.args[:first]):
        return False
    given = node.args[first:]
    if LEFT in ways:
        return function.attr == "split" and _with_part_left(node, given, place, ways)
    if function.attr == "split":
        # The size of every part, or of each; then the dimension.
        given = given[:1]
        if len(ways) == 1:
            node.args[first] = _taken(this, place, ways, 0)
            return True
    inner = given[0].elts if len(given) == 1 and isinstance(given[0], ast.Tuple | ast.List) else given
    plain = not any(isinstance(argument, ast.Starred) for argument in inner)
    if plain and len(inner) == len(ways):
        ways = _resolved(ways, [ast.unparse(size) == "-1" for size in inner])
        _put_sizes(node, inner, this, place, ways, derived)
        if inner is given:
            node.args[first : first + len(given)] = inner
        return True
    if plain and len(given) != 1:
        return False
    alone = sum(map(_is_open, ways)) == 1
    ways = tuple(("rest" if alone else "own") if _is_open(way) else way for way in ways)
    whole = given[0] if len(given) == 1 and plain else ast.Tuple(list(inner), ast.Load())
    names = ast.Tuple([_taken(this, place, ways, dim) for dim in range(len(ways))], ast.Load())
    listed = ast.parse("[given if kept is None else kept for given, kept in zip(0, 1)]", mode="eval").body
    assert isinstance(listed, ast.ListComp)
    listed.generators[0].iter.args = [whole, names]  # type: ignore[attr-defined]
    node.args[first : first + len(given)] = [listed]
    return True


def _taken(this: str, place: Place, ways: Ways, dim: int) -> ast.expr:
    """A size that the module keeps, -1, or None for the method's own."""
    return _kept(this, place, dim) if ways[dim] == "kept" else ast.Constant(-1 if ways[dim] == "rest" else None)


def _put_sizes(
    node: ast.Call, sizes: list[ast.expr], this: str, place: Place, ways: Ways, derived: dict[str, ast.expr]
) -> None:
    """Put sizes, one for each way, in the place of those that a call is given."""
    for dim, way in enumerate(ways):
        if way == "kept":
            derived[ast.dump(sizes[dim])] = _kept(this, place, dim)
        if way in ("kept", "rest"):
            sizes[dim] = _taken(this, place, ways, dim)
        elif PRODUCT in way:
            lengths = [_length_of_operand(place, ast.Constant(int(factor))) for factor in way.split(PRODUCT)]
            sizes[dim] = functools.reduce(lambda one, other: ast.BinOp(one, ast.Mult(), other), lengths)
    if any(PRODUCT in way for way in ways):
        _hold_operand(node, place)


def _with_part_left(node: ast.Call, given: Sequence[ast.expr], place: Place, ways: Ways) -> bool:
    """Let one part of a split be what the other parts leave."""
    parts = given[0].elts if isinstance(given[0], ast.List | ast.Tuple) else []
    if len(parts) != len(ways) or {*ways} != {"own", LEFT} or any(isinstance(part, ast.Starred) for part in parts):
        return False
    dims = [*given[1:], *(word.value for word in node.keywords if word.arg == "dim"), ast.Constant(0)]
    others = [part for part, way in zip(parts, ways, strict=True) if way != LEFT]
    length = _length_of_operand(place, dims[0])
    parts[ways.index(LEFT)] = functools.reduce(lambda one, other: ast.BinOp(one, ast.Sub(), other), others, length)
    _hold_operand(node, place)
    return True


def _is_of_torch(node: Any) -> bool:
    """Whether a call is `torch.reshape(x, ...)`, not `x.reshape(...)`."""
    return isinstance(node.func.value, ast.Name) and node.func.value.id == "torch"


def _operand(place: Place) -> str:
    return f"operand_{place[0]}_{place[1]}"


def _length_of_operand(place: Place, dim: ast.expr) -> ast.expr:
    shape = ast.Attribute(ast.Name(_operand(place), ast.Load()), "shape", ast.Load())
    return ast.Subscript(shape, dim, ast.Load())


def _hold_operand(node: Any, place: Place) -> None:
    """Give what a call works on a name: it comes before the sizes."""
    name = ast.Name(_operand(place), ast.Store())
    if _is_of_torch(node):
        node.args[0] = ast.NamedExpr(name, node.args[0])
    else:
        node.func.value = ast.NamedExpr(name, node.func.value)
