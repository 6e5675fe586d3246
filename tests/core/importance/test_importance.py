"""Importances: first-order terms equal gradient times weight, activations equal variances, bad input is refused."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from calibration_networks import Encoder, Grouped, Recurrent, images, loss
from hypothesis import given, settings
from hypothesis import strategies as st
from small_training import Net
from torch import nn
from torch.nn import functional as F

import l0prune
from l0prune import ConfigError, DataError, GroupError, Role, importances
from l0prune.calibration.consumers import with_open_attention
from l0prune.importance.gate_gradients import gate_gradients, of_weight

NETS = (Net, Grouped, Encoder, Recurrent)


def made(build: Callable[[], nn.Module]) -> tuple[nn.Module, tuple[l0prune.PruneGroup, ...]]:
    torch.manual_seed(0)
    model = build().double().eval()
    return model, l0prune.inspect(model, images()[0]).groups


@pytest.mark.parametrize("build", NETS)
def test_gate_gradients_sum_to_gradient_times_weight(build: Callable[[], nn.Module]) -> None:
    model, groups = made(build)
    opened = with_open_attention(model)
    found = gate_gradients(opened, groups, lambda: loss(opened, images()))
    loss(model, images()).backward()
    products = {name: p.detach() * p.grad for name, p in model.named_parameters() if p.grad is not None}
    for group, gradients in zip(groups, found, strict=True):
        read = {p for p in group.places if p.role is Role.CONSUMES and p.tensor in products}
        whole = sum(of_weight(place, products[place.tensor]) for place in read)
        torch.testing.assert_close(gradients.sum(0), whole, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("build", [Net, Grouped, Encoder])
def test_gate_gradients_are_those_of_single_examples(build: Callable[[], nn.Module]) -> None:
    model, groups = made(build)
    model, (x, y) = with_open_attention(model), images()
    together = gate_gradients(model, groups, lambda: F.cross_entropy(model(x), y, reduction="sum"))
    for n in range(len(x)):
        alone = gate_gradients(model, groups, lambda n=n: loss(model, (x[n : n + 1], y[n : n + 1])))
        for one, all_ in zip(alone, together, strict=True):
            assert len(all_) == len(x)
            torch.testing.assert_close(one[0], all_[n], rtol=1e-9, atol=1e-13)


def test_taylor_and_fisher_are_means_over_examples_and_fisher_counts_per_parameter() -> None:
    model, groups = made(Net)
    batches = [images(0), images(1)]
    found = [gate_gradients(model, groups, lambda b=b: loss(model, b)) for b in batches]
    rows = [torch.cat(each, dim=1) for each in found]
    taylor = sum(row.abs().sum(0) for row in rows) / 2
    fisher = sum(row.square().sum(0) for row in rows) / 2
    sizes = np.repeat(
        [row.unit_parameters for row in l0prune.inspect(model, images()[0]).rows], [g.units for g in groups]
    )
    np.testing.assert_allclose(importances(model, groups, "taylor", batches=batches, loss=loss), taylor.numpy())
    np.testing.assert_allclose(
        importances(model, groups, "fisher", batches=iter(batches), loss=loss), fisher.numpy() / sizes
    )


def test_magnitude_is_the_mean_square_of_what_goes_with_a_unit() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    (group,) = l0prune.inspect(model, torch.randn(4, 2)).groups
    first, bias, second = model[0].weight, model[0].bias, model[2].weight
    expected = (first.square().sum(1) + bias.square() + second[0].square()) / 4
    np.testing.assert_allclose(importances(model, [group]), expected.detach().numpy(), rtol=1e-6)


def test_activation_is_the_share_of_the_variance_of_what_reads_the_units() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 5)).double()
    (group,) = l0prune.inspect(model, torch.randn(4, 2, dtype=torch.float64)).groups
    x = torch.randn(64, 2, dtype=torch.float64)
    found = importances(model, [group], "activation", batches=x.split(16))
    hidden = model[:2](x).detach()
    added = hidden[:, :, None] * model[2].weight.T.detach()
    expected = added.var(0, correction=0).sum(1) / model(x).detach().var(0, correction=0).sum()
    np.testing.assert_allclose(found, expected)


@settings(max_examples=10, deadline=None)
@given(st.sampled_from([Net, Grouped, Encoder]), st.integers(0, 1000))
def test_units_whose_weights_are_all_zero_come_last(build: Callable[[], nn.Module], seed: int) -> None:
    model, groups = made(build)
    random = np.random.default_rng(seed)
    dead = [int(random.integers(group.units)) for group in groups]
    with torch.no_grad():
        for group, unit in zip(groups, dead, strict=True):
            for place in group.places:
                if place.role is Role.CONSUMES:
                    model.get_parameter(place.tensor).index_fill_(
                        place.dim or 0, torch.from_numpy(place.index[unit]), 0
                    )
    for name in ("activation", "taylor", "fisher"):
        scores = importances(model, groups, name, batches=[images(seed)], loss=loss)
        for part, unit in zip(np.split(scores, np.cumsum([g.units for g in groups])[:-1]), dead, strict=True):
            assert part[unit] == pytest.approx(0, abs=1e-20)
            assert (part >= 0).all()


@pytest.mark.parametrize("importance", ["magnitude", "activation", "taylor", "fisher", "random"])
@pytest.mark.parametrize("build", [Net, Encoder])
def test_the_model_is_left_as_it_was(build: Callable[[], nn.Module], importance: str) -> None:
    model, groups = made(build)
    model.train()
    next(model.children()).eval()
    next(iter(model.parameters())).requires_grad_(False)
    before = copy.deepcopy(model)
    found = importances(model, groups, importance, batches=[images()], loss=loss)
    again = importances(model, groups, importance, batches=[images()], loss=loss)
    assert np.array_equal(found, again)
    assert found.dtype == np.float64
    assert all(p.grad is None for p in model.parameters())
    assert [p.requires_grad for p in model.parameters()] == [p.requires_grad for p in before.parameters()]
    assert [(n, m.training, type(m)) for n, m in model.named_modules()] == [
        (n, m.training, type(m)) for n, m in before.named_modules()
    ]
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), before.state_dict().values(), strict=True)
    )
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_frozen_model_under_no_grad_has_the_same_importances() -> None:
    model, groups = made(Grouped)
    expected = importances(model, groups, "taylor", batches=[images()], loss=loss)
    with torch.no_grad():
        found = importances(model.requires_grad_(False), groups, "taylor", batches=[images()], loss=loss)
    np.testing.assert_allclose(found, expected)


def test_a_function_of_ones_own_gives_a_vector_or_a_vector_for_each_group() -> None:
    model, groups = made(Net)
    units = sum(group.units for group in groups)
    flat = importances(model, groups, lambda m, g: torch.arange(units, dtype=torch.float32, requires_grad=True))
    named = importances(model, groups, lambda m, g: {group.name: [1] * group.units for group in reversed(groups)})
    assert flat.tolist() == list(range(units))
    assert named.tolist() == [1] * units


def _one_bad(value: float) -> Callable[..., Any]:
    return lambda m, groups: {g.name: [value if n == 1 else 1.0] * g.units for n, g in enumerate(groups)}


class TestBadInput:
    @pytest.mark.parametrize(
        ("importance", "more", "words"),
        [
            ("taylr", {}, "no such importance: taylr; did you mean 'taylor'?"),
            (3, {}, "importance has the wrong type"),
            ("activation", {}, "the importance needs batches: activation"),
            ("fisher", {"loss": loss}, "the importance needs batches: fisher"),
            ("taylor", {"batches": [images()]}, "the importance needs a loss: taylor"),
            ("taylor", {"batches": [images()], "loss": 2.0}, "loss is no function"),
            (lambda m, g: [1.0, 2.0], {}, "gives the wrong number of importances"),
            (lambda m, g: {"nobody": [1.0]}, {}, "gives other groups than there are"),
            (lambda m, g: {each.name: [1.0] for each in g}, {}, "gives the wrong number: stem"),
            (lambda m, g: "many", {}, "gives no numbers"),
            (_one_bad(float("nan")), {}, "not finite: inner (got NaN for 16 of 16 units)"),
            (_one_bad(float("inf")), {}, "not finite: inner (got infinity"),
        ],
    )
    def test_settings(self, importance: Any, more: dict[str, Any], words: str) -> None:
        model, groups = made(Net)
        with pytest.raises(ConfigError) as error:
            importances(model, groups, importance, **more)
        assert words in str(error.value)
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize(
        ("batches", "words"),
        [
            ([], "there are no calibration batches (got an empty list"),
            (images()[0], "batches=[batch]"),
            (5, "calibration batches have the wrong type"),
            ([torch.zeros(2, 3, 8, 8, dtype=torch.float64)], "does not fit the model: tensors of shapes (2, 3, 8, 8)"),
            ([images()], "`loss` or `forward_fn`"),
        ],
    )
    def test_batches(self, batches: Any, words: str) -> None:
        model, groups = made(Net)
        with pytest.raises(DataError) as error:
            importances(model, groups, "activation", batches=batches)
        assert words in str(error.value)
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize(
        ("bad", "words"),
        [
            (lambda m, b: m(b[0]), "the loss is no scalar (got shape (6, 4)"),
            (lambda m, b: loss(m, b).item(), "the loss is no scalar (got float"),
            (lambda m, b: loss(m, b).detach(), "the loss has no gradient"),
            (lambda m, b: loss(m, b) * 0, "the loss has no gradient on the calibration batches"),
            (lambda m, b: (m(b[0]) - m(b[0]).detach()).abs().mean(), "a copy of its teacher has none"),
            (lambda m, b: F.mse_loss(m(b[0]), m(b[0]).detach()), "a copy of its teacher"),
        ],
    )
    def test_losses(self, bad: Callable[..., Any], words: str) -> None:
        model, groups = made(Net)
        with pytest.raises(DataError) as error:
            importances(model, groups, "taylor", batches=[images()], loss=bad)
        assert words in str(error.value)

    def test_a_group_that_nothing_plain_reads_has_no_activation(self) -> None:
        model, groups = made(Recurrent)
        with pytest.raises(GroupError, match="activations cannot be seen: no plain layer reads the units: enter"):
            importances(model, groups, "activation", batches=[images()[0]])

    def test_a_loss_that_is_nan_is_named_by_the_first_group(self) -> None:
        model, groups = made(Net)
        with pytest.raises(ConfigError, match="taylor gives importances that are not finite: stem"):
            importances(model, groups, "taylor", batches=[images()], loss=lambda m, b: loss(m, b) * float("nan"))
