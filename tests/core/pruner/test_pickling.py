"""A gated model and a pruner are pickled and copied; they go on as if nothing had happened."""

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_training import FAST, PUBLISHED, adam, batch, make, train
from torch import Tensor, nn
from torch.nn import functional as F

from l0prune import ControllerConfig, L0Pruner, wrap

# Most of these runs are too short to reach their target.
pytestmark = pytest.mark.filterwarnings("ignore:the gates are at an expected sparsity:UserWarning")


def saved_and_opened(thing: Any) -> Any:
    file = io.BytesIO()
    torch.save(thing, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("again", [saved_and_opened, copy.deepcopy])
@pytest.mark.parametrize("controller", [FAST, PUBLISHED])
def test_a_pruner_goes_on_where_it_was(again: Callable[[Any], Any], controller: ControllerConfig) -> None:
    pruner = make(controller=controller)
    train(pruner, adam(pruner), 4)
    # In the middle of a step, with gates whose gradient is still to come.
    pruner.model(batch()[0])
    other = again(pruner)
    assert not {*map(id, other.model.parameters())} & {*map(id, pruner.model.parameters())}
    for each in (pruner, other):
        each.gated.gates.forget_sample()
        torch.manual_seed(1)
        train(each, adam(each), 3)
    first, second = pruner.model.state_dict(), other.model.state_dict()
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    assert pruner.plan.to_json() == other.plan.to_json()
    x = batch(9)[0]
    assert torch.equal(pruner.finalize()(x), other.finalize()(x))


class Mixed(nn.Module):
    """Layers that are gated in ways of their own: a recurrent one, a norm, attention."""

    def __init__(self, normed: Callable[[nn.Module], nn.Module] = lambda layer: layer) -> None:
        super().__init__()
        self.recurrent, self.norm = nn.LSTM(4, 8, batch_first=True), nn.LayerNorm(8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.conv = normed(nn.Conv1d(8, 12, 1))
        self.last = nn.Conv1d(12, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.conv(self.layer(self.norm(self.recurrent(x)[0])).mT)))


def stepped(model: nn.Module, x: Tensor) -> L0Pruner:
    pruner = wrap(model, x, target_sparsity=0.3)
    (model(x).square().mean() + pruner.penalty()).backward()
    pruner.step()
    return pruner


def test_a_gated_model_is_opened_with_its_gates() -> None:
    model, x = Mixed(), torch.randn(2, 5, 4)
    stepped(model, x)
    other = pickle.loads(pickle.dumps(model))
    assert other.state_dict().keys() == model.state_dict().keys()
    for training in (True, False):
        torch.manual_seed(0)
        expected = model.train(training)(x)
        torch.manual_seed(0)
        assert torch.equal(other.train(training)(x), expected)


def test_without_gates_a_parametrized_module_is_refused_by_torch_as_before() -> None:
    pruned = stepped(Mixed(nn.utils.parametrizations.weight_norm), torch.randn(2, 5, 4)).finalize()
    with pytest.raises(RuntimeError, match="Serialization of parametrized modules"):
        pickle.dumps(pruned)


def test_a_graph_module_is_trained_and_cut() -> None:
    model, x = (
        torch.fx.symbolic_trace(nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 2))),
        torch.ones(3, 4),
    )
    pruned = stepped(model, x).finalize()
    assert type(pruned).__name__ == "GraphModule"
    torch.testing.assert_close(saved_and_opened(pruned)(x), model.eval()(x))
