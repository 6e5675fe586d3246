"""Discovery in recurrent networks over STEPS (2, 5, 3) or TOKENS (2, 5), and gates on what it finds."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_networks import STEPS, TOKENS, Case, Forward, Net, check_case, filled, linear, on_steps
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from l0prune import GatedModel
from l0prune.discovery.search import discover
from l0prune.proof.exactness import relative_difference


def packed(m: Any, x: Tensor) -> Tensor:
    steps = pack_padded_sequence(m.embed(x), torch.tensor([5, 3]), batch_first=True)
    return m.out(pad_packed_sequence(m.rnn(steps)[0], batch_first=True)[0])


def looped(m: Any, x: Tensor) -> Tensor:
    hidden = cell = torch.tanh(m.start(x[:, 0]))
    for step in m.embed(x).unbind(1):
        hidden, cell = m.cell(step, (hidden, cell))
    return m.out(hidden)


def looped_from_zeros(m: Any, x: Tensor) -> Tensor:
    state = None
    for step in m.embed(x).unbind(1):
        state = m.cell(step, state)
    return m.out(state[0])


def recurrent(groups: str, rnn: Callable[[], nn.Module], width: int, forward: Forward | None = None) -> Case:
    forward = forward or (lambda m, x: m.out(m.rnn(m.embed(x))[0]))
    return on_steps(forward, groups, embed=linear(3, 4), rnn=rnn, out=linear(width, 2))


RECURRENT: dict[str, Case] = {
    "an LSTM": recurrent("4 unit, 6 hidden", lambda: nn.LSTM(4, 6, batch_first=True), 6),
    "a deep bidirectional LSTM": recurrent(
        "4 unit, 6 hidden", lambda: nn.LSTM(4, 6, 2, batch_first=True, bidirectional=True), 12
    ),
    "a bidirectional GRU without biases": recurrent(
        "4 unit, 6 hidden", lambda: nn.GRU(4, 6, batch_first=True, bidirectional=True, bias=False), 12
    ),
    "a bidirectional RNN": recurrent(
        "4 unit, 6 hidden", lambda: nn.RNN(4, 6, batch_first=True, bidirectional=True), 12
    ),
    "the last states of a GRU": recurrent(
        "4 unit, 6 hidden", lambda: nn.GRU(4, 6, 2, batch_first=True), 6,
        lambda m, x: m.out(m.rnn(m.embed(x))[1][-1]),
    ),
    "a GRU whose first state is computed": on_steps(
        lambda m, x: m.out(m.rnn(m.embed(x), torch.tanh(m.start(x[:, 0]))[None])[0]), "4 unit, 6 unit",
        embed=linear(3, 4), start=linear(3, 6), rnn=lambda: nn.GRU(4, 6, batch_first=True), out=linear(6, 2),
    ),
    "a packed sequence": recurrent("4 unit, 6 hidden", lambda: nn.LSTM(4, 6, batch_first=True), 6, packed),
    "an LSTM with projections": on_steps(
        lambda m, x: m.out(m.rnn(m.embed(x))[0]), "4 unit, 3 hidden", "longer than what it is projected to",
        embed=linear(3, 4), rnn=lambda: nn.LSTM(4, 6, 2, proj_size=3, batch_first=True, bidirectional=True),
        out=linear(6, 2),
    ),
    "the last states of an LSTM with projections": on_steps(
        lambda m, x: torch.add(*(m.out(state[-1]) for state in m.rnn(m.embed(x))[1][:1] * 2)), "4 unit, 3 hidden",
        "longer than what it is projected to",
        embed=linear(3, 4), rnn=lambda: nn.LSTM(4, 6, proj_size=3, batch_first=True), out=linear(3, 2),
    ),
    "a loop over an LSTM cell": on_steps(
        looped, "4 unit, 6 unit",
        start=linear(3, 6), embed=linear(3, 4), cell=lambda: nn.LSTMCell(4, 6), out=linear(6, 2),
    ),
    "a loop over an LSTM cell that begins with zeros": on_steps(
        looped_from_zeros, "4 unit, 6 hidden",
        embed=linear(3, 4), cell=lambda: nn.LSTMCell(4, 6), out=linear(6, 2),
    ),
    "two LSTMs one after the other": recurrent(
        "4 unit, 6 hidden, 5 hidden",
        lambda: nn.ModuleList([nn.LSTM(4, 6, batch_first=True), nn.LSTM(6, 5, batch_first=True)]), 5,
        lambda m, x: m.out(m.rnn[1](m.rnn[0](m.embed(x))[0])[0]),
    ),
    "an embedding before an LSTM": Case(
        lambda m, x: m.out(m.rnn(m.embed(x))[0].mean(1)),
        lambda: {"embed": nn.Embedding(11, 4), "rnn": nn.LSTM(4, 6, batch_first=True), "out": nn.Linear(6, 2)},
        (TOKENS,), "4 embedding, 6 hidden",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RECURRENT)
def test_recurrence_in_a_small_network(name: str) -> None:
    check_case(RECURRENT[name])


def lstm() -> tuple[nn.Module, GatedModel]:
    case = RECURRENT["a deep bidirectional LSTM"]
    model = filled(Net(case.forward, **case.layers()))
    found = discover(model, lambda model: model(STEPS))
    return model, GatedModel(model, found.groups, target_sparsity=0.4)


def test_training_draws_reach_the_recurrent_weights() -> None:
    model, gated = lstm()
    gated.train()
    with torch.no_grad():
        # All are drawn between 0 and 1, where gates have a gradient, or next to it.
        gated.gates.log_alpha.zero_()
        assert not torch.equal(gated(STEPS), gated(STEPS))
    gated(STEPS).square().sum().backward()
    for name in ("weight_hh_l0", "weight_hh_l1_reverse", "weight_ih_l1"):
        weight = model.rnn.parametrizations[name].original
        assert weight.grad is not None
        with torch.no_grad():
            # With gradients a new draw would be made.
            z = gated.gates.of([group.kind for group in gated.groups].index("hidden"), training=True)
        width = weight.shape[1] // 6
        assert torch.equal(weight.grad.abs().sum(0) > 0, (z > 0).repeat(width)), name
    assert gated.gates.log_alpha.grad is not None
    assert gated.gates.log_alpha.grad.abs().sum() > 0


def test_a_gated_lstm_is_its_pruned_copy_in_evaluation_mode() -> None:
    _, gated = lstm()
    with torch.no_grad():
        gated.gates.log_alpha.normal_(std=3, generator=torch.Generator().manual_seed(0))
    pruned, plan = gated.eval().pruned()
    assert min(plan.kept_counts.values()) < 6
    assert relative_difference(gated(STEPS), pruned(STEPS)) < 1e-12


def test_detaching_gives_back_the_flat_weights_of_an_lstm() -> None:
    model, gated = lstm()
    dense = copy.deepcopy(gated).detach()
    expected = dense(STEPS)
    gated.train()(STEPS)
    gated.eval()(STEPS)
    assert gated.detach() is model
    flat = zip(model.rnn._flat_weights, model.rnn._flat_weights_names, strict=True)
    assert all(weight is getattr(model.rnn, name) for weight, name in flat)
    assert all(isinstance(weight, nn.Parameter) for weight in model.rnn._flat_weights)
    assert torch.equal(model(STEPS), expected)


def test_a_gated_lstm_can_be_copied_after_a_training_pass() -> None:
    _, gated = lstm()
    gated.train()(STEPS).sum().backward()
    twin = copy.deepcopy(gated)
    assert torch.equal(twin.eval()(STEPS), gated.eval()(STEPS))
    with torch.no_grad():
        twin.model.rnn.parametrizations.weight_hh_l0.original.zero_()
    assert not torch.equal(twin(STEPS), gated(STEPS))
    assert torch.isfinite(twin.train()(STEPS)).all()
