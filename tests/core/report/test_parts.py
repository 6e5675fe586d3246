"""Parts of a network: they add up to it, before and after."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import l0prune
from l0prune import Contender, Load, RemovalPlan, RunError
from l0prune.measuring.count import macs, parameters
from l0prune.report.parts import network_parts, short_names
from l0prune.size.parameters import parameter_size
from l0prune.storage import read_description


class Encoder(nn.Module):
    """Lists within a network, things beside them, and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(6))
        self.front = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6))
        blocks = [nn.ModuleDict({"up": nn.Linear(6, 8), "down": nn.Linear(8, 6)}) for _ in range(2)]
        self.stack = nn.ModuleDict({"scale": nn.Linear(6, 6), "blocks": nn.ModuleList(blocks)})
        self.register_buffer("mean", torch.zeros(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stack["scale"](self.front(x) + self.token)  # type: ignore[index]
        for block in self.stack["blocks"]:  # type: ignore[index, union-attr]
            x = x + block["down"](torch.relu(block["up"](x)))
        return x


class Tables:
    """A plugin whose inputs do not last, for `Encoder`."""

    seconds: float | None = None

    def build(self, architecture: Mapping[str, Any]) -> nn.Module:
        return Encoder()

    def contender(self, source: str, workspace: Path) -> Contender:
        raise NotImplementedError  # never called: nothing is measured

    def load(self, seconds: float, batch: int) -> Load:
        return Load(name="3 rows", inputs=(torch.randn(3, 4),), seconds=self.seconds, batch=batch)


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, nn.Module]:
    network, x = Encoder(), torch.randn(2, 4)
    groups = l0prune.discover(network, lambda net: net(x)).groups
    smaller, plan = l0prune.GatedModel(network, groups, target_sparsity=0.4).eval().pruned()
    l0prune.save(smaller, plan, tmp_path, plugin="tables", architecture={})
    return tmp_path, smaller


@pytest.fixture(params=[None, 5.0])
def lasting(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> float | None:
    """How long an input of the plugin lasts, which now is installed."""
    plugin = Tables()
    plugin.seconds = request.param
    for module in ("storage.description", "report.parts"):
        monkeypatch.setattr(f"l0prune.{module}.get_plugin", lambda name: plugin)
    return request.param


def test_macs_are_per_second_where_inputs_last(saved: tuple[Path, nn.Module], lasting: float | None) -> None:
    folder, smaller = saved
    parts = network_parts(read_description(folder), folder)
    assert parts.note == ""
    assert parts.macs_per == ("second, in an input of 5 s" if lasting else "3 rows")
    for moment, network in (("before", Encoder()), ("after", smaller)):
        counted = macs(lambda network=network: network(torch.randn(3, 4)))
        shown = sum(getattr(part, f"macs_{moment}") for part in parts.rows)
        assert shown == pytest.approx(counted / (lasting or 1), abs=len(parts.rows) if lasting else 0)
    assert sum(part.params_before for part in parts.rows) == parameters(Encoder())


@pytest.mark.usefixtures("lasting")
def test_what_must_stay_is_the_smallest_size_that_removal_can_reach(saved: tuple[Path, nn.Module]) -> None:
    folder, _ = saved
    description = read_description(folder)
    parts = network_parts(description, folder)
    size = parameter_size(Encoder(), RemovalPlan.from_json(description["plan"]).groups)
    assert sum(part.params_least for part in parts.rows) == size.floor < size.total
    assert all(part.params_least <= part.params_after for part in parts.rows)


def test_they_add_up_to_the_network(saved: tuple[Path, nn.Module]) -> None:
    folder, smaller = saved
    parts = network_parts(read_description(folder), folder)
    # The plugin is not installed, so the plan alone is counted, and says so.
    assert "buffers among the parameters" in parts.note
    # What to do about it is a matter of commands that take `--build`; a page does not.
    assert "--build" not in parts.note
    assert sum(part.params_before for part in parts.rows) == parameters(Encoder()) + 3
    assert sum(part.params_after for part in parts.rows) == parameters(smaller) + 3
    assert all(part.macs_before is None for part in parts.rows)
    names = [part.name for part in parts.rows]
    blocks = [f"stack.blocks.{i}.{name}" for i in (0, 1) for name in ("up", "down")]
    assert sorted(names) == sorted(["token", "front.0", "front.1", "stack.scale", *blocks, "mean"])


def test_a_plan_for_tensors_that_are_not_there_is_refused(saved: tuple[Path, nn.Module]) -> None:
    folder, _ = saved
    description = json.loads((folder / "model.json").read_text())
    lost = description["plan"]["groups"][0]["places"][0]["tensor"]
    del description["plan"]["shapes"][lost]
    with pytest.raises(RunError, match=f"damaged plan: .*model.json .*{lost}"):
        network_parts(description, folder)


def test_alike_ones_together(saved: tuple[Path, nn.Module]) -> None:
    folder, _ = saved
    parts = network_parts(read_description(folder), folder)
    alike = {part.name: part for part in parts.by_pattern()}
    assert {"stack.blocks.*.up", "stack.blocks.*.down", "front.0", "front.1"} < alike.keys()
    assert alike["stack.blocks.*.up"].count == 2
    for size in ("params_before", "params_after"):
        assert sum(getattr(part, size) for part in alike.values()) == sum(getattr(part, size) for part in parts.rows)


PATHS = st.lists(
    st.lists(st.sampled_from(["a", "b", "*", "norm"]), min_size=1, max_size=4).map(".".join), min_size=1, unique=True
)


@given(names=PATHS)
def test_short_names_tell_parts_apart(names: list[str]) -> None:
    short = short_names(names)
    assert len(set(short.values())) == len(names)
    assert all(f".{name}".endswith(f".{ending}") for name, ending in short.items())
    assert short_names(["x.layers.*.attention", "x.layers.*.norm", "x.norm"]) == {
        "x.layers.*.attention": "attention",
        "x.layers.*.norm": "layers.*.norm",
        "x.norm": "x.norm",
    }
