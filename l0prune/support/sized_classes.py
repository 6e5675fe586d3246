"""Classes whose methods are other texts than those of their base, and which are pickled together with these texts.

`rewriting` makes the texts. This file goes along where an instance is pickled, so that it needs nothing but Python.
"""

import __future__

import copyreg
import functools
import hashlib
import inspect
import linecache
import sys
import textwrap
from collections.abc import Callable, Mapping
from types import CellType, FunctionType
from typing import Any

Place = tuple[int, int]
"""Where a call ends in a function's source: lines after the function's first, and bytes from the left."""
Ways = tuple[str, ...]
"""Where each size of a call comes from: "own", the method's own expression; "kept", the module; "rest", -1; "2*3",
dimensions of what is reshaped, multiplied, where -1 stands already; "left", what other parts of a split leave."""
Sizes = Mapping[str, Mapping[Place, Ways]]
"""By the name of a method, the calls in it that take sizes; "method/function" is a function that it calls."""

HELPER = "_with_sizes_"
"""What the name of a function begins with that has become a method."""
KEPT = "_l0prune_sizes"
"""The attribute of such a class: the class it stands for, the texts of its methods, and the sizes that it keeps."""
_helper: list[str] = []


def class_of(kind: type, texts: Mapping[str, str], sizes: Sizes) -> type:
    """A class that derives from `kind`, with methods by the text of the functions that make them.

    It is one and the same for all instances of a process, copies and those from files included.
    """
    kept = (kind, dict(texts), sizes)
    for known in list(copyreg.dispatch_table):
        if getattr(known, "__dict__", {}).get(KEPT) == kept:
            return known
    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__, KEPT: kept}
    made = type(kind.__name__, (kind,), {**methods_of(kind, texts), **names})
    copyreg.pickle(made, _reduced)  # type: ignore[arg-type]
    return made


def kept_sizes(kind: type) -> Sizes:
    """The calls whose sizes instances of a class keep: none, unless `class_with_sizes` made it."""
    return getattr(kind, KEPT, (kind, {}, {}))[2]


def class_without_sizes(kind: type) -> type:
    """The class that `class_with_sizes` was given; any other class itself."""
    return getattr(kind, KEPT, (kind,))[0]


def methods_of(kind: type, texts: Mapping[str, str]) -> dict[str, Any]:
    """The methods that such texts make."""
    methods: dict[str, Any] = {}
    for name, text in texts.items():
        plain = source_of(kind, name)
        method, _, function = name.partition("/")
        written = _compiled(plain, text)
        methods[HELPER + function if function else method] = (
            written if function else _decorated(getattr(kind, method), plain, written)
        )
    return methods


def source_of(kind: type, name: str) -> Any:
    """The function of a `sized_call_of` name: a method, without its decorators, or what it calls."""
    method, _, function = name.partition("/")
    plain = inspect.unwrap(getattr(kind, method))
    return plain.__globals__[function] if function else plain


def _decorated(method: Any, plain: Any, written: Any) -> Any:
    """A method whose decorators, which keep the function in their closures, hold another in its place."""
    if method is plain:
        return written
    cells = getattr(method, "__closure__", None) or ()
    for number, cell in enumerate(cells):
        if isinstance(cell.cell_contents, FunctionType) and inspect.unwrap(cell.cell_contents) is plain:
            closure: list[CellType] = list(cells)
            closure[number] = CellType(_decorated(cell.cell_contents, plain, written))
            made = FunctionType(
                method.__code__, method.__globals__, method.__name__, method.__defaults__, tuple(closure)
            )
            made.__kwdefaults__ = method.__kwdefaults__
            functools.update_wrapper(made, method)
            made.__wrapped__ = closure[number].cell_contents  # type: ignore[attr-defined]
            return made
    raise ValueError("a decorator that keeps its function elsewhere than in its closure")


def _reduced(instance: Any) -> tuple[Any, ...]:
    made = type(instance)
    if not _helper:
        _helper.append(globals().get("helper") or inspect.getsource(sys.modules[__name__]))
    kind, texts, sizes = getattr(made, KEPT)
    known = {"helper": _helper[0], "kind": kind, "texts": texts, "sizes": sizes, "__name__": "l0prune_rewriting"}
    state = instance.__getstate__() if hasattr(instance, "__getstate__") else vars(instance)
    return eval, ("exec(helper) or object.__new__(class_of(kind, texts, sizes))", known), state


def _compiled(original: Any, text: str) -> Callable[..., Any]:
    """The function that a text defines, with the globals, defaults and enclosing variables of another."""
    free = original.__code__.co_freevars
    name = text.partition("(")[0].removeprefix("def ")
    outer = f"def _outer({', '.join(free)}):\n{textwrap.indent(text, '    ')}\n    return {name}\n"
    place = f"<{original.__qualname__} with sizes, {hashlib.sha256(outer.encode()).hexdigest()[:8]}>"
    # Tracebacks and compilers read it.
    linecache.cache[place] = (len(outer), None, outer.splitlines(keepends=True), place)
    scope: dict[str, Any] = {}
    flags = original.__code__.co_flags & __future__.annotations.compiler_flag
    exec(compile(outer, place, "exec", flags=flags, dont_inherit=True), original.__globals__, scope)
    code = scope["_outer"](*(None for _ in free)).__code__
    # The very variables, not their values of now.
    cells = dict(zip(free, original.__closure__ or (), strict=True))
    closure = tuple(cells[variable] for variable in code.co_freevars)
    made = FunctionType(code, original.__globals__, original.__name__, original.__defaults__, closure)
    made.__kwdefaults__ = original.__kwdefaults__
    made.__qualname__, made.__module__ = original.__qualname__, original.__module__
    return made
