"""The training loop: schedules, control, skipping, and bit-exact continuation."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from l0prune import (
    ControllerConfig,
    GateConfig,
    GatedModel,
    Losses,
    Objective,
    PruneGroup,
    Record,
    StageConfig,
    TrainingError,
)
from l0prune.training.stage import Stage

Make = Callable[..., tuple[nn.Module, list[PruneGroup]]]


class Fit(Objective):
    """Mean squared error to a fixed function of the input, through dropout."""

    def forward(self, batch: Tensor) -> Losses:
        output = nn.functional.dropout(self.student(batch), 0.2, self.training)
        # Scaled so that it starts near 1, as distillation losses do.
        loss = 0.02 * (output - batch[:, :3].sin()).pow(2).mean()
        return Losses(total=loss, parts={"error": loss}, amount=len(batch))


def batches(position: int = 0) -> Iterator[Tensor]:
    for number in itertools.count(position):
        yield torch.randn(8, 5, generator=torch.Generator().manual_seed(number))


def make_stage(make_network: Make, steps: int = 12, micro_batches: int = 1, **more: Any) -> Stage:
    torch.manual_seed(0)
    network, groups = make_network(dtype=torch.float32)
    gated = GatedModel(network, groups, target_sparsity=0.4, config=GateConfig(drop_rate=0.1))
    config = StageConfig(steps=steps, learning_rate=0.01, warmup_steps=3, micro_batches=micro_batches)
    control = ControllerConfig(learning_rate=0.1, warmup_steps=5, quadratic_start=20.0)
    torch.manual_seed(1)
    return Stage("joint", Fit(network), config, precision="float32", gated=gated, controller=control, **more)


def run(stage: Stage, position: int = 0, after_step: Callable[[int], None] = lambda _: None) -> list[Record]:
    records: list[Record] = []
    stage.run(batches(position), log_every=4, on_record=records.append, after_step=after_step)
    return records


class Stop(Exception):
    """Ends a run from `after_step`."""


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_a_resumed_stage_ends_bit_for_bit_as_an_uninterrupted_one(make_network: Make, micro_batches: int) -> None:
    whole = make_stage(make_network, micro_batches=micro_batches)
    run(whole)
    begun = make_stage(make_network, micro_batches=micro_batches)

    def stop(_: int) -> None:
        if begun.step == 7:
            raise Stop

    with pytest.raises(Stop):
        run(begun, after_step=stop)
    state = begun.state()
    torch.manual_seed(99)
    resumed = make_stage(make_network, micro_batches=micro_batches)
    resumed.restore(state)
    run(resumed, position=7 * micro_batches)
    for (name, one), (_, other) in zip(flat(whole.state()), flat(resumed.state()), strict=True):
        if name != "/seconds":
            assert torch.equal(torch.as_tensor(one), torch.as_tensor(other)), name


def flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from flat(inner, f"{prefix}/{key}")
    elif isinstance(value, list | tuple):
        for key, inner in enumerate(value):
            yield from flat(inner, f"{prefix}/{key}")
    elif not isinstance(value, str | None):
        yield prefix, value


def test_learning_rate_rises_and_falls_linearly(make_network: Make) -> None:
    stage = make_stage(make_network, steps=12)
    rates = [stage.learning_rate_at(step) for step in range(12)]
    expected = [0.01 / 3, 0.02 / 3, 0.01] + [0.01 * (12 - step) / 9 for step in range(3, 12)]
    assert rates == pytest.approx(expected)


def test_expected_sparsity_reaches_the_target(make_network: Make) -> None:
    stage = make_stage(make_network, steps=300)
    records = run(stage)
    assert records[-1].sparsity == pytest.approx(0.4, abs=0.05)
    assert records[-1].target == 0.4
    assert records[0].step == 1
    assert records[-1].step == 300


class Poison(Fit):
    """NaN from a batch on."""

    def __init__(self, student: nn.Module, bad: set[int]) -> None:
        super().__init__(student)
        self.bad, self.seen = bad, 0

    def forward(self, batch: Tensor) -> Losses:
        losses = super().forward(batch)
        self.seen += 1
        return Losses(total=losses.total * float("nan")) if self.seen - 1 in self.bad else losses


def test_a_non_finite_step_is_skipped_and_counted() -> None:
    torch.manual_seed(0)
    objective = Poison(nn.Linear(5, 3), bad={2})
    stage = Stage("further", objective, StageConfig(steps=5, learning_rate=0.1), precision="float32")
    seen: list[Tensor] = []
    records: list[Record] = []
    stage.run(
        batches(),
        log_every=1,
        on_record=records.append,
        after_step=lambda _: seen.append(objective.student.weight.detach().clone()),  # type: ignore[union-attr, operator]
    )
    assert torch.equal(seen[1], seen[2])
    assert not torch.equal(seen[2], seen[3])
    assert records[-1].skipped_steps == 1


def test_non_finite_steps_in_a_row_stop_the_run_by_name() -> None:
    objective = Poison(nn.Linear(5, 3), bad=set(range(3, 100)))
    stage = Stage("further", objective, StageConfig(steps=50, learning_rate=0.1), precision="float32")
    with pytest.raises(TrainingError, match="further step 13"):
        run(stage)
    assert all(torch.isfinite(parameter).all() for parameter in objective.parameters())


def test_data_that_ends_is_an_error() -> None:
    stage = Stage("further", Fit(nn.Linear(5, 3)), StageConfig(steps=5, learning_rate=0.1), precision="float32")
    with pytest.raises(TrainingError, match="data ended"):
        stage.run(itertools.islice(batches(), 3), log_every=1, on_record=lambda r: None, after_step=lambda _: None)


def test_multipliers_ascend_while_the_target_is_missed(make_network: Make) -> None:
    stage = make_stage(make_network, steps=6)
    seen: list[tuple[float, list[float]]] = []

    def note(_: int) -> None:
        assert stage.controller is not None
        assert stage.gated is not None
        target = stage.controller.controller.target_at(stage.step - 1)
        seen.append((stage.gated.expected_sparsity().item() - target, stage.controller.controller.multiplier_values()))

    run(stage, after_step=note)
    gaps, multipliers = zip(*seen[2:], strict=True)
    assert max(gaps) < 0  # the target runs ahead of the gates
    linear, quadratic = zip(*multipliers, strict=True)
    assert list(linear) == sorted(linear, reverse=True)  # lambda1 follows the sign of the gap
    assert list(quadratic) == sorted(quadratic)
    assert quadratic[0] > 20.0


def test_a_skipped_step_touches_neither_weights_nor_gates_nor_multipliers(make_network: Make) -> None:
    stage = make_stage(make_network, steps=4)
    stage.objective = Poison(stage.objective.student, bad={2})
    stage.objective.train()
    states: list[list[Tensor]] = []

    def note(_: int) -> None:
        held = [parameter for group in stage.optimizer.param_groups for parameter in group["params"]]
        states.append([parameter.detach().clone() for parameter in held])

    run(stage, after_step=note)
    assert all(torch.equal(one, other) for one, other in zip(states[1], states[2], strict=True))
    assert not any(torch.equal(one, other) for one, other in zip(states[2][-2:], states[3][-2:], strict=True))


def test_non_finite_steps_are_counted_across_a_resumption() -> None:
    def make() -> Stage:
        objective = Poison(nn.Linear(5, 3), bad=set(range(100)))
        return Stage("further", objective, StageConfig(steps=50, learning_rate=0.1), precision="float32")

    begun, resumed = make(), make()

    def stop(_: int) -> None:
        if begun.step == 6:
            raise Stop

    with pytest.raises(Stop):
        run(begun, after_step=stop)
    resumed.restore(begun.state())
    with pytest.raises(TrainingError, match="further step 10"):
        run(resumed)


@pytest.mark.parametrize("final", [0.0, 0.25, 1.0])
@pytest.mark.parametrize(("steps", "warmup"), [(1, 0), (1, 1), (7, 0), (7, 7), (20, 4)])
def test_learning_rate_is_its_closed_form(steps: int, warmup: int, final: float) -> None:
    config = StageConfig(steps=steps, learning_rate=0.5, warmup_steps=warmup, final_rate=final)
    stage = Stage("further", Fit(nn.Linear(5, 3)), config, precision="float32")
    for step in range(steps):
        falling = (steps - step) / (steps - warmup) if step >= warmup else 1.0
        expected = 0.5 * (step + 1) / warmup if step < warmup else 0.5 * (final + (1 - final) * falling)
        assert stage.learning_rate_at(step) == pytest.approx(expected)
        assert 0 < stage.learning_rate_at(step) <= 0.5


def test_micro_batches_average_their_gradients() -> None:
    class Plain(Objective):
        def forward(self, batch: Tensor) -> Losses:
            return Losses(total=(self.student(batch) - 1).pow(2).mean())

    torch.manual_seed(0)
    weights = nn.Linear(5, 3).state_dict()
    six = list(itertools.islice(batches(), 6))
    pairs = [torch.cat([one, other]) for one, other in zip(six[::2], six[1::2], strict=True)]
    results = []
    for data, micro_batches in ((batches(), 2), (iter(pairs), 1)):
        objective = Plain(nn.Linear(5, 3))
        objective.student.load_state_dict(weights)
        config = StageConfig(steps=3, learning_rate=0.01, micro_batches=micro_batches)
        stage = Stage("further", objective, config, precision="float32")
        stage.run(data, log_every=1, on_record=lambda record: None, after_step=lambda _: None)
        results.append(objective.student.weight.detach())
    torch.testing.assert_close(*results, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(results[0], weights["weight"], atol=1e-3)


class Greedy(Fit):
    """Asks for more memory than there is, as a batch that is too long does."""

    def forward(self, batch: Tensor) -> Losses:
        torch.empty(2**60)
        return super().forward(batch)


def test_a_batch_that_does_not_fit_is_described() -> None:
    stage = Stage(
        "further",
        Greedy(nn.Linear(5, 3)),
        StageConfig(steps=5, learning_rate=0.1),
        describe=lambda batch: f"it holds {len(batch)} rows: lower rows",
    )
    with pytest.raises(TrainingError, match="does not fit in memory: further step 0; it holds 8 rows: lower rows"):
        run(stage)


def test_what_a_micro_batch_draws_depends_on_its_number_alone(make_network: Make) -> None:
    """However much the data, or another micro-batch, has drawn before."""
    drawn: list[list[Tensor]] = []
    for extra in (0, 3):
        stage = make_stage(make_network, micro_batches=2)
        gates: list[Tensor] = []

        def draw(extra: int = extra) -> Iterator[Tensor]:
            for batch in batches():
                torch.randn(extra)
                yield batch

        def note(_: int, stage: Stage = stage, gates: list[Tensor] = gates) -> None:
            assert stage.gated is not None
            gates.append(torch.cat(stage.gated.gates.values()).detach().clone())

        stage.run(draw(), log_every=4, on_record=lambda record: None, after_step=note)
        drawn.append(gates)
    assert all(torch.equal(one, other) for one, other in zip(*drawn, strict=True))
    assert not torch.equal(drawn[0][0], drawn[0][1])


def test_a_compiled_objective_trains_alike(make_network: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = make_stage(make_network)
    expected = run(plain)
    # Without the compiler proper, whose code may round otherwise.
    compiling = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self, **more: compiling(self, **more, backend="aot_eager"))
    compiled = make_stage(make_network, compiled=True)
    for one, other in zip(run(compiled), expected, strict=True):
        assert one.loss == pytest.approx(other.loss, rel=1e-4)
