"""Latency as a polynomial: known times are recovered, targets are met or refused, nothing is measured twice."""

import copy
import functools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from l0prune import Bypass, GatedModel, Place, PruneGroup, Role, TargetError, consecutive, prune, wrap
from l0prune.discovery.follow import trace
from l0prune.measuring import parameters
from l0prune.pruner.inspection import inspect
from l0prune.size import Wish
from l0prune.size.latency import meet
from l0prune.size.latency import model as latency_model
from l0prune.size.latency.fit import MS, TICKS, fit_robustly, least_squares
from l0prune.size.latency.model import LatencyModel, measure_latency
from l0prune.size.latency.samples import blocks_of
from l0prune.size.latency.target import sparsity_for
from l0prune.size.polynomial import SizeModel
from l0prune.size.selection import budget_for


class Clock:
    """Time that passes only as the layers of `Timed` say."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Clock":
        return self


class Timed(nn.Module):
    """A residual block whose time is affine in its width, rounded up to a multiple."""

    def __init__(self, clock: Clock, units: int, multiple: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(4, units), nn.Linear(units, 4)
        self.clock, self.multiple = clock, multiple

    def forward(self, x: Tensor) -> Tensor:
        self.clock.now += 2e-3 + 1e-4 * self.multiple * -(-self.up.out_features // self.multiple)
        return self.down(self.up(x).relu())


class Network(nn.Module):
    def __init__(self, clock: Clock, multiple: int = 1) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Timed(clock, 40, multiple) for _ in range(3))
        self.clock = clock

    def forward(self, x: Tensor) -> Tensor:
        self.clock.now += 5e-3
        for block in self.blocks:
            x = x + block(x)
        return x


def groups() -> list[PruneGroup]:
    made = []
    for i in range(3):
        places = [("up.weight", 0, Role.PRODUCES), ("up.bias", 0, Role.PRODUCES), ("down.weight", 1, Role.CONSUMES)]
        made.append(
            PruneGroup(
                name=f"blocks.{i}",
                kind="unit",
                units=40,
                places=tuple(
                    Place(tensor=f"blocks.{i}.{t}", dim=d, role=r, index=consecutive(40)) for t, d, r in places
                ),
                alive_with=(f"blocks.{i}.down.bias",),
                bypass=Bypass(module=f"blocks.{i}"),
            )
        )
    return made


def observe(model: nn.Module) -> Tensor:
    return model(torch.ones(2, 4))


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[LatencyModel, Path]:
    clock = Clock(monkeypatch)
    model, path = Network(clock).eval(), tmp_path / "latency.json"
    found = trace(model, observe, training=False)
    return measure_latency(model, groups(), observe, found, cache=[path]), path


def test_times_that_are_affine_in_the_widths_are_recovered(measured: tuple[LatencyModel, Path]) -> None:
    latency, _ = measured
    assert latency.dense_ms == pytest.approx(5 + 3 * (2 + 4))
    assert latency.error < 1e-3
    for kept in ([40, 40, 40], [10, 0, 40], [0, 0, 0], [1, 2, 3]):
        expected = TICKS * (5e-3 + sum(2e-3 + 1e-4 * units for units in kept if units))
        assert latency.size.exact(np.array(kept)) == pytest.approx(expected, rel=1e-3)
    # In expectation too: a block that may be empty costs its constant only as often as it is there.
    p = torch.full((120,), 0.02, dtype=torch.float64)
    alive = 1 - 0.98**40
    assert latency.size.expected(p).item() == pytest.approx(TICKS * (5e-3 + 3 * (2e-3 * alive + 1e-4 * 0.8)), rel=1e-3)


@pytest.mark.parametrize(("multiple", "given", "expected"), [(1, None, 1), (8, None, 8), (8, 1, 1), (1, 4, 4)])
def test_widths_keep_to_the_multiple_that_pays_or_that_was_given(
    monkeypatch: pytest.MonkeyPatch, multiple: int, given: int | None, expected: int
) -> None:
    model = Network(Clock(monkeypatch), multiple).eval()
    found = trace(model, observe, training=False)
    latency = measure_latency(model, groups(), observe, found, round_to=given)
    assert latency.round_to == expected
    if expected % multiple == 0:
        assert latency.size.exact(np.array([16, 32, 8])) == pytest.approx(16.6e-3 * TICKS, rel=1e-3)


def test_what_was_measured_once_is_read_again(
    measured: tuple[LatencyModel, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    latency, path = measured
    model = Network(Clock(monkeypatch)).eval()
    found = trace(model, observe, training=False)
    monkeypatch.setattr(latency_model, "Samples", None)
    again = measure_latency(model, groups(), observe, found, cache=[path])
    kept = np.array([7, 0, 31])
    assert again.size.exact(kept) == latency.size.exact(kept)
    assert (again.dense_ms, again.error) == (latency.dense_ms, latency.error)


def test_figures_of_another_machine_or_network_are_not_used(
    measured: tuple[LatencyModel, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, path = measured
    model = Network(Clock(monkeypatch)).eval()
    found = trace(model, observe, training=False)
    monkeypatch.setattr(latency_model, "processor", lambda device: "another")
    measure_latency(model, groups(), observe, found, cache=[path])
    path.write_text("{")
    measure_latency(model, groups(), observe, found, cache=[path])
    assert json.loads(path.read_text())["coefficients"]


def test_the_times_of_another_form_are_not_used(
    measured: tuple[LatencyModel, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a stream, for example: its weights are alike, whatever the length of a chunk is."""
    _, path = measured
    model, deploy = Network(Clock(monkeypatch)).eval(), functools.partial(lambda network: network)
    found, before = trace(model, observe, training=False), path.read_text()
    deploy.form = "chunks of 16 frames"  # type: ignore[attr-defined]
    measure_latency(model, groups(), observe, found, deploy=deploy, cache=[path])
    assert json.loads(path.read_text())["key"] != json.loads(before)["key"]


def make(dense_ms: float = 20.0, round_to: int = 1) -> LatencyModel:
    size = SizeModel(groups(), {(): TICKS // 500, ((0, 1),): 450 * TICKS // 10**6}, counts="ms", unit=MS)
    return LatencyModel(size=size, dense_ms=dense_ms, error=0.0, round_to=round_to)


def test_a_poor_fit_is_measured_again_unless_a_run_goes_on_with_it(
    measured: tuple[LatencyModel, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, path = measured
    model = Network(Clock(monkeypatch)).eval()
    found = trace(model, observe, training=False)
    poor = json.loads(path.read_text()) | {"error": 0.21}
    path.write_text(json.dumps(poor))
    assert measure_latency(model, groups(), observe, found, cache=[path], resumed=True).error == 0.21
    assert measure_latency(model, groups(), observe, found, cache=[path]).error < 1e-3
    assert json.loads(path.read_text())["error"] < 1e-3


def test_a_poor_fit_is_not_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model, path = Network(Clock(monkeypatch)).eval(), tmp_path / "latency.json"
    found = trace(model, observe, training=False)
    monkeypatch.setattr(latency_model, "held_out_error", lambda *_: 0.21)
    assert measure_latency(model, groups(), observe, found, cache=[path]).error == 0.21
    assert not path.exists()


def test_where_nothing_can_be_kept_a_line_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model, notes = Network(Clock(monkeypatch)).eval(), []
    found = trace(model, observe, training=False)
    (tmp_path / "file").write_text("")
    cache = [tmp_path / "file" / "latency.json"]
    assert measure_latency(model, groups(), observe, found, cache=cache, note=notes.append).error < 1e-3
    assert len(notes) == 1
    assert "XDG_CACHE_HOME" in notes[0]


def test_without_a_home_nothing_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert latency_model.latency_cache(nn.Linear(2, 2), []) == ()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (file,) = latency_model.latency_cache(nn.Linear(2, 2), [])
    assert file.parent == tmp_path / "l0prune"


def test_people_read_milliseconds() -> None:
    size = make().size
    assert (size.shown(size.total), size.counts) == ("20", "ms")
    assert size.shown(MS // 3) == "0.3333"
    with pytest.raises(TargetError, match=r"2 of 20 ms belong to no unit"):
        budget_for(size, 0.95)


def test_a_time_that_no_width_changes_is_refused_with_a_way_on() -> None:
    size = SizeModel(groups(), {(): 20 * MS}, counts="ms", unit=MS)
    latency = LatencyModel(size=size, dense_ms=30.0, error=0.0, round_to=1)
    with pytest.raises(TargetError, match=r"does not depend on the widths .got 20 of 20 ms.*larger inputs.*macs"):
        sparsity_for(latency, Wish(sparsity=0.5))


def test_targets_in_times_faster_and_in_milliseconds() -> None:
    assert sparsity_for(make(), Wish(speedup=4.0)) == (0.75, 0.75)
    assert sparsity_for(make(), Wish(ms=5.0)) == (0.75, 0.75)
    assert sparsity_for(make(), Wish(sparsity=0.4)) == pytest.approx((0.4, 0.4))
    # Where the dense network takes longer than the model says, less of the model's total must go.
    assert sparsity_for(make(dense_ms=30.0), Wish(ms=10.0)) == pytest.approx((2 / 3, 0.5))
    assert sparsity_for(make(dense_ms=30.0), Wish(speedup=1.2)) == pytest.approx((1 / 6, 0.01))


@pytest.mark.parametrize(("speedup", "missed"), [(2.02, False), (1.5, True)])
def test_a_target_that_measurement_does_not_reach_is_told_of(
    make_network: Callable[..., tuple[nn.Module, list[PruneGroup]]],
    monkeypatch: pytest.MonkeyPatch,
    speedup: float,
    missed: bool,
) -> None:
    network, groups = make_network()
    gated, notes = GatedModel(network, groups, target_sparsity=0.4).eval(), []
    measured = {"latency_before_ms": 10.0, "latency_after_ms": 10 / speedup, "speedup": speedup}
    monkeypatch.setattr(meet, "_measure", lambda dense, pruned, observe: measured)
    assert meet.meet_target(gated, nn.Identity(), lambda model: None, None, 0.5, notes.append) == measured
    assert [note for note in notes if "missed" in note] == ["the target of 2.00 times is missed by 33%"] * missed


def test_a_target_that_cannot_be_met_names_the_fastest_that_can() -> None:
    with pytest.raises(TargetError, match=r"got 12\.00 times faster.*at most 10\.00 times, 2 ms, on this device"):
        sparsity_for(make(), Wish(speedup=12.0))
    with pytest.raises(TargetError, match="dense network is as fast"):
        sparsity_for(make(), Wish(ms=25.0))


@pytest.mark.parametrize("seed", range(5))
def test_least_squares_finds_non_negative_coefficients_exactly(seed: int) -> None:
    random = np.random.default_rng(seed)
    matrix, truth = random.uniform(size=(40, 4)), np.maximum(random.normal(size=4), 0)
    np.testing.assert_allclose(least_squares(matrix, matrix @ truth), truth, atol=1e-9)
    assert (least_squares(matrix, -matrix.sum(1)) == 0).all()


def test_a_few_slow_runs_do_not_move_the_fit() -> None:
    random = np.random.default_rng(0)
    matrix = np.stack([np.ones(60), random.uniform(1, 100, 60)], axis=1)
    seconds = matrix @ np.array([2.0, 0.3])
    seconds[::10] *= 4
    np.testing.assert_allclose(fit_robustly(matrix, seconds), [2.0, 0.3], rtol=0.05)


class Scaled(nn.Module):
    """A parameter of its own stands on the hidden units."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 2)
        self.scale = nn.Parameter(torch.ones(8))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.scale * torch.relu(self.first(x)))


def test_no_module_is_timed_within_another() -> None:
    model = Scaled()
    groups = inspect(model, torch.randn(3, 4)).groups
    assert any(place.tensor == "scale" for group in groups for place in group.places)
    assert blocks_of(model, groups) == [""]


@pytest.mark.parametrize(("ms", "params", "binding"), [(15.0, 0.95, "latency"), (21.0, 0.3, "params")])
def test_a_measured_time_is_met_beside_other_targets(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ms: float, params: float, binding: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    torch.manual_seed(0)
    model = Network(Clock(monkeypatch)).train()
    whole = sum(parameter.numel() for parameter in model.parameters())

    def milliseconds(network: nn.Module) -> float:
        begun = network.clock.now  # type: ignore[union-attr]
        network(torch.ones(2, 4))
        return 1000 * (network.clock.now - begun)  # type: ignore[union-attr, operator]

    dense = milliseconds(model)
    targets = {"latency_ms": ms, "params": params, "memory": "99%"}
    smaller = prune(copy.deepcopy(model), torch.ones(2, 4), groups=groups(), target=targets, round_to=1)
    assert sum(parameter.numel() for parameter in smaller.parameters()) <= params * whole
    assert milliseconds(smaller) <= 1.03 * ms < dense
    pruner = wrap(model, torch.ones(2, 4), groups=groups(), target=targets, round_to=1, total_steps=12)
    optimizer = torch.optim.SGD(pruner.parameter_groups(lr=1e-3))
    for _ in range(12):
        (model(torch.randn(8, 4)).square().mean() + pruner.penalty()).backward()
        optimizer.step()
        pruner.step()
        optimizer.zero_grad()
    smaller = pruner.finalize().eval()
    rows = {row["metric"]: row for row in pruner.report.targets}
    assert rows.keys() == targets.keys() - {"latency_ms"} | {"latency"}
    assert [name for name, row in rows.items() if row["binds"]] == [binding]
    assert sum(parameter.numel() for parameter in smaller.parameters()) == rows["params"]["size"] <= params * whole
    assert pruner.report.measured["latency_after_ms"] == pytest.approx(milliseconds(smaller))
    assert milliseconds(smaller) <= 1.03 * ms


def test_the_time_in_int8_is_of_quantised_copies_and_the_network_stays_as_it_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    model, quantised = Network(Clock(monkeypatch)).eval(), []
    dense = parameters(model)
    forward = Timed.forward

    def halved(self: Timed, x: Tensor) -> Tensor:
        """Blocks of quantised layers take half as long."""
        begun = self.clock.now
        made = forward(self, x)
        if type(self.up) is not nn.Linear:
            quantised.append(self)
            self.clock.now -= (self.clock.now - begun) / 2
        return made

    monkeypatch.setattr(Timed, "forward", halved)
    smaller = prune(model, torch.ones(2, 4), groups=groups(), target={"latency-int8": "12ms"}, round_to=1)
    assert quantised
    assert all(type(module) is not nn.Linear for block in quantised for module in (block.up, block.down))
    assert all(type(block.up) is nn.Linear for block in smaller.modules() if isinstance(block, Timed))
    assert parameters(model) == dense
    # 5 ms are no block's. Of the others' 18 ms a quantised network takes 9, of which 7 are to be left.
    widths = [block.up.out_features for block in smaller.modules() if isinstance(block, Timed)]
    assert sum(2 + 0.1 * width for width in widths) / 2 == pytest.approx(7, rel=0.05)
    assert [path.name.endswith("-int8.json") for path in (tmp_path / "l0prune").iterdir()] == [True]
