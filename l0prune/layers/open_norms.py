"""Normalisation over the open channels only, as functions of tensors.

Legend: B batch, R rows that are normalised each, C channels, n open channels.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from l0prune.support import operators_are_plain


class OpenChannels(NamedTuple):
    """Which channels are open, and what follows from it."""

    opened: Tensor
    """(C,) 1 for open channels, 0 for closed ones."""
    closed: Tensor
    """(C,) the opposite."""
    share: Tensor
    """(C,) 1 / n for open channels, 0 for closed ones."""
    known: int | None
    """n, where it is known without waiting for a GPU."""

    @classmethod
    def several(cls, opened: Tensor) -> "Sequence[OpenChannels]":
        """Of each of several norms. opened: (norms, C)."""
        counts = opened.sum(1, keepdim=True)
        at_hand = opened.device.type == "cpu" and operators_are_plain()
        numbers = counts.flatten().tolist() if at_hand else [None] * len(opened)
        rows = zip(opened.unbind(0), (1 - opened).unbind(0), (opened / counts.clamp_min(1)).unbind(0), strict=True)
        known = [None if n is None else int(n) for n in numbers]
        return [cls(*row, n) for row, n in zip(rows, known, strict=True)]

    def fitting(self, x: Tensor) -> "OpenChannels":
        """In the dtype of `x`, on its device."""
        if self.opened.dtype == x.dtype and self.opened.device == x.device:
            return self
        return OpenChannels(self.opened.to(x), self.closed.to(x), self.share.to(x), self.known)


class _OpenNorm(torch.autograd.Function):
    """weight * (x - mean) / sqrt(variance + eps) + bias, with mean and variance over the open channels of `dim`.

    Saves its input and two numbers a row, as the dense kernels do, so that gating adds no activation-sized memory.
    """

    @staticmethod
    def forward(ctx, x, share, weight, bias, dim, eps, centred):  # type: ignore[override]
        """share, weight and bias broadcast to x; share is 1/n at open channels and 0 at closed ones."""
        mean = (x * share).sum(dim, keepdim=True) if centred else x.new_zeros(())
        y = x - mean
        scale = ((y * y) * share).sum(dim, keepdim=True).add_(eps).rsqrt_()
        ctx.save_for_backward(x, mean, scale, share, weight)
        ctx.dim, ctx.eps, ctx.centred, ctx.has_bias = dim, eps, centred, bias is not None
        y.mul_(scale)
        if weight is not None:
            y.mul_(weight)
        return y if bias is None else y.add_(bias)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[override]
        x, mean, scale, share, weight = ctx.saved_tensors
        if torch.is_grad_enabled():
            # The gradient depends on no value of the bias.
            bias = torch.zeros_like(share).requires_grad_() if ctx.has_bias else None
            of_x, of_weight, of_bias = _gradients_to_differentiate(
                lambda x, weight, bias: _plain_norm(x, share, weight, bias, ctx.dim, ctx.eps, ctx.centred),
                (x, weight, bias),
                grad,
            )
            return of_x, None, of_weight, of_bias, None, None, None
        normalized = (x - mean).mul_(scale)
        others = [d for d in range(x.ndim) if share.shape[d] == 1]
        grad_bias = grad.sum(others, keepdim=True) if ctx.has_bias else None
        grad_weight = None
        if weight is not None:
            grad_weight = (grad * normalized).sum(others, keepdim=True)
            grad = grad * weight
        correction = normalized.mul_((grad * normalized).sum(ctx.dim, keepdim=True))
        if ctx.centred:
            correction += grad.sum(ctx.dim, keepdim=True)
        grad_x = correction.mul_(share).neg_().add_(grad).mul_(scale)
        return grad_x, None, grad_weight, grad_bias, None, None, None


def _gradients_to_differentiate(
    norm: Callable[..., Tensor], inputs: Sequence[Tensor | None], grad: Tensor
) -> list[Tensor | None]:
    """What `backward` returns for a caller who differentiates it: the saved numbers know nothing of the input."""
    places = [n for n, each in enumerate(inputs) if each is not None and each.requires_grad]
    wanted = [each for each in inputs if each is not None and each.requires_grad]
    found = torch.autograd.grad(norm(*inputs), wanted, grad, create_graph=True)
    gradients = dict(zip(places, found, strict=True))
    return [gradients.get(n) for n in range(len(inputs))]


def open_norm(
    x: Tensor,
    opened: Tensor | OpenChannels,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    dim: int = -1,
    eps: float = 1e-5,
    centred: bool = True,
) -> Tensor:
    """Normalise over the open channels of one dimension, then scale and shift.

    Args:
        x: Any shape with C along `dim`.
        opened: (C,) 1 for open channels, 0 for closed ones.
        weight: (C,) or None.
        bias: (C,) or None.
        dim: The channel dimension.
        eps: Added to the variance.
        centred: Subtract the mean (LayerNorm) or not (RMSNorm).

    Returns:
        The shape of `x`, float32 at least; closed channels hold finite values that nothing reads.
    """
    x = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
    channels = (opened if isinstance(opened, OpenChannels) else OpenChannels.several(opened[None])[0]).fitting(x)
    if centred and channels.known and dim in (-1, x.ndim - 1) and operators_are_plain():
        weight, bias = (p if p is None or p.dtype == x.dtype else p.to(x.dtype) for p in (weight, bias))
        if channels.known == len(channels.opened):
            return F.layer_norm(x, (channels.known,), weight, bias, eps)
        # Shaped outside: what a function of one's own gives as a view may not be changed in place.
        return _FilledNorm.apply(x, channels, weight, bias, eps).view(x.shape)  # type: ignore[union-attr]
    view = [1] * x.ndim
    view[dim] = -1
    weight, bias = (None if p is None else p.to(x.dtype).view(view) for p in (weight, bias))
    return _normalized(x, channels.share.view(view), weight, bias, dim, eps, centred)


def open_group_norm(
    x: Tensor,
    opened: Tensor | OpenChannels,
    groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """`open_norm` of each group of channels and all their positions.

    Args:
        x: (B, C, ...).
        opened: (C,) 1 for open channels, 0 for closed ones.
        groups: How many groups the channels make.
        weight: (C,) or None.
        bias: (C,) or None.
        eps: Added to the variance.

    Returns:
        The shape of `x`, float32 at least.
    """
    x = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
    channels = (opened if isinstance(opened, OpenChannels) else OpenChannels.several(opened[None])[0]).fitting(x)
    if channels.known == x.shape[1] and operators_are_plain():
        weight, bias = (None if p is None else p.to(x.dtype) for p in (weight, bias))
        return F.group_norm(x, groups, weight, bias, eps)
    # Each position of a channel counts alike.
    split = x.reshape(x.shape[0], groups, x.shape[1] // groups, -1)
    mask = channels.opened.view(1, groups, -1, 1)
    share = mask / (mask.sum(2, keepdim=True).clamp_min(1) * split.shape[3])
    weight, bias = (None if p is None else p.to(x.dtype).view(mask.shape) for p in (weight, bias))
    return _normalized(split, share, weight, bias, (2, 3), eps, True).view(x.shape)


def _normalized(
    x: Tensor,
    share: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    dim: int | tuple[int, int],
    eps: float,
    centred: bool,
) -> Tensor:
    if torch.compiler.is_compiling():
        # The compiler fuses by itself, and in torch 2.11 derives the in-place operations wrongly.
        return _plain_norm(x, share, weight, bias, dim, eps, centred)
    return _OpenNorm.apply(x, share, weight, bias, dim, eps, centred)  # type: ignore[return-value]


def _plain_norm(
    x: Tensor,
    share: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    dim: int | tuple[int, int],
    eps: float,
    centred: bool,
) -> Tensor:
    y = x - (x * share).sum(dim, keepdim=True) if centred else x
    y = y * ((y * y) * share).sum(dim, keepdim=True).add(eps).rsqrt()
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


class _FilledNorm(torch.autograd.Function):
    """The dense kernel, which takes a fraction of the calls: closed channels first get the mean of the open ones.

    They then add nothing to the variance, which is n / C of that over the open channels. Of the result, that of closed
    channels is their bias. Saves its input and two numbers a row, as the dense kernel does.
    """

    @staticmethod
    def forward(ctx, x, channels, weight, bias, eps):  # type: ignore[override]
        """x: (..., C); channels: in its dtype; gives (R, C)."""
        ctx.channels, ctx.eps = channels, eps
        rows, ratio = x.reshape(-1, len(channels.opened)), channels.known / len(channels.opened)
        scale = torch.full_like(channels.opened, ratio**0.5) if weight is None else weight * ratio**0.5
        filled = _filled(rows, rows.mv(channels.share), channels)
        y, mean, spread = torch.native_layer_norm(filled, channels.opened.shape, scale, bias, eps * ratio)
        ctx.save_for_backward(x, weight, scale, bias, mean, spread)
        return y

    @staticmethod
    def backward(ctx, grad):  # type: ignore[override]
        (x, weight, scale, bias, mean, spread), channels = ctx.saved_tensors, ctx.channels
        if torch.is_grad_enabled():
            of_x, of_weight, of_bias = _gradients_to_differentiate(
                lambda x, weight, bias: _plain_filled_norm(x, weight, bias, channels, ctx.eps),
                (x, weight, bias),
                grad.view(x.shape),
            )
            return of_x, None, of_weight, of_bias, None
        width, wanted = len(channels.opened), [True, weight is not None, bias is not None]
        filled = _filled(x.reshape(-1, width), mean.view(-1), channels)
        of_filled, of_weight, of_bias = torch.ops.aten.native_layer_norm_backward(
            grad, filled, [width], mean, spread, scale, bias, wanted
        )
        if of_weight is not None:
            of_weight *= (channels.known / width) ** 0.5
        # What the closed channels were filled with came from the open ones.
        from_closed = of_filled.mv(channels.closed)
        of_x = of_filled.mul_(channels.opened).addr_(from_closed, channels.share)
        return of_x.view(x.shape), None, of_weight if wanted[1] else None, of_bias if wanted[2] else None, None


def _filled(rows: Tensor, mean: Tensor, channels: OpenChannels) -> Tensor:
    """Closed channels get their row's mean. rows: (R, C); mean: (R,)."""
    return (rows * channels.opened).addr_(mean, channels.closed)


def _plain_filled_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, channels: OpenChannels, eps: float
) -> Tensor:
    y = (x - (x * channels.share).sum(-1, keepdim=True)) * channels.opened
    y = y * ((y * y) * channels.share).sum(-1, keepdim=True).add(eps).rsqrt()
    y = y if weight is None else y * weight
    return y if bias is None else y + bias
