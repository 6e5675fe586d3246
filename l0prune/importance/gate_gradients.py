"""What closing a unit's gate does to a loss, to first order, example by example.

The gradient of a loss in an open gate is the sum of gradient times weight over all weights that read the unit. It is
also the sum of gradient times input over all that these weights read; and inputs tell examples apart.

Legend: n examples (the first dimension of what the layers read), U units of a group.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from l0prune.calibration import channel_dim, readers, watching
from l0prune.errors import DataError
from l0prune.groups import SKIPS, Place, PruneGroup, Role
from l0prune.importance.block_gates import gated_blocks
from l0prune.support import Convolution


def gate_gradients(model: nn.Module, groups: Sequence[PruneGroup], loss: Callable[[], Any]) -> list[Tensor]:
    """Gradients of a loss in the gates of all units, all gates open.

    Args:
        model: Its parameters' own gradients are left alone.
        groups: Its prune groups.
        loss: Runs the model; returns a scalar.

    Returns:
        (n, U) float64 for each group; over n they sum to the whole gradient. What layers add that read other numbers of
        examples, or whose inputs cannot be seen, stands in rows of its own.

    Raises:
        DataError: The loss is no scalar, or depends on nothing in the model.
    """
    whole = [group for group in groups if group.owns_tensors and group.bypass and group.bypass.returns in SKIPS]
    widths = [group for group in groups if group not in whole]
    layers = readers(model, widths)
    parameters = dict(model.named_parameters())
    seen: dict[str, list[Tensor]] = {}

    def before(path: str, inputs: list[Tensor]) -> list[Tensor]:
        twins = {id(x): x if x.requires_grad else x.detach().requires_grad_() for x in inputs}
        twins = {key: x.view_as(x) for key, x in twins.items()}
        seen.setdefault(path, []).extend(twins.values())
        return [twins[id(x)] for x in inputs]

    with torch.enable_grad(), watching(dict(layers.values()), before), gated_blocks(model, whole) as blocks:
        value = loss()
    hidden = _consumed(widths) - {tensor for tensor, (path, _) in layers.items() if path in seen}
    weights = {tensor: parameters[tensor] for tensor in hidden if tensor in parameters}
    inputs = [x for found in (*seen.values(), *blocks.values()) for x in found]
    gradients = _gradients(value, [*inputs, *weights.values()])
    products = {id(x): _product(x, g) for x, g in zip(inputs, gradients, strict=False)}
    by_weight = {t: _product(w, g) for (t, w), g in zip(weights.items(), gradients[len(inputs) :], strict=True)}
    found = []
    for group in groups:
        rows: list[Tensor] = []
        if group.name in blocks:
            # Gates are 1: the product is their gradient.
            found.append(_joined([products[id(z)].flatten(1) for z in blocks[group.name]] or [torch.zeros(1, 1)]))
            continue
        for place in group.places:
            if place.role is not Role.CONSUMES:
                continue
            if place.tensor in by_weight:
                rows.append(of_weight(place, by_weight[place.tensor])[None])
            elif place.tensor in layers and layers[place.tensor][0] in seen:
                path, module = layers[place.tensor]
                rows += [_of_input(place, module, products[id(x)], parameters) for x in seen[path]]
        found.append(_joined(rows) if rows else torch.zeros(1, group.units, dtype=torch.float64))
    return found


def _consumed(groups: Sequence[PruneGroup]) -> set[str]:
    return {place.tensor for group in groups for place in group.places if place.role is Role.CONSUMES}


def _gradients(value: Any, wanted: Sequence[Tensor]) -> Sequence[Tensor | None]:
    if not isinstance(value, Tensor) or value.numel() != 1:
        got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise DataError(
            "the loss is no scalar", got=got, expected="loss(model, batch) that returns a tensor of one value"
        )
    frozen = [x for x in wanted if not x.requires_grad]
    for x in frozen:
        x.requires_grad_()
    try:
        if not value.requires_grad:
            hint = "it must be computed from the model's outputs, and not under torch.no_grad()"
            raise DataError("the loss has no gradient", hint=hint)
        return torch.autograd.grad(value, wanted, allow_unused=True)
    finally:
        for x in frozen:
            x.requires_grad_(False)


def _product(x: Tensor, gradient: Tensor | None) -> Tensor:
    return torch.zeros_like(x, dtype=torch.float64) if gradient is None else x.detach().double() * gradient.double()


def of_weight(place: Place, product: Tensor) -> Tensor:
    """Sums over each unit's part of a weight: (U,)."""
    if place.dim is None:
        return product.sum()[None]
    along = product.movedim(place.dim, 0).flatten(1).sum(1) if product.ndim > 1 else product
    return along[torch.from_numpy(place.index).to(along.device)].sum(1)


def _of_input(place: Place, module: nn.Module, product: Tensor, parameters: dict[str, nn.Parameter]) -> Tensor:
    """Sums over each unit's channels of an input and over all but the first dimension: (n, U)."""
    axis = channel_dim(module, product)
    channels = product.movedim(axis, -1) if axis else product[None].movedim(axis + 1, -1)
    channels = channels.flatten(1, -2).sum(1) if channels.ndim > 2 else channels
    if isinstance(module, Convolution):
        channels = channels.unflatten(1, (module.groups, -1)).sum(1)
    return channels[:, torch.from_numpy(place.index).to(channels.device)].sum(2)


def _joined(rows: list[Tensor]) -> Tensor:
    """Layers that read the same examples add up; others stand beside each other."""
    by_count: dict[int, Tensor] = {}
    for found in rows:
        by_count[len(found)] = by_count[len(found)] + found if len(found) in by_count else found
    return torch.cat([found.cpu() for found in by_count.values()])
