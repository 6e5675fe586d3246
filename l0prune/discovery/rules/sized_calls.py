"""Calls that take sizes, `x.reshape(B, N, C)` say, and slices: where they stand in the source, and what they count."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from l0prune.discovery.rules.registry import tensors
from l0prune.discovery.rules.shapes import factors_of
from l0prune.discovery.traced import SizedDim, TracedCall
from l0prune.discovery.tracer import Tracer
from l0prune.support import sized_call_of

_TORCH, _OWN = (f"{Path(str(module.__file__)).parent}{os.sep}" for module in (torch, sys.modules["l0prune"]))
_RESHAPES = {"view", "_unsafe_view", "reshape", "_reshape_alias"}
SIZED = {*_RESHAPES, "expand", "split", "split_with_sizes", "slice"}
"""Operators that sizes are given to."""


def note_sizes(tracer: Tracer, name: str, args: Sequence[Any], out: Any) -> None:
    """Tell the tracer of a call with sizes, where it stands in a method of the module that runs."""
    module = tracer.modules.get(tracer.here)
    x = args[0]
    if module is None or not any(block.atoms.any() for block in tracer.carried_by(x)):
        return
    bounds = _sliced(tracer, x, args) if name == "slice" else []
    if bounds is None:
        return
    frame = _caller(sys._getframe())
    if frame is None or (found := sized_call_of(module, frame)) is None:
        return
    method, place = found
    if name in _RESHAPES:
        dims = _reshaped(tracer, x, out)
    elif name == "expand":
        dims = _expanded(tracer, x, out)
    elif name == "slice":
        dims = bounds
    else:
        dims = _split(tracer, x, out, args[1], (args[2] if len(args) > 2 else 0) % x.ndim)
    is_split = name == "split_with_sizes" or (name == "split" and not isinstance(args[1], int))
    call = TracedCall(tracer.here, type(module), method, place, tuple(dims), is_split, is_slice=name == "slice")
    tracer.trace.calls.append(call)


def _caller(frame: FrameType | None) -> FrameType | None:
    """The nearest frame of a code that is neither torch's nor our own."""
    while frame is not None and frame.f_code.co_filename.startswith((_TORCH, _OWN)):
        frame = frame.f_back
    return frame


def _sources(tracer: Tracer, x: Tensor) -> list[Any]:
    """The atoms of each dimension, None where it has none."""
    found: list[Any] = [None] * x.ndim
    for block in tracer.carried_by(x):
        for dim in block.dims:
            found[dim] = block.atoms.ravel()
    return found


def _results(tracer: Tracer, x: Tensor) -> list[Any]:
    """The same, for each place of other dimensions that it depends on together with them: (length, n)."""
    found: list[Any] = [None] * x.ndim
    for block in tracer.carried_by(x):
        for axis, dim in enumerate(block.dims):
            found[dim] = np.moveaxis(block.atoms, axis, 0).reshape(x.shape[dim], -1)
    return found


def _reshaped(tracer: Tracer, x: Tensor, out: Tensor) -> list[SizedDim]:
    factors = factors_of(tuple(x.shape), tuple(out.shape))
    sources, results = _sources(tracer, x), _results(tracer, out)
    if factors is None:
        return [SizedDim(length, None, ()) for length in out.shape]
    _, inner, outer = factors
    owner = {k: d for d, ks in enumerate(inner) for k in ks}

    def whole(ks: Sequence[int]) -> tuple[int, ...]:
        """The operand's dimensions that factors are the whole of, if they are."""
        dims = tuple(dict.fromkeys(owner[k] for k in ks))
        return dims if {k for dim in dims for k in inner[dim]} == set(ks) else ()

    return [
        SizedDim(length, results[d], tuple(sources[owner[k]] for k in outer[d]), whole(outer[d]))
        for d, length in enumerate(out.shape)
    ]


def _expanded(tracer: Tracer, x: Tensor, out: Tensor) -> list[SizedDim]:
    sources, results = _sources(tracer, out), _results(tracer, out)
    return [SizedDim(length, results[d], (sources[d],)) for d, length in enumerate(out.shape)]


def _split(tracer: Tracer, x: Tensor, out: Any, sizes: Any, dim: int) -> list[SizedDim]:
    parts = tensors(out)[:1] if isinstance(sizes, int) else tensors(out)
    found = [(_sources(tracer, part)[dim], _results(tracer, part)[dim]) for part in parts]
    return [SizedDim(part.shape[dim], atoms, (source,)) for part, (source, atoms) in zip(parts, found, strict=True)]


def _sliced(tracer: Tracer, x: Tensor, args: Sequence[Any]) -> list[SizedDim] | None:
    """Where a part of a dimension with units begins, and where it ends; None where nothing counts units."""
    dim, step = args[1] if len(args) > 1 else 0, args[4] if len(args) > 4 else 1
    atoms, source, length = _results(tracer, x)[dim], _sources(tracer, x)[dim], x.shape[dim]
    places = [args[place] if len(args) > place else None for place in (2, 3)]
    bounds = [at if type(at) is int and 0 < at < length else None for at in places]
    if atoms is None or step != 1 or bounds == [None, None]:
        return None
    return [SizedDim(0, None, ()) if at is None else SizedDim(at, atoms[:at], (source,)) for at in bounds]
