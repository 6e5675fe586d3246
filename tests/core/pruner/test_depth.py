"""Depth in one's own training loop and without training: targets, files, several cuts."""

from pathlib import Path

import pytest
import torch
from residual_networks import PreNorm, ResNet, Transformer
from torch import Tensor, nn
from torch.nn import functional as F

import l0prune
from l0prune import ConfigError, GroupError, plan_of
from l0prune.calibration import readers
from l0prune.measuring import parameters
from l0prune.removal import Skipped, apply_plan

X = torch.randn(4, 6, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 3])


def transformer(layers: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return Transformer(PreNorm, layers)


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


@pytest.mark.parametrize("compaction", [False, True])
@pytest.mark.parametrize("depth", ["blocks", "branches"])
def test_a_network_that_was_trained_with_depth_is_the_same_cut_saved_and_opened(
    depth: str, compaction: bool, tmp_path: Path
) -> None:
    model = transformer()
    dense = parameters(model)
    pruner = l0prune.wrap(
        model, X, target_sparsity=0.6, depth=depth, total_steps=12, compaction=compaction, metric="params"
    )
    optimizer = torch.optim.AdamW(pruner.parameter_groups(lr=1e-2))
    for _ in range(12):
        (loss(model, (X, LABELS)) + pruner.penalty()).backward()
        optimizer.step()
        optimizer.zero_grad()
        pruner.step(optimizer)
    model.eval()
    before = model(X)
    smaller = pruner.finalize().eval()
    torch.testing.assert_close(smaller(X), before, rtol=1e-5, atol=1e-5)
    assert parameters(smaller) <= 0.4 * dense
    l0prune.save(smaller, plan_of(smaller), tmp_path)
    assert torch.equal(l0prune.load(tmp_path, transformer)(X), smaller(X))
    # What is left of a branch passes through stochastic depth in training.
    smaller.train()
    smaller(X).sum().backward()


@pytest.mark.parametrize("importance", ["magnitude", "taylor", "fisher"])
def test_four_of_twelve_blocks_go_and_nothing_else_does(importance: str) -> None:
    model = transformer(12)
    smaller = l0prune.prune(
        model,
        X,
        target_sparsity=4 / 12,
        metric="blocks",
        depth=True,
        importance=importance,
        batches=[(X, LABELS)],
        loss=loss,
    )
    kinds = [type(block).__name__ for block in smaller.blocks]  # type: ignore[union-attr]
    assert (kinds.count("PreNorm"), kinds.count("Skipped")) == (8, 4)
    left = dict(smaller.named_parameters())
    assert all(torch.equal(left[name], value) for name, value in model.named_parameters() if name in left)
    smaller.train()
    smaller(X).sum().backward()


def test_two_cuts_are_one_in_the_indices_of_the_first_network(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = ResNet().eval(), torch.randn(2, 3, 8, 8)
    once = l0prune.prune(model, x, target_sparsity=1 / 3, metric="blocks", depth=True)
    both = l0prune.prune(once, x, target_sparsity=1 / 2, metric="blocks", depth=True)
    both = l0prune.prune(both, x, target_sparsity=0.3, depth=True, round_to=1)
    plan = plan_of(both)
    kept = {group.name: len(plan.kept[group.name]) for group in plan.groups if group.kind == "block"}
    assert sorted(kept.values())[:2] == [0, 0]
    # Units inside a block that is gone are gone as well.
    assert all(not plan.kept[group.name] for group in plan.groups if group.stands_inside(plan.bypassed))
    l0prune.save(both, plan, tmp_path)
    assert torch.equal(l0prune.load(tmp_path, ResNet)(x), both(x))
    torch.manual_seed(1)
    assert parameters(apply_plan(ResNet(), plan)) == parameters(both)


def test_what_follows_asks_a_skipped_block_for_its_settings() -> None:
    class Block(PreNorm):
        def __init__(self) -> None:
            super().__init__()
            self.window = 4

    class Network(Transformer):
        def __init__(self) -> None:
            super().__init__(Block)

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * sum(block.window for block in self.blocks)  # type: ignore[misc]

    torch.manual_seed(0)
    smaller = l0prune.prune(Network(), X, target_sparsity=1 / 3, metric="blocks", depth=True)
    assert sum(isinstance(block, Skipped) for block in smaller.blocks) == 1  # type: ignore[union-attr]


def test_inspect_says_blocks_and_what_one_costs() -> None:
    model = transformer()
    plain, found = l0prune.inspect(model, X), l0prune.inspect(model, X, depth=True)
    rows = [row for row in found.rows if row.kind == "block"]
    (block, *_) = model.blocks  # type: ignore[misc]
    assert [row.name for row in rows] == ["blocks.0", "blocks.1", "blocks.2"]
    assert {row.unit_parameters for row in rows} == {parameters(block)}
    assert all(row.proved for row in rows)
    assert [(s.units, s.reached) for s in found.shares if s.kind == "blocks"] == [(3, 3)]
    assert "3 of 3 blocks (100%)" in str(found)
    assert [row for row in found.rows if row.kind != "block"] == list(plain.rows)
    assert not any("hardly show" in note for note in found.notes)


def test_depth_and_groups_of_ones_own_are_not_given_together() -> None:
    model = transformer()
    groups = l0prune.inspect(model, X, depth=True).groups
    with pytest.raises(ConfigError, match="depth is found with the groups"):
        l0prune.prune(model, X, target_sparsity=0.3, groups=groups, depth=True)
    with pytest.raises(ConfigError, match="there are no blocks to count: blocks; ask for depth"):
        l0prune.prune(model, X, target_sparsity=0.3, metric="blocks")


def test_the_repair_leaves_batch_norms_at_the_end_of_blocks_to_their_statistics() -> None:
    torch.manual_seed(0)
    model, x = ResNet().eval(), torch.randn(8, 3, 8, 8)
    groups = [group for group in l0prune.inspect(model, x, depth=True).groups if group.kind == "block"]
    assert readers(model, groups) == {}


def test_activations_do_not_rank_blocks() -> None:
    with pytest.raises(GroupError, match="activations cannot be seen: no plain layer reads the units"):
        l0prune.prune(
            transformer(), X, target_sparsity=1 / 3, metric="blocks", depth=True, importance="activation", batches=[X]
        )


def test_layers_of_one_width_need_not_all_go_with_a_block() -> None:
    model = transformer()
    smaller = l0prune.prune(model, X, target_sparsity=0.5, depth=True, uniform=True, round_to=1)
    plan = plan_of(smaller)
    widths = {len(plan.kept[g.name]) for g in plan.groups if g.name.endswith("mlp.up") and plan.kept[g.name]}
    assert len(widths) <= 1
