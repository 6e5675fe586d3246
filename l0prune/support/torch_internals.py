"""Switches and states inside torch, most of them without a public name."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.autograd import forward_ad


@contextmanager
def plain_attention() -> Iterator[None]:
    """Without the fused inference kernels of nn.MultiheadAttention and nn.TransformerEncoder."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def in_backward() -> bool:
    """Whether autograd is running: what is computed now is computed again, for a checkpoint."""
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1


def in_checkpoint() -> bool:
    """Whether what a forward pass saves is held by another: a checkpoint, which keeps nothing and computes it again."""
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(False)  # pyright: ignore[reportAttributeAccessIssue]
    return hooks is not None


def operators_are_plain() -> bool:
    """Whether nothing watches or transforms operators: compiling, tracing, function transforms, forward derivatives."""
    return (
        not torch.compiler.is_compiling()
        and torch._C._functorch.peek_interpreter_stack() is None  # pyright: ignore[reportAttributeAccessIssue]
        and torch._C._len_torch_dispatch_stack() == 0
        and torch._C._get_tracing_state() is None
        and forward_ad._current_level < 0
    )


def operator_name(operator: Any) -> str | None:
    """The qualified name, "library::name", of an operator, an overload of it, a custom one, or of such a name."""
    if isinstance(operator, torch.library.CustomOpDef):
        operator = operator._qualname
    elif isinstance(operator, torch._ops.OpOverloadPacket):
        operator = operator._qualified_op_name
    elif isinstance(operator, torch._ops.OpOverload):
        operator = operator.name()
    found = re.fullmatch(r"(\w+::\w+)(\.\w+)?", operator) if isinstance(operator, str) else None
    return found[1] if found else None


def random_state() -> dict[str, Any]:
    """The state of torch's random generators."""
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []}


def restore_random_state(state: dict[str, Any]) -> None:
    """Put back what `random_state` returned."""
    torch.set_rng_state(state["cpu"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
