"""Pruned networks on disk: bit for bit back again, and one clear line when they cannot be read."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import l0prune
from l0prune import GatedModel, L0PruneError, PlanError, PruneGroup, RemovalPlan, RunError

Make = Callable[..., tuple[nn.Module, list[PruneGroup]]]
Build = Callable[[], nn.Module]


@pytest.fixture
def build(make_network: Make) -> Build:
    return lambda: make_network(seed=9, dtype=torch.float32)[0]


@pytest.fixture
def pruned(make_network: Make) -> tuple[nn.Module, RemovalPlan]:
    network, groups = make_network(dtype=torch.float32)
    return GatedModel(network, groups, target_sparsity=0.4).pruned()


@pytest.fixture
def x() -> Tensor:
    return torch.randn(4, 5)


def edit(folder: Path, **changes: object) -> None:
    path = folder / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("emptied", [False, True])
def test_outputs_come_back_bit_for_bit(
    make_network: Make, build: Build, x: Tensor, tmp_path: Path, emptied: bool
) -> None:
    network, groups = make_network(dtype=torch.float32)
    gated = GatedModel(network, groups, target_sparsity=0.4).eval()
    values = torch.tensor([0.5, 0.0, 1.0, 0.0, 0.0, 0.7, 0.0, 0.9, 1.0, 0.0])
    if emptied:
        values[4:] = 0
    with gated.gates.fixed(values):
        module, plan = gated.pruned()
    l0prune.save(module, plan, tmp_path / "deep" / "model", note="é")
    loaded = l0prune.load(str(tmp_path / "deep" / "model"), build)
    assert torch.equal(loaded(x), module(x))
    assert not loaded.training
    assert sorted(path.name for path in (tmp_path / "deep" / "model").iterdir()) == ["model.json", "model.safetensors"]
    description = json.loads((tmp_path / "deep" / "model" / "model.json").read_text())
    assert description["note"] == "é"
    assert RemovalPlan.from_json(description["plan"]).to_json() == plan.to_json()


def test_another_network_is_refused_with_the_first_difference(
    pruned: tuple[nn.Module, RemovalPlan], build: Build, tmp_path: Path
) -> None:
    l0prune.save(*pruned, tmp_path)

    def other() -> nn.Module:
        network = build()
        network.head = nn.Linear(5, 4)
        return network

    with pytest.raises(PlanError, match=r"head\.weight \(got \[4, 5\], expected \[3, 5\]\)"):
        l0prune.load(tmp_path, other)


def test_weights_of_another_plan_are_refused(
    pruned: tuple[nn.Module, RemovalPlan], build: Build, tmp_path: Path
) -> None:
    module, plan = pruned
    fewer = RemovalPlan(groups=plan.groups, kept={**plan.kept, "first": plan.kept["first"][:1]}, shapes=plan.shapes)
    l0prune.save(module, plan, tmp_path)
    edit(tmp_path, plan=fewer.to_json())
    with pytest.raises(PlanError, match="weights do not fit the plan"):
        l0prune.load(tmp_path, build)


def test_damage_is_named(pruned: tuple[nn.Module, RemovalPlan], build: Build, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no pruned model here"):
        l0prune.load(tmp_path, build)
    l0prune.save(*pruned, tmp_path)
    with pytest.raises(L0PruneError, match="pass `build`"):
        l0prune.load(tmp_path)
    whole = (tmp_path / "model.safetensors").read_bytes()
    for length in (0, 7, len(whole) // 2, len(whole) - 1):
        (tmp_path / "model.safetensors").write_bytes(whole[:length])
        with pytest.raises(RunError, match=r"damaged or missing weights: .*model\.safetensors"):
            l0prune.load(tmp_path, build)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(RunError, match="damaged or missing weights"):
        l0prune.load(tmp_path, build)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"version": 2}, RunError, "not a pruned model"),
        ({"format": "other"}, RunError, "not a pruned model"),
        ({"plan": None}, PlanError, "plan version"),
        ({"plan": {"version": 99}}, PlanError, "got 99, expected 1"),
        ({"plan": {"version": 1}}, PlanError, "malformed plan: groups"),
    ],
)
def test_a_foreign_description_is_refused(
    pruned: tuple[nn.Module, RemovalPlan],
    build: Build,
    tmp_path: Path,
    changes: dict[str, object],
    error: type[L0PruneError],
    message: str,
) -> None:
    l0prune.save(*pruned, tmp_path)
    edit(tmp_path, **changes)
    with pytest.raises(error, match=message):
        l0prune.load(tmp_path, build)


def test_nothing_is_unpickled(pruned: tuple[nn.Module, RemovalPlan], build: Build, tmp_path: Path) -> None:
    l0prune.save(*pruned, tmp_path)
    torch.save(pruned[0].state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(RunError, match="damaged or missing weights"):
        l0prune.load(tmp_path, build)


def test_a_network_that_the_plan_did_not_make_is_refused_before_anything_is_written(
    make_network: Make, pruned: tuple[nn.Module, RemovalPlan], build: Build, tmp_path: Path
) -> None:
    network, groups = make_network(dtype=torch.float32)
    gated = GatedModel(network, groups, target_sparsity=0.4)
    module, plan = pruned
    compiled = torch.compile(module, backend="eager")
    for wrong in (gated.model, compiled, build()):
        with pytest.raises(PlanError, match=r"not the network that the plan leaves: [\w.]+ \(got .*finalize\(\)"):
            l0prune.save(wrong, plan, tmp_path / "model")  # type: ignore[arg-type]
    assert not (tmp_path / "model").exists()
