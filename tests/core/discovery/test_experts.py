"""Experts whose weights are stacked and multiplied at once, by a kernel that counts in rows of 16 bytes."""

from pathlib import Path

import numpy as np
import torch
from random_plans import random_cut
from torch import Tensor, nn
from transformers import MixtralConfig, MixtralForCausalLM

import l0prune
from l0prune import GatedModel, load, save
from l0prune.discovery.search import discover
from l0prune.groups import Role
from l0prune.measuring.count import macs
from l0prune.proof.exactness import relative_difference
from l0prune.proof.trials import find_faults
from l0prune.size.macs import mac_size

TOKENS = torch.randint(0, 50, (2, 12), generator=torch.Generator().manual_seed(0))
OTHERS = torch.randint(0, 50, (3, 7), generator=torch.Generator().manual_seed(1))


def mixtral() -> nn.Module:
    torch.manual_seed(0)
    config = MixtralConfig(
        vocab_size=50, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, num_local_experts=3, pad_token_id=0,
    )  # fmt: skip
    return MixtralForCausalLM(config).eval()


def logits(model: nn.Module, tokens: Tensor = TOKENS) -> Tensor:
    return model(input_ids=tokens, use_cache=False).logits


def test_experts_lose_units_of_their_middle_layer_and_of_the_residual_stream(tmp_path: Path) -> None:
    model = mixtral()
    found = discover(model, logits)
    kinds = [(2, "head"), (3, "expert"), (16, "embedding"), (24, "unit")]
    assert sorted((group.units, group.kind) for group in found.groups) == kinds
    experts = next(group for group in found.groups if group.units == 24)
    assert {(p.tensor.rpartition(".")[2], p.dim, p.role, p.width) for p in experts.places} == {
        ("gate_up_proj", 1, Role.PRODUCES, 2),
        ("down_proj", 2, Role.CONSUMES, 1),
    }
    cost = mac_size(model, found.groups, found.trace)
    with torch.no_grad():
        assert cost.total == macs(lambda: logits(model))
    gated = GatedModel(model, found.groups, target_sparsity=1e-9).eval()
    assert find_faults(gated, logits)[1] == {}
    for seed in range(3):
        expected, pruned, plan, kept = random_cut(gated, logits, np.random.default_rng(seed))
        assert relative_difference(expected, logits(pruned)) < 1e-5
        with torch.no_grad():
            assert cost.exact(kept) == macs(lambda pruned=pruned: logits(pruned))
    assert any(kept % 8 > 0)
    save(pruned, plan, tmp_path)
    again = load(tmp_path, mixtral)
    assert torch.equal(logits(again, OTHERS), logits(pruned, OTHERS))
    logits(again.train(), OTHERS).sum().backward()
    assert all(parameter.grad is not None for parameter in again.parameters())


def test_experts_of_whole_rows_keep_the_product_of_all_at_once() -> None:
    model = mixtral()
    found = discover(model, logits)
    (experts,) = [group for group in found.groups if group.units == 24]
    gated = GatedModel(model, [experts], target_sparsity=1e-9).eval()
    for kept, implementation in ((16, "grouped_mm"), (15, "eager")):
        with gated.gates.fixed((torch.arange(24) < kept).float()):
            pruned = gated.pruned()[0]
        assert pruned.model.layers[0].mlp.experts.config._experts_implementation == implementation  # pyright: ignore
        assert pruned.config._experts_implementation != "eager"  # pyright: ignore


class Grouped(nn.Module):
    """A product of one's own, which has no other way."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, width), nn.Linear(16, 2)
        self.weight = nn.Parameter(torch.randn(2, 16, width))

    def forward(self, x: Tensor) -> Tensor:
        ends = torch.tensor([2, len(x)], dtype=torch.int32)
        return self.last(torch.tanh(torch._grouped_mm(torch.tanh(self.first(x)), self.weight.mT, offs=ends)))


def test_what_has_no_other_way_loses_whole_rows() -> None:
    torch.manual_seed(0)
    found = l0prune.inspect(Grouped(24), torch.randn(5, 3))
    assert sorted((row.units, row.proved) for row in found.rows) == [(2, True), (3, True)]
    found = l0prune.inspect(Grouped(20), torch.randn(5, 3))
    assert "is no multiple of 8" in found.refused["first"]
