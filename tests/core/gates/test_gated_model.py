"""Gates on a model: gradients, the deterministic choice, and taking them off again."""

import copy
import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from l0prune import GateConfig, GatedModel, GroupError, Place, ProofError, PruneGroup, Role, consecutive, prove_groups
from l0prune.groups import Norm
from l0prune.proof.exactness import relative_difference
from l0prune.proof.trials import find_faults
from l0prune.support.modules import model_shapes

Make = Callable[..., tuple[nn.Module, list[PruneGroup]]]


def make_gated(make_network: Make, target: float = 0.4, **config: object) -> GatedModel:
    network, groups = make_network()
    return GatedModel(network, groups, target_sparsity=target, config=GateConfig(**config))  # type: ignore[arg-type]


@pytest.fixture
def x() -> Tensor:
    return torch.randn(7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def test_gradient_of_the_gates_agrees_with_finite_differences(make_network: Make, x: Tensor) -> None:
    gated = make_gated(make_network).train()
    uniform = torch.linspace(0.3, 0.7, 10, dtype=torch.float64)

    def loss(log_alpha: Tensor) -> Tensor:
        z = gated.gates.distribution.transform(log_alpha, uniform)
        with gated.gates.fixed(z):
            outputs = gated.model(x)
        return outputs.pow(2).sum() + gated.size_model.expected(gated.gates.distribution.keep_probability(log_alpha))

    start = torch.linspace(-0.2, 0.2, 10, dtype=torch.float64, requires_grad=True)
    z = gated.gates.distribution.transform(start, uniform)
    assert ((z > 0) & (z < 1)).all()  # inside the clamp, where the function is smooth
    assert torch.autograd.gradcheck(loss, start)


def test_closed_gates_and_their_weights_get_no_gradient(make_network: Make, x: Tensor) -> None:
    gated = make_gated(make_network).train()
    values = torch.ones(10, dtype=torch.float64)
    values[5] = 0
    with gated.gates.fixed(values):
        gated.model(x).sum().backward()
    block = gated.model.block
    assert block.square.parametrizations.weight.original.grad[1].abs().max() == 0
    assert block.down.parametrizations.weight.original.grad[:, 1].abs().max() == 0
    assert block.down.parametrizations.weight.original.grad[:, 0].abs().max() > 0


@pytest.mark.parametrize("mask_value", ["mean", "published_mask"])
def test_evaluation_outputs_are_those_of_the_pruned_network(make_network: Make, x: Tensor, mask_value: str) -> None:
    gated = make_gated(make_network, mask_value=mask_value)
    for seed in range(8):
        with torch.no_grad():
            generator = torch.Generator().manual_seed(seed)
            gated.gates.log_alpha.copy_(4 * torch.randn(10, generator=generator, dtype=torch.float64))
        pruned, plan = gated.eval().pruned()
        assert relative_difference(gated(x), pruned(x)) < 1e-12
        counted = sum(p.numel() for p in pruned.parameters())
        counts = np.array([len(plan.kept[group.name]) for group in gated.groups])
        assert gated.size_model.exact(counts) == counted
        assert counted <= gated.gates.budget


def test_every_pattern_is_exact(make_network: Make, x: Tensor) -> None:
    gated = make_gated(make_network).eval()
    for first, second in itertools.product(range(1, 5), range(7)):
        values = torch.cat([torch.arange(4) < first, torch.arange(6) < second]).double() * 0.7
        with gated.gates.fixed(values):
            pruned, _ = gated.pruned()
            assert relative_difference(gated.model(x), pruned(x)) < 1e-12


def test_folded_gates_leave_a_dense_network_that_computes_the_same(make_network: Make, x: Tensor) -> None:
    """An emptied block's output bias goes with it. Norms see closed units again: theirs are open here."""
    gated = make_gated(make_network).eval()
    for second in range(7):
        values = torch.cat([torch.ones(4), torch.arange(6) < second]).double() * 0.7
        with gated.gates.fixed(values):
            folded = gated.folded()
            assert relative_difference(gated.model(x), folded(x)) < 1e-12
        assert type(folded) is type(make_network()[0])
        assert model_shapes(folded) == gated.shapes


def test_the_choice_follows_the_gates_whatever_wrote_them(make_network: Make) -> None:
    gated = make_gated(make_network).eval()
    before = gated.gates.decide()
    optimizer = torch.optim.AdamW([gated.gates.log_alpha], lr=5.0, fused=True)
    gated.gates.log_alpha.grad = torch.cat([torch.ones(2), -torch.ones(2), torch.ones(3), -torch.ones(3)]).double()
    optimizer.step()
    after = gated.gates.decide()
    assert not all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_compiled_layers_take_the_choice_of_now(make_network: Make, x: Tensor) -> None:
    gated = make_gated(make_network).eval()
    for layer in gated.model.children():
        layer.compile(backend="eager")
    outputs = []
    for _ in range(3):
        outputs.append(gated(x))
        torch.testing.assert_close(outputs[-1], gated.pruned()[0](x))
        with torch.no_grad():
            gated.gates.log_alpha.neg_()
    assert torch.equal(outputs[0], outputs[2])
    assert not torch.allclose(outputs[0], outputs[1])


def test_detaching_gives_back_the_dense_model(make_network: Make, x: Tensor) -> None:
    network, groups = make_network()
    dense = copy.deepcopy(network)
    gated = GatedModel(network, groups, target_sparsity=0.4)
    assert {name for name, _ in gated.gates.named_parameters()} == {"log_alpha"}
    gated.train()(x)
    gated.eval().pruned()
    plain = gated.detach()
    assert model_shapes(plain) == model_shapes(dense)
    assert all(torch.equal(p, dense.get_parameter(name)) for name, p in plain.named_parameters())
    assert torch.equal(plain(x), dense(x))
    assert type(plain.norm) is nn.LayerNorm


def test_copies_do_not_share_gates(make_network: Make, x: Tensor) -> None:
    gated = make_gated(make_network)
    gated.train()(x)
    twin = copy.deepcopy(gated)
    with torch.no_grad():
        twin.gates.log_alpha.fill_(-9.0)
        twin.gates.log_alpha[[0, 4, 5]] = 9.0
    assert torch.equal(twin.eval()(x), twin.eval()(x))
    assert not torch.equal(twin.eval()(x), gated.eval()(x))
    twin.detach()
    assert torch.isfinite(gated.train()(x)).all()


def test_training_draws_new_gates_after_every_backward_pass(make_network: Make, x: Tensor) -> None:
    torch.manual_seed(0)
    gated = make_gated(make_network, drop_rate=0.5).train()
    first = gated(x)
    first.sum().backward()
    assert not torch.equal(first, gated(x))


def broken(groups: list[PruneGroup], how: str) -> list[PruneGroup]:
    first, second = groups
    if how == "norm left ungated":
        object.__setattr__(first, "norms", ())
    elif how == "output bias left alive":
        object.__setattr__(second, "alive_with", ())
    else:
        object.__setattr__(first, "places", tuple(p for p in first.places if p.tensor != "up.bias"))
    return [first, second]


@pytest.mark.parametrize(
    ("how", "name"),
    [("norm left ungated", "first"), ("output bias left alive", "second"), ("a place left out", "first")],
)
def test_a_wrong_group_is_found_and_named(make_network: Make, x: Tensor, how: str, name: str) -> None:
    network, groups = make_network()
    gated = GatedModel(network, broken(groups, how), target_sparsity=0.4).eval()
    _, faults = find_faults(gated, lambda model: model(x))
    assert set(faults) == {name}
    with pytest.raises(ProofError, match=name):
        prove_groups(gated, lambda model: model(x))


def test_right_groups_are_proved(make_network: Make, x: Tensor) -> None:
    gated = make_gated(make_network).eval()
    assert prove_groups(gated, lambda model: model(x), tolerance=1e-12) < 1e-12


def test_a_norm_that_carries_other_units_too_is_refused(make_network: Make) -> None:
    network, groups = make_network()
    object.__setattr__(groups[1], "norms", (Norm(module="norm"),))
    with pytest.raises(Exception, match="second, norm"):
        GatedModel(network, groups, target_sparsity=0.4)


def test_only_open_gates_get_a_gradient_from_the_loss(make_network: Make, x: Tensor) -> None:
    gated = make_gated(make_network).train()
    uniform = torch.linspace(0.02, 0.98, 10, dtype=torch.float64)
    z = gated.gates.distribution.transform(gated.gates.log_alpha.data.zero_().requires_grad_(), uniform)
    with gated.gates.fixed(gated.gates.distribution.transform(gated.gates.log_alpha, uniform)):
        gated.model(x).pow(2).sum().backward()
    gradient = gated.gates.log_alpha.grad
    assert gradient is not None
    assert set(z.tolist()) >= {0.0, 1.0}
    assert torch.equal(gradient != 0, (z > 0) & (z < 1))


@pytest.mark.parametrize("mask_value", ["mean", "published_mask"])
def test_the_plan_is_the_selection_however_far_gates_have_gone(make_network: Make, x: Tensor, mask_value: str) -> None:
    network, groups = make_network(dtype=torch.float32)
    gated = GatedModel(network, groups, target_sparsity=0.4, config=GateConfig(mask_value=mask_value)).eval()
    for location in (-1000.0, 0.0, 1000.0):
        with torch.no_grad():
            gated.gates.log_alpha.fill_(location)
        pruned, plan = gated.pruned()
        assert plan.to_json() == gated.plan().to_json()
        assert torch.isfinite(pruned(x.float())).all()
        assert relative_difference(gated(x.float()), pruned(x.float())) < 1e-5


def test_a_model_in_half_precision_runs_with_gates(make_network: Make, x: Tensor) -> None:
    network, groups = make_network(dtype=torch.bfloat16)
    gated = GatedModel(network, groups, target_sparsity=0.4)
    gated.train()(x.bfloat16()).float().sum().backward()
    assert gated.gates.log_alpha.grad is not None
    assert torch.isfinite(gated.gates.log_alpha.grad).all()
    assert gated.eval()(x.bfloat16()).dtype == torch.bfloat16


class Grouped(nn.Module):
    """A GroupNorm of two groups between two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.second = nn.Conv1d(2, 8, 1), nn.GroupNorm(2, 8), nn.Conv1d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.norm(self.first(x))))


def grouped(index: np.ndarray) -> tuple[nn.Module, PruneGroup]:
    network = Grouped().double()
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    made = ("first.weight", "first.bias", "norm.weight", "norm.bias")
    places = [Place(tensor=name, dim=0, role=Role.PRODUCES, index=index) for name in made]
    places.append(Place(tensor="second.weight", dim=1, role=Role.CONSUMES, index=index))
    return network, PruneGroup(
        name="pairs", kind="pair", units=len(index), places=tuple(places), norms=(Norm(module="norm", channel_dim=1),)
    )


def test_group_norm_is_exact_for_units_that_take_alike_from_each_group() -> None:
    network, group = grouped(np.array([[0, 4], [1, 5], [2, 6], [3, 7]]))
    gated = GatedModel(network, [group], target_sparsity=0.4).eval()
    x = torch.randn(3, 2, 5, dtype=torch.float64)
    assert prove_groups(gated, lambda model: model(x), tolerance=1e-12) < 1e-12
    for index in (consecutive(8), consecutive(4, 2)):
        with pytest.raises(GroupError, match="pairs, norm"):
            GatedModel(
                *[[part] if isinstance(part, PruneGroup) else part for part in grouped(index)], target_sparsity=0.4
            )


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_compiled_gradients_are_those_of_eager_mode(make_network: Make, x: Tensor) -> None:
    found = []
    for compiled in (False, True):
        gated = make_gated(make_network, drop_rate=0.3).train()
        if compiled:
            gated.model.compile(backend="aot_eager")
        torch.manual_seed(0)
        gated.gates.sample()
        gated.model(x).square().mean().backward()
        found.append([p.grad for p in (*gated.model.parameters(), gated.gates.log_alpha)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)
