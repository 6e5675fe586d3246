"""Metrics by name: the built-in ones, those of one's own, and time in one's own loop."""

from collections import Counter, OrderedDict
from typing import Any

import numpy as np
import pytest
import torch
from small_training import FAST, Net, adam, batch, train
from torch import Tensor, nn

import l0prune
from l0prune import ConfigError, TargetError
from l0prune.size import Metric, SizeModel, Subject, Wish, metric_named, register_metric
from l0prune.size.latency import meet


class HiddenWidth(Metric):
    """How many units are left, whatever they cost."""

    name, noun = "width", "units"

    def size(self, subject: Subject) -> SizeModel:
        return SizeModel(subject.groups, {((g, 1),): 1 for g in range(len(subject.groups))}, counts=self.noun)


def test_a_metric_of_ones_own_is_met_exactly_in_ones_own_loop() -> None:
    register_metric(HiddenWidth())
    model = Net()
    pruner = l0prune.wrap(model, batch()[0], target_sparsity=0.5, metric="width", controller=FAST)
    train(pruner, adam(pruner), 12)
    pruner.finalize()
    units = sum(group["units"] for group in pruner.report.kept_units.values())
    kept = sum(group["kept"] for group in pruner.report.kept_units.values())
    assert (pruner.report.metric, pruner.report.sparsity) == ("width", 1 - kept / units)
    assert kept == units // 2 == pruner.target.budget


def test_a_metric_need_not_be_registered_and_serves_pruning_without_training() -> None:
    pruned = l0prune.prune(Net(), batch()[0], target_sparsity=0.25, metric=HiddenWidth())
    counts = Counter({g.name: g.units for g in l0prune.plan_of(pruned).groups})
    assert sum(l0prune.plan_of(pruned).kept_counts.values()) == int(sum(counts.values()) * 0.75)


class Strange(Metric):
    name = "strange"

    def __init__(self, size: Any) -> None:
        self.made = size

    def size(self, subject: Subject) -> SizeModel:
        return self.made(subject)


class Fixed(SizeModel):
    """A size of one's own that says something else than what it counts."""

    def __init__(self, said: Any, groups: Any) -> None:
        super().__init__(groups, {((0, 1),): 1}, total=said)


class Says(HiddenWidth):
    """Gives what it is told for the share that is left, and for what it measures at the cut."""

    name, measured_at_cut = "says", True

    def __init__(self, *, left: Any = 0.5, found: Any = None) -> None:
        self.share, self.found = left, {} if found is None else found

    def meet(self, *_: Any) -> Any:
        return self.found

    def left(self, *_: Any) -> Any:
        return self.share


@pytest.mark.filterwarnings("ignore:the gates are at an expected sparsity")
@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({"left": "half"}, "the metric gives no share that is left: says .got 'half', expected a finite number"),
        ({"left": float("nan")}, "the metric gives no share that is left: says .got nan"),
        ({"found": "fast"}, "the metric gives no facts: says .got 'fast', expected a mapping by name"),
    ],
)
def test_a_metric_that_answers_nonsense_at_the_cut_is_named(answers: Any, message: str) -> None:
    pruner = l0prune.wrap(Net(), batch()[0], target_sparsity=0.5, metric=Says(**answers), controller=FAST)
    train(pruner, adam(pruner), 2)
    with pytest.raises(ConfigError, match=message):
        pruner.finalize()
    # Nothing is lost: a metric that is mended serves the same training.
    for name, value in vars(Says()).items():
        setattr(pruner.target.metric, name, value)
    pruner.finalize()


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (lambda subject: 12.0, "the metric gives no size: strange .got float, expected a SizeModel"),
        (lambda subject: SizeModel(subject.groups, {}), "the metric counts nothing: strange"),
        (lambda subject: SizeModel(subject.groups, {((0, 1),): float("nan")}), "the metric failed: strange.*NaN"),
        (lambda subject: SizeModel(subject.groups, {((0, 1),): "many"}), "the metric failed: strange.*'many'"),
        (lambda subject: SizeModel(subject.groups, {((0, 1),): torch.ones(2)}), "strange.*(tensor|only one element)"),
        (lambda subject: Fixed("big", subject.groups), "the metric's dense size is no number: strange .got 'big'"),
        (lambda subject: Fixed(float("nan"), subject.groups), "the metric's dense size is no number: strange .got nan"),
        (lambda subject: SizeModel(subject.groups, {((0, 1),): 0.5}), "coefficients are no whole numbers"),
        (lambda subject: 1 / 0, "the metric failed: strange .got ZeroDivisionError"),
    ],
)
def test_a_metric_that_gives_nonsense_is_named(size: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        l0prune.wrap(Net(), batch()[0], target_sparsity=0.5, metric=Strange(size))


def test_names_are_taken_once() -> None:
    with pytest.raises(ConfigError, match="not a metric"):
        register_metric(HiddenWidth)  # type: ignore[arg-type]
    register_metric(HiddenWidth())
    with pytest.raises(ConfigError, match=r"name of the metric is taken \(got width"):
        register_metric(HiddenWidth())
    second = register_metric(HiddenWidth(), replace=True)
    for name in ("", 3):
        other = HiddenWidth()
        other.name = name  # pyright: ignore[reportAttributeAccessIssue]
        with pytest.raises(ConfigError, match="the metric has no name: HiddenWidth"):
            register_metric(other)
    assert metric_named("width") is second
    with pytest.raises(
        ConfigError,
        match="got watts, expected params, layer-params, macs, blocks, active-params, disk, disk-float16, disk-int8, "
        "latency, latency-int8, memory or width",
    ):
        metric_named("watts")
    with pytest.raises(ConfigError, match="has no name"):
        register_metric(Metric())


def test_one_target_alone() -> None:
    assert Wish.of(target_sparsity=0.5) == Wish(sparsity=0.5)
    for given in ({"target_sparsity": None}, {"target_sparsity": 0.5, "target_ms": 3.0}):
        with pytest.raises(ConfigError, match="give one target"):
            Wish.of(**given)


class Slow(nn.Module):
    """Residual blocks wide enough that their time is theirs."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ModuleList(nn.Linear(64, 1024) for _ in range(3))
        self.down = nn.ModuleList(nn.Linear(1024, 64) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        for up, down in zip(self.up, self.down, strict=True):
            x = x + down(up(x).relu())
        return x


def test_time_is_a_target_in_ones_own_loop(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(meet, "_SECONDS", 0.2)
    torch.manual_seed(0)
    model, x = Slow(), torch.randn(256, 64)
    pruner = l0prune.wrap(model, x, target_speedup=1.5, metric="latency", controller=FAST)
    assert pruner.target.asked == pytest.approx(1 / 3)
    optimizer = torch.optim.AdamW(pruner.parameter_groups(lr=1e-3))
    for _ in range(15):
        (model(x).square().mean() + pruner.penalty()).backward()
        optimizer.step()
        optimizer.zero_grad()
        pruner.step()
    pruned = pruner.finalize()
    report = pruner.report
    facts = report.measured
    assert set(facts) == {"latency_before_ms", "latency_after_ms", "speedup", "latency_model_error", "round_to"}
    left = facts["latency_after_ms"] / facts["latency_before_ms"]
    assert (report.metric, report.sparsity) == ("latency", 1 - left)
    # What was removed is exact, whatever the machine's clock says.
    torch.testing.assert_close(pruned(x), model.eval()(x), atol=1e-4, rtol=1e-4)
    # On a busy machine the times may say that nothing must go.
    assert report.params_after <= report.params_before
    with pytest.raises(TargetError, match="latency target cannot be met"):
        l0prune.wrap(Slow(), x, target_speedup=1e6, metric="latency")
    assert np.isfinite(facts["speedup"])


def test_a_metric_that_needs_no_forward_pass_serves_a_model_that_cannot_be_followed() -> None:
    index = l0prune.consecutive(16)
    produced = [
        l0prune.Place(tensor=f"up.{t}", dim=0, role=l0prune.Role.PRODUCES, index=index) for t in ("weight", "bias")
    ]
    consumed = l0prune.Place(tensor="down.weight", dim=1, role=l0prune.Role.CONSUMES, index=index)
    groups = [l0prune.PruneGroup(name="up", kind="unit", units=16, places=(*produced, consumed))]
    model, x = nn.Sequential(OrderedDict(up=nn.Linear(6, 16), act=nn.ReLU(), down=nn.Linear(16, 3))), torch.randn(2, 6)
    pruned = l0prune.prune(model, x, target_sparsity=0.5, metric=HiddenWidth(), groups=groups, time_limit=0.0)
    assert l0prune.plan_of(pruned).kept_counts == {"up": 8}
    with pytest.raises(ConfigError, match=r"metric cannot be counted \(got 'macs'"):
        l0prune.prune(model, x, target_sparsity=0.5, metric="macs", groups=groups, time_limit=0.0)


def test_a_metric_may_take_the_place_of_a_built_in_one() -> None:
    class Units(HiddenWidth):
        name = "params"

    register_metric(Units(), replace=True)
    pruned = l0prune.prune(Net(), batch()[0], target_sparsity=0.25)
    units = sum(group.units for group in l0prune.plan_of(pruned).groups)
    assert sum(l0prune.plan_of(pruned).kept_counts.values()) == int(units * 0.75)
