"""Methods written anew: sizes that they derive, `x.reshape(B, N, C)` say, become numbers that the module keeps.

The file goes along where an instance of such a class is pickled, so that it needs nothing but Python.
"""

import ast
import copyreg
import hashlib
import inspect
import linecache
import sys
import textwrap
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any

Place = tuple[int, int]
"""Where a call ends in a function's source: lines after the function's first, and bytes from the left."""
Ways = tuple[str, ...]
"""Where each size of a call comes from: "own", the method's own expression; "kept", the module; "rest", -1."""
Sizes = Mapping[str, Mapping[Place, Ways]]
"""By the name of a method, the calls in it that take sizes."""

_METHODS = {"reshape", "view", "expand", "split"}
_made: dict[Any, type] = {}
_helper: list[str] = []


def place_of_call(frame: FrameType) -> Place | None:
    """The call that a frame is at, None where Python does not say."""
    code = frame.f_code
    *_, end_line, _, end_column = list(code.co_positions())[frame.f_lasti // 2]
    return None if end_line is None or end_column is None else (end_line - code.co_firstlineno, end_column)


def method_of(kind: type, frame: FrameType) -> str | None:
    """The name of the method of a class that a frame runs, None for anything else, as a decorator's inner function."""
    name = frame.f_code.co_name
    method = next((vars(base)[name] for base in kind.__mro__ if name in vars(base)), None)
    return name if getattr(method, "__code__", None) is frame.f_code else None


def digest_of(kind: type, name: str) -> str | None:
    """Of a method's source: another version of it may have its calls elsewhere. None where there is no source."""
    try:
        return hashlib.sha256(inspect.getsource(getattr(kind, name)).encode()).hexdigest()[:16]
    except (OSError, TypeError, AttributeError):
        return None


def size_name(place: Place, dim: int) -> str:
    """The attribute that holds a size: which of a call's sizes, and where the call ends."""
    return f"size_{place[0]}_{place[1]}_{dim}"


def can_write(kind: type, name: str, place: Place, ways: Ways) -> bool:
    """Whether the call that ends at a place of a method takes sizes that can be written anew."""
    try:
        return bool(_text(getattr(kind, name), {place: ways}))
    except (OSError, TypeError, ValueError, SyntaxError):
        return False


def class_with_sizes(kind: type, sizes: Sizes) -> type:
    """A class like another, whose methods read some sizes from the instance (`size_name`).

    Raises:
        ValueError: A call is not there.
    """
    key = (kind, tuple((name, tuple(sorted(calls.items()))) for name, calls in sorted(sizes.items())))
    if key not in _made:
        texts = {name: _text(getattr(kind, name), calls) for name, calls in sizes.items()}
        _made[key] = _class_of(kind, texts)
        _made[key]._sizes = {name: dict(calls) for name, calls in sizes.items()}  # type: ignore[attr-defined]
    return _made[key]


def _class_of(kind: type, texts: Mapping[str, str]) -> type:
    """A class that derives from `kind`, with methods by the text of the functions that make them."""
    methods = {name: _compiled(getattr(kind, name), name, text) for name, text in texts.items()}
    made = type(kind.__name__, (kind,), {**methods, "__module__": kind.__module__, "__qualname__": kind.__qualname__})
    made._texts, made._dense = dict(texts), kind  # type: ignore[attr-defined]
    copyreg.pickle(made, _reduced)  # type: ignore[arg-type]
    return made


def _reduced(instance: Any) -> tuple[Any, ...]:
    made = type(instance)
    if not _helper:
        _helper.append(globals().get("helper") or inspect.getsource(sys.modules[__name__]))
    known = {"helper": _helper[0], "kind": made._dense, "texts": made._texts, "__name__": "l0prune_rewriting"}
    state = instance.__getstate__() if hasattr(instance, "__getstate__") else vars(instance)
    return eval, ("exec(helper) or object.__new__(_class_of(kind, texts))", known), state


def _parsed(function: Any) -> tuple[ast.Module, int]:
    """A function's syntax, and how far its source is indented."""
    source = inspect.getsource(function)
    plain = textwrap.dedent(source)
    return ast.parse(plain), len(source.splitlines()[0]) - len(plain.splitlines()[0])


def _text(function: Any, calls: Mapping[Place, Ways]) -> str:
    tree, indent = _parsed(function)
    (definition,) = tree.body
    if not isinstance(definition, ast.FunctionDef) or any(map(_is_private, ast.walk(tree))):
        raise ValueError("not a method whose source says all")
    moved = {(line, column - indent): (ways, (line, column)) for (line, column), ways in calls.items()}
    writer = _Writer(definition.args.args[0].arg, moved)
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

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:  # noqa: N802 - named by ast
        if isinstance(node.op, ast.FloorDiv) and ast.dump(node) in self.derived:
            return self.derived[ast.dump(node)]
        return self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> ast.AST:  # noqa: N802 - named by ast
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
    def __init__(self, this: str, calls: Mapping[Place, tuple[Ways, Place]]) -> None:
        self.this, self.calls, self.found = this, calls, set[Place]()
        self.derived: dict[str, ast.expr] = {}
        """What takes the place of a size that the method derives, by its syntax."""

    def visit_Call(self, node: ast.Call) -> ast.AST:  # noqa: N802 - named by ast
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        at = node.end_lineno - 1, node.end_col_offset
        self.generic_visit(node)
        if at in self.calls:
            ways, place = self.calls[at]
            if _with_sizes(node, self.this, place, ways, self.derived):
                self.found.add(at)
        return node


def _with_sizes(node: Any, this: str, place: Place, ways: Ways, derived: dict[str, ast.expr]) -> bool:
    """Let a call take its sizes where they are to come from; False where its form is none that is known.

    What it would have derived those from that the module keeps is added to `derived`.
    """
    function = node.func
    if not (isinstance(function, ast.Attribute) and function.attr in _METHODS):
        return False
    is_torch = isinstance(function.value, ast.Name) and function.value.id == "torch"
    first = 1 if is_torch else 0
    if len(node.args) <= first or any(isinstance(argument, ast.Starred) for argument in node.args[:first]):
        return False

    def taken(dim: int) -> ast.expr:
        if ways[dim] != "kept":
            return ast.Constant(-1 if ways[dim] == "rest" else None)
        return ast.Attribute(ast.Name(this, ast.Load()), size_name(place, dim), ast.Load())

    given = node.args[first:]
    if function.attr == "split":
        # The size of every part, or of each; then the dimension.
        given = given[:1]
        if len(ways) == 1:
            node.args[first] = taken(0)
            return True
    inner = given[0].elts if len(given) == 1 and isinstance(given[0], ast.Tuple | ast.List) else given
    plain = not any(isinstance(argument, ast.Starred) for argument in inner)
    if plain and len(inner) == len(ways):
        if "rest" in ways and any(ast.unparse(size) == "-1" for size, way in zip(inner, ways, strict=True) if way == "own"):
            return False
        for dim, way in enumerate(ways):
            if way == "kept":
                derived[ast.dump(inner[dim])] = taken(dim)
            if way != "own":
                inner[dim] = taken(dim)
        if inner is given:
            node.args[first : first + len(given)] = inner
        return True
    if plain and len(given) != 1:
        return False
    whole = given[0] if len(given) == 1 and plain else ast.Tuple(list(inner), ast.Load())
    names = ast.Tuple([taken(dim) for dim in range(len(ways))], ast.Load())
    listed = ast.parse("[given if kept is None else kept for given, kept in zip(0, 1)]", mode="eval").body
    assert isinstance(listed, ast.ListComp)
    listed.generators[0].iter.args = [whole, names]  # type: ignore[attr-defined]
    node.args[first : first + len(given)] = [listed]
    return True


def _compiled(original: Any, name: str, text: str) -> Callable[..., Any]:
    """The function that a text defines, with the globals, defaults and enclosing variables of another."""
    free = original.__code__.co_freevars
    outer = f"def _outer({', '.join(free)}):\n{textwrap.indent(text, '    ')}\n    return {name}\n"
    place = f"<{original.__qualname__} with sizes, {hashlib.sha256(outer.encode()).hexdigest()[:8]}>"
    # Tracebacks and compilers read it.
    linecache.cache[place] = (len(outer), None, outer.splitlines(keepends=True), place)
    scope: dict[str, Any] = {}
    exec(compile(outer, place, "exec", dont_inherit=True), original.__globals__, scope)
    made = scope["_outer"](*(cell.cell_contents for cell in original.__closure__ or ()))
    made.__defaults__, made.__kwdefaults__ = original.__defaults__, original.__kwdefaults__
    made.__qualname__, made.__module__ = original.__qualname__, original.__module__
    return made
