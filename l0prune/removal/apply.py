"""Apply a plan: fold gate values into the weights, cut what is closed, bypass what is empty."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from l0prune.groups import Place, Role
from l0prune.layers import SlimMultiheadAttention
from l0prune.removal.plan import RemovalPlan
from l0prune.support import Convolution, NormWithStatistics, is_inside, model_shapes, own_parameters, owners


class Bypassed(nn.Module):
    """What is left of an emptied residual block: a zero that broadcasts over the residual stream."""

    def __init__(self, returns: str = "tensor") -> None:
        super().__init__()
        self.returns = returns

    def forward(self, x: Tensor, *_args: object, **_kwargs: object) -> Tensor | tuple[Tensor, None]:
        """x: any shape -> a scalar zero of its dtype and device; with `returns="pair"`, beside None."""
        zero = x.new_zeros(())
        return (zero, None) if self.returns == "pair" else zero

    def extra_repr(self) -> str:
        """Shown in the module's repr."""
        return f"returns={self.returns!r}"


@torch.no_grad()
def apply_plan(model: nn.Module, plan: RemovalPlan, values: Mapping[str, Tensor] | None = None) -> nn.Module:
    """Cut `model` in place.

    Args:
        model: The dense model that the plan was made for, without gates.
        plan: What is kept.
        values: Gate values (units,) by group name, folded into the weights that consume the units; 1 by default.

    Returns:
        The same model, smaller.

    Raises:
        PlanError: The plan was made for another architecture, or cuts a module that cannot be cut; the model is
            untouched then.
    """
    plan.check(model)
    held = owners(model)
    survivors = plan.survivors()
    for module in _users(model, _holders(held, {tensor for tensor, _ in survivors})):
        if isinstance(module, nn.MultiheadAttention):
            SlimMultiheadAttention.check(module)
    if values:
        for group in plan.groups:
            for place in group.places:
                if place.role is Role.CONSUMES:
                    module, name = held[place.tensor][0]
                    tensor = getattr(module, name)
                    tensor.mul_(scale_along(place, values[group.name], tensor))
    for path in plan.bypassed:
        parent, name = _owner(model, path)
        returns = next(group.bypass.returns for group in plan.groups if group.bypass and group.bypass.module == path)
        setattr(parent, name, Bypassed(returns))
    live = model_shapes(model)
    for (tensor, dim), stays in survivors.items():
        if tensor in live:
            _cut(held[tensor], dim, torch.from_numpy(stays))
    _follow_channels(model, survivors)
    _mend(model, plan, _holders(held, {tensor for tensor, _ in survivors if tensor in live}))
    return model


def scale_along(place: Place, values: Tensor, tensor: Tensor) -> Tensor:
    """Unit values (units,) as a factor that broadcasts over `tensor`, in its dtype: 1 where no unit stands."""
    values = values.to(tensor)
    if place.dim is None:
        return values
    if place.in_order and place.index.size == tensor.shape[place.dim]:
        scale = values if place.width == 1 else values.repeat_interleave(place.width)
    else:
        index = torch.tensor(place.index, device=values.device)
        scale = values.new_ones(tensor.shape[place.dim]).index_put((index,), values[:, None].expand(index.shape))
    return scale.view([-1 if dim == place.dim else 1 for dim in range(tensor.ndim)])


def _cut(holders: list[tuple[nn.Module, str]], dim: int, index: Tensor) -> None:
    module, name = holders[0]
    old = getattr(module, name)
    new = old.detach().index_select(dim, index.to(old.device))
    if name in own_parameters(module):
        new = nn.Parameter(new, requires_grad=old.requires_grad)
    # Tied tensors stay tied.
    for module, name in holders:
        setattr(module, name, new)


def _holders(held: Mapping[str, list[tuple[nn.Module, str]]], tensors: set[str]) -> list[nn.Module]:
    """The modules that hold any of `tensors`."""
    found = {id(module): module for tensor in held if tensor in tensors for module, _ in held[tensor]}
    return list(found.values())


def _follow_channels(model: nn.Module, survivors: Mapping[tuple[str, int], np.ndarray]) -> None:
    """Let a depthwise convolution have as many groups as channels that keep a filter.

    A grouped convolution down to one channel a group looks the same, but all of its groups keep some.
    """
    for path, module in model.named_modules():
        if not isinstance(module, Convolution) or not 1 < module.groups == module.in_channels:
            continue
        # Its filters stand on dimension 0; weight_norm keeps their direction as `original1`.
        prefix = f"{path}." if path else ""
        names = (f"{prefix}weight", f"{prefix}parametrizations.weight.original1")
        rows = next((survivors[name, 0] for name in names if (name, 0) in survivors), None)
        if rows is not None:
            total = module.in_channels if module.transposed else module.out_channels
            module.groups = module.in_channels = len(np.unique(rows // (total // module.groups)))


def _users(model: nn.Module, holders: list[nn.Module]) -> list[nn.Module]:
    """Modules that compute with parameters of `holders`: those themselves, or one above."""
    touched = {id(module) for module in holders}
    users = []
    for module in model.modules():
        inner = [*module.children()] if isinstance(module, nn.MultiheadAttention) else []
        # A parametrized weight lives below the module that uses it.
        inner += getattr(module, "parametrizations", {}).values()
        if touched & {id(module), *map(id, inner)}:
            users.append(module)
    return users


def _mend(model: nn.Module, plan: RemovalPlan, cut: list[nn.Module]) -> None:
    """Make every number that modules keep beside their weights agree with the weights."""
    for module in _users(model, cut):
        _mend_module(module)
    touched = {id(module) for module in cut}
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoder) and touched & {id(m) for m in module.modules()}:
            module.use_nested_tensor = False
    for group in plan.groups:
        for attribute in group.attributes:
            if not is_inside(attribute.module, *plan.bypassed):
                module = model.get_submodule(attribute.module)
                setattr(module, attribute.name, attribute.per_unit * len(plan.kept[group.name]))


def _mend_module(module: nn.Module) -> None:
    if isinstance(module, nn.MultiheadAttention):
        SlimMultiheadAttention.adopt(module)
    else:
        for name, value in _sizes(module).items():
            setattr(module, name, value)


def _sizes(module: nn.Module) -> dict[str, Any]:  # noqa: PLR0911 - one for each kind of module
    """The sizes that a module of torch's keeps; whether another module keeps any, the proof will tell."""
    shapes = {name: tuple(tensor.shape) for name, tensor in [*module.named_parameters(), *module.named_buffers()]}
    # Parametrized weights are computed.
    shape = shapes.get("weight") or tuple(getattr(module, "weight", torch.empty(0)).shape)
    match module:
        case nn.Linear():
            return {"out_features": shape[0], "in_features": shape[1]}
        case Convolution():
            return _convolution_sizes(module, *shape[:2])
        case nn.Embedding() | nn.EmbeddingBag():
            return {"num_embeddings": shape[0], "embedding_dim": shape[1]}
        case nn.LayerNorm() | nn.RMSNorm():
            return {"normalized_shape": shape}
        case nn.GroupNorm():
            # One group a channel follows its channels; any other number of groups stays.
            groups = shape[0] if module.num_groups == module.num_channels else module.num_groups
            return {"num_groups": groups, "num_channels": shape[0]}
        case NormWithStatistics():
            return {"num_features": shapes.get("weight", shapes.get("running_mean", ()))[0]}
        case nn.RNNBase():
            return {"hidden_size": shapes["weight_hh_l0"][1], "input_size": shapes["weight_ih_l0"][1]}
        case nn.RNNCellBase():
            return {"hidden_size": shapes["weight_hh"][1], "input_size": shapes["weight_ih"][1]}
        case nn.PReLU():
            return {"num_parameters": shape[0]}
        case nn.Module(nf=int(), nx=int()):
            # transformers' Conv1D, a linear layer with its weight transposed.
            return {"nx": shape[0], "nf": shape[1]}
    return {}


def _convolution_sizes(module: Convolution, rows: int, columns: int) -> dict[str, int]:
    if module.transposed:
        return {"in_channels": rows, "out_channels": columns * module.groups}
    return {"in_channels": columns * module.groups, "out_channels": rows}


def _owner(model: nn.Module, path: str) -> tuple[nn.Module, str]:
    parent, _, name = path.rpartition(".")
    return model.get_submodule(parent), name
