"""Apply a plan: fold gate values into the weights, cut what is closed, bypass what is empty."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from l0prune.errors import PlanError
from l0prune.groups import Place, PruneGroup, Role
from l0prune.plan import RemovalPlan


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
        PlanError: The plan was made for another architecture; the model is untouched then.
    """
    plan.check(model)
    if values:
        for group in plan.groups:
            _fold(model, group, values[group.name])
    kept: dict[tuple[str, int], Tensor] = {}
    for group in plan.groups:
        removed = sorted(set(range(group.units)) - set(plan.kept[group.name]))
        for place in group.places:
            if place.dim is not None and removed:
                key = (place.tensor, place.dim)
                stays = kept.setdefault(key, torch.ones(plan.shapes[place.tensor][place.dim], dtype=torch.bool))
                stays[torch.as_tensor(place.index[removed].ravel())] = False
    for path in plan.bypassed:
        parent, name = _owner(model, path)
        returns = next(group.bypass.returns for group in plan.groups if group.bypass and group.bypass.module == path)
        setattr(parent, name, Bypassed(returns))
    live = {name for name, _ in [*model.named_parameters(), *model.named_buffers()]}
    for (tensor, dim), stays in kept.items():
        if tensor in live:
            _cut(model, tensor, dim, stays.nonzero()[:, 0])
    _mend(model, plan, {tensor for tensor, _ in kept} & live)
    return model


def _fold(model: nn.Module, group: PruneGroup, values: Tensor) -> None:
    for place in group.places:
        if place.role is Role.CONSUMES:
            tensor = _tensor(model, place.tensor)
            tensor.mul_(scale_along(place, values.to(tensor), tensor))


def scale_along(place: Place, values: Tensor, tensor: Tensor) -> Tensor:
    """Unit values (units,) as a factor that broadcasts over `tensor`: 1 where no unit of the place stands."""
    if place.dim is None:
        return values
    if place.in_order and place.index.size == tensor.shape[place.dim]:
        scale = values if place.width == 1 else values.repeat_interleave(place.width)
    else:
        index = torch.tensor(place.index, device=values.device)
        scale = values.new_ones(tensor.shape[place.dim]).index_put((index,), values[:, None].expand(index.shape))
    return scale.view([-1 if dim == place.dim else 1 for dim in range(tensor.ndim)])


def _cut(model: nn.Module, path: str, dim: int, index: Tensor) -> None:
    module, name = _owner(model, path)
    old = getattr(module, name)
    new = old.detach().index_select(dim, index.to(old.device))
    if name in module._parameters:
        setattr(module, name, nn.Parameter(new, requires_grad=old.requires_grad))
    else:
        setattr(module, name, new)


def _mend(model: nn.Module, plan: RemovalPlan, cut: set[str]) -> None:
    """Make every number that modules keep beside their weights agree with the weights."""
    for module in {id(m): m for m in (_owner(model, path)[0] for path in cut)}.values():
        _mend_module(module)
    for group in plan.groups:
        for attribute in group.attributes:
            if not any(f"{attribute.module}.".startswith(f"{path}.") for path in plan.bypassed):
                module = model.get_submodule(attribute.module)
                setattr(module, attribute.name, attribute.per_unit * len(plan.kept[group.name]))


def _mend_module(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        module.out_channels, module.in_channels = module.weight.shape[0], module.weight.shape[1] * module.groups
    elif isinstance(module, nn.LayerNorm | nn.RMSNorm):
        assert module.weight is not None
        module.normalized_shape = tuple(module.weight.shape)
    elif isinstance(module, nn.GroupNorm):
        channels = module.weight.shape[0]
        # One group a channel follows its channels; any other number of groups stays.
        module.num_groups = channels if module.num_groups == module.num_channels else module.num_groups
        module.num_channels = channels
    elif isinstance(module, nn.modules.batchnorm._BatchNorm):
        module.num_features = module.weight.shape[0]
    else:
        raise PlanError("no rule to shrink this kind of module", where=type(module).__name__)


def _owner(model: nn.Module, path: str) -> tuple[nn.Module, str]:
    parent, _, name = path.rpartition(".")
    return model.get_submodule(parent), name


def _tensor(model: nn.Module, path: str) -> Tensor:
    module, name = _owner(model, path)
    return getattr(module, name)
