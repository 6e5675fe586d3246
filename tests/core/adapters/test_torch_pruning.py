"""Groups taken over from torch-pruning are those that our own tracing finds, where torch-pruning is right."""

from collections.abc import Callable

import pytest
import torch
import torch_pruning
import torchvision
from torch import nn

from l0prune import GroupError, PruneGroup, discover, groups_of_graph, inspect, wrap

X = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def graph_of(model: nn.Module) -> torch_pruning.DependencyGraph:
    return torch_pruning.DependencyGraph().build_dependency(model, example_inputs=X)


def places(group: PruneGroup) -> frozenset:
    return frozenset((p.tensor, p.dim, p.role, frozenset(map(frozenset, p.index.tolist()))) for p in group.places)


@pytest.mark.parametrize("make", [torchvision.models.resnet18, torchvision.models.mobilenet_v2])
def test_both_find_the_same_units_in_the_same_places(make: Callable[[], nn.Module]) -> None:
    model = make().eval()
    theirs = groups_of_graph(graph_of(model))
    ours = discover(model, lambda model: model(X)).groups
    assert {places(group) for group in theirs} == {places(group) for group in ours}


class Small(nn.Sequential):
    """A norm across channels, a transposed convolution and an unwrapped parameter's worth of kinds."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.PReLU(8), nn.ConvTranspose2d(8, 6, 2), nn.Flatten(2)
        )


def test_a_graph_can_be_given_to_wrap() -> None:
    model = torchvision.models.resnet18().eval()
    pruner = wrap(model, X, target_sparsity=0.3, groups=groups_of_graph(graph_of(model)))
    assert len(pruner.inspection.groups) == 12
    assert pruner.inspection.mac_model is not None


def test_what_the_graph_has_wrong_is_refused() -> None:
    """torch-pruning takes any channel of a GroupNorm for a unit: groups of channels would end up of unequal size."""
    model = Small().eval()
    found = inspect(model, X, groups=groups_of_graph(graph_of(model)))
    assert [row.proved for row in found.rows] == [False]
    assert "GroupNorm" in found.rows[0].reason


def test_an_unknown_layer_is_named() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Bilinear(4, 4, 4))
    with pytest.raises(GroupError, match="Bilinear"):
        groups_of_graph(_FakeGraph(model))  # type: ignore[arg-type]


class _FakeGraph:
    """A graph whose one group ends in a layer that no rule is known for."""

    def __init__(self, model: nn.Sequential) -> None:
        self._module2name = {module: name for name, module in model.named_modules()}
        self._model = model

    def get_all_groups(self, ignored_layers: list) -> list:
        return [[_Member(self._model[0]), _Member(self._model[1])]]

    def is_in_channel_pruning_fn(self, handler: object) -> bool:
        return False


class _Member:
    def __init__(self, module: nn.Module) -> None:
        self.idxs = self.root_idxs = [0, 1, 2, 3]
        self.dep = self
        self.target, self.module, self.handler = self, module, None
