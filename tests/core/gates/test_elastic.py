"""Every size between two ends from one run of one's own loop: its units, and that a cut is what was gated."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from small_training import controller_of
from torch import Tensor, nn
from torch.nn import functional as F

import l0prune
from l0prune.config import CompactionConfig, ElasticConfig
from l0prune.gates.elastic import ElasticController

STEPS = 40


def batch(seed: int = 0) -> tuple[Tensor, Tensor]:
    x = torch.randn(32, 12, generator=torch.Generator().manual_seed(seed))
    return x, x[:, :10].argmax(1)


def network(*, norm: bool = False) -> nn.Sequential:
    torch.manual_seed(0)
    middle = [nn.BatchNorm1d(24)] if norm else []
    return nn.Sequential(nn.Linear(12, 24), *middle, nn.ReLU(), nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 10))


def trained(model: nn.Module, steps: int = STEPS, **settings: Any) -> l0prune.L0Pruner:
    settings = {"elastic": (0.3, 1.0), "total_steps": STEPS, "round_to": 1} | settings
    pruner = l0prune.wrap(model, batch()[0], **settings)
    go_on(pruner, 0, steps)
    return pruner


def go_on(pruner: l0prune.L0Pruner, begin: int, end: int) -> None:
    optimizer = torch.optim.SGD(pruner.parameter_groups(lr=0.05))
    pruner.model.train()
    for step in range(begin, end):
        x, y = batch(step)
        optimizer.zero_grad()
        F.cross_entropy(pruner.model(x), y).backward()
        optimizer.step()
        pruner.step()


@pytest.fixture(scope="module")
def pruner() -> l0prune.L0Pruner:
    return trained(network())


def test_each_size_is_met_from_below_and_is_what_was_gated(pruner: l0prune.L0Pruner) -> None:
    x, size = batch(99)[0], pruner.gated.size_model
    for left in (0.3, 0.41, 0.5, 0.77, 0.999, 1.0):
        cut = pruner.finalize(left=left)
        counted = sum(p.numel() for p in cut.parameters())
        assert counted == pruner.report.params_after <= left * size.total
        assert 1 - pruner.report.sparsity == pytest.approx(counted / size.total)
        counts = [row["kept"] for row in pruner.report.kept_units.values()]
        for g, group in enumerate(pruner.gated.groups):
            # No unit more fits.
            more = [count + (g == number) for number, count in enumerate(counts)]
            assert counts[g] == group.units or size.exact(np.array(more)) > left * size.total
        for mode in (True, False):
            with pruner.at(left), torch.no_grad():
                torch.testing.assert_close(pruner.model.train(mode)(x), cut(x), rtol=1e-5, atol=1e-6)


def test_a_network_has_the_units_of_smaller_ones(pruner: l0prune.L0Pruner) -> None:
    controller = pruner.gated.gates, elastic_of(pruner)
    smaller, order = None, elastic_of(pruner).scores(pruner.gated.gates)
    for left in (0.3, 0.4, 0.6, 0.8, 1.0):
        kept = controller[1].kept_at(controller[0], left)
        for units in split(pruner, kept, order):
            # The best of each group stay.
            assert not units[0].any() or not (~units[0]).any() or units[1][units[0]].min() >= units[1][~units[0]].max()
        assert smaller is None or sum(kept & ~smaller) >= sum(smaller & ~kept)
        smaller = kept
    assert smaller is not None
    assert smaller.all()


def elastic_of(pruner: l0prune.L0Pruner) -> ElasticController:
    return controller_of(pruner).elastic


def split(pruner: l0prune.L0Pruner, kept: Any, order: Any) -> Any:
    end = 0
    for group in pruner.gated.groups:
        begin, end = end, end + group.units
        yield kept[begin:end], order[begin:end]


def test_sizes_take_turns_between_the_ends_and_the_order_holds_once_it_is_final() -> None:
    seen: list[float] = []
    pruner = l0prune.wrap(network(), batch()[0], elastic=(0.3, 0.9), total_steps=STEPS, round_to=1)
    for step in range(STEPS):
        settled, before = pruner.settled, pruner.gated.gates.keep_probabilities().detach().clone()
        go_on(pruner, step, step + 1)
        if settled:
            assert torch.equal(before, pruner.gated.gates.keep_probabilities().detach())
            (left,) = pruner.sizes
            assert left is not None
            seen.append(left)
            # The plain loop sees the size of the step.
            x = batch()[0]
            with torch.no_grad():
                plain = pruner.model.train()(x)
                with pruner.at(left):
                    assert torch.equal(plain, pruner.model(x))
        else:
            assert 0 <= pruner.sparsity.target <= 0.7
            assert pruner.sparsity.expected == pytest.approx(pruner.sparsity.target, abs=1e-3)
    assert (min(seen), max(seen)) == (pytest.approx(0.3), pytest.approx(0.9))
    assert len({round(left, 6) for left in seen}) > len(seen) / 2
    with torch.no_grad():
        # Evaluation sees the smallest.
        smallest = pruner.finalize()
        torch.testing.assert_close(pruner.model.eval()(batch()[0]), smallest(batch()[0]))


def test_several_sizes_a_step_begin_with_the_ends() -> None:
    pruner = trained(network(), elastic=ElasticConfig(smallest=0.3, largest=0.8, sizes=4))
    sizes = list(pruner.sizes)
    assert sizes[:2] == [pytest.approx(0.3), pytest.approx(0.8)]
    assert all(left is not None and 0.3 <= left <= 0.8 for left in sizes[2:])
    assert len(sizes) == 4


@pytest.mark.parametrize("at", [7, 33])
def test_a_saved_state_goes_on_to_the_same_weights(at: int) -> None:
    whole = trained(network())
    first = trained(network(), steps=at)
    second = l0prune.wrap(network(), batch()[0], elastic=(0.3, 1.0), total_steps=STEPS, round_to=1)
    second.model.load_state_dict(copy.deepcopy(first.model.state_dict()))
    go_on(second, at, STEPS)
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, second.model.state_dict()[name]), name
    for left in (0.3, 0.6):
        for one, other in zip(
            whole.finalize(left=left).parameters(), second.finalize(left=left).parameters(), strict=True
        ):
            assert torch.equal(one, other)


def test_batch_norms_of_a_cut_have_statistics_of_their_own() -> None:
    pruner = trained(network(norm=True))
    with pytest.raises(l0prune.ConfigError, match="batch norms of a cut need batches"):
        pruner.finalize(left=0.5)
    batches = [batch(step)[0] for step in range(5)]
    cut = pruner.finalize(left=0.5, batches=batches)
    inputs = torch.stack([cut[0](x).detach() for x in batches])
    norm = cut[1]
    assert isinstance(norm, nn.BatchNorm1d)
    torch.testing.assert_close(norm.running_mean, inputs.mean((0, 1)))
    torch.testing.assert_close(norm.running_var, inputs.var(1).mean(0))
    assert norm.momentum == nn.BatchNorm1d(1).momentum
    assert not cut.training


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"elastic": (0.5, 0.3)}, r"elastic.largest out of range \(got 0.3, expected above elastic.smallest 0.5\)"),
        ({"elastic": (0.0, 0.3)}, "elastic.smallest"),
        ({"elastic": 0.3}, r"elastic has the wrong type .*\(0.25, 1.0\)"),
        ({"elastic": (0.3, 1.0), "target_sparsity": 0.5}, r"two targets \(got elastic and target_sparsity"),
        ({"elastic": (0.3, 1.0), "metric": "latency"}, "needs a size that is counted: metric"),
        ({"elastic": (0.3, 1.0), "compaction": CompactionConfig()}, "no unit leaves an elastic run"),
        ({"elastic": (0.3, 1.0), "controller": l0prune.ControllerConfig()}, "gives no order of sizes"),
    ],
)
def test_what_does_not_go_together_is_refused(settings: dict[str, Any], words: str) -> None:
    model = network()
    with pytest.raises(l0prune.L0PruneError, match=words):
        l0prune.wrap(model, batch()[0], **settings)
    assert not any("parametrizations" in name for name, _ in model.named_modules())


def test_a_size_that_is_not_trained_is_refused(pruner: l0prune.L0Pruner) -> None:
    for left in (0.29, 1.01, float("nan"), "half"):
        with pytest.raises(l0prune.ConfigError, match=r"outside the range that was trained .*0.3 to 1 of the size"):
            pruner.finalize(left=left)  # pyright: ignore[reportArgumentType]
    plain = l0prune.wrap(network(), batch()[0], target_sparsity=0.5, total_steps=10)
    go_on(plain, 0, 2)
    with pytest.raises(l0prune.ConfigError, match=r"there is one size alone; wrap\(\.\.\., elastic="):
        plain.finalize(left=0.5)
