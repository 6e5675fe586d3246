"""Layers that are understood as a whole: recurrent ones, and RMS norms of any class."""

from math import prod
from typing import Any

import numpy as np
from torch import nn
from torch.nn.utils.rnn import PackedSequence

from l0prune.discovery.rules.products import consume, extent
from l0prune.discovery.rules.reductions import normalize
from l0prune.discovery.rules.registry import ModuleRule, module_rule, module_rule_of, tensors
from l0prune.discovery.traced import Block
from l0prune.discovery.tracer import Tracer
from l0prune.layers import is_rms_norm
from l0prune.support import output_tensors


def rule_of(module: nn.Module) -> ModuleRule | None:
    """The rule of a module whose forward is not followed operator by operator."""
    return module_rule_of(module) or (_rms_norm if is_rms_norm(module) else None)


def _rms_norm(tracer: Tracer, module: nn.Module, args: tuple, kwargs: dict, out: Any) -> None:
    x = next(iter(tensors([*args, *kwargs.values()])))
    tracer.settle(x)
    normalize(tracer, x, module.weight, None)  # type: ignore[arg-type]
    tracer.set(out, tracer.facts(x).blocks)


@module_rule(nn.RNNBase)
def _recurrent(tracer: Tracer, module: nn.RNNBase, args: tuple, kwargs: dict, out: Any) -> None:
    """Unit h of every layer and direction goes together: the module has one hidden size."""
    operands = [*args, *kwargs.values()]
    x = operands[0].data if isinstance(operands[0], PackedSequence) else operands[0]
    results = out[0].data if isinstance(out[0], PackedSequence) else out[0]
    directions, hidden = 1 + module.bidirectional, module.hidden_size
    weights = dict(module.named_parameters())
    projected = bool(module.proj_size)
    units = tracer.along(weights["weight_hr_l0" if projected else "weight_hh_l0"], 1)
    # What is fed back and handed on: the hidden state, or a projection of it.
    state = tracer.along(weights["weight_hr_l0"], 0) if projected else units
    if units is None or state is None:
        for tensor in (x, *module.parameters()):
            tracer.pin_all(tensor, "belongs to a recurrent network of one unit")
        return
    if projected:
        tracer.pin(units, "has to stay longer than what it is projected to")
    features = tracer.along(x, -1)
    steps = x.shape[0] if isinstance(operands[0], PackedSequence) else prod(x.shape[:-1])
    for name, weight in weights.items():
        rows = tracer.along(weight, 0)
        if name.startswith("weight_hr"):
            tracer.unify(rows, state)
            tracer.unify(tracer.along(weight, 1), units)
            tracer.consume(tracer.along(weight, 1))
        elif rows is not None:
            tracer.unify(rows.reshape(-1, hidden), np.broadcast_to(units, (len(rows) // hidden, hidden)))
        if name.startswith("weight_hh"):
            columns = tracer.along(weight, 1)
            tracer.unify(state, columns)
            tracer.consume(columns)
        elif name.startswith("weight_ih"):
            columns = tracer.along(weight, 1)
            reads = features if name.startswith("weight_ih_l0") else np.tile(state, directions)
            consume(tracer, reads, columns, weight, x)
        if name.startswith("weight"):
            tracer.cost(steps, extent(tracer, weight, 0), extent(tracer, weight, 1))
    made = np.tile(state, directions)
    tracer.set(results, [Block((results.ndim - 1,), made)])
    last = output_tensors(out[1])
    for n, kept in enumerate(last):
        # The second one is the cell's.
        tracer.set(kept, [Block((kept.ndim - 1,), units if n else state)])
    for n, given in enumerate(tensors(operands[1:])):
        tracer.unify(tracer.along(given, -1), units if n else state, "is the size of a given state")


@module_rule(nn.RNNCellBase)
def _recurrent_cell(tracer: Tracer, module: nn.Module, args: tuple, kwargs: dict, out: Any) -> None:
    """One step of a recurrent layer; a state that is not given is zero, in the module's hidden size."""
    x, *states = tensors([*args, *kwargs.values()])
    weights = dict(module.named_parameters())
    units = tracer.along(weights["weight_hh"], 1)
    if units is None:
        return
    for weight in weights.values():
        rows = tracer.along(weight, 0)
        if rows is not None:
            tracer.unify(rows.reshape(-1, len(units)), np.broadcast_to(units, (len(rows) // len(units), len(units))))
    tracer.consume(units)
    consume(tracer, tracer.along(x, -1), tracer.along(weights["weight_ih"], 1), weights["weight_ih"], x)
    for name in ("weight_ih", "weight_hh"):
        tracer.cost(prod(x.shape[:-1]), extent(tracer, weights[name], 0), extent(tracer, weights[name], 1))
    for state in states:
        tracer.unify(tracer.along(state, -1), units, "is the size of a given state")
    for result in tensors([out]):
        tracer.set(result, [Block((result.ndim - 1,), units)])
