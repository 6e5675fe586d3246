"""Normalisation over the open channels only, so that cutting the closed ones changes nothing.

Legend: B batch, C channels, n open channels.
"""

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from l0prune.errors import GroupError
from l0prune.layers.linear import shape_of
from l0prune.layers.open_norms import OpenChannels, open_group_norm, open_norm
from l0prune.layers.registry import Layer, layer_of, register
from l0prune.support import NormWithStatistics, own_parameters, share_hooks


class GatedNorm(nn.Module):
    """Stands in for a LayerNorm, RMSNorm or GroupNorm while gates are attached; shares its parameters.

    Other classes may stand for an RMSNorm if they compute weight * x / sqrt(mean(x^2) + eps) and keep eps as `eps` or
    `variance_epsilon`; those whose registration has `over_open` compute whatever it does.

    Args:
        norm: The module it stands in for.
        opened: Gives (C,) 1 for open channels, 0 for closed ones.
        channel_dim: The dimension of the input on which the channels stand.

    Raises:
        GroupError: `norm` is of another kind, or normalises over more than the channels.
    """

    def __init__(self, norm: nn.Module, opened: Callable[[bool], Tensor | OpenChannels], channel_dim: int) -> None:
        super().__init__()
        if len(getattr(norm, "normalized_shape", (1,))) != 1:
            raise GroupError("cannot gate a norm over several dimensions", got=tuple(norm.normalized_shape))  # type: ignore[arg-type]
        over_open = layer_of(norm).over_open
        if over_open is None:
            if _epsilon(norm) == () or isinstance(norm, NormWithStatistics):
                raise GroupError("cannot gate this kind of norm", got=type(norm).__name__)
            over_open = _open_rms_norm
        self._over_open = over_open
        self.weight: nn.Parameter | None = norm.weight  # type: ignore[assignment]
        self.bias: nn.Parameter | None = getattr(norm, "bias", None)
        # A tuple hides the dense module from `parameters()`: the parameters are listed once, under their own names.
        self._dense = (norm,)
        self.opened, self.channel_dim = opened, channel_dim
        share_hooks(norm, self)
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
        own_parameters(norm).update(own_parameters(self))
        share_hooks(self, norm)
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
        # The parameters are its own: the dense module does not know of those that have taken the place of others.
        y = self._over_open(self.dense, x, self.opened(self.training), self.weight, self.bias, self.channel_dim)
        # As torch's own: autocast widens a norm's output on a GPU, and on a CPU leaves it as the input was.
        widened = (
            x.is_cuda and torch.is_autocast_enabled("cuda") and isinstance(self.dense, nn.LayerNorm | nn.GroupNorm)
        )
        return y if widened or y.dtype == x.dtype else y.to(x.dtype)


def _open_layer_norm(norm: Any, x: Tensor, opened: Any, weight: Any, bias: Any, dim: int) -> Tensor:
    return open_norm(x, opened, weight, bias, dim=dim, eps=norm.eps, centred=True)


def _open_group_norm(norm: Any, x: Tensor, opened: Any, weight: Any, bias: Any, dim: int) -> Tensor:
    return open_group_norm(x, opened, norm.num_groups, weight, bias, norm.eps)


def _open_rms_norm(norm: Any, x: Tensor, opened: Any, weight: Any, bias: Any, dim: int) -> Tensor:
    eps = _epsilon(norm)
    # torch's default is that of the dtype it computes in.
    eps = torch.finfo(torch.promote_types(x.dtype, torch.float32)).eps if eps is None else eps
    return open_norm(x, opened, weight, bias, dim=dim, eps=eps, centred=False)


def _epsilon(norm: nn.Module) -> Any:
    """What an RMS norm adds to the mean square: None for torch's default, () if the module names none."""
    return getattr(norm, "variance_epsilon", getattr(norm, "eps", ()))


def _no_change(module: nn.Module, args: Any) -> None:
    """A hook that does nothing."""


def is_rms_norm(module: nn.Module) -> bool:
    """Whether a module computes weight * x / sqrt(mean(x^2) + eps) over the last dimension: tried on random input."""
    weight = getattr(module, "weight", None)
    names = {name for name, _ in module.named_parameters()}
    if names != {"weight"} or not isinstance(weight, Tensor) or weight.ndim != 1 or list(module.children()):
        return False
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    if not isinstance(eps, float | None) or not re.search("rms|norm", type(module).__name__, re.IGNORECASE):
        return False
    x = torch.randn(2, 3, len(weight), generator=torch.Generator().manual_seed(0)).to(weight)
    try:
        with torch.no_grad():
            expected = nn.functional.rms_norm(x, (len(weight),), weight, eps)
            got = module(x)
    except Exception:
        # Whatever it is, it is no RMS norm.
        return False
    return isinstance(got, Tensor) and got.shape == x.shape and torch.allclose(got, expected, rtol=1e-2, atol=1e-4)


def _group_sizes(norm: Any) -> dict[str, int]:
    channels = len(norm.weight) if norm.affine else norm.num_channels
    # One group a channel follows its channels; any other number of groups stays.
    groups = channels if norm.num_groups == norm.num_channels else norm.num_groups
    return {"num_groups": groups, "num_channels": channels}


def _batch_sizes(norm: Any) -> dict[str, int]:
    tensor = norm.weight if norm.affine else norm.running_mean
    return {} if tensor is None else {"num_features": len(tensor)}


register(nn.LayerNorm, Layer(sizes=lambda norm: {"normalized_shape": shape_of(norm)}, over_open=_open_layer_norm))
register(nn.RMSNorm, Layer(sizes=lambda norm: {"normalized_shape": shape_of(norm)}, over_open=_open_rms_norm))
register(nn.GroupNorm, Layer(sizes=_group_sizes, over_open=_open_group_norm))
register(NormWithStatistics, Layer(sizes=_batch_sizes))
