"""Gated tensors computed together are those computed one by one, in whatever way a network is called."""

import copy
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from gated_networks import NETWORKS, gated, mlp, one_by_one, outputs_and_gradients, random_values
from small_training import gates_of
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.utils import parametrize
from torch.utils.checkpoint import checkpoint

from l0prune import wrap


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_and_gradients_are_those_of_tensors_gated_one_by_one(name: str, training: bool) -> None:
    pruner, x = gated(name)
    pruner.model.train(training)
    count = len(gates_of(pruner).log_alpha)
    for seed, values in enumerate((None, None, None, torch.ones(count), torch.zeros(count))):
        values = random_values(count, seed) if values is None else values.double()
        together = outputs_and_gradients(pruner, x, values)
        with one_by_one():
            alone = outputs_and_gradients(pruner, x, values)
        assert len(together) == len(alone) > 5
        for one, other in zip(together, alone, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_training_step_is_that_of_tensors_gated_one_by_one(name: str) -> None:
    results = []
    for how in (nullcontext, one_by_one):
        pruner, x = gated(name)
        pruner.model.train()
        torch.manual_seed(1)
        with how():
            # Two passes before one backward pass share their gates.
            loss = (pruner.model(x) - 0.5 * pruner.model(2 * x)).pow(2).sum() + pruner.penalty()
            loss.backward()
        results.append([p.grad.clone() for p in pruner.model.parameters() if p.grad is not None])
    assert len(results[0]) == len(results[1]) > 5
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", ["deep and narrow", "layer norms", "images", "attention"])
def test_no_tensor_is_gated_alone_in_a_pass(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pruner, x = gated(name)
    monkeypatch.setattr("l0prune.gates.gated_tensors.scale_along", None)
    for training in (True, False):
        pruner.model.train(training)(x).sum().backward()
    with pytest.raises(TypeError, match="not callable"), one_by_one():
        pruner.model(x)


def test_gradients_switched_off_for_a_part_stay_off() -> None:
    pruner, x = gated("deep and narrow")
    model: Any = pruner.model.train()
    part = model[2].forward

    def frozen(h: Tensor) -> Tensor:
        with torch.no_grad():
            return part(h)

    model[2].forward = frozen
    model(x).sum().backward()
    grads = {name: p.grad for name, p in model.named_parameters()}
    assert grads["2.parametrizations.weight.original"] is None
    assert grads["4.parametrizations.weight.original"] is not None


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpointed_part_beside_fused_ones_has_the_same_gradients(reentrant: bool) -> None:
    results = []
    for checkpointed in (False, True):
        pruner, x = gated("layer norms")
        model: Any = pruner.model.train()
        for block in model.up if checkpointed else ():
            block.forward = lambda h, part=block.forward: checkpoint(part, h, use_reentrant=reentrant)
        torch.manual_seed(1)
        model(x).pow(2).sum().backward()
        results.append([p.grad for p in model.parameters() if p.grad is not None])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


def test_function_transforms_see_the_gates() -> None:
    pruner, x = gated("deep and narrow")
    model = pruner.model.eval()
    parameters = {name: p.detach() for name, p in model.named_parameters() if not name.endswith("multipliers")}

    def loss(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(model, parameters, (x[None],)).pow(2).sum()

    model(x).pow(2).sum().backward()
    per_example = vmap(grad(loss), in_dims=(None, 0))(parameters, x)
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(per_example[name].sum(0), parameter.grad, rtol=1e-10, atol=1e-10)


def test_other_parameters_in_a_call_are_those_that_are_gated() -> None:
    pruner, x = gated("layer norms")
    model = pruner.model.eval()
    others = {name: 2 * p.detach() for name, p in model.named_parameters() if name.endswith("original")}
    with one_by_one():
        expected = functional_call(model, others, (x,))
    assert not torch.equal(expected, model(x))
    torch.testing.assert_close(functional_call(model, others, (x,)), expected, rtol=1e-12, atol=1e-12)


def test_weights_behind_another_parametrization_are_gated_too() -> None:
    torch.manual_seed(0)
    network = mlp().double()
    for part in (network[2], network[4]):
        nn.utils.parametrizations.weight_norm(part)
    x = torch.randn(5, 4, dtype=torch.float64)
    pruner = wrap(network, x, target_sparsity=0.4)
    values = random_values(len(gates_of(pruner).log_alpha), 0)
    together = outputs_and_gradients(pruner, x, values)
    with one_by_one():
        alone = outputs_and_gradients(pruner, x, values)
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


def test_a_copy_computes_its_own_weights() -> None:
    pruner, x = gated("layer norms")
    model = pruner.model.eval()
    expected = model(x)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    torch.testing.assert_close(twin(x), expected)


def test_cached_parametrizations_are_one_by_one() -> None:
    pruner, x = gated("deep and narrow")
    model: Any = pruner.model.eval()
    expected = model(x)
    with parametrize.cached():
        torch.testing.assert_close(model(x), expected, rtol=1e-12, atol=1e-12)
        assert model[2].weight is model[2].weight


def test_other_layouts_and_dtypes_after_gates_were_put_on() -> None:
    pruner, x = gated("images")
    model = pruner.model.eval()
    expected = model(x)
    torch.testing.assert_close(model.to(memory_format=torch.channels_last)(x), expected, rtol=1e-10, atol=1e-10)  # type: ignore[call-overload]
    torch.testing.assert_close(model.float()(x.float()).double(), expected, rtol=1e-3, atol=1e-3)
