"""inspect(): what is proved, what is refused and why, and how it is shown."""

import copy
import json
from html.parser import HTMLParser
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from l0prune import (
    DataError,
    GatedModel,
    GroupError,
    Objective,
    Place,
    PruneGroup,
    Role,
    Task,
    consecutive,
    inspect,
    inspect_groups,
)
from l0prune.proof import RUN_TOLERANCE
from l0prune.proof.trials import find_faults
from l0prune.pruner.inspection import ANY_MODEL_TOLERANCE, InspectedGroup

X = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))


class Partly(nn.Module):
    """One hidden layer that can be pruned, and one whose width the forward pass knows by heart."""

    def __init__(self) -> None:
        super().__init__()
        self.free, self.known, self.head = nn.Linear(6, 8), nn.Linear(8, 12), nn.Linear(12, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.free(x))
        x = torch.relu(self.known(x))
        if x.shape[1] != 12:
            raise ValueError("12 features are expected")
        return self.head(x)


class Sleeping(nn.Module):
    """A residual branch that begins at 0, as many do."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.up, self.down, self.head = (
            nn.Linear(6, 8),
            nn.Linear(8, 16),
            nn.Linear(16, 8),
            nn.Linear(8, 2),
        )
        nn.init.zeros_(self.down.weight)
        nn.init.zeros_(self.down.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        return self.head(x + self.down(torch.relu(self.up(x))))


def test_what_cannot_be_cut_is_refused_by_name_and_the_rest_goes_on() -> None:
    found = inspect(Partly(), X)
    free, known = found.rows
    assert (free.name, free.units, free.proved, free.reason) == ("free", 8, True, "")
    assert (known.name, known.proved) == ("known", False)
    assert "the cut forward pass fails: 12 features are expected" in known.reason
    assert [group.name for group in found.groups] == ["free"]
    assert found.refused == {"known": known.reason}


def test_shares_and_costs_say_what_stays() -> None:
    class Gates(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stacked = nn.Parameter(torch.randn(2, 12, 5))

        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([x.sort(-1).values @ each for each in self.stacked]).sum(0).sort(-1).values

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.partly, self.enter, self.gates, self.leave = Partly(), nn.Linear(2, 12), Gates(), nn.Linear(5, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.leave(self.gates(self.enter(self.partly(x))))

    found = inspect(Both(), X)
    shares = {share.kind: (share.reached, share.units) for share in found.shares}
    assert shares["features"][0] == 8 + 2
    # Weights of a module that no layer is known for are named, too.
    assert {"partly.known", "enter", "gates.stacked"} == {*found.refused}
    assert found.costs["partly.known"] == 12 * (8 + 1 + 2)
    assert found.costs["enter"] == 12 * (2 + 1)
    assert list(found.costs.values()) == sorted(found.costs.values(), reverse=True)
    shown = str(found)
    assert "units that can go: 10 of " in shown
    assert "parameters on units that stay: " in shown
    told = json.loads(json.dumps(found.to_json()))
    assert told["shares"] == [vars(share) for share in found.shares]
    assert told["can_go"] == found.parameter_model.total - found.parameter_model.floor


def test_a_width_that_several_layers_add_to_is_the_trunk() -> None:
    model = nn.Sequential(
        nn.Linear(6, 16), *(nn.TransformerEncoderLayer(16, 4, 24, batch_first=True) for _ in range(2)), nn.Linear(16, 2)
    )
    shares = {share.kind: (share.reached, share.units) for share in inspect(model, X[None]).shares}
    assert shares == {"trunk": (16, 16), "heads": (8, 8), "features": (48, 48)}


def test_a_unit_costs_what_leaves_with_it() -> None:
    free = inspect(Partly(), X).rows[0]
    assert free.unit_parameters == 6 + 1 + 12
    assert free.unit_macs == 3 * (6 + 12)


def test_an_error_in_a_branch_that_begins_at_0_is_found() -> None:
    model = Sleeping()
    places = [("up.weight", 0, Role.PRODUCES), ("up.bias", 0, Role.PRODUCES), ("down.weight", 1, Role.CONSUMES)]

    def group(shift: int) -> PruneGroup:
        index = [consecutive(16), consecutive(16), (consecutive(16) + shift) % 16]
        at = [Place(tensor=t, dim=d, role=r, index=i) for (t, d, r), i in zip(places, index, strict=True)]
        return PruneGroup(name="inner", kind="unit", units=16, places=tuple(at))

    before = copy.deepcopy(model.state_dict())
    assert inspect(model, X, groups=[group(0)]).rows[0].proved
    assert not inspect(model, X, groups=[group(3)]).rows[0].proved
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_forward_pass_that_changes_its_input_is_proved_on_the_example_as_given(dtype: torch.dtype) -> None:
    class InPlace(Partly):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.sub_(0.5).div_(0.25))

    x = X.to(dtype, copy=True)
    assert [row.proved for row in inspect(InPlace().to(dtype), x).rows] == [True, False]
    assert torch.equal(x, X.to(dtype))


def test_half_precision_is_proved_in_full() -> None:
    model = Partly().bfloat16()
    found = inspect(model, X.bfloat16())
    assert [row.proved for row in found.rows] == [True, False]
    assert model.free.weight.dtype == torch.bfloat16


def test_units_that_do_not_show_are_told_of() -> None:
    class Constant(Partly):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.relu(self.known(torch.relu(self.free(x))))) * 1e-9 + 1

    assert "the proof says little" in " ".join(inspect(Constant(), X).notes)


def test_a_model_without_parameters_has_nothing_to_prune() -> None:
    assert str(inspect(nn.ReLU(), X)).endswith("0 of 0 groups proved; 0 of 0 parameters (0.0%) can go")


def test_the_first_parameter_may_be_complex() -> None:
    class Spectral(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.filter, self.rest = nn.Parameter(torch.randn(4, dtype=torch.cfloat)), Partly()

        def forward(self, x: Tensor) -> Tensor:
            return self.rest(torch.fft.irfft(torch.fft.rfft(x) * self.filter, n=6))

    assert [row.proved for row in inspect(Spectral(), X).rows] == [True, False]


def test_a_task_keeps_no_gates_where_its_proof_cannot_be_made() -> None:
    class Fit(Objective):
        def forward(self, batch: Any) -> Any:
            return batch

    student = Partly()
    task = Task(
        objective=Fit(student),
        groups=inspect(student, X).groups,
        batches=lambda position: iter(()),
        observe=lambda model: model(X).argmax(1),
    )
    names = list(student.state_dict())
    with pytest.raises(DataError, match="no floating-point tensor"):
        inspect_groups(task)
    assert list(student.state_dict()) == names


def test_groups_that_do_not_fit_are_an_error() -> None:
    place = Place(tensor="nowhere", dim=0, role=Role.CONSUMES, index=consecutive(2))
    with pytest.raises(GroupError, match="no such tensor"):
        inspect(Partly(), X, groups=[PruneGroup(name="x", kind="unit", units=2, places=(place,))])


def test_the_table_lines_up_and_says_everything() -> None:
    found = inspect(Partly(), X)
    lines = str(found).splitlines()
    assert lines[0].split() == [
        "group",
        "kind",
        "units",
        "parameters",
        "a",
        "unit",
        "MACs",
        "a",
        "unit",
        "form",
        "proved",
    ]
    ends = {line.index("yes") if "yes" in line else line.index("no: ") for line in lines[2:4]}
    assert ends == {lines[0].index("proved")}
    assert "left alone: part of the model's output" in lines[4]
    assert lines[-3].startswith("1 of 2 groups proved; ")


def test_a_notebook_shows_the_same_table() -> None:
    class Cells(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.cells: list[str] = []

        def handle_data(self, data: str) -> None:
            self.cells.append(data)

    found = inspect(Partly(), X)
    row = found.rows[0]
    odd = InspectedGroup(**{**vars(row), "reason": "<b>&", "proved": False})
    parser = Cells()
    parser.feed(type(found)(**{**vars(found), "rows": (odd, *found.rows[1:])})._repr_html_())
    assert parser.cells[:7] == ["group", "kind", "units", "parameters a unit", "MACs a unit", "form", "proved"]
    assert "no: <b>&" in parser.cells
    assert "left alone: part of the model's output" in parser.cells


class Counting(nn.Module):
    """Its output is off by a little for each hidden unit that is missing."""

    def __init__(self, off: float) -> None:
        super().__init__()
        self.up, self.down, self.off = nn.Linear(6, 8), nn.Linear(8, 2), off

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.up(x))
        return self.down(hidden) * (1 + self.off * (8 - hidden.shape[-1]))


@pytest.mark.parametrize(("off", "by_a_run"), [(0.0, True), (1e-5, False)])
def test_a_run_allows_smaller_differences_than_the_proof_on_any_model(off: float, by_a_run: bool) -> None:
    model, observe = Counting(off), lambda module: module(X)
    found = inspect(model, X)
    assert [row.proved for row in found.rows] == [True]
    gated = GatedModel(model, found.groups, target_sparsity=0.5).eval()
    assert (not find_faults(gated, observe)[1]) is by_a_run
    assert find_faults(gated, observe, tolerance=ANY_MODEL_TOLERANCE)[1] == {}
    assert (find_faults(gated, observe, tolerance=RUN_TOLERANCE)[1] == {}) is by_a_run
    assert [row.proved for row in inspect(Counting(1e-3), X).rows] == [False]


class Spare(nn.Module):
    """A parameter of the model's own that is never used, as wide as the hidden units."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.spare = nn.Linear(4, 8), nn.Linear(8, 2), nn.Parameter(torch.ones(8))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x).relu())


def test_messages_name_the_model_itself() -> None:
    attention = inspect(nn.MultiheadAttention(8, 2, batch_first=True), [torch.randn(2, 3, 8)] * 3)
    assert set(attention.refused) == {"the model itself"}
    spare = inspect(Spare(), torch.randn(3, 4))
    assert spare.endangered == ("the model itself",)
    assert any(note.endswith("left alone: the model itself") for note in spare.notes)
    model = nn.Linear(4, 8)
    for heads, words in ((3, "heads do not divide the outputs: the model itself"), (16, "a divisor of 8")):
        with pytest.raises(GroupError, match=words):
            inspect(model, torch.randn(3, 4), num_heads={model: heads})
    container = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
    with pytest.raises(GroupError, match=r"no heads in this module: the model itself"):
        inspect(container, torch.randn(3, 4), num_heads={container: 2})
