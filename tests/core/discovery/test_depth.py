"""Residual blocks and branches found as units: the laws of their size, their gates and their removal."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from residual_networks import Parallel, PostNorm, PreNorm, ResNet, Scaled, Transformer
from torch import Tensor, nn
from torch.nn import functional as F

from l0prune import ConfigError, GatedModel, PruneGroup
from l0prune.discovery import Discovery, discover
from l0prune.importance.gate_gradients import gate_gradients
from l0prune.measuring import macs, parameters
from l0prune.proof import relative_difference
from l0prune.size import mac_size, parameter_size
from l0prune.support import copied

KINDS: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "pre-norm": (lambda: Transformer(PreNorm), torch.randn(3, 6, 8)),
    "post-norm": (lambda: Transformer(PostNorm), torch.randn(3, 6, 8)),
    "parallel": (lambda: Transformer(Parallel), torch.randn(3, 6, 8)),
    "scaled": (lambda: Transformer(Scaled), torch.randn(3, 6, 8)),
    "resnet": (ResNet, torch.randn(3, 3, 8, 8)),
    "torch": (
        lambda: nn.TransformerEncoder(
            nn.TransformerEncoderLayer(16, 2, 24, norm_first=True, batch_first=True), 3, enable_nested_tensor=False
        ),
        torch.randn(3, 6, 16),
    ),
}
DEPTHS = ("blocks", "branches")


def network(kind: str) -> tuple[nn.Module, Tensor]:
    """In float64, with statistics of batch norms that are not those of a fresh one."""
    torch.manual_seed(0)
    build, x = KINDS[kind]
    model = build().double().eval()
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if tensor.is_floating_point():
                tensor.add_(0.2 * torch.rand_like(tensor)) if "var" in name else tensor.add_(
                    0.1 * torch.randn_like(tensor)
                )
    return model, x.double()


def found(model: nn.Module, x: Tensor, depth: str) -> Discovery:
    return discover(model, lambda model: model(x), depth=depth)  # type: ignore[arg-type]


def of_depth(groups: tuple[PruneGroup, ...]) -> list[PruneGroup]:
    return [group for group in groups if group.kind in ("block", "branch")]


@pytest.mark.parametrize(
    ("kind", "blocks", "branches"),
    [("pre-norm", 3, 6), ("post-norm", 3, 6), ("parallel", 3, 6), ("scaled", 3, 3), ("resnet", 3, 3), ("torch", 3, 6)],
)
def test_blocks_and_branches_are_found(kind: str, blocks: int, branches: int) -> None:
    model, x = network(kind)
    for depth, word, number in (("blocks", "block", blocks), ("branches", "branch", branches)):
        groups = of_depth(found(model, x, depth).groups)
        assert [group.kind for group in groups] == [word] * number
        assert all(group.units == 1 and group.least_units == 0 for group in groups)
    assert not of_depth(discover(model, lambda model: model(x)).groups)


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_size_of_any_choice_is_what_is_counted_and_gated_outputs_are_the_pruned_ones(kind: str, depth: str) -> None:
    model, x = network(kind)
    discovery = found(model, x, depth)
    groups = discovery.groups
    assert discovery.trace is not None
    multiplies = mac_size(model, groups, discovery.trace)
    gated = GatedModel(copied(model), groups, target_sparsity=0.01).eval()
    generator = torch.Generator().manual_seed(0)
    for share in (0.2, 0.5, 0.8):
        values = []
        for group in groups:
            opened = torch.rand(group.units, generator=generator) < (share if group.units == 1 else 0.7)
            opened[0] |= group.units > 1
            values.append(opened * (0.3 + 0.7 * torch.rand(group.units, generator=generator)))
        z = torch.cat(values).double()
        with gated.gates.fixed(z), torch.no_grad():
            expected = gated(x)
            pruned, plan = gated.pruned()
        counts = np.array([int((part > 0).sum()) for part in values])
        assert gated.size_model.exact(counts) == parameters(pruned)
        # Gates that are 0 or 1 have no spread: what is expected is what is there.
        assert float(gated.size_model.expected((z > 0).double())) == parameters(pruned)
        assert multiplies.exact(counts) == macs(lambda pruned=pruned: pruned(x))
        assert relative_difference(expected, pruned(x)) < 1e-12
        assert {name: tuple(t.shape) for name, t in pruned.state_dict().items()} == {
            name: shape for name, shape in plan.pruned_shapes().items() if name in pruned.state_dict()
        }
        # What is left of the groups can be gated again, without anything that is gone.
        if left := plan.remaining_groups():
            again = GatedModel(pruned, left, target_sparsity=0.01).eval()
            with again.gates.fixed(torch.ones(len(again.here))):
                assert relative_difference(expected, again(x)) < 1e-12


def test_the_expected_size_is_the_mean_over_independent_gates() -> None:
    model, x = network("scaled")
    groups = of_depth(found(model, x, "blocks").groups)
    size = parameter_size(model, groups)
    p = torch.tensor([0.1, 0.5, 0.8], dtype=torch.float64, requires_grad=True)
    mean = torch.zeros((), dtype=torch.float64)
    for choice in np.ndindex(2, 2, 2):
        chance = torch.stack([q if bit else 1 - q for q, bit in zip(p, choice, strict=True)]).prod()
        mean = mean + chance * size.exact(np.array(choice))
    torch.testing.assert_close(size.expected(p), mean)
    (slopes,) = torch.autograd.grad(size.expected(p), p)
    (wanted,) = torch.autograd.grad(mean, p)
    torch.testing.assert_close(slopes, wanted)


@pytest.mark.parametrize("kind", ["pre-norm", "post-norm", "parallel", "scaled"])
def test_gradients_of_the_gates_of_branches_are_those_of_the_gated_network(kind: str) -> None:
    model, x = network(kind)
    groups = of_depth(found(model, x, "branches").groups)
    labels = torch.tensor([0, 1, 2])
    gradients = gate_gradients(model, groups, lambda: F.cross_entropy(model(x), labels))
    assert {gradient.shape for gradient in gradients} == {(3, 1)}
    gated = GatedModel(model, groups, target_sparsity=0.01).eval()
    for g, gradient in enumerate(gradients):
        losses = []
        # Gates are in float32, which has these steps exactly.
        for step in (-(2**-10), 2**-10):
            values = torch.ones(len(groups))
            values[g] += step
            with gated.gates.fixed(values), torch.no_grad():
                losses.append(F.cross_entropy(gated(x), labels))
        torch.testing.assert_close(gradient.sum(), (losses[1] - losses[0]) * 2**9, rtol=1e-3, atol=1e-6)


def test_a_whole_block_in_a_list_of_its_kind_is_one_unit_and_a_stage_of_several_is_none() -> None:
    class Stage(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.Sequential(PreNorm(), PreNorm())

        def forward(self, x: Tensor) -> Tensor:
            return self.blocks(x)

    model, x = Transformer(Stage, layers=2).eval(), torch.randn(2, 6, 8)
    groups = of_depth(found(model, x, "blocks").groups)
    assert [group.name for group in groups] == [f"blocks.{s}.blocks.{b}" for s in (0, 1) for b in (0, 1)]


class Shared(nn.Module):
    """One block twice."""

    def __init__(self) -> None:
        super().__init__()
        self.block, self.head = PreNorm(), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(self.block(x)))


class Loose(nn.Module):
    """A product of what the branch makes in the forward pass of the network itself."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.head = nn.Linear(16, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.up(x)
        return self.head(x + y @ (y.transpose(1, 2) @ y))


class Shifted(nn.Module):
    """A branch that is not zero, whatever its weights are."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.head = nn.Linear(16, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x + self.up(x).cos())


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (Shared, "all of its weights serve other parts of the network, too"),
        (Loose, "a forward pass outside its modules computes bmm"),
        (Shifted, "what its modules return cannot be left out: the forward pass makes other numbers of it"),
    ],
)
def test_what_cannot_go_is_left_alone_with_its_reason(build: type[nn.Module], reason: str) -> None:
    discovery = found(build(), torch.randn(2, 6, 16), "blocks")
    alone = [alone for alone in discovery.left_alone if alone.kind == "block"]
    assert not of_depth(discovery.groups)
    assert alone
    assert {block.reason for block in alone} == {reason}


def test_ignored_modules_keep_their_blocks() -> None:
    model, x = network("pre-norm")
    discovery = discover(model, lambda model: model(x), depth=True, ignored="blocks.1.mlp")
    assert [group.name for group in of_depth(discovery.groups)] == ["blocks.0", "blocks.2"]
    assert ("blocks.1", "told to ignore it") in [(alone.name, alone.reason) for alone in discovery.left_alone]


def test_another_word_for_depth_is_refused() -> None:
    with pytest.raises(ConfigError, match="no such depth"):
        discover(nn.Linear(2, 2), lambda model: model(torch.randn(1, 2)), depth="layers")  # type: ignore[arg-type]
