"""Scores of units for removing them at once: what is worth most stays.

Legend: N units of all groups, U units of one, C channels of a unit (a head has several).
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from l0prune import Place, PruneGroup, Role


def by_chance(groups: Sequence[PruneGroup], seed: int) -> np.ndarray:
    """Random scores (N,)."""
    return np.random.default_rng(seed).random(sum(group.units for group in groups))


def by_magnitude(model: nn.Module, groups: Sequence[PruneGroup]) -> np.ndarray:
    """The norm of all weights that a unit stands on, over its root number of channels; the mean of each group is 1.

    Source: torch-pruning's GroupMagnitudeImportance has the same normalisation.
    """
    tensors = dict(model.named_parameters())
    scores = []
    for group in groups:
        squares = np.zeros(group.units)
        for place in group.places:
            # Statistics of batch norms are buffers, no weights.
            if place.dim is not None and place.tensor in tensors:
                squares += _by_unit(tensors[place.tensor].detach() ** 2, place.dim, place.index)
        norms = (squares / group.places[0].width) ** 0.5
        scores.append(norms / norms.mean())
    return np.concatenate(scores)


@torch.no_grad()
def by_activation(
    model: nn.Module, groups: Sequence[PruneGroup], batches: Iterator[Callable[[nn.Module], object]]
) -> np.ndarray:
    """The mean magnitude of a unit's values where they are read; the mean of each group is 1.

    Args:
        model: Is run.
        groups: Units of linear layers and convolutions.
        batches: Each runs the model on a batch.
    """
    read = {_reader(group).tensor.removesuffix(".weight"): g for g, group in enumerate(groups)}
    sums: dict[int, Tensor] = {}

    def look(g: int, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        channels = -1 if isinstance(layer, nn.Linear) else 1
        found = inputs[0].detach().abs().transpose(channels, -1).flatten(0, -2).mean(0)
        sums[g] = sums.get(g, torch.zeros(())) + found

    hooks = [model.get_submodule(path).register_forward_pre_hook(partial(look, g)) for path, g in read.items()]
    try:
        for run in batches:
            run(model)
    finally:
        for hook in hooks:
            hook.remove()
    scores = []
    for g, group in enumerate(groups):
        values = sums[g][torch.from_numpy(_reader(group).index)].mean(1).double().numpy()
        scores.append(values / values.mean())
    return np.concatenate(scores)


def _reader(group: PruneGroup) -> Place:
    return next(place for place in group.places if place.role is Role.CONSUMES)


def by_taylor(
    model: nn.Module, groups: Sequence[PruneGroup], losses: Iterator[Callable[[nn.Module], Tensor]]
) -> np.ndarray:
    """By the square of how much the loss changes without a unit, to first order, averaged over batches.

    The change is the derivative by a gate on the weights that read the unit. Of the forms that were tried on Whisper's
    encoder, with the recogniser's own loss, this is the best or nearly so before any recovery (nats a token at 25 and
    50 %: 0.70 and 5.7; magnitudes in place of squares 0.81 and 5.4; either divided by the parameters of a unit 0.69 and
    6.2, 4.8 and 7.7; single weights' terms, as torch-pruning sums them, 0.77 and 6.3).

    Args:
        model: Its gradients are used and cleared.
        groups: The prune groups.
        losses: Each makes the loss of a batch.

    Source: Molchanov et al. 2019, "Importance estimation for neural network pruning", eq. 7, with gates.
    """
    total, count = np.zeros(sum(group.units for group in groups)), 0
    for loss in losses:
        model.zero_grad(set_to_none=True)
        loss(model).backward()
        total += _gate_gradients(model, groups) ** 2
        count += 1
    model.zero_grad(set_to_none=True)
    return total / count


def _gate_gradients(model: nn.Module, groups: Sequence[PruneGroup]) -> np.ndarray:
    tensors = dict(model.named_parameters())
    gradients = []
    for group in groups:
        found = np.zeros(group.units)
        for place in group.places:
            tensor = tensors.get(place.tensor)
            if place.role is Role.CONSUMES and tensor is not None and tensor.grad is not None:
                found += _by_unit((tensor * tensor.grad).detach(), place.dim, place.index)
        gradients.append(found)
    return np.concatenate(gradients)


def _by_unit(values: Tensor, dim: int | None, index: np.ndarray) -> np.ndarray:
    """Sums over all that a unit stands on, (U,)."""
    if dim is None:
        return np.array([float(values.double().sum())])
    by_channel = values.double().movedim(dim, 0).flatten(1).sum(1) if values.ndim > 1 else values.double()
    return by_channel[torch.from_numpy(index)].sum(1).numpy()
