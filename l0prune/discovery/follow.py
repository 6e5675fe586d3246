"""One forward pass, followed through its operators."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from l0prune.discovery.lifetimes import Lifetimes
from l0prune.discovery.rules import apply_rule, enter_module, rule_of
from l0prune.discovery.traced import Trace
from l0prune.discovery.tracer import Tracer
from l0prune.errors import TraceError
from l0prune.support import compiled_from, copied, forget_computed, one_line, plain_attention, sharded_parts


# Under `torch.inference_mode` operators come in other parts, which rules do not know.
@torch.inference_mode(False)
def trace(
    model: nn.Module,
    observe: Callable[[nn.Module], Any],
    *,
    training: bool = True,
    time_limit: float = 60.0,
    memory: bool = False,
) -> Trace:
    """Watch a model's forward pass in evaluation mode, and in training mode too where that runs.

    Args:
        model: Any module without gates; a copy of it is run.
        observe: Runs a model on example inputs and returns its outputs.
        training: Also look at the branches of training mode.
        time_limit: Seconds after which tracing gives up.
        memory: Also note which tensors are in memory at the same time.

    Raises:
        TraceError: The model cannot be followed, or its forward pass fails or takes too long.
    """
    check_traceable(model)
    try:
        twin = copied(model)
    except Exception as error:
        raise TraceError(
            "model cannot be copied",
            got=f"{type(error).__name__}: {one_line(error)}",
            hint="nn.utils.weight_norm keeps a computed tensor: use nn.utils.parametrizations.weight_norm",
        ) from error
    _forget_computed(twin, observe)
    tracer = Tracer(twin, apply_rule, rule_of, enter_module, time_limit)
    if memory:
        tracer.lifetimes = Lifetimes([*twin.parameters(), *twin.buffers()])
    with plain_attention(), torch.random.fork_rng(), torch.no_grad():
        try:
            tracer.watch(lambda: observe(twin.eval()))
        except TraceError:
            raise
        except Exception as error:
            raise TraceError(
                "the forward pass failed on the example inputs",
                where=tracer.culprit(error) or type(model).__name__,
                got=f"{type(error).__name__}: {one_line(error)}",
                hint="pass inputs that `model(*example_inputs)` accepts, on the model's device",
            ) from error
        if tracer.lifetimes is not None:
            tracer.trace.allocations, tracer.lifetimes = tracer.lifetimes.found, None
        if training:
            costs, tracer.trace.costs = tracer.trace.costs, []
            try:
                tracer.watch(lambda: observe(twin.train()))
            except TraceError:
                raise
            except Exception as error:
                reason = f"{type(error).__name__}: {one_line(error)}"
                tracer.trace.notes.append(f"training mode was not looked at: the forward pass failed ({reason})")
            tracer.trace.costs = costs
    return tracer.trace


def _forget_computed(model: nn.Module, observe: Callable[[nn.Module], Any]) -> None:
    """Let a network compute anew what modules keep of their weights: kept tensors would be taken for constants."""
    kept = {module: forget_computed(module) for module in model.modules()}
    if not any(kept.values()):
        return
    try:
        with torch.random.fork_rng(), torch.no_grad():
            observe(model.eval())
        for module in kept:
            forget_computed(module)
    except Exception:
        # It needs what it has kept.
        for module, values in kept.items():
            vars(module).update(values)


def check_traceable(model: nn.Module) -> None:
    """Check that a model is made of Python modules and tensors that have a shape.

    Raises:
        TraceError: Names the first part that is not.
    """
    if (original := compiled_from(model)) is not None:
        hint = "pass the module that torch.compile was given, and compile it once there are gates on it"
        raise TraceError("a compiled model cannot be followed", where=type(original).__name__, hint=hint)
    if parts := sharded_parts(model):
        hint = "call fully_shard after wrap, and make the optimizer after both"
        raise TraceError("a sharded model cannot be followed", where=type(parts[0]).__name__, hint=hint)
    for path, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            hint = "pass the model as it was before torch.jit.script or torch.jit.trace"
            raise TraceError("a scripted module cannot be followed", where=path or type(module).__name__, hint=hint)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if is_lazy(tensor):
            raise TraceError("a lazy module has no shape yet", where=name, hint="run one batch through the model first")
