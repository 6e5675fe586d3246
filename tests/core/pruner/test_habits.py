"""wrap() on models with habits: masks, branches not taken, hooks, kept activations, checkpoints of old."""

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from l0prune import ConfigError, GroupError, L0Pruner, ProofError, TraceError, inspect, wrap
from l0prune.support import pre_hooks

# Most of these runs are too short to reach their target.
pytestmark = pytest.mark.filterwarnings("ignore:the gates are at an expected sparsity:UserWarning")


def train(model: nn.Module, pruner: L0Pruner, *inputs: Tensor, steps: int = 2) -> None:
    optimizer = torch.optim.AdamW(pruner.parameter_groups(lr=1e-3))
    for _ in range(steps):
        (model(*inputs).square().mean() + pruner.penalty()).backward()
        optimizer.step()
        optimizer.zero_grad()
        pruner.step()


class Scaled(nn.Module):
    """A factor that depends on a width, beside logits that are masked."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(8, 32), nn.Linear(32, 6)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        hidden = F.relu(self.up(x))
        return self.down(hidden * hidden.shape[-1] ** -0.5).masked_fill(mask, -1e9)


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_masked_logits_do_not_hide_an_error(share: float) -> None:
    with pytest.raises(GroupError, match="nothing in the model can be pruned: Scaled; up: relative difference"):
        wrap(Scaled(), (torch.randn(4, 8), torch.rand(4, 6) < share), target_sparsity=0.5)


class Experts(nn.Module):
    """Runs only what is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.router, self.down = nn.Linear(3, 8), nn.Linear(3, 2), nn.Linear(8, 2)
        self.experts = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8)])
        self.choose(0)

    def choose(self, expert: int) -> None:
        with torch.no_grad():
            self.router.bias.copy_(torch.tensor([9.0, 0.0]).roll(expert))

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(self.up(x))
        share, chosen = self.router(x).softmax(-1).max(-1)
        total = hidden
        for number, expert in enumerate(self.experts):
            if (mine := chosen == number).any():
                total = total + expert(hidden) * (share * mine)[:, None]
        return self.down(total)


def test_a_branch_that_no_example_takes_is_told_of() -> None:
    model, x = Experts(), torch.randn(2, 3)
    with pytest.warns(UserWarning, match=r"the example inputs never reach experts\.1") as caught:
        pruner = wrap(model, x, target_sparsity=0.5)
    assert caught[0].filename == __file__
    train(model, pruner, x)
    model.choose(1)
    with pytest.raises(ProofError, match="the cut forward pass fails"):
        pruner.finalize()


def test_what_can_never_be_reached_by_units_is_not_told_of() -> None:
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    model[1].unused = nn.Linear(5, 7)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        wrap(model, torch.randn(4, 3), target_sparsity=0.3)


class Keeping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(3, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        self.hidden = F.relu(self.up(x))
        return self.down(self.hidden)


def test_a_model_that_keeps_an_activation() -> None:
    model, x = Keeping(), torch.randn(4, 3)
    model(x)
    pruner = wrap(model, x, target_sparsity=0.5)
    train(model, pruner, x)
    pruned, _ = pruner.finalize(), model.eval()
    torch.testing.assert_close(pruned(x), model(x))


class Checkpointed(nn.Module):
    def __init__(self, run: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.last, self.run = nn.Linear(3, 8), nn.Linear(8, 2), run
        self.block = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8))

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        return self.last(hidden + self.run(self.block, hidden))


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpointed_part_has_the_gradients_of_one_that_is_not(reentrant: bool) -> None:
    x = torch.randn(4, 3, dtype=torch.float64)
    models = [
        Checkpointed(run).double()
        for run in (lambda block, h: block(h), lambda block, h: checkpoint(block, h, use_reentrant=reentrant))
    ]
    models[1].load_state_dict(models[0].state_dict())
    gradients = []
    for model in models:
        # The example is run without gradients, of which the old kind of checkpoint warns.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pruner = wrap(model, x, target_sparsity=0.5)
        torch.manual_seed(0)
        (model(x).square().sum() + pruner.penalty()).backward()
        gradients.append([p.grad for group in pruner.parameter_groups() for p in group["params"]])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_hooks_of_a_gated_norm_are_called_and_stay() -> None:
    model = nn.Sequential(nn.Linear(3, 16), nn.LayerNorm(16), nn.ReLU(), nn.Linear(16, 2))
    x, seen = torch.randn(4, 3), []
    model[1].register_forward_hook(lambda *_: seen.append("before"))
    pruner = wrap(model, x, target_sparsity=0.5)
    model[1].register_forward_pre_hook(lambda *_: seen.append("while gated"))
    seen.clear()
    model(x)
    assert seen == ["while gated", "before"]
    train(model, pruner, x)
    pruned = pruner.finalize()
    seen.clear()
    pruned(x)
    assert seen == ["while gated", "before"]
    assert len(pre_hooks(pruned[1])) == 1


def test_a_group_norm_without_a_bias_keeps_its_weight() -> None:
    norm = nn.GroupNorm(2, 8)
    norm.bias = None  # As newer versions of torch make it.
    model = nn.Sequential(nn.Conv2d(3, 8, 1), norm, nn.ReLU(), nn.Conv2d(8, 2, 1))
    x = torch.randn(2, 3, 4, 4)
    pruner = wrap(model, x, target_sparsity=0.4)
    train(model, pruner, x)
    with torch.no_grad():
        norm.weight.uniform_(0.5, 1.5)
    pruned, _ = pruner.finalize(), model.eval()
    torch.testing.assert_close(pruned(x), model(x))


def test_inference_mode_leaves_nothing_behind() -> None:
    model, x = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)), torch.randn(4, 3)
    pruner = wrap(model, x, target_sparsity=0.5)
    model.eval()
    with torch.inference_mode():
        model(x)
    model(x.clone().requires_grad_()).sum().backward()
    train(model.train(), pruner, x)
    with torch.inference_mode():
        pruned = pruner.finalize()
    pruned.train()(x).sum().backward()
    assert pruned[0].weight.grad is not None


def test_under_inference_mode_a_model_is_looked_at_and_wrapped_as_without() -> None:
    def make() -> nn.Sequential:
        torch.manual_seed(0)
        first = nn.utils.parametrizations.weight_norm(nn.Conv1d(4, 6, 3))
        return nn.Sequential(first, nn.BatchNorm1d(6), nn.ReLU(), nn.Conv1d(6, 3, 3))

    model, x = make(), torch.randn(2, 4, 20)
    expected = inspect(model, x)
    with torch.inference_mode():
        found = inspect(model, x)
        pruner = wrap(model, x, target_sparsity=0.4, metric="macs")
    assert found.rows == expected.rows
    train(model.train(), pruner, x)
    assert pruner.finalize()(x).shape == (2, 3, 16)


def test_what_is_no_model_is_refused() -> None:
    model, x = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)), torch.randn(4, 3)
    with pytest.raises(ConfigError, match=r"model has the wrong type .got str"):
        wrap("model", x, target_sparsity=0.5)  # type: ignore[arg-type]
    with pytest.raises(TraceError, match="compiled model cannot be followed: Sequential; pass the module"):
        wrap(torch.compile(model), x, target_sparsity=0.5)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"num_heads has the wrong type .got 4"):
        wrap(model, x, target_sparsity=0.5, num_heads=4)
    for wrong in (2.5, "4", 0):
        with pytest.raises(ConfigError, match=r"round_to out of range .* a whole number from 1 on"):
            wrap(model, x, target_sparsity=0.5, round_to=wrong)
