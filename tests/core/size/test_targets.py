"""What targets may say, and what is refused before anything is measured."""

from typing import Any

import pytest
import torch
from torch import nn

import l0prune
from l0prune import ConfigError, TargetError
from l0prune.plugin import get_plugin, resolve
from l0prune.size import parse_targets, read_targets


def test_values_are_what_is_left() -> None:
    wishes = {
        asked.metric.name: asked.wish for asked in read_targets({"params": 0.25, "macs": "30%", "latency_ms": 40})
    }
    assert wishes["params"].sparsity == 0.75
    assert wishes["macs"].sparsity == pytest.approx(0.7)
    assert wishes["latency"].ms == 40
    (asked,) = read_targets({"params": "5M"})
    assert asked.wish.most == 5e6
    (asked,) = read_targets({"latency": "0.5s"})
    assert asked.wish.ms == 500


def test_a_command_line_names_metrics_and_values() -> None:
    assert parse_targets("params=25%, latency=40ms") == {"params": "25%", "latency": "40ms"}


@pytest.mark.parametrize("text", ["params", "params=", "=3", "", "params=1%,,"])
def test_no_targets_on_a_command_line(text: str) -> None:
    with pytest.raises(ConfigError, match="not a target"):
        parse_targets(text)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({}, "no targets"),
        ({"parms": 0.5}, "unknown metric.*did you mean 'params'"),
        ({"latency_mss": 5}, "no such unit.*did you mean 'latency_ms'"),
        ({"latency": 40}, "target without a unit: latency"),
        ({"latency_ms": "25%"}, "a share of an amount: latency_ms.*latency=25%"),
        ({"latency_ms": "3s"}, "two units"),
        ({"params": "5X"}, "no such unit: params"),
        ({"params": 0}, "target out of range: params"),
        ({"params": -0.5}, "target out of range: params"),
        ({"params": "100%"}, "target out of range: params"),
        ({"params": float("nan")}, "target out of range: params"),
        ({"params": float("inf")}, "target out of range: params"),
        ({"params": "half"}, "not a target: params"),
        ({"params": True}, "target has the wrong type: params"),
        ({"latency_ms": 40, "latency": 0.5}, "two targets for one metric: latency"),
        ({"latency_ms": 40, "latency-int8": "30ms"}, "two measured times.*latency_ms=40 and latency-int8=30ms"),
    ],
)
def test_targets_that_cannot_be(target: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_targets(target)


def test_a_run_reads_its_targets_first() -> None:
    with pytest.raises(ConfigError, match="unknown metric"):
        resolve(get_plugin("speech"), {"target": {"parms": 0.5}})


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 4))


def pruned(**settings: Any) -> nn.Module:
    return l0prune.prune(network(), torch.randn(2, 16), round_to=1, **settings)


def test_what_nothing_meets_is_named_with_the_nearest() -> None:
    both = r"no network meets these targets \(got params=0.0001, macs=0.0001, expected params: 27 parameters or more, "
    with pytest.raises(TargetError, match=both + r"0.62% of the dense size; macs: \d+ multiply-accumulates or more"):
        pruned(target={"params": 0.0001, "macs": 0.0001})
    one = r"below what removal can reach: macs \(got 0 multiply-accumulates, .*multiply-accumulates or more"
    with pytest.raises(TargetError, match=one):
        pruned(target={"params": 0.5, "macs": 0.0001})
    with pytest.raises(TargetError, match=one):
        pruned(target={"macs": 0.0001})
    with pytest.raises(TargetError, match=r"reach: params .*% of the dense size with widths in multiples of 16"):
        l0prune.prune(network(), torch.randn(2, 16), round_to=16, target={"params": 0.1, "macs": 0.9})
    with pytest.raises(TargetError, match=r"below what removal can reach: params.*parameters or more"):
        pruned(target={"params": 3})


def test_a_target_that_is_met_already_asks_for_nothing() -> None:
    with pytest.raises(TargetError, match="the dense network meets every target"):
        pruned(target={"params": "1G", "macs": "1G"})
    with pytest.raises(TargetError, match="dense network is as small"):
        pruned(target={"params": "1G"})
    both, one = pruned(target={"params": 0.5, "macs": "1G"}), pruned(target_sparsity=0.5)
    assert l0prune.plan_of(both).kept == l0prune.plan_of(one).kept


def test_several_targets_beside_another() -> None:
    with pytest.raises(ConfigError, match="give one target"):
        pruned(target={"params": 0.5}, target_sparsity=0.5)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"0": (0.9, 0.5)}, "floor of a limit above its ceiling"),
        ({"0": (-0.1, 0.5)}, "floor of a limit out of range"),
        ({"0": (0.1, 1.5)}, "ceiling of a limit out of range"),
        ({"0": 0.5}, "a limit is no pair of shares"),
        ({"layers.*": (0.1, 0.5)}, "no group has a name like this"),
        ({"0": (0.501, 0.502)}, "no number of units lies within the limits: 0"),
        ({"0": (0.0, 0.0)}, "no number of units lies within the limits: 0"),
        ({"*": (0.9, 1.0)}, "the limits leave more than the target allows: params"),
    ],
)
def test_limits_that_cannot_be(limits: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        pruned(target_sparsity=0.5, limits=limits)


def test_limits_against_several_targets_name_each_of_them() -> None:
    with pytest.raises(TargetError, match=r"allows: params, macs .*expected params: .* or more .*; macs: .* or more"):
        pruned(target={"params": 0.5, "macs": 0.5, "disk": 0.95}, limits={"*": (0.9, 1.0)})


def test_limits_of_several_patterns_all_hold() -> None:
    plan = l0prune.plan_of(pruned(target_sparsity=0.5, limits={"*": (0.25, 1.0), "0": (0.0, 0.5), "2": (0.75, 1.0)}))
    assert 16 <= plan.kept_counts["0"] <= 32
    assert plan.kept_counts["2"] >= 36
