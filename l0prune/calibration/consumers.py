"""Layers that read a group's units: what they read, and what each input adds to what they make.

Legend: N the input's first dimension, as a rule examples; S samples (every position of every example is one); C groups
of a convolution (1 for other layers), J inputs of one of its outputs (channels times taps), O outputs of a group.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from l0prune.groups import PruneGroup, Role
from l0prune.layers import adopt_attention, is_transposed
from l0prune.support import Convolution, copied, padding_of

_ELEMENTS = 2**23
"""Elements of samples that are copied at once: 64 MiB in float64."""
_PARAMETRIZED = re.compile(r"\.?parametrizations\.weight\.original[01]?$")


class Enough(BaseException):
    """Ends a forward pass after the last layer that matters. No Exception: a forward pass might catch it."""


def with_open_attention(model: nn.Module) -> nn.Module:
    """The model, or where it holds nn.MultiheadAttention a copy whose output projections are called as layers.

    In torch's own class the projection's weight is read past the layer, so that hooks on it are never called.
    """
    if not any(type(module) is nn.MultiheadAttention for module in model.modules()):
        return model
    twin = copied(model)
    for module in twin.modules():
        if type(module) is nn.MultiheadAttention and module.bias_k is None:
            adopt_attention(module)
    return twin


def readers(model: nn.Module, groups: Sequence[PruneGroup]) -> dict[str, tuple[str, nn.Module]]:
    """The layers that read units of `groups` and whose inputs can be seen: by weight, their path and themselves."""
    found = dict(model.named_modules())
    layers: dict[str, tuple[str, nn.Module]] = {}
    for group in groups:
        for place in group.places:
            path = _PARAMETRIZED.sub("", place.tensor)
            path = path if path != place.tensor else place.tensor.rpartition(".")[0]
            module = found.get(path)
            # Of a whole block the last weights are multiplied: they read no units.
            if place.role is not Role.CONSUMES or module is None or place.dim is None:
                continue
            if place.dim == _input_dim(module, place.tensor):
                layers[place.tensor] = path, module
    return layers


def _input_dim(module: nn.Module, tensor: str) -> int | None:
    """The dimension of a weight on which a layer's inputs stand; None where it is not known what it reads."""
    if isinstance(module, nn.MultiheadAttention):
        return 1 if tensor.rpartition(".")[2] == "in_proj_weight" else None
    if is_transposed(module):
        return 0
    known = isinstance(module, nn.Linear) or (isinstance(module, Convolution) and not module.transposed)
    return 1 if known and "weight" in tensor else None


def channel_dim(module: nn.Module, x: Tensor) -> int:
    """The dimension of an input or output on which a layer's channels stand."""
    return x.ndim - 1 - len(module.kernel_size) if isinstance(module, Convolution) else x.ndim - 1


def matrices(module: nn.Module) -> list[Tensor]:
    """A layer's weight as matrices (C, O, J): one, or those of nn.MultiheadAttention for queries, keys and values."""
    if isinstance(module, nn.MultiheadAttention):
        assert module.in_proj_weight is not None
        return [part[None] for part in module.in_proj_weight.chunk(3)]
    weight: Tensor = module.weight  # type: ignore[assignment]
    if is_transposed(module):
        return [weight.T[None]]
    groups = module.groups if isinstance(module, Convolution) else 1
    return [weight.reshape(groups, len(weight) // groups, -1)]


def samples(module: nn.Module, x: Tensor) -> Iterator[Tensor]:
    """What a layer's outputs read of an input, block by block: (C, S, J) in float64."""
    if not isinstance(module, Convolution):
        rows = x.reshape(-1, x.shape[-1])
        for part in _blocks(len(rows), rows.numel()):
            yield rows[part].double()[None]
        return
    rank = len(module.kernel_size)
    x = x if x.ndim == rank + 2 else x[None]
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    x = F.pad(x, padding_of(module), mode=mode)
    for axis, (taps, step, gap) in enumerate(zip(module.kernel_size, module.stride, module.dilation, strict=True)):
        x = x.unfold(2 + axis, gap * (taps - 1) + 1, step)[..., ::gap]
    # (N, channels, positions.., taps..) -> (N, C, positions.., channels of a group, taps..)
    x = x.unflatten(1, (module.groups, -1)).movedim(2, 2 + rank)
    for part in _blocks(len(x), x.numel()):
        yield x[part].double().transpose(0, 1).reshape(module.groups, -1, module.weight[0].numel())


def _blocks(rows: int, elements: int) -> Iterator[slice]:
    step = max(1, rows * _ELEMENTS // max(elements, 1))
    return (slice(first, first + step) for first in range(0, rows, step))


def outputs(module: nn.Module, y: Tensor) -> Tensor:
    """A layer's output as (C, S, O), its samples in the order of `samples`."""
    if not isinstance(module, Convolution):
        return y.reshape(1, -1, y.shape[-1])
    y = y if y.ndim == len(module.kernel_size) + 2 else y[None]
    y = y.unflatten(1, (module.groups, -1)).transpose(0, 1).movedim(2, -1)
    return y.reshape(module.groups, -1, y.shape[-1])


@contextmanager
def watching(
    modules: Mapping[str, nn.Module],
    before: Callable[[str, list[Tensor]], list[Tensor]] | None = None,
    after: Callable[[str, list[Tensor], Tensor], None] | None = None,
) -> Iterator[None]:
    """Meanwhile see what layers read, and what they make of it, at each of their calls.

    Args:
        modules: By name.
        before: Gets a layer's name and inputs (one; three for nn.MultiheadAttention), and returns what takes their
            place.
        after: Gets its name, inputs and output.
    """

    def split(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
        values = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        return values[: 3 if isinstance(module, nn.MultiheadAttention) else 1]

    handles = []
    for name, module in modules.items():
        if before is not None:

            def pre(module: nn.Module, args: Any, kwargs: Any, *, name: str = name, call: Any = before) -> Any:
                inputs = split(module, args, kwargs)
                new = {id(x): y for x, y in zip(inputs, call(name, inputs), strict=True)}
                replaced = {key: new.get(id(value), value) for key, value in kwargs.items()}
                return tuple(new.get(id(value), value) for value in args), replaced

            handles.append(module.register_forward_pre_hook(pre, with_kwargs=True))
        if after is not None:

            def post(
                module: nn.Module, args: Any, kwargs: Any, made: Any, *, name: str = name, call: Any = after
            ) -> None:
                made = made[0] if isinstance(made, tuple) else made
                call(name, split(module, args, kwargs), made)

            handles.append(module.register_forward_hook(post, with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
