"""The teacher with every matrix as a product of two thin ones; multiplied out again once it is trained.

Legend: O outputs, I inputs (of a convolution: input channels times taps), R rank.
"""

import copy
from typing import TypeVar

import torch
from l0prune_speech.encoder import SpeechEncoder
from torch import Tensor, nn
from torch.nn.utils import parametrize

from l0bench.students.beginnings import Beginning, student_of
from l0prune import RunConfig, TargetError, Task
from l0prune.measuring import parameters

_HALVINGS = 40

Encoder = TypeVar("Encoder", bound=nn.Module)


class Pair(nn.Module):
    """Two layers in place of one, of rank R.

    Args:
        inner: From the inputs to R.
        outer: From R to the outputs; holds the bias.
    """

    def __init__(self, inner: nn.Linear | nn.Conv1d, outer: nn.Linear | nn.Conv1d) -> None:
        super().__init__()
        self.inner, self.outer = inner, outer
        # Whoever asks the layer for its width goes on to.
        self.out_features = outer.weight.shape[0]
        if isinstance(inner, nn.Conv1d):
            self.stride = inner.stride

    def forward(self, x: Tensor) -> Tensor:
        """x: as the layer replaced takes it."""
        return self.outer(self.inner(x))

    @torch.no_grad()
    def multiplied_out(self) -> nn.Linear | nn.Conv1d:
        """The one layer that computes the same."""
        inner, outer = self.inner.weight, self.outer.weight
        whole = _like(self.inner, inner.shape[1], outer.shape[0], bias=self.outer.bias is not None)
        whole.weight.copy_((outer.flatten(1) @ inner.flatten(1)).view(whole.weight.shape))
        if self.outer.bias is not None and whole.bias is not None:
            whole.bias.copy_(self.outer.bias)
        return whole


def _like(layer: nn.Linear | nn.Conv1d, inputs: int, outputs: int, *, bias: bool) -> nn.Linear | nn.Conv1d:
    """A layer of other widths."""
    place = {"device": layer.weight.device, "dtype": layer.weight.dtype}
    if isinstance(layer, nn.Linear):
        return nn.Linear(inputs, outputs, bias=bias, **place)
    form = {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation}
    return nn.Conv1d(inputs, outputs, layer.kernel_size, bias=bias, **form, **place)  # type: ignore[arg-type]


@torch.no_grad()
def truncated(layer: nn.Linear | nn.Conv1d, rank: int) -> Pair:
    """The nearest pair of a rank, both halves with the same norms.

    Source: Eckart and Young 1936, by the singular value decomposition.
    """
    left, values, right = torch.linalg.svd(layer.weight.flatten(1), full_matrices=False)
    root = values[:rank].sqrt()
    inner = _like(layer, layer.weight.shape[1], rank, bias=False)
    inner.weight.copy_((root[:, None] * right[:rank]).view(inner.weight.shape))
    outer = nn.Linear(rank, len(left), bias=layer.bias is not None, device=left.device, dtype=left.dtype)
    if isinstance(layer, nn.Conv1d):
        outer = nn.Conv1d(rank, len(left), 1, bias=layer.bias is not None, device=left.device, dtype=left.dtype)
    outer.weight.copy_((left[:, :rank] * root).view(outer.weight.shape))
    if layer.bias is not None and outer.bias is not None:
        outer.bias.copy_(layer.bias)
    return Pair(inner, outer)


def factored(encoder: Encoder, budget: int) -> Encoder:
    """An encoder's copy with a `Pair` for each linear layer and each convolution between channels.

    A pair has as large a share of its layer's parameters as all others, rounded down to a rank; then ranks grow one by
    one while they fit. What has a norm on its weight (the positional convolution) and the filters on the waveform stay.

    Args:
        encoder: It is left as it is.
        budget: Most parameters, counted in pairs.

    Raises:
        TargetError: Pairs of rank 1 are more than the budget.
    """
    student = copy.deepcopy(encoder)
    layers = _layers(student)
    shapes = {path: _matrix(layer) for path, layer in layers.items()}
    fixed = parameters(student) - sum(rows * columns for rows, columns in shapes.values())
    for path, rank in _ranks(shapes, budget - fixed).items():
        student.set_submodule(path, truncated(layers[path], rank))
    return student


def _matrix(layer: nn.Linear | nn.Conv1d) -> tuple[int, int]:
    """O and I."""
    rows, columns = layer.weight.flatten(1).shape
    return rows, columns


def _layers(encoder: nn.Module) -> dict[str, nn.Linear | nn.Conv1d]:
    return {
        path: module
        for path, module in encoder.named_modules()
        if not parametrize.is_parametrized(module)
        and (
            isinstance(module, nn.Linear)
            or (isinstance(module, nn.Conv1d) and module.groups == 1 and module.in_channels > 1)
        )
    }


def _ranks(shapes: dict[str, tuple[int, int]], room: int) -> dict[str, int]:
    """The rank of each layer, by its O and I: together at most `room` parameters."""
    costs = {path: rows + columns for path, (rows, columns) in shapes.items()}

    def at(share: float) -> dict[str, int]:
        return {path: max(1, int(share * rows * columns / costs[path])) for path, (rows, columns) in shapes.items()}

    def size(ranks: dict[str, int]) -> int:
        return sum(rank * costs[path] for path, rank in ranks.items())

    low, high = 0.0, 1.0
    if size(at(low)) > room:
        raise TargetError("no rank meets the budget", got=f"{size(at(low)):,} for rank 1", expected=f"{room:,} or less")
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if size(at(middle)) <= room else (low, middle)
    ranks = at(low)
    for path in ranks:
        if size(ranks) + costs[path] <= room and ranks[path] < min(shapes[path]):
            ranks[path] += 1
    return ranks


def multiplied_out(student: SpeechEncoder) -> SpeechEncoder:
    """A copy whose pairs are single layers again: the same outputs, torchaudio's layout."""
    whole = copy.deepcopy(student)
    for path, module in list(whole.named_modules()):
        if isinstance(module, Pair):
            whole.set_submodule(path, module.multiplied_out())
    return whole


def low_rank(task: Task, _config: RunConfig, budget: int) -> Beginning:
    """Every matrix of the teacher as a product of two."""
    return Beginning(student=factored(student_of(task), budget), finish=multiplied_out)
