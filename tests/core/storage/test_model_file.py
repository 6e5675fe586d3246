"""Pruned networks on disk: bit for bit back again, and one clear line when they cannot be read."""

import hashlib
import json
import math
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file, save_model
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
    with pytest.raises(L0PruneError, match=r"l0prune\.load\(.*, build\)"):
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
        ({"plan": None}, RunError, "plan version"),
        ({"plan": {"version": 99}}, RunError, "got 99, expected 1"),
        ({"plan": {"version": 1}}, RunError, "malformed plan: groups"),
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


def without_checksums(folder: Path) -> None:
    """As folders were before there were any."""
    path = folder / "model.json"
    content = json.loads(path.read_text())
    del content["sha256"]
    path.write_text(json.dumps(content))


def test_every_changed_byte_is_noticed(pruned: tuple[nn.Module, RemovalPlan], build: Build, tmp_path: Path) -> None:
    l0prune.save(*pruned, tmp_path, note="as it was")
    stated = json.loads((tmp_path / "model.json").read_text())["sha256"]
    weights = tmp_path / "model.safetensors"
    whole = weights.read_bytes()
    assert stated["model.safetensors"] == hashlib.sha256(whole).hexdigest()
    for place in random.sample(range(len(whole)), 60):
        weights.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(RunError, match=rf"damaged or missing weights: .* expected {stated['model.safetensors']}"):
            l0prune.load(tmp_path, build)
    weights.write_bytes(whole)
    l0prune.load(tmp_path, build)
    edit(tmp_path, note="as it was not")
    with pytest.raises(RunError, match=r"damaged description: .*model\.json.*remove its entry 'sha256'"):
        l0prune.load(tmp_path, build)


def test_what_json_changes_has_the_same_checksum(
    pruned: tuple[nn.Module, RemovalPlan], build: Build, tmp_path: Path
) -> None:
    l0prune.save(*pruned, tmp_path, pair=(1, 2), numbers={2: 0.1, 10: 1e-30}, text="é")
    l0prune.load(tmp_path, build)


def test_a_folder_without_checksums_opens_with_a_warning(
    pruned: tuple[nn.Module, RemovalPlan], build: Build, x: Tensor, tmp_path: Path
) -> None:
    l0prune.save(*pruned, tmp_path)
    without_checksums(tmp_path)
    with pytest.warns(UserWarning, match=f"{tmp_path}: saved before there were checksums"):
        assert torch.equal(l0prune.load(tmp_path, build)(x), pruned[0](x))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_are_neither_saved_nor_loaded(
    pruned: tuple[nn.Module, RemovalPlan], build: Build, tmp_path: Path, value: float
) -> None:
    module, plan = pruned
    l0prune.save(module, plan, tmp_path)
    name, tensor = list(module.named_parameters())[-1]
    tensor.data.view(-1)[-1] = value
    message = rf"weights are not finite: .*model\.safetensors: {name} \(got 1 of {tensor.numel()} values"
    with pytest.raises(RunError, match=message):
        l0prune.save(module, plan, tmp_path / "other")
    assert not (tmp_path / "other").exists()
    without_checksums(tmp_path)
    save_model(module, str(tmp_path / "model.safetensors"))
    with pytest.raises(RunError, match=message):
        l0prune.load(tmp_path, build)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.bool, torch.float8_e4m3fn])
def test_quantised_weights_are_not_read_as_numbers(
    pruned: tuple[nn.Module, RemovalPlan], build: Build, tmp_path: Path, dtype: torch.dtype
) -> None:
    l0prune.save(*pruned, tmp_path)
    without_checksums(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    name = list(tensors)[-1]
    save_file({**tensors, name: tensors[name].to(dtype)}, tmp_path / "model.safetensors")
    with pytest.raises(
        RunError, match=rf"weights of another kind: .*: {name} \(got {str(dtype)[6:]}, expected float32"
    ):
        l0prune.load(tmp_path, build)


@pytest.mark.filterwarnings("ignore:.*saved before there were checksums")
def test_half_the_precision_is_read(pruned: tuple[nn.Module, RemovalPlan], build: Build, tmp_path: Path) -> None:
    l0prune.save(*pruned, tmp_path)
    without_checksums(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file({name: tensor.half() for name, tensor in tensors.items()}, tmp_path / "model.safetensors")
    for name, tensor in l0prune.load(tmp_path, build).named_parameters():
        assert torch.equal(tensor, tensors[name].half().float())


class Tied(nn.Module):
    """The names of the tied weight are in another order than that of the alphabet."""

    def __init__(self) -> None:
        super().__init__()
        self.wte, self.middle, self.head = nn.Embedding(9, 6), nn.Linear(6, 6), nn.Linear(6, 9, bias=False)
        self.head.weight = self.wte.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(torch.tanh(self.middle(self.wte(tokens))) + self.wte(tokens))


def test_tied_weights_come_back_by_whichever_name_they_are_stored(tmp_path: Path) -> None:
    tokens = torch.arange(9)[None]
    pruned = l0prune.prune(Tied(), tokens, target_sparsity=0.3, importance="magnitude")
    l0prune.save(pruned, l0prune.plan_of(pruned), tmp_path)
    loaded = l0prune.load(tmp_path, Tied)
    assert loaded.head.weight is loaded.wte.weight  # pyright: ignore[reportAttributeAccessIssue]
    assert torch.equal(loaded(tokens), pruned(tokens))


class Versioned(nn.Sequential):
    """As torchvision's MNASNet: a state without a version is refused."""

    _version = 2

    def _load_from_state_dict(self, state: dict, prefix: str, metadata: dict, *others: object) -> None:
        if metadata.get("version") != 2:
            raise ValueError("version should be 2")
        super()._load_from_state_dict(state, prefix, metadata, *others)  # type: ignore[arg-type]


def test_a_class_with_versions_of_its_state_is_told_its_own(tmp_path: Path) -> None:
    def make() -> nn.Module:
        return Versioned(nn.Linear(4, 8), nn.ReLU(), Versioned(nn.Linear(8, 2)))

    smaller = l0prune.prune(make(), torch.randn(3, 4), target_sparsity=0.5)
    l0prune.save(smaller, l0prune.plan_of(smaller), tmp_path / "cut")
    again = l0prune.load(tmp_path / "cut", make)
    assert torch.equal(again(torch.ones(1, 4)), smaller(torch.ones(1, 4)))
