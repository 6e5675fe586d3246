"""What wrap() leaves in the model: saved, loaded, averaged, cast, and put back after a step that was not finite."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from small_training import FAST, PUBLISHED, adam, batch, controller_of, make, train
from torch import nn
from torch.nn import functional as F

from l0prune import ConfigError, ControllerConfig, L0Pruner, TrainingError, wrap

# Most of these runs are too short to reach their target.
pytestmark = pytest.mark.filterwarnings("ignore:the gates are at an expected sparsity:UserWarning")


@pytest.mark.parametrize("controller", [FAST, PUBLISHED, ControllerConfig(kind="pi", warmup_steps=5)])
def test_training_goes_on_from_a_state_dict_as_if_nothing_had_happened(
    controller: ControllerConfig, tmp_path: Path
) -> None:
    def states(pruner: L0Pruner, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        return {
            "model": pruner.model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "random": torch.get_rng_state(),
        }

    straight = make(controller=controller)
    optimizer = adam(straight)
    train(straight, optimizer, 6)
    torch.save(states(straight, optimizer), tmp_path / "state.pt")
    train(straight, optimizer, 6)
    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    resumed = make(controller=controller)
    again = adam(resumed)
    resumed.model.load_state_dict(saved["model"])
    again.load_state_dict(saved["optimizer"])
    torch.set_rng_state(saved["random"])
    assert resumed.sparsity.target == 0.5
    train(resumed, again, 6)
    first, second = straight.model.state_dict(), resumed.model.state_dict()
    assert first.keys() == second.keys()
    assert sum("l0prune" in name for name in first) >= 3
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert straight.plan.to_json() == resumed.plan.to_json()


def test_an_averaged_copy_has_gates_of_its_own_and_prunes_alike() -> None:
    pruner = make()
    average = torch.optim.swa_utils.AveragedModel(
        pruner.model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.5)
    )
    optimizer = adam(pruner)
    for _ in range(8):
        train(pruner, optimizer, 1)
        average.update_parameters(pruner.model)
    names = dict(pruner.model.named_parameters())
    gates = next(name for name in names if name.endswith("log_alpha"))
    mine, theirs = names[gates], dict(average.module.named_parameters())[gates]
    assert not torch.equal(mine, theirs)
    # The averaged weights and gates, finalised by the pruner they came from.
    kept = copy.deepcopy(pruner.model.state_dict())
    pruner.model.load_state_dict(average.module.state_dict())
    x = batch()[0]
    average.eval()
    torch.testing.assert_close(pruner.finalize()(x), average(x), atol=1e-5, rtol=1e-5)
    pruner.model.load_state_dict(kept)


def test_a_loss_that_is_nan_names_the_step_and_leaves_the_controller_as_it_was() -> None:
    pruner = make(controller=PUBLISHED)
    optimizer = adam(pruner)
    train(pruner, optimizer, 3)
    before = [p.detach().clone() for group in pruner.parameter_groups()[1:] for p in group["params"]]
    x, y = batch()
    optimizer.zero_grad()
    (F.cross_entropy(pruner.model(x), y) * float("nan") + pruner.penalty()).backward()
    optimizer.step()
    with pytest.raises(TrainingError, match="NaN or infinite: step 3"):
        pruner.step()
    after = [p.detach() for group in pruner.parameter_groups()[1:] for p in group["params"]]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_nan_right_after_loading_goes_back_to_what_was_loaded() -> None:
    trained, resumed = make(controller=PUBLISHED), make(controller=PUBLISHED)
    train(trained, adam(trained), 3)
    resumed.model.load_state_dict(trained.model.state_dict())
    optimizer = adam(resumed)
    (resumed.model(batch()[0]).sum() * float("nan") + resumed.penalty()).backward()
    optimizer.step()
    with pytest.raises(TrainingError, match="NaN or infinite: step 3"):
        resumed.step()
    for mine, theirs in zip(controller_of(resumed).controlled(), controller_of(trained).controlled(), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_model_may_change_its_dtype_after_it_is_wrapped(dtype: torch.dtype) -> None:
    pruner = make()
    before = controller_of(pruner).controlled_now()
    pruner.model.to(dtype)
    for now, then in zip(controller_of(pruner).controlled(), before, strict=True):
        assert now.dtype == then.dtype
        assert torch.equal(now, then)
    optimizer, (x, y) = adam(pruner), batch()
    (F.cross_entropy(pruner.model(x.to(dtype)).float(), y) + pruner.penalty()).backward()
    optimizer.step()
    pruner.step()
    assert pruner.finalize()(x.to(dtype)).dtype == dtype
    assert pruner.report.max_relative_difference < (0.4 if dtype == torch.bfloat16 else 1e-7)


def test_parameters_may_be_replaced_by_loading() -> None:
    """The dense norm, out of sight while gates are on, gets the loaded parameters too."""

    def build(scale: float) -> L0Pruner:
        torch.manual_seed(0)
        model: Any = nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.GELU(), nn.Linear(16, 4))
        nn.init.constant_(model[1].weight, scale)
        return wrap(model, torch.ones(2, 8).diff(prepend=torch.zeros(2, 1)), target_sparsity=0.5, controller=FAST)

    x = torch.randn(5, 8)
    one, other = build(1.0), build(2.0)
    controller_of(other).step()
    one.model.load_state_dict(other.model.state_dict(), assign=True)
    torch.testing.assert_close(one.finalize()(x), other.finalize()(x))


@pytest.mark.parametrize("around", [lambda model: model, lambda model: nn.Sequential(nn.Identity(), model)])
def test_a_state_with_more_steps_than_the_run_is_refused_before_anything_is_loaded(around: Any) -> None:
    trained = make(controller=None, total_steps=20)
    train(trained, adam(trained), 16)
    saved = around(trained.model).state_dict()
    shorter = make(controller=None, total_steps=15)
    before = copy.deepcopy(shorter.model.state_dict())
    line = (
        r"^total_steps is shorter than what was run: the state to load has made 16 steps .got 15, expected 16 or more.;"
        r" wrap the model with the total_steps of the run that the state was saved in$"
    )
    # Copies refuse it as well: an average that is loaded, for example.
    for model in (shorter.model, copy.deepcopy(shorter.model)):
        with pytest.raises(ConfigError, match=line):
            around(model).load_state_dict(saved)
    after = shorter.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    train(shorter, adam(shorter), 3)


def test_a_state_that_has_just_ended_is_loaded() -> None:
    trained = make(controller=None, total_steps=12)
    train(trained, adam(trained), 12)
    for more in ({"controller": None, "total_steps": 12}, {"controller": FAST}):
        resumed = make(**more)
        resumed.model.load_state_dict(trained.model.state_dict())
        resumed.finalize()
        assert resumed.report.steps == 12
