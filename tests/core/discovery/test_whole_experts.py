"""Whole experts as units: each goes with its row of the router, and as many stay as the router picks."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from random_plans import random_cut
from torch import Tensor, nn
from torch.nn.functional import gelu

import l0prune
from l0prune import GatedModel, load, save
from l0prune.discovery.search import discover
from l0prune.errors import GroupError, PlanError, TargetError
from l0prune.groups import Place, PruneGroup, Role, consecutive
from l0prune.measuring.count import macs
from l0prune.proof.exactness import relative_difference
from l0prune.proof.trials import find_faults
from l0prune.removal import make_plan
from l0prune.size.macs import mac_size
from l0prune.support import model_shapes

TOKENS = torch.randint(0, 50, (2, 12), generator=torch.Generator().manual_seed(0))
OTHERS = torch.randint(0, 50, (3, 7), generator=torch.Generator().manual_seed(1))
X = torch.randn(2, 9, 8, generator=torch.Generator().manual_seed(0))
SMALL: dict[str, Any] = {
    "vocab_size": 50, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 4, "pad_token_id": 0, "moe_intermediate_size": 24, "num_experts_per_tok": 2,
}  # fmt: skip


def language(name: str, implementation: str = "grouped_mm", **more: Any) -> nn.Module:
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}ForCausalLM")(getattr(transformers, f"{name}Config")(**SMALL | more))
    model.set_experts_implementation(implementation)
    for path, parameter in model.named_parameters():
        if "experts" in path or "gate" in path or "router" in path:
            nn.init.normal_(parameter, std=0.3)
    return model.eval()


MODELS: dict[str, Callable[[], nn.Module]] = {
    **{way: partial(language, "Mixtral", way, num_local_experts=5) for way in ("grouped_mm", "batched_mm", "eager")},
    "Qwen3-MoE": partial(language, "Qwen3Moe", num_experts=5, decoder_sparse_step=1),
    "OLMoE": partial(language, "Olmoe", num_experts=5),
    "GPT-OSS": partial(language, "GptOss", num_local_experts=5),
    "GPT-OSS one by one": partial(language, "GptOss", "eager", num_local_experts=5),
    "DeepSeek-V3": partial(
        language, "DeepseekV3", n_routed_experts=5, n_group=1, topk_group=1, kv_lora_rank=8, q_lora_rank=8,
        qk_rope_head_dim=4, v_head_dim=4, qk_nope_head_dim=4, first_k_dense_replace=0, num_key_value_heads=4,
    ),
}  # fmt: skip


def logits(model: nn.Module, tokens: Tensor = TOKENS) -> Tensor:
    return model(input_ids=tokens, use_cache=False).logits


class Picked(nn.Module):
    """Stacked weights, of which the numbers of the highest scores pick some."""

    def __init__(self, experts: int = 5, picked: int = 2) -> None:
        super().__init__()
        self.enter, self.gate, self.leave = nn.Linear(8, 16), nn.Linear(16, experts), nn.Linear(16, 3)
        self.first = nn.Parameter(0.3 * torch.randn(experts, 16, 24))
        self.last = nn.Parameter(0.3 * torch.randn(experts, 24, 16))
        self.picked = picked

    def experts(self, x: Tensor, numbers: Tensor) -> Tensor:
        hidden = gelu(torch.einsum("btd,btkdf->btkf", x, self.first[numbers]))
        return torch.einsum("btkf,btkfd->btkd", hidden, self.last[numbers])

    def route(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.gate(x).softmax(-1).topk(self.picked, dim=-1)  # type: ignore[return-value]

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        scores, numbers = self.route(x)
        return self.leave(x + (self.experts(x, numbers) * scores[..., None]).sum(2))


class ByHash(Picked):
    """Numbers of experts that say something of the input."""

    def route(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x[..., :2].sigmoid(), (x[..., :2] * 7).long() % len(self.first)


class ByNumber(Picked):
    """A router that treats one expert in its own way, by its number."""

    def route(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scores, numbers = super().route(x)
        return scores, torch.where(numbers == 3, 1, numbers)


def experts_of(model: nn.Module, observe: Callable[[nn.Module], Tensor]) -> PruneGroup:
    (group,) = [group for group in discover(model, observe).groups if group.kind == "expert"]
    return group


@pytest.mark.parametrize("name", MODELS)
def test_whole_experts_go_with_their_rows_of_the_router(name: str, tmp_path: Path) -> None:
    model = MODELS[name]()
    found = discover(model, logits)
    (experts,) = [group for group in found.groups if group.kind == "expert"]
    assert (experts.units, experts.fewest, experts.step(8)) == (5, 2, 1)
    cost = mac_size(model, found.groups, found.trace)
    gated = GatedModel(model, found.groups, target_sparsity=1e-9).eval()
    assert find_faults(gated, logits)[1] == {}
    for seed in range(3):
        expected, pruned, plan, kept = random_cut(gated, logits, np.random.default_rng(seed))
        assert relative_difference(expected, logits(pruned)) < 1e-5
        with torch.no_grad():
            assert cost.exact(kept) == macs(lambda pruned=pruned: logits(pruned))
        assert len(plan.kept[experts.name]) >= 2
    save(pruned, plan, tmp_path)
    again = load(tmp_path, MODELS[name])
    assert torch.equal(logits(again, OTHERS), logits(pruned, OTHERS))
    logits(again.train(), OTHERS).sum().backward()


@pytest.mark.parametrize("name", ["grouped_mm", "DeepSeek-V3"])
def test_other_inputs_are_routed_as_in_the_cut_network(name: str) -> None:
    model = MODELS[name]()
    gated = GatedModel(model, [experts_of(model, logits)], target_sparsity=1e-9).eval()
    with torch.no_grad(), gated.gates.fixed(torch.tensor([0.0, 1, 0, 0.5, 1])):
        pruned, plan = gated.pruned()
        expected = logits(gated.model, OTHERS)
    assert plan.kept_counts == {gated.groups[0].name: 3}
    assert relative_difference(expected, logits(pruned, OTHERS)) < 1e-5


def test_experts_of_ones_own_picked_by_numbers() -> None:
    torch.manual_seed(0)
    found = l0prune.inspect(Picked().eval(), X)
    assert {row.kind: (row.units, row.proved) for row in found.rows if row.name == "gate"} == {"expert": (5, True)}
    assert {(share.kind, share.units, share.reached) for share in found.shares} >= {("expert", 5, 5)}


def test_numbers_that_no_router_has_ranked_are_refused_in_one_line() -> None:
    for kind in (ByHash, ByNumber):
        torch.manual_seed(0)
        found = l0prune.inspect(kind().eval(), X)
        assert "numbers that no ranking of a router gives" in found.refused["first"]
        # Widths are no experts.
        assert sum(row.units for row in found.rows if row.proved) >= 14 + 24


class Listed(Picked):
    """Experts that are modules of a list."""

    def __init__(self) -> None:
        super().__init__()
        del self.first, self.last
        self.listed = nn.ModuleList(nn.Sequential(nn.Linear(16, 24), nn.GELU(), nn.Linear(24, 16)) for _ in range(4))
        self.gate = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        scores, numbers = self.route(x)
        out = x.clone()
        for number, expert in enumerate(self.listed):
            row, step, place = torch.where(numbers == number)
            out = out.index_put((row, step), expert(x[row, step]) * scores[row, step, place, None], accumulate=True)
        return self.leave(out)


def test_experts_of_a_list_lose_units_of_their_own() -> None:
    torch.manual_seed(0)
    found = l0prune.inspect(Listed().eval(), X)
    assert sorted(row.units for row in found.rows if row.proved) == [16, 24, 24, 24, 24]
    assert "experts of a list" in found.refused["gate"]


def test_a_router_that_picks_all_of_its_experts_loses_none() -> None:
    torch.manual_seed(0)
    found = l0prune.inspect(Picked(3, 3).eval(), X)
    assert all(row.kind != "expert" for row in found.rows)


def test_no_choice_and_no_plan_keeps_fewer_than_are_picked() -> None:
    model = Picked().eval()
    group = experts_of(model, lambda model: model(X))
    with pytest.raises(PlanError, match="at least 2 units"):
        make_plan([group], {group.name: (0,)}, model_shapes(model))
    with pytest.raises(TargetError, match="more than can be removed"):
        GatedModel(model, [group], target_sparsity=0.7)
    gated = GatedModel(model, [group], target_sparsity=0.55, size_model=None)
    with torch.no_grad():
        gated.gates.log_alpha.copy_(torch.tensor([3.0, -9, -9, -9, -9]))
    assert gated.gates.select().sum() == 2


def test_how_many_have_to_stay_is_kept_in_a_plan() -> None:
    model = Picked().eval()
    group = experts_of(model, lambda model: model(X))
    again = PruneGroup.from_json(group.to_json(), model_shapes(model))
    assert again.fewest == group.fewest == 2
    place = Place(tensor="gate.weight", dim=0, role=Role.CONSUMES, index=consecutive(5))
    with pytest.raises(GroupError, match="can stay"):
        PruneGroup(name="gate", kind="expert", units=5, places=(place,), fewest=6)
    assert "fewest" not in PruneGroup(name="gate", kind="unit", units=5, places=(place,)).to_json()


def test_wrapped_experts_train_and_leave() -> None:
    torch.manual_seed(0)
    model = language("Mixtral", num_local_experts=6)
    pruner = l0prune.wrap(model, {"input_ids": TOKENS, "use_cache": False}, target_sparsity=0.5, total_steps=10)
    optimizer = torch.optim.AdamW(pruner.parameter_groups(lr=1e-3))
    for _ in range(10):
        loss = nn.functional.cross_entropy(logits(model).flatten(0, 1), TOKENS.flatten())
        (loss + pruner.penalty()).backward()
        optimizer.step()
        optimizer.zero_grad()
        pruner.step()
    with torch.no_grad():
        expected = logits(model.eval(), OTHERS)
    pruned = pruner.finalize()
    assert relative_difference(expected, logits(pruned, OTHERS)) < 1e-4
    assert len(pruned.model.layers[0].mlp.gate.weight) >= 2  # pyright: ignore


def test_fewer_open_gates_than_are_picked_give_finite_losses_and_gradients() -> None:
    model = MODELS["grouped_mm"]()
    gated = GatedModel(model, [experts_of(model, logits)], target_sparsity=1e-9).train()
    for opened in (0, 1):
        with gated.gates.fixed((torch.arange(5) < opened).float()):
            loss = logits(gated.model).square().mean()
            loss.backward()
        assert torch.isfinite(loss)
        assert all(torch.isfinite(p.grad).all() for p in gated.model.parameters() if p.grad is not None)
