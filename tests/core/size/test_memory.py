"""Peak memory: exact by its own account for any choice of units, and what PyTorch's profiler sees."""

import numpy as np
import pytest
import torch
from l0bench.memory_profile import profiled_peak
from residual_networks import ResNet, Transformer
from torch import Tensor, nn

import l0prune
from l0prune.discovery import trace
from l0prune.removal import apply_plan, make_plan
from l0prune.size import Subject, memory_size, metric_named
from l0prune.support import copied, model_shapes


class Wide(nn.Module):
    """A residual block of a transformer with an attention that is fused, and a norm that is understood as a whole."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.qkv, self.out = nn.RMSNorm(32), nn.Linear(32, 96), nn.Linear(32, 32)
        self.up, self.down = nn.Linear(32, 256), nn.Linear(256, 32)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(-1, (4, 8)).transpose(1, 2) for part in self.qkv(self.norm(x)).chunk(3, -1))
        x = x + self.out(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2))
        return x + self.down(nn.functional.gelu(self.up(x)))


def convolutions(*widths: int) -> nn.Module:
    layers: list[nn.Module] = []
    for given, made in zip((3, *widths), widths, strict=False):
        layers += [nn.Conv2d(given, made, 3, padding=1), nn.BatchNorm2d(made), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 4))


NETWORKS = {
    "mlp": (
        lambda: nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 3)),
        (50, 8),
    ),
    "convolutions": (lambda: convolutions(64, 32), (4, 3, 24, 24)),
    "columns": (lambda: convolutions(12, 7).double(), (3, 3, 12, 12)),
    "attention": (lambda: nn.Sequential(nn.Linear(8, 32), Wide(), Wide(), nn.Linear(32, 5)), (3, 70, 8)),
    "transformer": (Transformer, (2, 6, 8)),
    "resnet": (lambda: ResNet().double(), (2, 3, 16, 16)),
}
STEPS = {"convolutions": 16}
"""oneDNN computes with blocks of 16 channels: other widths take a little more."""
TINY = {"transformer", "resnet"}
"""So small that what kernels take beside counts."""


def network(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    make, shape = NETWORKS[name]
    model = make().eval()
    return model, torch.randn(shape, dtype=next(model.parameters()).dtype)


def accounted(model: nn.Module, x: Tensor) -> int:
    """Of a network as it is: without groups all lengths are numbers."""
    return memory_size(model, [], trace(model, lambda net: net(x), training=False, memory=True)).total


@pytest.mark.parametrize("name", NETWORKS)
def test_it_is_what_a_cut_network_takes(name: str) -> None:
    model, x = network(name)
    groups = l0prune.inspect(model, x).groups
    assert groups
    size = memory_size(model, groups, trace(model, lambda net: net(x), training=False, memory=True))
    assert size.total == accounted(model, x)
    assert name in TINY or abs(size.total / profiled_peak(model, x) - 1) < 0.05
    random = np.random.default_rng(0)
    for _ in range(4):
        counts = []
        for group in groups:
            step = group.step(STEPS.get(name, 1))
            few = int(random.integers(1 if group.least_units else 0, group.units + 1))
            counts.append(min(group.units, -(-few // step) * step))
        kept = {group.name: tuple(range(count)) for group, count in zip(groups, counts, strict=True)}
        smaller = apply_plan(copied(model), make_plan(groups, kept, model_shapes(model))).eval()
        assert size.exact(np.array(counts)) == accounted(smaller, x)
        assert name in TINY or abs(size.exact(np.array(counts)) / profiled_peak(smaller, x) - 1) < 0.05


def test_what_is_given_up_early_is_not_there_later() -> None:
    class Twice(nn.Module):
        def __init__(self, keep: bool) -> None:
            super().__init__()
            self.one, self.two, self.keep = nn.Linear(4, 100), nn.Linear(100, 100), keep

        def forward(self, x: Tensor) -> Tensor:
            x = self.one(x)
            y = self.two(x)
            if not self.keep:
                del x
            z = torch.cat([y, y])
            return z[:8].add_(x) if self.keep else z[:8]

    x = torch.randn(8, 4)
    few, more = accounted(Twice(False), x), accounted(Twice(True), x)
    assert more - few == 8 * 100 * 4
    assert few == profiled_peak(Twice(False), x)
    assert more == profiled_peak(Twice(True), x)


def test_views_and_what_is_done_in_place_take_nothing() -> None:
    class Views(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 100)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x).relu_().view(2, 4, 100).transpose(0, 1).sigmoid_()

    x = torch.randn(8, 4)
    weights = 4 * (400 + 100)
    assert accounted(Views(), x) == weights + x.nbytes + 8 * 100 * 4 == profiled_peak(Views(), x)


def test_weights_that_are_shared_count_once() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    model[1].weight = model[0].weight
    x = torch.randn(1, 8)
    # The bias of both, one weight, the input and two results.
    assert accounted(model, x) == 4 * (64 + 16) + 3 * x.nbytes


def test_a_budget_of_memory_is_met_from_below_by_prune_and_by_wrap() -> None:
    model, x = network("convolutions")
    dense = accounted(model, x)
    smaller = l0prune.prune(model, x, target={"memory": f"{0.5 * dense}B"})
    assert 0.4 * dense < accounted(smaller, x) <= 0.5 * dense
    smaller = l0prune.prune(model, x, target={"memory": "60%", "params": 0.6, "macs": 0.5})
    assert accounted(smaller, x) <= 0.6 * dense
    torch.manual_seed(0)
    pruner = l0prune.wrap(model.train(), x, target={"memory": 0.5, "params": 0.9}, total_steps=30)
    optimizer = torch.optim.AdamW(pruner.parameter_groups(lr=1e-3))
    for _ in range(30):
        (model(x).square().mean() + pruner.penalty()).backward()
        optimizer.step()
        pruner.step()
        optimizer.zero_grad()
    smaller = pruner.finalize().eval()
    assert 0.4 * dense < accounted(smaller, x) <= 0.5 * dense
    row = next(row for row in pruner.report.targets if row["metric"] == "memory")
    assert row["size"] == accounted(smaller, x)
    assert row["binds"]


def test_bad_input() -> None:
    model, x = network("mlp")
    with pytest.raises(l0prune.TargetError, match=r"below what removal can reach: memory .*MB of memory or more"):
        l0prune.prune(model, x, target={"memory": "1KB"})
    with pytest.raises(l0prune.ConfigError, match=r"no such unit: memory"):
        l0prune.prune(model, x, target={"memory": "3ms"})

    def fails(model: nn.Module) -> Tensor:
        raise ValueError("no input")

    subject = Subject(model=model, groups=(), observe=fails)
    with pytest.raises(l0prune.ConfigError, match=r"metric cannot be counted.*memory"):
        metric_named("memory").size(subject)
