"""What each unit contributes to the outputs of the layers that read it.

Legend: U units of a group, k inputs of a unit (its channels times taps), C groups of a convolution, S samples, J inputs
of an output, O outputs.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from l0prune.calibration import matrices, readers, samples, watching
from l0prune.errors import GroupError
from l0prune.groups import Place, PruneGroup
from l0prune.support import plain_attention


class _Moments:
    """Second moments of the inputs of each unit, of one group at one layer."""

    def __init__(self, place: Place, module: nn.Module) -> None:
        self.module, self.matrices = module, [matrix.double() for matrix in matrices(module)]
        extent = int(np.prod(getattr(module, "kernel_size", (1,)), dtype=int))
        taps = place.index[:, :, None] * extent + np.arange(extent)
        self.index = torch.from_numpy(taps.reshape(len(place.index), -1)).to(self.matrices[0].device)
        self.count = 0
        self.total: list[Any] = [0.0] * len(self.matrices)
        self.mean: list[Any] = [0.0] * len(self.matrices)
        self.made: list[Any] = [0.0] * len(self.matrices)
        self.made_mean: list[Any] = [0.0] * len(self.matrices)

    def add(self, inputs: Sequence[Tensor]) -> None:
        """Take in what the layer has read: a tensor for each matrix."""
        for n, (x, matrix) in enumerate(zip(inputs, self.matrices, strict=True)):
            for block in samples(self.module, x):
                self.count += block.shape[1] if n == 0 else 0
                units = block[:, :, self.index].permute(0, 2, 3, 1)  # (C, U, k, S)
                self.total[n] = self.total[n] + units @ units.transpose(2, 3)
                self.mean[n] = self.mean[n] + units.sum(3)
                made = block @ matrix.transpose(1, 2)
                self.made[n] = self.made[n] + made.square().sum()
                self.made_mean[n] = self.made_mean[n] + made.sum(1)

    def shares(self) -> Tensor:
        """Variance of what each unit adds to the outputs, relative to that of the outputs: (U,)."""
        parts, whole = torch.zeros(len(self.index), dtype=torch.float64), 0.0
        if not self.count:
            return parts
        for n, matrix in enumerate(self.matrices):
            mean = self.mean[n] / self.count
            covariance = self.total[n] / self.count - mean[..., None] * mean[..., None, :]
            weights = matrix[:, :, self.index].permute(0, 2, 1, 3)  # (C, U, O, k)
            parts += ((weights @ covariance) * weights).sum((0, 2, 3)).clamp_min(0).cpu()
            whole += float(self.made[n] / self.count - (self.made_mean[n] / self.count).square().sum())
        return parts / whole if whole > 0 else torch.zeros_like(parts)


@torch.no_grad()
def contributions(
    model: nn.Module, groups: Sequence[PruneGroup], batches: Iterable[Any], run: Callable[[Any], object]
) -> np.ndarray:
    """The share of each unit in what the layers that read it compute, summed over these layers: (N,).

    A share is the variance that the unit adds to a layer's outputs, relative to the variance of these: what is constant
    can be made up for in a bias, and layers are compared by what they lose, not by how large their outputs are.

    Args:
        model: The model.
        groups: Its prune groups.
        batches: Calibration batches.
        run: Runs the model on one.

    Raises:
        GroupError: The inputs of no layer that reads a group can be seen.
    """
    layers = readers(model, groups)
    moments: dict[str, list[_Moments]] = {}
    of_group: list[list[_Moments]] = []
    for group in groups:
        mine = [
            (layers[p.tensor][0], _Moments(p, layers[p.tensor][1]))
            for p in group.places
            if p.tensor in layers and p.role == "consumes"
        ]
        if not mine:
            hint = "use another importance, or leave the group out"
            raise GroupError("activations cannot be seen: no plain layer reads the units", where=group.name, hint=hint)
        of_group.append([found for _, found in mine])
        for path, found in mine:
            moments.setdefault(path, []).append(found)

    def after(path: str, inputs: list[Tensor], _made: Tensor) -> None:
        for found in moments[path]:
            found.add(inputs)

    with plain_attention(), watching(dict(layers.values()), after=after):
        for batch in batches:
            run(batch)
    return np.concatenate([torch.stack([m.shares() for m in mine]).sum(0).numpy() for mine in of_group])
