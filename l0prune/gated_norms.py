"""Normalisation over the open channels only, so that cutting the closed ones changes nothing.

Legend: B batch, C channels, n open channels.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from l0prune.errors import GroupError

_HOOKS = (
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_backward_pre_hooks",
    "_backward_hooks",
)
"""Where a module keeps its hooks."""


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
            return _differentiable_gradients(ctx, grad, x, share, weight)
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


def _differentiable_gradients(ctx: Any, grad: Tensor, x: Tensor, share: Tensor, weight: Tensor | None) -> tuple:
    """What `backward` returns, for a caller who differentiates it: the saved numbers know nothing of the input."""
    # The gradient depends on no value of the bias.
    bias = torch.zeros_like(share).requires_grad_() if ctx.has_bias else None
    places = [n for n, tensor in enumerate((x, weight, bias)) if tensor is not None and tensor.requires_grad]
    wanted = [(x, weight, bias)[n] for n in places]
    y = _plain_norm(x, share, weight, bias, ctx.dim, ctx.eps, ctx.centred)
    gradients = dict(zip(places, torch.autograd.grad(y, wanted, grad, create_graph=True), strict=True))  # type: ignore[arg-type]
    return gradients.get(0), None, gradients.get(1), gradients.get(2), None, None, None


def open_norm(
    x: Tensor,
    opened: Tensor,
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
    view = [1] * x.ndim
    view[dim] = -1
    share = (opened / opened.sum().clamp_min(1)).to(x).view(view)
    weight, bias = (None if p is None else p.to(x.dtype).view(view) for p in (weight, bias))
    if torch.compiler.is_compiling():
        # The compiler fuses by itself, and in torch 2.11 derives the in-place operations wrongly.
        return _plain_norm(x, share, weight, bias, dim, eps, centred)
    return _OpenNorm.apply(x, share, weight, bias, dim, eps, centred)  # type: ignore[return-value]


def _plain_norm(
    x: Tensor, share: Tensor, weight: Tensor | None, bias: Tensor | None, dim: int, eps: float, centred: bool
) -> Tensor:
    y = x - (x * share).sum(dim, keepdim=True) if centred else x
    y = y * ((y * y) * share).sum(dim, keepdim=True).add(eps).rsqrt()
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


class GatedNorm(nn.Module):
    """Stands in for a LayerNorm, RMSNorm or GroupNorm while gates are attached; shares its parameters.

    Other classes may stand for an RMSNorm if they compute weight * x / sqrt(mean(x^2) + eps) and keep eps as `eps` or
    `variance_epsilon`.

    Args:
        norm: The module it stands in for.
        opened: Gives (C,) 1 for open channels, 0 for closed ones.
        channel_dim: The dimension of the input on which the channels stand.

    Raises:
        GroupError: `norm` is of another kind, or normalises over more than the channels.
    """

    def __init__(self, norm: nn.Module, opened: Callable[[bool], Tensor], channel_dim: int) -> None:
        super().__init__()
        if len(getattr(norm, "normalized_shape", (1,))) != 1:
            raise GroupError("cannot gate a norm over several dimensions", got=tuple(norm.normalized_shape))  # type: ignore[arg-type]
        known = isinstance(norm, nn.LayerNorm | nn.GroupNorm) or _epsilon(norm) != ()
        if not known or isinstance(norm, nn.modules.batchnorm._NormBase):
            raise GroupError("cannot gate this kind of norm", got=type(norm).__name__)
        self.weight: nn.Parameter | None = norm.weight  # type: ignore[assignment]
        self.bias: nn.Parameter | None = getattr(norm, "bias", None)
        # A tuple hides the dense module from `parameters()`: the parameters are listed once, under their own names.
        self._dense = (norm,)
        self.opened, self.channel_dim = opened, channel_dim
        for hooks in _HOOKS:
            # The same ones, not others like them: what is put on either is on both.
            self.__dict__[hooks] = norm.__dict__[hooks]
        # nn.TransformerEncoderLayer's fused kernel reads the parameters past this module, unless it has a hook.
        self._mark = self.register_forward_pre_hook(_no_change)

    @property
    def dense(self) -> nn.Module:
        """The module this one stands in for."""
        return self._dense[0]

    def release(self) -> nn.Module:
        """The dense module again, with what has been done to this one meanwhile."""
        self._mark.remove()
        norm = self.dense
        # Hidden from the model, it has missed changes of mode.
        norm.train(self.training)
        # Nor does it know of parameters that have taken the place of others: load_state_dict(assign=True).
        norm._parameters.update(self._parameters)
        norm._is_full_backward_hook = self._is_full_backward_hook
        return norm

    def __getattr__(self, name: str) -> Any:
        """What others read off the norm itself, `eps` say."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if "_dense" not in self.__dict__:
                raise
            return getattr(self._dense[0], name)

    def forward(self, *args: Tensor, **kwargs: Tensor) -> Tensor:
        """The dense module's input, under whatever name it has there -> its output over the open channels."""
        (x,) = (*args, *kwargs.values())
        y = self._normalize(x, self.opened(self.training))
        # As torch's own: autocast widens a norm's output on a GPU, and on a CPU leaves it as the input was.
        widened = (
            x.is_cuda and torch.is_autocast_enabled("cuda") and isinstance(self.dense, nn.LayerNorm | nn.GroupNorm)
        )
        return y if widened else y.to(x.dtype)

    def _normalize(self, x: Tensor, opened: Tensor) -> Tensor:
        norm: Any = self.dense
        if isinstance(norm, nn.GroupNorm):
            return self._group_norm(x, opened, norm)
        eps = norm.eps if isinstance(norm, nn.LayerNorm) else _epsilon(norm)
        # torch's default is that of the dtype it computes in.
        eps = torch.finfo(torch.promote_types(x.dtype, torch.float32)).eps if eps is None else eps
        centred = isinstance(norm, nn.LayerNorm)
        return open_norm(x, opened, self.weight, self.bias, dim=self.channel_dim, eps=eps, centred=centred)

    def _group_norm(self, x: Tensor, opened: Tensor, norm: nn.GroupNorm) -> Tensor:
        # x: (B, C, ...). Each position of a channel counts alike: a group is one row of channels x positions.
        rows = x.reshape(x.shape[0], norm.num_groups, -1)
        masks = opened.view(norm.num_groups, -1).repeat_interleave(x[0, 0].numel(), dim=1)
        groups = [open_norm(rows[:, g], masks[g], eps=norm.eps) for g in range(norm.num_groups)]
        normalized = torch.stack(groups, dim=1).view(x.shape)
        view = [1, -1] + [1] * (x.ndim - 2)
        scaled = normalized if self.weight is None else normalized * self.weight.view(view)
        return scaled if self.bias is None else scaled + self.bias.view(view)


def _epsilon(norm: nn.Module) -> Any:
    """What an RMS norm adds to the mean square: None for torch's default, () if the module names none."""
    return getattr(norm, "variance_epsilon", getattr(norm, "eps", ()))


def _no_change(module: nn.Module, args: Any) -> None:
    """A hook that does nothing."""
