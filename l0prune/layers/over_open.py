"""Functions that take statistics over channels, which take them over the open ones meanwhile.

Legend: C channels, n open channels.
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from l0prune.layers.open_norms import OpenChannels, open_group_norm, open_norm


class OverOpen(TorchFunctionMode):
    """Lets normalisations and reductions over all channels take their statistics over the open ones.

    Args:
        opened: (C,), as `open_norm` takes it.
        channel_dim: The dimension on which the channels stand where they are reduced.
    """

    def __init__(self, opened: Tensor | OpenChannels, channel_dim: int) -> None:
        super().__init__()
        self.opened, self.channel_dim = opened, channel_dim
        self._mask = opened.opened if isinstance(opened, OpenChannels) else opened
        self.width = len(self._mask)

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        """Call a function, or what stands for it."""
        kwargs = kwargs or {}
        stand_in = None if kwargs.get("out") is not None else _STAND_INS.get(func)
        named = {_NAMES.get(name, name): value for name, value in kwargs.items() if name != "out"}
        found = None if stand_in is None else stand_in(self, *args, **named)
        return func(*args, **kwargs) if found is None else found

    # Each gives None where it is over something else than the channels.

    def layer_norm(
        self,
        input: Tensor,
        normalized_shape: Any,
        weight: Any = None,
        bias: Any = None,
        eps: float = 1e-5,
        *_: Any,
        **__: Any,
    ) -> Tensor | None:
        """As torch's."""
        if tuple(normalized_shape) != (self.width,):
            return None
        return as_torch_gives_it(open_norm(input, self.opened, weight, bias, eps=eps), input, True)

    def rms_norm(
        self, input: Tensor, normalized_shape: Any, weight: Any = None, eps: float | None = None
    ) -> Tensor | None:
        """As torch's."""
        if tuple(normalized_shape) != (self.width,):
            return None
        eps = default_epsilon(input) if eps is None else eps
        return as_torch_gives_it(open_norm(input, self.opened, weight, eps=eps, centred=False), input, False)

    def group_norm(
        self,
        input: Tensor,
        num_groups: int,
        weight: Any = None,
        bias: Any = None,
        eps: float = 1e-5,
        *_: Any,
        **__: Any,
    ) -> Tensor | None:
        """As torch's."""
        if input.shape[1] != self.width:
            return None
        y = open_group_norm(input, self.opened, num_groups, weight, bias, eps)
        return as_torch_gives_it(y, input, True)

    def sum(self, input: Tensor, dim: Any = None, keepdim: bool = False, **kwargs: Any) -> Tensor | None:
        """As torch's."""
        mask = self._over(input, dim)
        return None if mask is None else (input * mask).sum(dim, keepdim, **kwargs)

    def mean(self, input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor | None:
        """As torch's."""
        mask, dtype = self._over(input, dim), dtype or input.dtype
        if mask is None or not dtype.is_floating_point:
            return None
        # Half precision holds neither the sum nor the count.
        total = (input * mask).sum(dim, keepdim, dtype=torch.promote_types(dtype, torch.float32))
        return (total / self._count(input, dim).clamp_min(1)).to(dtype)

    def var(
        self, input: Tensor, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *, correction: Any = None
    ) -> Tensor | None:
        """As torch's."""
        if isinstance(dim, bool):
            # The form `x.var(unbiased)`.
            dim, unbiased = None, dim
        mask = self._over(input, dim)
        if mask is None:
            return None
        correction = (1 if unbiased is None else int(unbiased)) if correction is None else correction
        count, wide = self._count(input, dim), torch.promote_types(input.dtype, torch.float32)
        x, mask = input.to(wide), mask.to(wide)
        centred = (x - (x * mask).sum(dim, True) / count.clamp_min(1)) * mask
        return ((centred * centred).sum(dim, keepdim) / (count - correction).clamp_min(0)).to(input.dtype)

    def std(self, *args: Any, **kwargs: Any) -> Tensor | None:
        """As torch's."""
        variance = self.var(*args, **kwargs)
        return None if variance is None else variance.sqrt()

    def norm(
        self, input: Tensor, p: Any = None, dim: Any = None, keepdim: bool = False, **kwargs: Any
    ) -> Tensor | None:
        """As torch's."""
        p = 2 if p in (None, "fro") else p
        mask = self._over(input, dim)
        if mask is None or not isinstance(p, int | float) or p <= 0:
            return None
        return torch.linalg.vector_norm(input * mask, p, dim, keepdim, **kwargs)

    def linalg_norm(self, input: Tensor, p: Any = None, dim: Any = None, *args: Any, **kwargs: Any) -> Tensor | None:
        """As `torch.linalg.norm`: of two dimensions that of a matrix, where an order is given."""
        return self.norm(input, p, dim, *args, **kwargs) if p is None or isinstance(dim, int) else None

    def normalize(self, input: Tensor, p: float = 2.0, dim: Any = 1, eps: float = 1e-12, out: Any = None) -> Any:
        """As torch's."""
        length = self.norm(input, p, dim, True)
        return None if length is None or out is not None else input / length.clamp_min(eps)

    def amax(self, input: Tensor, dim: Any = (), keepdim: bool = False) -> Tensor | None:
        """As torch's."""
        filled = self._filled(input, dim, lowest=True)
        return None if filled is None else filled.amax(() if dim is None else dim, keepdim)

    def amin(self, input: Tensor, dim: Any = (), keepdim: bool = False) -> Tensor | None:
        """As torch's."""
        filled = self._filled(input, dim, lowest=False)
        return None if filled is None else filled.amin(() if dim is None else dim, keepdim)

    def softmax(self, input: Tensor, dim: Any = None, *others: Any, dtype: Any = None, **_: Any) -> Tensor | None:
        """As torch's; the functional form has another argument before the dtype."""
        if dim is None or (filled := self._filled(input, dim, lowest=True)) is None:
            return None
        return filled.softmax(dim, next((other for other in others if isinstance(other, torch.dtype)), dtype))

    def topk(
        self, input: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True
    ) -> tuple[Tensor, Tensor] | None:
        """As torch's: closed channels come last."""
        filled = self._filled(input, dim, lowest=largest)
        if filled is None:
            return None
        numbers = filled.topk(k, dim, largest, sorted)[1]
        return torch.return_types.topk((input.gather(dim, numbers), numbers))  # type: ignore[attr-defined]

    def _over(self, x: Tensor, dim: Any) -> Tensor | None:
        """1 at the open channels of `x` and 0 at the closed ones, if they are among what is reduced."""
        if not -x.ndim <= self.channel_dim < x.ndim:
            return None
        channels = self.channel_dim % x.ndim
        if x.shape[channels] != self.width or channels not in _reduced(x, dim):
            return None
        return self._mask.to(x).view([-1 if d == channels else 1 for d in range(x.ndim)])

    def _count(self, x: Tensor, dim: Any) -> Tensor:
        """How many numbers of open channels are reduced into one."""
        others = prod(x.shape[d] for d in _reduced(x, dim) - {self.channel_dim % x.ndim})
        return self._mask.sum().to(x.device, torch.promote_types(x.dtype, torch.float32)) * others

    def _filled(self, x: Tensor, dim: Any, *, lowest: bool) -> Tensor | None:
        """Closed channels hold what no maximum, or no minimum, is."""
        mask = self._over(x, dim)
        if mask is None:
            return None
        limits = torch.finfo(x.dtype)
        return x.masked_fill(mask == 0, limits.min if lowest else limits.max)


def _reduced(x: Tensor, dim: Any) -> set[int]:
    """The dimensions that a reduction is over: all of them where it names none."""
    dims = [dim] if isinstance(dim, int) else dim if isinstance(dim, Sequence) and len(dim) else range(x.ndim)
    return {d % x.ndim for d in dims}


_NAMES = {"axis": "dim", "keepdims": "keepdim", "ord": "p"}
"""Other names of arguments: numpy's, and those of `torch.linalg`."""
_STAND_INS: dict[Any, Callable[..., Any]] = {
    nn.functional.layer_norm: OverOpen.layer_norm,
    torch.layer_norm: OverOpen.layer_norm,
    nn.functional.group_norm: OverOpen.group_norm,
    torch.group_norm: OverOpen.group_norm,
    nn.functional.rms_norm: OverOpen.rms_norm,
    torch.rms_norm: OverOpen.rms_norm,
    nn.functional.normalize: OverOpen.normalize,
    nn.functional.softmax: OverOpen.softmax,
    torch.linalg.norm: OverOpen.linalg_norm,
    torch.linalg.vector_norm: OverOpen.norm,
}
for _name in "sum mean var std norm amax amin softmax topk".split():
    for _place in (torch, Tensor):
        _STAND_INS[getattr(_place, _name)] = getattr(OverOpen, _name)


def as_torch_gives_it(y: Tensor, x: Tensor, widens: bool) -> Tensor:
    """The dtype of torch's own: autocast widens some norms' outputs on a GPU; on a CPU it leaves them as x was."""
    widened = widens and x.is_cuda and torch.is_autocast_enabled("cuda")
    return y if widened or y.dtype == x.dtype else y.to(x.dtype)


def default_epsilon(x: Tensor) -> float:
    """torch's, that of the dtype it computes in."""
    return torch.finfo(torch.promote_types(x.dtype, torch.float32)).eps
