"""Groups taken over from torch-pruning are those that our own tracing finds, where torch-pruning is right."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch_pruning
import torchvision
from shared_networks import Grouped, Halves, Residual, Tied, X, heads_of, settled, vision_transformer
from torch import Tensor, nn
from torch.nn import functional as F

from l0prune import GroupError, PruneGroup, discover, groups_of_graph, inspect, plan_of, prune, wrap


def graph_of(model: nn.Module, **settings: Any) -> torch_pruning.DependencyGraph:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Unwrapped parameters detected")
        return torch_pruning.DependencyGraph().build_dependency(model, example_inputs=X, **settings)


def places(group: PruneGroup) -> frozenset:
    return frozenset((p.tensor, p.dim, p.role, frozenset(map(frozenset, p.index.tolist()))) for p in group.places)


def alike(theirs: list[PruneGroup], model: nn.Module) -> bool:
    ours = discover(model, lambda model: model(X)).groups

    def everything(groups: Any) -> set:
        return {(places(group), frozenset(group.norms), group.attributes, group.kind == "head") for group in groups}

    return everything(theirs) == everything(ours)


ALIKE = [torchvision.models.resnet18, torchvision.models.mobilenet_v2, Residual, Grouped, Tied]


@pytest.mark.parametrize("make", ALIKE)
def test_both_find_the_same_units_in_the_same_places(make: Callable[[], nn.Module]) -> None:
    model = make().eval()
    assert alike(groups_of_graph(graph_of(model)), model)


def test_a_layer_by_itself_has_no_groups() -> None:
    assert groups_of_graph(graph_of(nn.Conv2d(3, 4, 1))) == []


def test_both_find_the_same_heads() -> None:
    model = settled(vision_transformer)
    groups = groups_of_graph(graph_of(model), num_heads=heads_of(model))
    assert alike(groups, model)
    assert [row.proved for row in inspect(model, X, groups=groups).rows] == [True] * 5


def test_without_heads_attention_is_refused_and_all_else_stays() -> None:
    model = settled(vision_transformer)
    found = inspect(model, X, groups=groups_of_graph(graph_of(model)))
    assert {row.name for row in found.rows if not row.proved} == {"blocks.0.attn.qkv", "blocks.1.attn.qkv"}
    assert len(found.groups) == 3


def test_heads_that_do_not_divide_the_channels_are_left_out() -> None:
    model = settled(vision_transformer)
    with pytest.warns(UserWarning, match=r"heads do not divide the channels: blocks.1.attn.qkv \(got 5 of 24"):
        groups = groups_of_graph(graph_of(model), num_heads={model.blocks[1].attn.qkv: 5})  # type: ignore[index,union-attr]
    assert "blocks.1.attn.qkv" not in {group.name for group in groups}


def test_a_graph_can_be_given_to_wrap() -> None:
    model = torchvision.models.resnet18().eval()
    pruner = wrap(model, X, target_sparsity=0.3, groups=groups_of_graph(graph_of(model)))
    assert len(pruner.inspection.groups) == 12
    assert pruner.inspection.mac_model is not None


class Rows(nn.Module):
    """A linear layer over channels with its weight transposed, and a count of its own."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(inputs, outputs) / 4), nn.Parameter(torch.randn(outputs))
        self.outputs = outputs

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.t(), self.bias).unflatten(-1, (self.outputs,))


class Scale(nn.Module):
    """A factor for each channel, on its third dimension."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.rand(1, 1, channels) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor[0]


class RowsPruner(torch_pruning.BasePruningFunc):
    def prune_out_channels(self, layer: Any, idxs: Any) -> nn.Module:
        kept = [i for i in range(layer.outputs) if i not in idxs]
        layer.outputs -= len(idxs)
        layer.weight = self._prune_parameter_and_grad(layer.weight, kept, 1)
        layer.bias = self._prune_parameter_and_grad(layer.bias, kept, 0)
        return layer

    def prune_in_channels(self, layer: Any, idxs: Any) -> nn.Module:
        kept = [i for i in range(len(layer.weight)) if i not in idxs]
        layer.weight = self._prune_parameter_and_grad(layer.weight, kept, 0)
        return layer

    def get_out_channels(self, layer: Any) -> int:
        return layer.outputs

    def get_in_channels(self, layer: Any) -> int:
        return len(layer.weight)


class ScalePruner(torch_pruning.BasePruningFunc):
    def prune_out_channels(self, layer: Any, idxs: Any) -> nn.Module:
        kept = [i for i in range(layer.factor.shape[2]) if i not in idxs]
        layer.factor = self._prune_parameter_and_grad(layer.factor, kept, 2)
        return layer

    prune_in_channels = prune_out_channels

    def get_out_channels(self, layer: Any) -> int:
        return layer.factor.shape[2]

    get_in_channels = get_out_channels


class Own(nn.Module):
    """Layers of one's own, and parameters outside layers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.scale = nn.Conv2d(3, 12, 3), Scale(12)
        self.rows, self.again, self.head = Rows(12, 9), Rows(9, 8), nn.Linear(8, 5)
        self.shift, self.stretch = nn.Parameter(torch.randn(8, 1)), nn.Parameter(torch.rand(1, 9) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.scale(self.a(x).flatten(2).transpose(1, 2))
        x = self.again(F.relu(self.rows(x) * self.stretch))
        return self.head((x.transpose(1, 2) + self.shift).mean(2))


CUSTOMIZED = {Rows: RowsPruner(), Scale: ScalePruner()}


def test_customised_pruners_and_unwrapped_parameters_are_taken_over() -> None:
    model = settled(Own)
    theirs = groups_of_graph(graph_of(model, customized_pruners=CUSTOMIZED, unwrapped_parameters=[(model.shift, 0)]))
    ours = discover(model, lambda model: model(X)).groups
    assert {places(group) for group in theirs} == {places(group) for group in ours}
    found = inspect(model, X, groups=theirs)
    assert [(row.name, row.units, row.proved) for row in found.rows] == [
        ("again", 8, True),
        ("rows", 9, True),
        ("a", 12, True),
    ]
    pruned = prune(model, X, target_sparsity=0.4, groups=theirs, importance=lambda _, groups: [*range(29)])
    assert pruned.rows.outputs == len(plan_of(pruned).kept["rows"])  # type: ignore[union-attr]
    assert pruned.again.outputs == len(plan_of(pruned).kept["again"]) < 8  # type: ignore[union-attr]
    assert sum(p.numel() for p in pruned.parameters()) <= 0.6 * sum(p.numel() for p in model.parameters())


def test_a_customised_pruner_that_fails_is_named() -> None:
    class Broken(ScalePruner):
        def prune_out_channels(self, layer: Any, idxs: Any) -> nn.Module:
            raise RuntimeError("no such thing")

        prune_in_channels = prune_out_channels

    graph = graph_of(settled(Own), customized_pruners={Rows: RowsPruner(), Scale: Broken()})
    with pytest.raises(GroupError, match=r"fails: scale \(Scale\) \(got RuntimeError: no such thing\)"):
        groups_of_graph(graph)


class Softened(nn.Module):
    """A softmax over channels, which torch-pruning takes for an operation on each of them alone."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 1), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.b(self.a(x).softmax(1)).mean((2, 3)))


class Attending(nn.Module):
    """torch's own attention, which torch-pruning prunes channel by channel."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.attend = nn.Conv2d(3, 8, 3, stride=4), nn.MultiheadAttention(8, 2, batch_first=True)
        self.up, self.head = nn.Linear(8, 12), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x).flatten(2).transpose(1, 2)
        return self.head(F.relu(self.up(self.attend(x, x, x)[0])).mean(1))


@pytest.mark.parametrize(
    ("make", "wrong", "right"), [(Softened, "a", "b"), (Attending, "a", "up"), (Halves, "a#1 a#2", "b c")]
)
def test_what_the_graph_has_wrong_is_refused(make: Callable[[], nn.Module], wrong: str, right: str) -> None:
    model = settled(make)
    found = inspect(model, X, groups=groups_of_graph(graph_of(model)))
    proved = {row.name: row.proved for row in found.rows}
    assert proved == dict.fromkeys(wrong.split(), False) | dict.fromkeys(right.split(), True)
