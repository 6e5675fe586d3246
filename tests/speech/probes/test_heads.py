"""The heads: gradients, and what they compute."""

import pytest
import torch
from l0prune_speech.probes.fitting import Scale
from l0prune_speech.probes.heads import FrameProbe, LinearProbe, SpeakerProbe, WeightedSum
from torch import nn


def test_gradients_of_the_weighted_sum() -> None:
    net = WeightedSum(4).double()
    states = torch.randn(4, 3, 5, dtype=torch.float64, requires_grad=True)
    logits = torch.randn(4, dtype=torch.float64, requires_grad=True)

    def averaged(logits: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(net, {"logits": logits}, (states,))

    assert torch.autograd.gradcheck(averaged, (logits, states))


def test_the_weighted_sum_is_an_average() -> None:
    net = WeightedSum(3)
    states = torch.randn(3, 2, 5)
    assert torch.allclose(net(states), states.mean(0), atol=1e-6)
    nn.init.normal_(net.logits)
    assert float(net.weights.sum().detach()) == pytest.approx(1)
    assert torch.allclose(net(states[:1].expand(3, -1, -1)), states[0], atol=1e-6)
    with torch.no_grad():
        net.logits[1] += 100
    assert torch.allclose(net(states), states[1], atol=1e-6)


def test_a_head_on_means_is_the_mean_of_the_head_on_frames() -> None:
    """So means over time, which are small, hold all that SUPERB's head for whole clips reads."""
    net, frames = LinearProbe(3, 5, 4), torch.randn(3, 20, 5)
    nn.init.normal_(net.sum.logits)
    assert torch.allclose(net(frames.mean(1, keepdim=True))[0], net(frames).mean(0), atol=1e-5)


def test_blank_needs_no_layer_of_its_own() -> None:
    """A layer for blank as well says the same as one for the phones alone, less that of blank."""
    full, net, frames = LinearProbe(3, 5, 4), FrameProbe(3, 5, 3), torch.randn(3, 20, 5)
    with torch.no_grad():
        for one, other in zip(
            (net.phones.linear.weight, net.phones.linear.bias), full.linear.parameters(), strict=True
        ):
            one.copy_(other[1:] - other[0])
        assert torch.allclose(net(frames).log_softmax(-1), full(frames).log_softmax(-1), atol=1e-5)


def test_blank_has_the_same_logit_in_every_frame() -> None:
    net, frames = FrameProbe(3, 5, 4), torch.randn(3, 20, 5)
    nn.init.constant_(net.blank, 2.5)
    logits = net(frames)
    assert logits.shape == (20, 5)
    assert logits[:, 0].equal(torch.full((20,), 2.5))
    assert logits[:, 1:].equal(net.phones(frames))


def test_the_margin_is_that_of_the_true_speaker() -> None:
    net, states, labels = SpeakerProbe(2, 6, 3), torch.randn(2, 4, 6), torch.tensor([0, 1, 2, 1])
    embeddings = net.embed(states)
    assert torch.allclose(embeddings.norm(dim=1), torch.ones(4))
    cosines = embeddings @ nn.functional.normalize(net.speakers, dim=1).T
    true = 30 * (cosines.gather(1, labels[:, None]) - 0.4)
    others = 30 * cosines.scatter(1, labels[:, None], -torch.inf)
    expected = (torch.logaddexp(others.logsumexp(1, keepdim=True), true) - true).mean()
    assert net(states, labels).item() == pytest.approx(expected.item(), rel=1e-5)


def test_scale_of_channels_gives_each_mean_0_and_deviation_1() -> None:
    states = 100 + 7 * torch.randn(2, 50, 3) * torch.tensor([1.0, 10, 0])
    scaled = Scale.of_channels(states)(states)
    assert torch.allclose(scaled.mean(1), torch.zeros(2, 3), atol=1e-3)
    expected = torch.tensor([1.0, 1, 0]).expand(2, 3)
    assert torch.allclose(scaled.std(1, correction=0), expected, atol=1e-3)


def test_scale_of_states_keeps_the_sizes_of_channels_beside_each_other() -> None:
    sizes = torch.tensor([[1.0, 10, 0], [0.1, 1, 1]])
    states = 100 + 7 * torch.randn(2, 50, 3) * sizes[:, None]
    scaled = Scale.of_states(states)(states)
    assert torch.allclose(scaled.mean(1), torch.zeros(2, 3), atol=1e-3)
    assert torch.allclose(scaled.square().mean((1, 2)), torch.ones(2), atol=1e-3)
    deviations = [given.std(1, correction=0) for given in (scaled, states)]
    ratios = [each / each[:, 1:2] for each in deviations]
    assert torch.allclose(*ratios, atol=1e-3)


def test_scales_of_constant_states_are_finite() -> None:
    states = torch.ones(1, 9, 3)
    for scale in (Scale.of_channels(states), Scale.of_states(states)):
        assert scale(states).equal(torch.zeros(1, 9, 3))
