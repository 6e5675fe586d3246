"""What the proof looks at: every output, every block empty and open, nothing passed over in silence.

That each wrong group is found is shown on random networks.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from l0prune import Bypass, DataError, GatedModel, Norm, Place, ProofError, PruneGroup, Role, consecutive
from l0prune.proof.exactness import compare
from l0prune.proof.trials import find_faults, groups_to_empty, prove_groups, trial_values

Make = Callable[..., tuple[nn.Module, list[PruneGroup]]]


@st.composite
def group_lists(draw: st.DrawFn) -> list[PruneGroup]:
    """Groups of any size, some around blocks, one to three around the same one."""
    groups = []
    for g in range(draw(st.integers(1, 8))):
        units, block = draw(st.integers(1, 9)), draw(st.none() | st.integers(0, 3))
        place = Place(tensor=f"t{g}", dim=0, role=Role.CONSUMES, index=consecutive(units))
        bypass = None if block is None else Bypass(module=f"block{block}")
        groups.append(PruneGroup(name=f"g{g}", kind="unit", units=units, places=(place,), bypass=bypass))
    return groups


@given(group_lists())
def test_trials_see_every_unit_closed_and_open_and_every_block_empty_and_open(groups: list[PruneGroup]) -> None:
    blocks = {group.bypass.module for group in groups if group.bypass}
    everything, trials = range(len(groups)), []
    for trial, emptied in enumerate(groups_to_empty(groups, everything)):
        trials.append(trial_values(groups, everything, emptied, trial).split([group.units for group in groups]))
    assert len(trials) >= (3 if blocks else 2)
    empty = [{g for g, values in enumerate(trial) if not values.any()} for trial in trials]
    assert {g for trial in empty for g in trial} == {g for g, group in enumerate(groups) if group.bypass}
    # Beside an empty block another is open, so that what reads and feeds it is seen at work.
    for trial in empty[1:]:
        modules = [groups[g].bypass.module for g in trial]
        assert len(modules) == len(set(modules))
        assert len(blocks) < 2 or set(modules) != blocks
    for g, group in enumerate(groups):
        # While another group empties its block, a group is not seen at work.
        around = {other for other in everything if group.bypass and groups[other].bypass == group.bypass}
        seen = torch.stack([trial[g] for trial, gone in zip(trials, empty, strict=True) if not around & gone])
        if group.units > 1:
            assert (seen == 0).any(0).all()
            assert (seen > 0).any(0).all()
        assert seen.max() <= 1
        assert seen[seen > 0].min() >= 0.3


def test_most_groups_of_a_size_shrink_differently() -> None:
    place = Place(tensor="t", dim=0, role=Role.CONSUMES, index=consecutive(24))
    groups = [PruneGroup(name=str(g), kind="unit", units=24, places=(place,)) for g in range(12)]
    for trial in range(2):
        closed = {int((values == 0).sum()) for values in trial_values(groups, range(12), set(), trial).split(24)}
        assert len(closed) > 6


def test_units_out_of_the_closing_groups_stay_open() -> None:
    place = Place(tensor="t", dim=0, role=Role.CONSUMES, index=consecutive(4))
    groups = [PruneGroup(name=name, kind="unit", units=4, places=(place,)) for name in "ab"]
    first, second = trial_values(groups, [1], set(), 0).split(4)
    assert first.tolist() == [1.0] * 4
    assert 1 <= (second == 0).sum() <= 3


class Cleared(nn.Module):
    """Clears one of its hidden units, wherever that stands once others are gone."""

    def __init__(self, unit: int) -> None:
        super().__init__()
        self.up, self.norm, self.down, self.unit = nn.Linear(5, 8), nn.LayerNorm(8), nn.Linear(8, 5), unit

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(self.up(x)).clone()
        h[:, self.unit] = 0
        return self.down(h)


@pytest.mark.parametrize("unit", [*range(8), -1])
def test_a_fault_at_any_single_unit_is_found(unit: int) -> None:
    torch.manual_seed(0)
    gated, x = (
        GatedModel(Cleared(unit), [hidden_units("up", "down", spoiled=False)], target_sparsity=0.3),
        torch.randn(4, 5),
    )
    assert set(find_faults(gated.eval(), lambda model: model(x))[1]) == {"hidden"}


@pytest.mark.parametrize("outputs", [lambda y: None, lambda y: y.argmax(-1), str, lambda y: []])
def test_outputs_that_cannot_be_compared_prove_nothing(make_network: Make, outputs: Callable[[Tensor], Any]) -> None:
    network, groups = make_network()
    gated, x = GatedModel(network, groups, target_sparsity=0.4).eval(), torch.randn(3, 5, dtype=torch.float64)
    with pytest.raises(DataError, match=r"no floating-point tensor.*`output_transform`"):
        prove_groups(gated, lambda model: outputs(model(x)))


def test_nan_is_told_from_a_difference(make_network: Make) -> None:
    network, groups = make_network()
    gated, x = GatedModel(network, groups, target_sparsity=0.4).eval(), torch.randn(3, 5, dtype=torch.float64)

    def poisoned(model: nn.Module, cut_alone: bool) -> Tensor:
        outputs = model(x)
        return outputs if cut_alone and model is gated.model else outputs * torch.nan

    for cut_alone, words in (
        (False, "hold NaN on these inputs before any cut"),
        (True, "the cut makes NaN or infinite values"),
    ):
        reasons = find_faults(gated, partial(poisoned, cut_alone=cut_alone))[1]
        assert reasons
        assert all(words in reason for reason in reasons.values()), reasons


def test_gates_and_mode_are_left_as_they_were(make_network: Make) -> None:
    network, groups = make_network()
    gated, x = GatedModel(network, groups, target_sparsity=0.4), torch.randn(3, 5, dtype=torch.float64)
    before = gated.gates.log_alpha.detach().clone()
    expected = gated.eval()(x)
    for training in (True, False):
        gated.train(training)
        prove_groups(gated, lambda model: model(x))
        assert compare(gated, lambda model: model(x)) < 1e-12
        assert gated.training is training
        assert gated.model.norm.training is training
    assert torch.equal(gated.gates.log_alpha, before)
    assert torch.equal(gated.eval()(x), expected)


class Rows(nn.Module):
    """Units that the forward pass counts by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.make, self.read = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.make(x).view(-1, 4))


def test_a_group_that_cannot_be_cut_is_blamed_by_name() -> None:
    index = consecutive(4)
    places = (
        Place(tensor="make.weight", dim=0, role=Role.PRODUCES, index=index),
        Place(tensor="make.bias", dim=0, role=Role.PRODUCES, index=index),
        Place(tensor="read.weight", dim=1, role=Role.CONSUMES, index=index),
    )
    group = PruneGroup(name="columns", kind="unit", units=4, places=places)
    gated = GatedModel(Rows(), [group], target_sparsity=0.3).eval()
    x = torch.randn(5, 3)
    _, faults = find_faults(gated, lambda model: model(x))
    assert "shape '[-1, 4]' is invalid" in faults["columns"]


def hidden_units(enter: str, leave: str, *, spoiled: bool) -> PruneGroup:
    """Eight units between two linear layers, normalised in between; spoiled: as if nothing normalised over them."""
    places = [
        (f"{enter}.weight", 0),
        (f"{enter}.bias", 0),
        ("norm.weight", 0),
        ("norm.bias", 0),
        (f"{leave}.weight", 1),
    ]
    return PruneGroup(
        name="hidden",
        kind="unit",
        units=8,
        places=tuple(
            Place(
                tensor=tensor,
                dim=dim,
                role=Role.CONSUMES if tensor.startswith(leave) else Role.PRODUCES,
                index=consecutive(8),
            )
            for tensor, dim in places
        ),
        norms=() if spoiled else (Norm(module="norm"),),
    )


class Sleeping(nn.Module):
    """A residual branch that a small scale all but hides, as in a fresh network with LayerScale."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.norm, self.down = nn.Linear(5, 8), nn.LayerNorm(8), nn.Linear(8, 5)
        self.scale = nn.Parameter(torch.full((5,), 1e-6))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scale * self.down(self.norm(self.up(x)))


@pytest.mark.parametrize("spoiled", [False, True])
def test_a_fault_that_training_would_bring_to_light_is_found_before(spoiled: bool) -> None:
    torch.manual_seed(0)
    group = hidden_units("up", "down", spoiled=spoiled)
    gated = GatedModel(Sleeping(), [group], target_sparsity=0.3).eval()
    x, before = torch.randn(4, 5), {name: tensor.clone() for name, tensor in gated.state_dict().items()}
    if spoiled:
        with pytest.raises(ProofError, match="pruning this group is not exact: hidden"):
            prove_groups(gated, lambda model: model(x))
    else:
        assert prove_groups(gated, lambda model: model(x)) < 1e-5
    assert all(torch.equal(tensor, before[name]) for name, tensor in gated.state_dict().items())


class AlmostEqual(nn.Module):
    """A LayerNorm over channels that differ in their last digits: it magnifies every rounding a thousand times."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(40, 8), nn.LayerNorm(8, eps=1e-12), nn.Linear(8, 3)
        with torch.no_grad():
            self.first.weight.copy_(1 + 1e-4 * torch.randn(8, 40))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.norm(self.first(x)))


@pytest.mark.parametrize("spoiled", [False, True])
def test_what_rounding_explains_is_no_fault_and_what_it_does_not_is_one(spoiled: bool) -> None:
    torch.manual_seed(0)
    group = hidden_units("first", "last", spoiled=spoiled)
    gated, x = GatedModel(AlmostEqual(), [group], target_sparsity=0.3).eval(), torch.randn(16, 40)
    tolerance = 1e-7
    _, faults = find_faults(gated, lambda model: model(x), tolerance=tolerance)
    assert set(faults) == ({"hidden"} if spoiled else set())
    if not spoiled:
        # The tolerance alone would have refused it.
        values = torch.ones(8)
        values[::2] = 0
        with gated.gates.fixed(values):
            assert compare(gated, lambda model: model(x)) > tolerance


class Drawing(nn.Module):
    """Adds noise in evaluation mode too."""

    def __init__(self, noise: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.up, self.norm, self.down, self.noise = nn.Linear(5, 8), nn.LayerNorm(8), nn.Linear(8, 5), noise

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(self.up(x))
        return self.down(self.noise(h)) + torch.randn(len(x), 5)


def faults_of(model: nn.Module, observe: Callable[[nn.Module], Any], *, spoiled: bool = False) -> str:
    torch.manual_seed(0)
    gated = GatedModel(model, [hidden_units("up", "down", spoiled=spoiled)], target_sparsity=0.3).eval()
    return next(iter(find_faults(gated, observe)[1].values()), "")


UNSTEADY = "the forward pass does not repeat itself in evaluation mode"


def test_noise_that_pruning_leaves_alone_neither_refuses_a_group_nor_hides_a_fault() -> None:
    x = torch.randn(4, 5)
    assert not faults_of(Drawing(nn.Identity()), lambda model: model(x))
    assert UNSTEADY in faults_of(Drawing(nn.Identity()), lambda model: model(x), spoiled=True)


def test_noise_as_wide_as_what_is_pruned_is_the_reason_given() -> None:
    x = torch.randn(4, 5)
    assert UNSTEADY in faults_of(Drawing(lambda h: F.dropout(h, 0.1)), lambda model: model(x))


def test_a_forward_pass_that_changes_from_run_to_run_hides_no_fault() -> None:
    x = torch.randn(4, 5)
    assert UNSTEADY in faults_of(Sleeping(), lambda model: model(x.mul_(1.5)), spoiled=True)


def test_a_proof_leaves_the_random_state_as_it_was() -> None:
    x = torch.randn(4, 5)
    gated = GatedModel(Drawing(nn.Identity()), [hidden_units("up", "down", spoiled=False)], target_sparsity=0.3).eval()
    before = torch.get_rng_state()
    prove_groups(gated, lambda model: model(x))
    assert torch.equal(torch.get_rng_state(), before)
