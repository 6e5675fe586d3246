"""Which call in the source of a method a frame is at."""

import inspect
import itertools
from types import FrameType
from typing import Any

from l0prune.support.sized_classes import Place


def sized_call_of(module: Any, frame: FrameType) -> tuple[str, Place] | None:
    """The call that a frame is at, in a method of a module or in a function of its file that the method calls.

    Args:
        module: The module.
        frame: Of the method, the function, or a comprehension in one of these.

    Returns:
        The name of the method, with that of the function after a slash where there is one, and where the call ends;
        None for any other frame, and where Python does not say.
    """
    _, end_line, _, end_column = next(itertools.islice(frame.f_code.co_positions(), frame.f_lasti // 2, None))
    called = _outside_comprehension(frame)
    name = _method_of(module, called)
    if name is None and called.f_back is not None:
        caller, function = _outside_comprehension(called.f_back), called.f_code.co_name
        method = _method_of(module, caller)
        is_global = getattr(caller.f_globals.get(function), "__code__", None) is called.f_code
        name = f"{method}/{function}" if method is not None and is_global else None
    if name is None or end_line is None or end_column is None:
        return None
    return name, (end_line - called.f_code.co_firstlineno, end_column)


def _outside_comprehension(frame: FrameType) -> FrameType:
    while frame.f_code.co_name in ("<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>") and frame.f_back is not None:
        frame = frame.f_back
    return frame


def _method_of(module: Any, frame: FrameType) -> str | None:
    """The name of the method of a module that a frame runs, for it."""
    code = frame.f_code
    if not code.co_argcount or frame.f_locals.get(code.co_varnames[0]) is not module:
        return None
    method = getattr(type(module), code.co_name, None)
    return code.co_name if getattr(inspect.unwrap(method) if method else None, "__code__", None) is code else None
