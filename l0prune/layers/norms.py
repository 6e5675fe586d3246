"""Normalisation over the open channels only, so that cutting the closed ones changes nothing.

Legend: B batch, C channels, n open channels.
"""

import copy
import itertools
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from l0prune.errors import GroupError
from l0prune.layers.linear import shape_of
from l0prune.layers.open_norms import OpenChannels, open_group_norm, open_norm
from l0prune.layers.over_open import OverOpen, as_torch_gives_it, default_epsilon
from l0prune.layers.registry import Layer, register, registration_of, same_forward
from l0prune.layers.tried import tried_once
from l0prune.support import NormWithStatistics, own_parameters, share_contents, share_hooks


class GatedNorm(nn.Module):
    """Stands in for a normalisation while gates are attached; holds what it holds.

    Of the classes that are known, exactly, it computes the output itself. So it does for other classes that are RMS
    norms, weight * x / sqrt(mean(x^2) + eps), and nothing else. Any other one runs its own forward, dropout, clamps and
    casts included, and only what takes statistics over channels in it, as `OverOpen` says, takes them over open ones.

    Args:
        norm: The module it stands in for.
        opened: Gives (C,) 1 for open channels, 0 for closed ones.
        channel_dim: The dimension of the input on which the channels stand.
        along_channels: Whether its tensors have to lie along the channels: a router's weight has them along its rows.

    Raises:
        GroupError: `norm` keeps statistics, or has a weight along more than the channels.
    """

    weight: nn.Parameter | None

    def __init__(
        self,
        norm: nn.Module,
        opened: Callable[[bool], Tensor | OpenChannels],
        channel_dim: int,
        *,
        along_channels: bool = True,
    ) -> None:
        super().__init__()
        if len(getattr(norm, "normalized_shape", (1,))) != 1:
            raise GroupError("cannot gate a norm over several dimensions", got=tuple(norm.normalized_shape))  # type: ignore[arg-type]
        if isinstance(norm, NormWithStatistics) or (along_channels and not _is_along_channels(norm)):
            raise GroupError("cannot gate this kind of norm", got=type(norm).__name__)
        self._over_open = over_open_of(norm)
        self._promotes = self._over_open is _open_rms_norm and _promotes(norm)
        # A tuple hides the dense module from `parameters()`: the parameters are listed once, under their own names.
        self._dense = (norm,)
        self.opened, self.channel_dim = opened, channel_dim
        share_contents(norm, self)
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
        # A copy of some models, torch.fx's among them, has other contents.
        share_contents(self, norm)
        share_hooks(self, norm)
        return norm

    def __getattr__(self, name: str) -> Any:
        """What others read off the norm itself, `eps` say."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            # How to copy or to pickle it is asked of itself: a parametrized class answers for the dense module.
            if "_dense" not in self.__dict__ or name.startswith("__"):
                raise
            return getattr(self._dense[0], name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The dense module's input, under whatever name it has there -> its output over the open channels."""
        if self._over_open is None:
            self.dense.training = self.training
            with OverOpen(self.opened(self.training), self.channel_dim):
                return self.dense.forward(*args, **kwargs)
        (x,) = (*args, *kwargs.values())
        opened, bias = self.opened(self.training), getattr(self, "bias", None)
        y = self._over_open(self.dense, x, opened, self.weight, bias, self.channel_dim)
        if self._promotes and isinstance(self.weight, Tensor):
            return y.to(torch.promote_types(x.dtype, self.weight.dtype))
        return as_torch_gives_it(y, x, isinstance(self.dense, nn.LayerNorm | nn.GroupNorm))


def _is_along_channels(norm: nn.Module) -> bool:
    """Whether a norm has tensors along its channels, as (C,) or (1, C, 1, 1), or none at all."""
    own = own_parameters(norm)
    tensors = [own["weight"]] if "weight" in own else [*own.values()]
    return not tensors or any(p is None or max(p.shape, default=0) == p.numel() for p in tensors)


def over_open_of(norm: nn.Module) -> Callable[..., Tensor] | None:
    """What computes a norm over its open channels in the place of its forward; None where that has to run."""
    kind, layer = registration_of(norm)
    if layer.over_open is not None:
        return layer.over_open if kind is None or same_forward(norm, kind) else None
    return _open_rms_norm if is_rms_norm(norm) else None


def _open_layer_norm(norm: Any, x: Tensor, opened: Any, weight: Any, bias: Any, dim: int) -> Tensor:
    return open_norm(x, opened, weight, bias, dim=dim, eps=norm.eps, centred=True)


def _open_group_norm(norm: Any, x: Tensor, opened: Any, weight: Any, bias: Any, dim: int) -> Tensor:
    return open_group_norm(x, opened, norm.num_groups, weight, bias, norm.eps)


def _open_rms_norm(norm: Any, x: Tensor, opened: Any, weight: Any, bias: Any, dim: int) -> Tensor:
    eps = _epsilon(norm)
    eps = default_epsilon(x) if eps is None else eps
    return open_norm(x, opened, weight, bias, dim=dim, eps=eps, centred=False)


@tried_once
@torch.no_grad()
def _promotes(norm: nn.Module) -> bool:
    """Whether an RMS norm of another class than torch's gives the wider dtype of its input's and its weight's."""
    if type(norm) is nn.RMSNorm:
        return False
    alone: Any = copy.deepcopy(norm).float()
    return alone(alone.weight.new_zeros(1, 1, len(alone.weight), dtype=torch.bfloat16)).dtype == torch.float32


def _epsilon(norm: nn.Module) -> Any:
    """What an RMS norm adds to the mean square: None for torch's default, () if the module names none."""
    return getattr(norm, "variance_epsilon", getattr(norm, "eps", ()))


def _no_change(module: nn.Module, args: Any) -> None:
    """A hook that does nothing."""


def is_rms_norm(module: nn.Module) -> bool:
    """Whether a module computes weight * x / sqrt(mean(x^2) + eps) over the last dimension and nothing else.

    It is tried in both modes, on inputs and with weights of several sizes: there may be a dropout or a clamp in it.
    """
    weight = getattr(module, "weight", None)
    names = {name for name, _ in module.named_parameters()}
    if names != {"weight"} or not isinstance(weight, Tensor) or weight.ndim != 1 or list(module.children()):
        return False
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    if not isinstance(eps, float | None) or not re.search("rms|norm", type(module).__name__, re.IGNORECASE):
        return False
    if type(module) is nn.RMSNorm and "forward" not in vars(module):
        return len(module.normalized_shape) == 1
    try:
        return _computes_rms_norm(module)
    except Exception:
        # Whatever it is, it is no RMS norm.
        return False


@tried_once
@torch.no_grad()
def _computes_rms_norm(module: nn.Module) -> bool:
    norm: Any = copy.deepcopy(module).float()
    width, eps = len(norm.weight), getattr(norm, "variance_epsilon", getattr(norm, "eps", None))
    x = torch.randn(4, 3, width, generator=torch.Generator().manual_seed(0))
    x *= torch.tensor([1.0, 1e-3, 1e3, 1.0])[:, None, None]
    x[3, :, 0] = 1e3
    x = x.to(norm.weight.device)
    with torch.random.fork_rng():
        for training, size in itertools.product((False, True), (1.0, 1e3)):
            norm.train(training).weight.copy_(size * torch.linspace(0.5, 1.5, width))
            expected, got = nn.functional.rms_norm(x, (width,), norm.weight, eps), norm(x)
            if got.shape != x.shape or not torch.allclose(got.float(), expected, rtol=1e-2, atol=1e-4 * size):
                return False
    return True


def _group_sizes(norm: Any) -> dict[str, int]:
    channels = len(norm.weight) if norm.affine else norm.num_channels
    # One group a channel follows its channels; any other number of groups stays.
    groups = channels if norm.num_groups == norm.num_channels else norm.num_groups
    return {"num_groups": groups, "num_channels": channels}


def _batch_sizes(norm: Any) -> dict[str, int]:
    tensor = norm.weight if norm.affine else norm.running_mean
    return {} if tensor is None else {"num_features": len(tensor)}


def _normalized_shape(norm: Any) -> dict[str, tuple[int, ...]]:
    # Without a weight nothing here says how many channels there are.
    return {} if norm.weight is None else {"normalized_shape": shape_of(norm)}


register(nn.LayerNorm, Layer(sizes=_normalized_shape, over_open=_open_layer_norm))
register(nn.RMSNorm, Layer(sizes=_normalized_shape, over_open=_open_rms_norm))
register(nn.GroupNorm, Layer(sizes=_group_sizes, over_open=_open_group_norm))
register(NormWithStatistics, Layer(sizes=_batch_sizes))
