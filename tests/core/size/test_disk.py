"""Bytes on disk: the polynomial is what a file takes, for any choice of units."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import l0prune
from l0prune.size import Disk, Subject, metric_named
from l0prune.size.disk import header_bytes, saved_tensors

NETWORKS = ["mlp", "cnn", "transformer"]


class Tied(nn.Module):
    """Two layers with one weight, which is saved once."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down, self.again = nn.Linear(8, 40), nn.Linear(40, 8), nn.Linear(8, 40)
        self.again.weight = self.up.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.up(x).relu()) + self.down(self.again(x).relu())


def network(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    if name == "mlp":
        return nn.Sequential(nn.Linear(8, 40), nn.ReLU(), nn.Linear(40, 24), nn.ReLU(), nn.Linear(24, 3)), torch.randn(
            2, 8
        )
    if name == "cnn":
        convolutions = [nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 24, 3), nn.ReLU()]
        tail = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 4)]
        return nn.Sequential(*convolutions, *tail).eval(), torch.randn(2, 3, 8, 8)
    if name == "tied":
        return Tied(), torch.randn(2, 8)
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, dropout=0.0)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval(), torch.randn(2, 5, 16)


def saved_bytes(model: nn.Module, dtype: torch.dtype | None, path: Path) -> tuple[int, int]:
    """Bytes of the tensors, and of the whole file."""
    tensors = {name: tensor.detach() for name, tensor in saved_tensors(model).items()}
    if dtype:
        tensors = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(tensors, path)
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()), path.stat().st_size


@pytest.mark.parametrize("dtype", [None, torch.float16])
@pytest.mark.parametrize("name", [*NETWORKS, "tied"])
def test_it_is_what_a_file_takes(name: str, dtype: torch.dtype | None, tmp_path: Path) -> None:
    model, x = network(name)
    groups = l0prune.inspect(model, x).groups
    size = Disk(dtype).size(Subject(model=model, groups=tuple(groups), observe=lambda net: net(x)))
    shapes = {key: tuple(tensor.shape) for key, tensor in saved_tensors(model).items()}
    each = {
        key: t.element_size() if dtype is None or not t.is_floating_point() else 2
        for key, t in saved_tensors(model).items()
    }
    header = header_bytes(shapes, each)
    tensors, whole = saved_bytes(model, dtype, tmp_path / "dense")
    assert size.total == tensors + header
    # Shorter names of dtypes, and another order.
    assert abs(size.total - whole) <= 8 * len(shapes)
    for target in (0.3, 0.5, 0.7):
        smaller = l0prune.prune(model, x, target_sparsity=target, round_to=1)
        kept = l0prune.plan_of(smaller).kept_counts
        tensors, whole = saved_bytes(smaller, dtype, tmp_path / "pruned")
        counted = size.exact(np.array([kept[group.name] for group in groups]))
        assert counted == tensors + header
        assert whole <= counted


@pytest.mark.parametrize("name", NETWORKS)
def test_a_budget_in_bytes_is_met_from_below(name: str, tmp_path: Path) -> None:
    model, x = network(name)
    _, dense = saved_bytes(model, None, tmp_path / "dense")
    most = int(0.7 * dense)
    smaller = l0prune.prune(model, x, target={"disk": f"{most}B", "params": "95%"}, round_to=1)
    _, whole = saved_bytes(smaller, None, tmp_path / "pruned")
    assert whole <= most
    half = l0prune.prune(model, x, metric="disk-float16", target_sparsity=0.3, round_to=1)
    _, whole = saved_bytes(half, torch.float16, tmp_path / "half")
    assert whole <= 0.7 * saved_bytes(model, torch.float16, tmp_path / "dense")[1] + 8 * len(saved_tensors(model))


@pytest.mark.parametrize("name", [*NETWORKS, "tied"])
def test_quantised_matrices_come_with_their_scales(name: str, tmp_path: Path) -> None:
    def file_of(model: nn.Module) -> tuple[int, int]:
        """Bytes of the tensors, and of the whole file."""
        tensors: dict[str, Tensor] = {}
        for key, tensor in saved_tensors(model).items():
            if isinstance(tensor, nn.Parameter) and tensor.ndim > 1:
                scale = tensor.detach().flatten(1).abs().amax(1).clamp_min(1e-9) / 127
                rows = scale.view(-1, *[1] * (tensor.ndim - 1))
                tensors[key] = (tensor.detach() / rows).round().to(torch.int8)
                tensors[f"{key}_scale"] = scale
            else:
                tensors[key] = tensor.detach().clone()
        save_file(tensors, tmp_path / "quantised")
        return sum(tensor.nbytes for tensor in tensors.values()), (tmp_path / "quantised").stat().st_size

    model, x = network(name)
    groups = l0prune.inspect(model, x).groups
    metric = metric_named("disk-int8")
    size = metric.size(Subject(model=model, groups=tuple(groups), observe=lambda net: net(x)))
    tensors, whole = file_of(model)
    header = size.total - tensors
    assert header > 0
    assert 0 <= size.total - whole <= 16 * len(saved_tensors(model))
    for target in (0.2, 0.4):
        smaller = l0prune.prune(model, x, target_sparsity=target, metric="disk-int8", round_to=1)
        kept = l0prune.plan_of(smaller).kept_counts
        tensors, whole = file_of(smaller)
        assert size.exact(np.array([kept[group.name] for group in groups])) == tensors + header
        assert whole <= (1 - target) * size.total


def test_forms_have_names() -> None:
    assert Disk(torch.float16, matrices=torch.int8, scales=torch.float16).name == "disk-int8-float16"
    assert Disk(matrices=torch.int8).name == "disk-int8"


def test_bad_input() -> None:
    model, x = network("mlp")
    with pytest.raises(l0prune.ConfigError, match=r"no such unit: disk .*kib, mb"):
        l0prune.prune(model, x, target={"disk": "5parsecs"})
    with pytest.raises(
        l0prune.TargetError, match=r"target is below what removal can reach: disk \(got 1e-06 MB on disk"
    ):
        l0prune.prune(model, x, target={"disk": "1B"})
    assert metric_named("disk").noun == metric_named("disk-float16").noun
