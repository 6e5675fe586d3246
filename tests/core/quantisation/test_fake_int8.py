"""Rounding to eight bits during training: closed forms, gradients, and what is left as it was."""

import pytest
import torch
from torch import nn

from l0prune import ConfigError
from l0prune.config import RunConfig, StageConfig
from l0prune.quantisation import rounding
from l0prune.quantisation.fake_int8 import rounded_activations, rounded_weight


def test_weights_are_multiples_of_a_scale_for_each_channel() -> None:
    torch.manual_seed(0)
    weight = torch.randn(5, 3, 4) * torch.tensor([1e-3, 1.0, 1e3, 0.0, 2.0])[:, None, None]
    rounded = rounded_weight(weight)
    scale = weight.abs().amax(dim=(1, 2), keepdim=True) / 127
    levels = rounded / scale.clamp_min(1e-30)
    torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-3)
    assert float(levels.abs().max()) == pytest.approx(127, abs=1e-3)
    # Half a step at most.
    assert bool(((rounded - weight).abs() <= 0.5001 * scale).all())
    torch.testing.assert_close(rounded_weight(rounded), rounded)


def test_activations_are_multiples_of_one_scale_and_zero_stays_zero() -> None:
    torch.manual_seed(0)
    for x in (torch.randn(50) + 3, -torch.rand(50), torch.zeros(4), torch.cat([torch.zeros(1), torch.randn(40)])):
        rounded = rounded_activations(x)
        scale = (float(x.max().clamp_min(0)) - float(x.min().clamp_max(0))) / 255
        assert float((rounded - x).abs().max()) <= 0.5001 * scale + 1e-6 or scale == 0
        assert bool((rounded[x == 0] == 0).all())


def test_gradients_pass_as_if_nothing_were_rounded() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(6, 3).double()
    x = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    with rounding(layer, activations=False):
        layer(x).sum().backward()
    # d(sum)/dW is the sum of inputs; d(sum)/dx the sum of the weights that were used, the rounded ones.
    torch.testing.assert_close(layer.weight.grad, x.detach().sum(0).expand(3, 6))
    torch.testing.assert_close(x.grad, rounded_weight(layer.weight.detach()).sum(0).expand(4, 6))


def test_what_a_layer_computes_and_that_nothing_is_left_of_it() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv1d(3, 8, 3), nn.GELU(), nn.Flatten(), nn.Linear(8 * 6, 5)).eval()
    nn.utils.parametrizations.weight_norm(net[0])
    x = torch.randn(2, 3, 8)
    plain, before = net(x), [(name, id(p)) for name, p in net.named_parameters()]
    with rounding(net) as count:
        # What weight norm makes is no parameter.
        assert count == 1
        hidden = net[:3](x)
        expected = nn.functional.linear(rounded_activations(hidden), rounded_weight(net[3].weight), net[3].bias)
        assert torch.equal(net(x), expected)
        assert not torch.equal(net(x), plain)
        with pytest.raises(RuntimeError):
            net(x[:, :1])
        assert [(name, id(p)) for name, p in net.named_parameters()] == before
    assert torch.equal(net(x), plain)
    assert [(name, id(p)) for name, p in net.named_parameters()] == before
    assert not net[3]._forward_hooks
    assert not net[3]._forward_pre_hooks


def test_training_with_rounding_finds_weights_that_lose_less_by_it() -> None:
    """A student of one layer with few weights left learns to make up for what its input loses by rounding."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(512, 8, generator=generator)
    x[:, 0] *= 30
    target = x @ torch.randn(8, 1, generator=generator)

    def loss_after(round_while_training: bool) -> float:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
        with rounding(net) if round_while_training else rounding(nn.Identity()):
            for _ in range(300):
                optimizer.zero_grad()
                nn.functional.mse_loss(net(x), target).backward()
                optimizer.step()
        with torch.no_grad(), rounding(net):
            return float(nn.functional.mse_loss(net(x), target))

    assert loss_after(True) < loss_after(False)


def test_where_it_cannot_be_asked_for() -> None:
    with pytest.raises(ConfigError, match=r"joint.fake_int8 is set .*further.fake_int8"):
        RunConfig(plugin="speech", joint=StageConfig(steps=1, learning_rate=1.0, fake_int8="all"))
    with pytest.raises(ConfigError, match=r"further.fake_int8 with compile"):
        RunConfig(plugin="speech", compile=True, further=StageConfig(steps=1, learning_rate=1.0, fake_int8="all"))
