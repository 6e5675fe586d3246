"""What discover() does with whole modules, outputs of any form, modes, and what it is told; how it fails."""

import copy
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from small_networks import (
    PADDED,
    ROWS,
    STEPS,
    TOKENS,
    Forward,
    Net,
    chain,
    check,
    cuts_are_exact,
    filled,
    names_of,
    same_model,
)
from torch import Tensor, nn

from l0prune import GatedModel, GroupError
from l0prune.discovery.search import discover
from l0prune.errors import TraceError
from l0prune.proof.trials import find_faults


def rows(model: nn.Module) -> Any:
    return model(ROWS)


def network(forward: Forward | None = None, **more: Any) -> nn.Module:
    """Two hidden layers, of 6 and of 5 units."""
    forward = forward or (lambda m, x: m.c(torch.tanh(m.b(torch.tanh(m.a(x))))))
    return filled(Net(forward, a=nn.Linear(3, 6), b=nn.Linear(6, 5), c=nn.Linear(5, 2), **more))


def encoder(first: bool) -> nn.Module:
    layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, norm_first=first)
    model = Net(
        lambda m, x, padding=None: m.out(m.encoder(m.embed(x), src_key_padding_mask=padding)),
        embed=nn.Linear(3, 8), encoder=nn.TransformerEncoder(layer, 2, enable_nested_tensor=not first),
        out=nn.Linear(8, 2),
    )  # fmt: skip
    return filled(model)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("padding", [None, PADDED])
def test_a_transformer_encoder_agrees_wherever_nothing_is_padded(first: bool, padding: Tensor | None) -> None:
    # In evaluation mode without gates torch takes fused kernels, which leave padded positions at zero.
    seen = torch.ones(2, 5, dtype=torch.bool) if padding is None else ~padding
    check(encoder(first), lambda model: model(STEPS, padding)[seen], "8 unit, 2 head, 12 unit, 2 head, 12 unit")


def tied() -> nn.Module:
    model = Net(
        lambda m, x: m.out((h := m.embed(x)) + m.c(torch.tanh(m.b(h)))),
        embed=nn.Embedding(11, 6), b=nn.Linear(6, 5), c=nn.Linear(5, 6), out=nn.Linear(6, 11, bias=False),
    )  # fmt: skip
    model.out.weight = model.embed.weight
    return filled(model)


def test_tied_weights_are_gated_wherever_they_stand_and_stay_tied() -> None:
    model = tied()
    found = check(model, lambda model: model(TOKENS), "6 unit, 5 unit")
    gated = GatedModel(model, found.groups, target_sparsity=1e-9).train()
    gated.gates.sample()
    assert torch.equal(gated.model.embed.weight, gated.model.out.weight)
    pruned, _ = gated.eval().pruned()
    assert pruned.embed.weight is pruned.out.weight
    assert gated.detach() is model
    assert model.embed.weight is model.out.weight


@dataclass
class Output:
    logits: Tensor
    hidden: Tensor | None = None


@pytest.mark.parametrize(
    "pack",
    [
        lambda out, hidden: {"logits": out, "list": [out.sum()]},
        lambda out, hidden: (out, None, 3),
        lambda out, hidden: Output(out),
        lambda out, hidden: [{"inner": (out,)}],
    ],
    ids=["dictionary", "tuple", "dataclass", "nested"],
)
def test_whatever_form_the_output_has_it_is_the_interface(pack: Callable[[Tensor, Tensor], Any]) -> None:
    def unpacked(model: nn.Module) -> Any:
        out = model(ROWS)
        return vars(out) if isinstance(out, Output) else out

    model = network(lambda m, x: pack(m.c(torch.tanh(m.b(h := torch.tanh(m.a(x))))), h))
    found = discover(model, rows)
    assert names_of(found) == Counter(["6 unit", "5 unit"])
    assert [(each.name, each.units) for each in found.left_alone if each.interface] == [("c", 2)]
    assert (found.hidden_units, found.reached_units) == (11, 11)
    cuts_are_exact(model, unpacked, found)


@pytest.mark.parametrize(
    ("forward", "interface"),
    [
        (lambda m, x: m.b(torch.tanh(m.a(x))), True),
        (lambda m, x: torch.sigmoid(m.b(torch.tanh(m.a(x)))).squeeze(-1), True),
        (lambda m, x: m.c(m.b(torch.tanh(m.a(x)))), False),
    ],
    ids=["as it is", "reshaped", "hidden"],
)
def test_an_output_of_width_1_is_the_interface(forward: Forward, interface: bool) -> None:
    model = filled(Net(forward, a=nn.Linear(3, 6), b=nn.Linear(6, 1), c=nn.Linear(1, 2)))
    found = discover(model, rows)
    assert names_of(found) == Counter(["6 unit"])
    assert {each.name: each.interface for each in found.left_alone} == {
        "b": interface,
        **({} if interface else {"c": True}),
    }
    assert found.hidden_units == (6 if interface else 7)


@pytest.mark.parametrize("pack", [lambda out, hidden: {"logits": out, "hidden": hidden}, Output])
def test_hidden_features_that_are_returned_stay(pack: Callable[[Tensor, Tensor], Any]) -> None:
    model = network(lambda m, x: pack(m.c(torch.tanh(m.b(h := torch.tanh(m.a(x))))), h))
    found = discover(model, rows)
    assert names_of(found) == Counter(["5 unit"])
    assert {each.name for each in found.left_alone if each.interface} == {"a", "c"}


def auxiliary(m: Any, x: Tensor) -> Any:
    out = m.c(torch.tanh(m.b(h := torch.tanh(m.a(x)))))
    return (out, m.aux(h)) if m.training else out


def test_a_head_that_only_training_runs_is_cut_along() -> None:
    model = network(auxiliary, aux=nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 2)))
    found = check(model, rows, "6 unit, 5 unit, 4 unit")
    gated = GatedModel(model, found.groups, target_sparsity=0.4)
    assert [tuple(y.shape) for y in gated.pruned()[0].train()(ROWS)] == [(4, 2), (4, 2)]


def test_what_only_training_makes_of_units_binds_them_too() -> None:
    model = network(lambda m, x: auxiliary(m, x) if not m.training else (auxiliary(m, x), m.a(x)), aux=nn.Linear(6, 2))
    found = discover(model, rows)
    assert names_of(found) == Counter(["5 unit"])


def test_a_training_mode_that_fails_is_noted_and_evaluation_is_followed() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        if m.training:
            raise RuntimeError("needs targets")
        return m.c(torch.tanh(m.b(torch.tanh(m.a(x)))))

    found = check(network(forward), rows, "6 unit, 5 unit")
    assert any("needs targets" in note for note in found.notes)


def test_what_is_never_used_is_noted() -> None:
    found = check(network(idle=nn.Linear(6, 3)), rows, "6 unit, 5 unit")
    assert any("idle" in note for note in found.notes)
    assert found.hidden_units == 11


def test_a_width_written_out_in_the_code_is_refused_by_the_proof() -> None:
    model = network(lambda m, x: m.c(torch.tanh(m.b(torch.tanh(m.a(x)).view(4, 2, 3).flatten(1)))))
    found = discover(model, rows)
    gated = GatedModel(model, found.groups, target_sparsity=1e-9).eval()
    faults = find_faults(gated, rows)[1]
    assert {name.partition("#")[0] for name in faults} == {"a"}
    cuts_are_exact(gated.detach(), rows, found.without(faults))


@pytest.mark.parametrize("by_name", [False, True])
def test_ignored_modules_keep_their_units_and_inputs(by_name: bool) -> None:
    model = network()
    expected = {"a": "5 unit", "b": "", "c": "6 unit"}
    for name, groups in expected.items():
        found = discover(model, rows, ignored=[name if by_name else model.get_submodule(name)])
        assert names_of(found) == Counter([groups] if groups else [])
        assert {each.reason for each in found.left_alone if not each.interface} == {"told to ignore it"}
    assert names_of(discover(model, rows, ignored=["" if by_name else model])) == Counter()


def test_modules_of_another_model_are_refused() -> None:
    model = network()
    for foreign in (nn.Linear(3, 6), copy.deepcopy(model.a), "d"):
        with pytest.raises(GroupError, match="no such module"):
            discover(model, rows, ignored=[foreign])
        with pytest.raises(GroupError, match="no such module"):
            discover(model, rows, num_heads={foreign: 2})  # type: ignore[dict-item]


def test_heads_can_be_told() -> None:
    model = network()
    found = discover(model, rows, num_heads={model.a: 3})
    assert names_of(found) == Counter(["3 head", "5 unit"])
    cuts_are_exact(model, rows, found)
    for heads in (0, 4, -1):
        with pytest.raises(GroupError, match="heads do not divide"):
            discover(model, rows, num_heads={model.a: heads})


def test_tracing_gives_up_in_time() -> None:
    with pytest.raises(TraceError, match="took too long"):
        discover(network(), rows, time_limit=0.0)


def test_a_forward_pass_that_fails_is_reported_with_the_module_in_which_it_did() -> None:
    def fail(m: Any, x: Tensor) -> Tensor:
        raise ValueError("no such luck")

    model = network(lambda m, x: m.inner.deep(m.c(m.b(m.a(x)))), inner=Net(chain, deep=Net(fail)))
    with pytest.raises(TraceError, match=r"failed on the example inputs: inner\.deep \(got ValueError: no such luck"):
        discover(model, rows)
    with pytest.raises(TraceError, match="failed on the example inputs: a "):
        discover(network(), lambda model: model(STEPS[..., :2]))


def test_a_model_that_cannot_be_copied_is_refused() -> None:
    with pytest.raises(TraceError, match="cannot be copied"):
        discover(network(lines=(line for line in "abc")), rows)


def test_the_model_is_left_as_it_was() -> None:
    model = network(
        lambda m, x: m.c(m.drop(torch.tanh(m.norm(m.b(torch.tanh(m.a(x))))))),
        norm=nn.BatchNorm1d(5), drop=nn.Dropout(0.5),
    ).train()  # fmt: skip
    model.b.eval()
    before, random = copy.deepcopy(model), torch.get_rng_state()
    fast = torch.backends.mha.get_fastpath_enabled()
    names_before = {path: set(vars(module)) for path, module in model.named_modules()}
    found = discover(model, rows)
    assert names_of(found) == Counter(["6 unit", "5 unit"])
    same_model(model, before)
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.backends.mha.get_fastpath_enabled() == fast
    assert {path: set(vars(module)) for path, module in model.named_modules()} == names_before
    hooks = [(m._forward_hooks, m._forward_pre_hooks) for m in model.modules()]
    assert not any(hook for pair in hooks for hook in pair)
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
