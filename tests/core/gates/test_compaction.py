"""Compaction: exact in outputs, sizes and optimizer state; decided by the gates; resumed bit for bit."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from l0prune import ControllerConfig, GateConfig, GatedModel, Losses, Objective, PruneGroup, StageConfig
from l0prune.config import CompactionConfig
from l0prune.gates.compaction import Compactor, compact
from l0prune.gates.controller import Controller
from l0prune.measuring.count import parameters
from l0prune.removal.apply import apply_plan
from l0prune.training.stage import Stage

Make = Callable[..., tuple[nn.Module, list[PruneGroup]]]
UNITS = 10


def make_gated(make_network: Make, target: float = 0.4, **config: Any) -> GatedModel:
    model, groups = make_network()
    return GatedModel(model, groups, target_sparsity=target, config=GateConfig(**config))


def make_optimizer(gated: GatedModel) -> torch.optim.Optimizer:
    own = [*gated.model.parameters()]
    optimizer = torch.optim.AdamW([{"params": own}, {"params": [gated.gates.log_alpha]}], lr=0.01)
    torch.manual_seed(3)
    inputs = torch.randn(6, 5, dtype=torch.float64)
    for _ in range(2):
        optimizer.zero_grad()
        gated.gates.sample()
        (gated.model(inputs).square().mean() + gated.expected_sparsity()).backward()
        optimizer.step()
    return optimizer


def make_compactor(gated: GatedModel, config: CompactionConfig) -> tuple[Controller, Compactor]:
    controller = Controller(gated, ControllerConfig(), compaction=config)
    assert controller.compactor is not None
    return controller, controller.compactor


def close(gated: GatedModel, closed: list[int], far: float = -8.0) -> None:
    with torch.no_grad():
        gated.gates.log_alpha[closed] = far


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_outputs_sizes_and_plans_are_those_of_before(data: st.DataObject, make_network: Make) -> None:
    gated = make_gated(make_network, target=data.draw(st.floats(0.1, 0.6)))
    scores = data.draw(st.lists(st.floats(-6, 6), min_size=UNITS, max_size=UNITS))
    with torch.no_grad():
        gated.gates.log_alpha.copy_(torch.tensor(scores, dtype=torch.float64))
    optimizer = make_optimizer(gated)
    gated.eval()
    x = torch.randn(7, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for _ in range(2):
        selected = gated.gates.select()
        # "second" stays: its block holds all that reads "first".
        free = ~selected & (np.arange(len(selected)) != len(selected) - 1)
        going = free & np.array(data.draw(st.lists(st.booleans(), min_size=len(free), max_size=len(free))))
        outputs, plan, total = gated.model(x), gated.plan(), gated.size_model.total
        counts = {group.name: group.units for group in gated.groups}
        cut = compact(gated, ~going, optimizer)
        torch.testing.assert_close(gated.model(x), outputs, rtol=1e-12, atol=1e-12)
        assert gated.plan().kept == plan.kept
        assert gated.plan().shapes == plan.shapes
        assert gated.size_model.total == total
        assert gated.size_model.exact(gated.size_model.units) == parameters(gated.model)
        assert sum(len(kept) for kept in cut.kept.values()) == sum(counts.values()) - going.sum()
    student, plan = gated.pruned()
    dense, _ = make_network()
    fresh = apply_plan(dense, plan)
    assert {n: p.shape for n, p in student.named_parameters()} == {n: p.shape for n, p in fresh.named_parameters()}


def test_the_optimizer_goes_on_with_what_is_left(make_network: Make) -> None:
    gated, alone = make_gated(make_network), make_gated(make_network)
    optimizer, other = make_optimizer(gated), make_optimizer(alone)
    closed = [1, 4, 8]
    kept = ~np.isin(np.arange(UNITS), closed)
    compact(gated, kept, optimizer)
    # The same cut by hand: what is left of each moment stands where what is left of its weight stands.
    survivors = alone.next_plan(kept).survivors()
    before = {
        name.replace("parametrizations.", "").replace(".original", ""): other.state[parameter]
        for name, parameter in alone.model.named_parameters()
    }
    after = {
        name.replace("parametrizations.", "").replace(".original", ""): optimizer.state[parameter]
        for name, parameter in gated.model.named_parameters()
    }
    assert before.keys() == after.keys()
    for name, state in before.items():
        for key in ("exp_avg", "exp_avg_sq"):
            left = state[key]
            for dim in range(left.ndim):
                if (name, dim) in survivors:
                    left = left.index_select(dim, torch.from_numpy(survivors[name, dim]))
            assert torch.equal(after[name][key], left), (name, key)
        assert after[name]["step"] == state["step"]
    gates = optimizer.state[gated.gates.log_alpha]
    assert torch.equal(gates["exp_avg"], other.state[alone.gates.log_alpha]["exp_avg"][kept])
    assert len(optimizer.param_groups[0]["params"]) == len(other.param_groups[0]["params"])
    assert {id(p) for p in gated.model.parameters()} == {id(p) for p in optimizer.param_groups[0]["params"]}


def test_a_step_after_a_cut_is_the_step_without_it(make_network: Make) -> None:
    """Units closed by a value of 0 get no gradient: whether they are there makes no difference to the others."""
    gated, alone = make_gated(make_network), make_gated(make_network)
    optimizers = [make_optimizer(gated), make_optimizer(alone)]
    kept = ~np.isin(np.arange(UNITS), [0, 5, 9])
    values = torch.rand(UNITS, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.2
    compact(gated, kept, optimizers[0])
    x = torch.randn(6, 5, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    index = torch.from_numpy(np.flatnonzero(kept))
    for model, optimizer, value in (
        (gated, optimizers[0], values[index]),
        (alone, optimizers[1], values * torch.from_numpy(kept)),
    ):
        optimizer.zero_grad()
        with model.gates.fixed(value):
            model.model(x).square().mean().backward()
        for group in optimizer.param_groups:
            group["weight_decay"] = 0.0
        optimizer.step()
    outputs = []
    for model, value in ((gated, values[index]), (alone, values * torch.from_numpy(kept))):
        with model.gates.fixed(value):
            outputs.append(model.model(x))
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-10, atol=1e-12)


def test_an_emptied_block_leaves(make_network: Make) -> None:
    model, groups = make_network()
    # A third group that reads "first" elsewhere lets the block go.
    gated = GatedModel(model, groups[1:], target_sparsity=0.2)
    optimizer = make_optimizer(gated)
    x = torch.randn(4, 5, dtype=torch.float64)
    gated.eval()
    with gated.gates.fixed(torch.zeros(6, dtype=torch.float64)):
        expected = gated.model(x)
    compact(gated, np.zeros(6, dtype=bool), optimizer)
    assert not [*gated.model.block.parameters()]  # type: ignore[union-attr, operator]
    assert gated.groups == ()
    torch.testing.assert_close(gated.model(x), expected)
    assert gated.expected_sparsity().item() == 1 - parameters(gated.model) / gated.size_model.total


def test_a_block_stays_while_all_that_reads_another_group_is_in_it(make_network: Make) -> None:
    gated = make_gated(make_network, target=0.6)
    close(gated, [4, 5, 6, 7, 8, 9])
    with torch.no_grad():
        gated.gates.log_alpha[:4] += 20
    _, compactor = make_compactor(gated, CompactionConfig(patience=1, least_share=0.0))
    compactor.reached.fill_(1)
    kept = compactor.look(0.6)
    assert kept is not None
    # All of its own units are closed; the cut at the target would take the last one, too.
    assert kept[:4].all()
    assert kept[4:].sum() == 1


def test_only_units_closed_long_enough_go_once_the_target_was_reached(make_network: Make) -> None:
    gated = make_gated(make_network, target=0.4)
    closed = [0, 1, 5, 6, 7]
    close(gated, closed)
    assert gated.expected_sparsity().item() > 0.4
    controller, compactor = make_compactor(gated, CompactionConfig(patience=3, least_share=0.02))
    # Before its end the warm-up's target may be met by chance.
    assert compactor.look(0.1) is None
    assert not compactor.reached
    assert compactor.look(0.4) is None
    assert compactor.reached
    with torch.no_grad():
        gated.gates.log_alpha[6] = 5.0
    kept = compactor.look(0.4)
    assert kept is not None
    selected = gated.gates.select()
    assert np.flatnonzero(~kept).tolist() == [u for u in (0, 1, 5, 7) if not selected[u]]
    optimizer = torch.optim.AdamW([{"params": [*gated.model.parameters()]}, {"params": [gated.gates.log_alpha]}])
    controller.cut(kept, [optimizer])
    assert compactor.looks.tolist() == [3 * (u in closed and u != 6) for u in gated.here]
    assert compactor.look(0.4) is None


@pytest.mark.parametrize("round_to", [1, 2, 3])
def test_what_is_left_allows_the_same_choice_under_rounding(make_network: Make, round_to: int) -> None:
    gated = make_gated(make_network, target=0.35, round_to=round_to)
    close(gated, [0, 2, 4, 5, 6, 8])
    before = gated.plan()
    controller, compactor = make_compactor(gated, CompactionConfig(patience=1, least_share=0.0))
    compactor.reached.fill_(1)
    kept = compactor.look(0.35)
    assert kept is not None
    controller.cut(kept, [torch.optim.AdamW([*gated.model.parameters(), gated.gates.log_alpha])])
    assert gated.plan().kept == before.kept
    assert all(group.units % round_to == 0 or len(before.kept[group.name]) == group.units for group in gated.groups)


class Fit(Objective):
    """Mean squared error to a fixed function of the input, through dropout."""

    def forward(self, batch: Tensor) -> Losses:
        output = nn.functional.dropout(self.student(batch), 0.1, self.training)
        loss = 0.02 * (output - batch[:, :3].sin()).pow(2).mean()
        return Losses(total=loss, amount=len(batch))


def batches(position: int = 0) -> Iterator[Tensor]:
    while True:
        yield torch.randn(8, 5, generator=torch.Generator().manual_seed(position))
        position += 1


CONTROLLERS = {
    "lagrangian": ControllerConfig(learning_rate=0.2, warmup_steps=10, quadratic_start=20.0),
    "pi": ControllerConfig(kind="pi", learning_rate=0.2, warmup_steps=10),
    "projected": ControllerConfig(kind="projected", warmup_steps=60, look_steps=4, memory=0.5),
}


def make_stage(make_network: Make, controller: ControllerConfig, steps: int = 120) -> Stage:
    network, groups = make_network(dtype=torch.float32)
    gated = GatedModel(network, groups, target_sparsity=0.5, config=GateConfig(drop_rate=0.1))
    return Stage(
        "joint",
        Fit(network),
        StageConfig(steps=steps, learning_rate=0.01),
        precision="float32",
        gated=gated,
        controller=controller,
        compaction=CompactionConfig(every_steps=5, patience=2, closed_below=0.3, least_share=0.0),
    )


@pytest.mark.parametrize("kind", CONTROLLERS)
def test_a_stage_shrinks_and_goes_on_bit_for_bit_after_a_cut(kind: str, make_network: Make) -> None:
    class Stop(Exception):
        pass

    whole, cuts = make_stage(make_network, CONTROLLERS[kind]), []
    whole.run(
        batches(),
        log_every=10,
        on_record=lambda record: None,
        on_cut=lambda plan: cuts.append((whole.step, parameters(whole.objective.student), plan)),
    )
    assert len(cuts) >= (2 if kind == "lagrangian" else 1)
    assert [size for _, size, _ in cuts] == sorted({size for _, size, _ in cuts}, reverse=True)
    for stop_at in (cuts[0][0], cuts[0][0] + 1, cuts[-1][0] - 1, cuts[-1][0] + 3):
        begun = make_stage(make_network, CONTROLLERS[kind])

        def stop(_: int, begun: Stage = begun, stop_at: int = stop_at) -> None:
            if begun.step == stop_at:
                raise Stop

        with pytest.raises(Stop):
            begun.run(batches(), log_every=10, on_record=lambda record: None, after_step=stop)
        state = copy.deepcopy(begun.state())
        assert (len(state["controller"]["compactor.here"]) < UNITS) == (stop_at >= cuts[0][0])
        resumed = make_stage(make_network, CONTROLLERS[kind])
        resumed.restore(state)
        resumed.run(batches(stop_at), log_every=10, on_record=lambda record: None)
        assert parameters(resumed.objective.student) == parameters(whole.objective.student)
        for one, other in zip(resumed.objective.parameters(), whole.objective.parameters(), strict=True):
            assert torch.equal(one, other)
        assert resumed.gated is not None
        assert whole.gated is not None
        assert torch.equal(resumed.gated.gates.log_alpha, whole.gated.gates.log_alpha)
        assert resumed.gated.plan().kept == whole.gated.plan().kept


@pytest.mark.parametrize("kind", CONTROLLERS)
def test_a_state_from_before_there_was_one_controller_goes_on_bit_for_bit(kind: str, make_network: Make) -> None:
    """Checkpoints held gates, multipliers, cuts and looks by names of their own."""
    whole, parts = make_stage(make_network, CONTROLLERS[kind]), []

    def save(_: int) -> None:
        if whole.step in (5, 90):
            parts.append(copy.deepcopy(in_parts(whole)))

    whole.run(batches(), log_every=10, on_record=lambda record: None, after_step=save)
    for state in parts:
        resumed = make_stage(make_network, CONTROLLERS[kind])
        resumed.restore(state)
        resumed.run(batches(state["step"]), log_every=10, on_record=lambda record: None)
        for one, other in zip(resumed.objective.parameters(), whole.objective.parameters(), strict=True):
            assert torch.equal(one, other)
        assert resumed.controller is not None
        assert whole.controller is not None
        one, other = resumed.controller.state_dict(), whole.controller.state_dict()
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert len(parts[1]["looks"]["looks"]) < UNITS == len(parts[0]["looks"]["looks"])


def in_parts(stage: Stage) -> dict[str, Any]:
    """A stage's state in the form in which it was saved once."""
    assert stage.controller is not None
    state = stage.state()
    mine = state.pop("controller")
    named = {part: {} for part in ("gates", "controller", "compactor")}
    for name, tensor in mine.items():
        part, _, rest = name.partition(".")
        if rest:
            named[part][rest] = tensor
    looks = {"reached": bool(named["compactor"]["reached"]), "looks": named["compactor"]["looks"].tolist()}
    gone = stage.controller.gone().to_json()
    return {**state, "gates": named["gates"], "lagrangian": named["controller"], "compaction": gone, "looks": looks}
