"""Apply a plan: fold gate values into the weights, cut what is closed, bypass what is empty."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from l0prune.groups import Place, Role
from l0prune.layers import Layer, layer_of
from l0prune.removal.bypassed import Bypassed, Skipped
from l0prune.removal.plan import RemovalPlan
from l0prune.removal.sizes import check_calls, keep_sizes
from l0prune.removal.skipping import skip
from l0prune.support import carry_source, forget_computed, holders_of, is_inside, model_shapes, own_parameters, owners


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
    check_calls(model, plan.groups)
    held = owners(model)
    survivors = plan.survivors()
    # Before the cut: what a module looks like shows in its sizes, and a wrong registration must not leave it half cut.
    users = _users(model, _holders(held, {tensor for tensor, _ in survivors}))
    for module, layer in users:
        layer.check(module)
        layer.sizes_of(module)
    if values:
        for group in plan.groups:
            for place in group.places:
                if place.role is Role.CONSUMES:
                    module, name = held[place.tensor][0]
                    tensor = getattr(module, name)
                    tensor.mul_(scale_along(place, values[group.name], tensor))
    skip(model, {b.module: b for group in plan.groups if not plan.kept[group.name] for b in group.bypasses})
    if survivors:
        keep_sizes(model, plan.groups, without=plan.bypassed)
    live = model_shapes(model)
    for (tensor, dim), stays in survivors.items():
        if tensor in live:
            _cut(held[tensor], dim, torch.from_numpy(stays))
    cut = {id(module) for module in _holders(held, {tensor for tensor, _ in survivors if tensor in live})}
    _mend(model, plan, users, cut, survivors)
    for module in model.modules():
        if id(module) in cut:
            forget_computed(module)
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


def _users(model: nn.Module, holders: list[nn.Module]) -> list[tuple[nn.Module, Layer]]:
    """Modules that compute with parameters of `holders`, those themselves or one above, and what is known of them."""
    touched = {id(module) for module in holders}
    users = []
    for module in model.modules():
        layer = layer_of(module)
        # A parametrized weight lives below the module that uses it.
        inner = [*layer.inner(module), *getattr(module, "parametrizations", {}).values()]
        if touched & {id(module), *map(id, inner)}:
            users.append((module, layer))
    return users


def _mend(
    model: nn.Module,
    plan: RemovalPlan,
    users: list[tuple[nn.Module, Layer]],
    cut: set[int],
    survivors: Mapping[tuple[str, int], np.ndarray],
) -> None:
    """Make every number that modules keep beside their weights agree with the weights.

    Args:
        model: The model, its tensors cut.
        plan: What is kept.
        users: The modules that compute with cut tensors, some of which a bypass may have taken out of the model.
        cut: The ids of the modules that hold cut tensors and stand in the model.
        survivors: The indices that stay by (tensor, dim).
    """
    paths = {id(module): path for path, module in model.named_modules()}
    by_holder: dict[str, list[tuple[str, int]]] = {}
    for tensor, dim in survivors:
        for path in holders_of(tensor):
            by_holder.setdefault(path, []).append((tensor, dim))
    for module, layer in users:
        if (path := paths.get(id(module))) is not None:
            prefix = f"{path}." if path else ""
            below = {(name.removeprefix(prefix), d): survivors[name, d] for name, d in by_holder.get(path, ())}
            layer.mend(module, below if layer.cut else {})
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoder) and cut & {id(m) for m in module.modules()}:
            module.use_nested_tensor = False
    gone = plan.bypassed
    for group in plan.groups:
        for attribute in group.attributes:
            if not is_inside(attribute.module, *gone):
                module = model.get_submodule(attribute.module)
                setattr(module, attribute.name, attribute.per_unit * len(plan.kept[group.name]))
    _mend_norms(model, plan)


def _mend_norms(model: nn.Module, plan: RemovalPlan) -> None:
    """A norm without a weight keeps how many channels it has."""
    norms = {norm for group in plan.groups for norm in group.norms if norm.along is not None}
    shapes, gone = plan.pruned_shapes() if norms else {}, plan.bypassed
    for norm in norms:
        tensor, _, dim = str(norm.along).rpartition(":")
        if tensor in shapes and not is_inside(norm.module, *gone):
            module = model.get_submodule(norm.module)
            if len(getattr(module, "normalized_shape", ())) == 1:
                module.normalized_shape = (shapes[tensor][int(dim)],)  # type: ignore[assignment]


carry_source(Bypassed, Skipped)
