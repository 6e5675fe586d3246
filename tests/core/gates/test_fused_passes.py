"""What is computed together lives as long as a pass: each weight is seen as it is, and nothing outlives the pass."""

import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from gated_networks import gated, random_values
from small_training import gates_of
from torch import Tensor, nn

from l0prune import L0Pruner


def seen_weights(pruner: L0Pruner, x: Tensor, module: nn.Module) -> list[Tensor]:
    """What a part finds as its weight, each time it is called in a pass."""
    seen: list[Tensor] = []
    handle = module.register_forward_pre_hook(lambda part, _: seen.append(part.weight))  # type: ignore[arg-type]
    pruner.model(x)
    handle.remove()
    return seen


def test_a_part_that_runs_twice_in_a_pass_has_one_weight_and_nothing_is_left_behind() -> None:
    pruner, x = gated("tied weights")
    model: Any = pruner.model.train()
    first, second = seen_weights(pruner, x, model.one)
    assert first is second
    gone = weakref.ref(first)
    del first, second
    assert gone() is None


CHANGES: dict[str, Callable[[Any], object]] = {
    "in place": lambda model: model.one.parametrizations.weight.original.detach().mul_(2),
    "past the version": lambda model: model.one.parametrizations.weight.original.data.mul_(2),
    "other data": lambda model: setattr(
        model.one.parametrizations.weight.original, "data", 2 * model.one.parametrizations.weight.original.data
    ),
    "loaded": lambda model: model.load_state_dict(
        {k: 2 * v if k.endswith("one.parametrizations.weight.original") else v for k, v in model.state_dict().items()}
    ),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("change", CHANGES)
def test_weights_that_change_between_passes_are_seen(change: str, training: bool) -> None:
    pruner, x = gated("tied weights")
    model: Any = pruner.model.train(training)
    with gates_of(pruner).fixed(random_values(len(gates_of(pruner).log_alpha), 0)), torch.no_grad():
        before = seen_weights(pruner, x, model.one)[0].clone()
        CHANGES[change](model)
        assert torch.equal(seen_weights(pruner, x, model.one)[0], 2 * before)
        # The same for a part that runs by itself.
        assert torch.equal(model.one.weight, 2 * before)


def test_a_weight_that_changes_in_the_middle_of_a_pass_is_seen() -> None:
    pruner, x = gated("tied weights")
    model: Any = pruner.model.eval()
    original = model.one.parametrizations.weight.original
    seen: list[Tensor] = []

    def grow(part: Any, _: object) -> None:
        seen.append(part.weight.clone())
        original.mul_(2)

    model.one.register_forward_pre_hook(grow)
    with torch.no_grad():
        model(x)
    assert torch.equal(seen[1], 2 * seen[0])


def test_gates_drawn_in_the_middle_of_a_pass_are_those_of_what_follows() -> None:
    pruner, x = gated("tied weights")
    model: Any = pruner.model.train()
    gates = gates_of(pruner)
    handle = model.one.register_forward_pre_hook(lambda *_: gates.sample())
    first, second = seen_weights(pruner, x, model.one)
    handle.remove()
    assert not torch.equal(first, second)


def test_a_pass_that_fails_leaves_nothing_behind() -> None:
    pruner, x = gated("tied weights")
    model: Any = pruner.model.eval()

    def fail(*_: object) -> None:
        raise ValueError("broken")

    handle = model.last.register_forward_pre_hook(fail)
    with pytest.raises(ValueError, match="broken"):
        model(x)
    handle.remove()
    before = model.one.weight.detach().clone()
    model.one.parametrizations.weight.original.data.mul_(2)
    assert torch.equal(model.one.weight, 2 * before)
