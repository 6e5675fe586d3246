"""The graph form: exact size, exact outputs, both modes, other batches and lengths, files, and what is refused."""

import copy
import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from graph_networks import BATCH, LENGTH, WIDTH, AttentionUNet, FixedNetwork, sequences, typed_in
from random_plans import random_cut
from torch import Tensor, fx, nn

import l0prune
from l0prune import GatedModel, Inspection, RemovalPlan, plan_of
from l0prune.errors import ConfigError, PlanError, RunError, TraceError
from l0prune.graphs import graph_form, graph_from_json, graph_to_json
from l0prune.measuring import parameters
from l0prune.proof import relative_difference
from l0prune.removal import apply_plan
from l0prune.support import copied, model_shapes

X = sequences()
EXACT = 1e-5


def fixed() -> FixedNetwork:
    """With statistics that differ from channel to channel."""
    torch.manual_seed(0)
    model = FixedNetwork()
    model(sequences(16)).sum().backward()
    model.zero_grad()
    return model.eval()


@pytest.fixture(scope="module")
def dense() -> FixedNetwork:
    return fixed()


@pytest.fixture(scope="module")
def found(dense: FixedNetwork) -> Inspection:
    return l0prune.inspect(dense, X, form="graph")


@pytest.fixture(scope="module")
def pruned(dense: FixedNetwork) -> fx.GraphModule:
    smaller = l0prune.prune(dense, X, target_sparsity=0.5, form="graph", round_to=1)
    assert isinstance(smaller, fx.GraphModule)
    return smaller


def drawn(model: nn.Module, x: Tensor, seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    return model(x)


def test_inspect_says_in_which_form_each_group_can_go(dense: FixedNetwork, found: Inspection) -> None:
    module = l0prune.inspect(dense, X)
    assert {row.name: row.form for row in module.rows} == {"inner": "module", "attention.query": "graph", "up": "graph"}
    assert [row.proved for row in module.rows] == [True, False, False]
    assert {row.name: row.form for row in found.rows} == {row.name: row.form for row in module.rows}
    assert all(row.proved for row in found.rows)
    assert module.graph is None
    lines = str(found).splitlines()
    assert [line.split()[-2] for line in lines[2:5]] == ["module", "graph", "graph"]
    assert [row["form"] for row in json.loads(json.dumps(found.to_json()))["groups"]] == ["module", "graph", "graph"]


@pytest.mark.parametrize("seed", range(3))
def test_every_cut_of_the_graph_is_exact(dense: FixedNetwork, found: Inspection, seed: int) -> None:
    gated = GatedModel(copied(dense), found.groups, target_sparsity=1e-9, form=found.graph).eval()
    both = (X, sequences(3, 7))
    expected, cut, _, _ = random_cut(gated, lambda model: [model(x) for x in both], np.random.default_rng(seed))
    assert isinstance(cut, fx.GraphModule)
    assert relative_difference(expected, [cut(x) for x in both]) < EXACT


def test_the_dense_graph_is_the_network_in_both_modes(dense: FixedNetwork, found: Inspection) -> None:
    assert found.graph is not None
    model = copied(dense)
    graph = found.graph.of(copied(model))
    assert list(graph.state_dict()) == list(model.state_dict())
    assert torch.equal(graph(X), model(X))
    assert torch.equal(drawn(graph.train(), X), drawn(model.train(), X))
    assert all(torch.equal(a, b) for a, b in zip(graph.buffers(), model.buffers(), strict=True))
    assert not torch.equal(drawn(graph, X, 1), drawn(graph, X, 2))


def test_statistics_are_counted_in_training_mode_alone(pruned: fx.GraphModule) -> None:
    model, norm = copied(pruned), lambda m: m.get_submodule("batch_norm")
    before = norm(model).num_batches_tracked.item(), norm(model).running_mean.clone()
    model.eval()(X)
    assert norm(model).num_batches_tracked.item() == before[0]
    assert torch.equal(norm(model).running_mean, before[1])
    model.train()(X)
    assert norm(model).num_batches_tracked.item() == before[0] + 1
    assert not torch.equal(norm(model).running_mean, before[1])


def test_sizes_follow_from_the_weights(pruned: fx.GraphModule) -> None:
    """No width of the dense network is left as a number in the graph."""
    given = [
        size
        for node in pruned.graph.nodes
        for values in node.args
        if isinstance(values, list | tuple) and node.op == "call_function"
        for size in values
    ]
    assert WIDTH not in given
    assert 12 not in given
    assert any(isinstance(size, fx.Node) for size in given)
    assert parameters(pruned) < parameters(fixed()) * 0.5


def test_the_graph_trains(pruned: fx.GraphModule) -> None:
    model = copied(pruned).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    losses = []
    for _ in range(20):
        loss = model(X).square().mean()
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None for p in model.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2


def test_copies_and_pickles_are_the_same_in_both_modes(pruned: fx.GraphModule) -> None:
    file = io.BytesIO()
    torch.save(pruned, file)
    file.seek(0)
    for other in (copy.deepcopy(pruned), pickle.loads(pickle.dumps(pruned)), torch.load(file, weights_only=False)):
        assert torch.equal(other.eval()(X), pruned.eval()(X))
        assert torch.equal(drawn(copied(other).train(), X), drawn(copied(pruned).train(), X))
        assert plan_of(other).to_json() == plan_of(pruned).to_json()


def test_saved_and_loaded_without_the_class(pruned: fx.GraphModule, tmp_path: Path) -> None:
    plan = plan_of(pruned)
    assert plan.form == "graph"
    assert RemovalPlan.from_json(plan.to_json()).form == "graph"
    l0prune.save(pruned, plan, tmp_path, example_inputs=X)
    assert json.loads((tmp_path / "model.json").read_text())["plan"]["form"] == "graph"
    other = l0prune.load(tmp_path)
    assert list(other.state_dict()) == list(pruned.state_dict())
    assert torch.equal(other(sequences(4, 6)), pruned.eval()(sequences(4, 6)))
    assert torch.equal(drawn(other.train(), X), drawn(copied(pruned).train(), X))
    assert plan_of(other).kept == plan.kept
    l0prune.save(other, plan, tmp_path / "again")
    assert (tmp_path / "again/graph.json").read_bytes() == (tmp_path / "graph.json").read_bytes()


def test_torch_export_alone_opens_it_elsewhere(pruned: fx.GraphModule) -> None:
    lengths = ({0: torch.export.Dim.AUTO, 1: torch.export.Dim.AUTO},)
    file = io.BytesIO()
    torch.export.save(torch.export.export(pruned.eval(), (X,), dynamic_shapes=lengths), file)
    file.seek(0)
    other = torch.export.load(file).module()
    for x in (X, sequences(7, 3)):
        assert torch.allclose(other(x), pruned(x), atol=1e-6)


def test_wrap_trains_the_module_and_returns_its_graph(dense: FixedNetwork) -> None:
    model = copied(dense).train()
    pruner = l0prune.wrap(model, X, target_sparsity=0.5, form="graph", round_to=1, total_steps=10)
    optimizer = torch.optim.Adam(pruner.parameter_groups(lr=1e-3))
    for _ in range(10):
        (model(X).square().mean() + pruner.penalty()).backward()
        optimizer.step()
        optimizer.zero_grad()
        pruner.step()
    smaller = pruner.finalize()
    assert isinstance(smaller, fx.GraphModule)
    assert pruner.report.max_relative_difference < EXACT
    assert pruner.plan.form == "graph"
    assert parameters(smaller) == pruner.report.params_after
    assert torch.allclose(model.eval()(X), smaller(X), atol=1e-5)
    assert smaller(sequences(5, 2)).shape == (5, 3)


def test_a_network_with_a_batch_of_one_takes_others() -> None:
    smaller = l0prune.prune(fixed(), X[:1], target_sparsity=0.4, form="graph", round_to=1)
    assert smaller(X).shape == (BATCH, 3)


def test_images_and_a_class_without_source() -> None:
    for model, x in ((AttentionUNet(), torch.randn(2, 3, 8, 8)), (typed_in(), X)):
        inspected = l0prune.inspect(model.eval(), x, form="graph")
        assert all(row.proved for row in inspected.rows)
        assert "graph" in {row.form for row in inspected.rows}
        gated = GatedModel(model, inspected.groups, target_sparsity=1e-9, form=inspected.graph).eval()
        y = torch.cat([x, x[:1]])
        expected, cut, _, _ = random_cut(gated, lambda m, y=y: m(y), np.random.default_rng(0))
        assert relative_difference(expected, cut(y)) < EXACT


class Keywords(nn.Module):
    """Given values by name; tied weights, a table without a gradient, a constant, a region without gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 2)
        self.two.weight = self.one.weight
        self.unused = nn.Linear(2, 2)
        self.register_buffer("table", torch.arange(6.0), persistent=False)

    def forward(self, *, x: Tensor, scaled: bool = False) -> dict[str, Tensor]:
        with torch.no_grad():
            rises = torch.arange(6.0).softmax(0)
        x = self.two(self.one(x).relu()) + self.table * rises * torch.tensor([1.0, 2, 3, 4, 5, 6])
        return {"y": self.head(x) * (2 if scaled else 1), "zeros": torch.zeros(x.shape[0], 6)}


def test_keywords_ties_constants_and_regions_without_gradients(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = Keywords().eval(), torch.randn(3, 6)
    given = {"x": x, "scaled": True}
    form = graph_form(model, (), lambda m: m(**given))
    graph = form.of(copied(model))
    for z in (x, torch.randn(5, 6)):
        expected, got = model(x=z, scaled=True), graph(x=z, scaled=True)
        assert expected.keys() == got.keys()
        assert all(torch.equal(expected[key], got[key]) for key in expected)
    assert graph.get_submodule("one").weight is graph.get_submodule("two").weight
    assert parameters(graph) == parameters(model)
    with pytest.raises(RuntimeError, match="exported with scaled=True"):
        graph(x=x, scaled=False)
    again = graph_from_json(json.loads(json.dumps(graph_to_json(graph))), model_shapes(graph), "here")
    again.load_state_dict(graph.state_dict())
    assert again.get_submodule("one").weight is again.get_submodule("two").weight
    assert torch.equal(again(x=x, scaled=True)["y"], model(**given)["y"])


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(3, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            x = -x
        return self.down(self.up(x).relu())


def test_what_cannot_be_exported_is_one_line_with_its_place() -> None:
    line = next(n for n, text in enumerate(Path(__file__).read_text().splitlines(), 1) if "if x.sum() > 0" in text)
    with pytest.raises(TraceError, match="the model cannot be exported as a graph") as raised:
        l0prune.prune(Branching(), X, target_sparsity=0.5, form="graph")
    assert f"{Path(__file__).name}:{line}" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"form": "onnx"}, "no such form"),
        ({"form": "graph", "depth": True}, "residual blocks cannot be taken out of a graph"),
        ({"form": "graph", "metric": "latency", "target_speedup": 1.5, "target_sparsity": None}, "latency is measured"),
        ({"form": "graph", "repair": True, "batches": [X]}, "layers are fitted in modules"),
    ],
)
def test_what_does_not_go_with_a_graph(dense: FixedNetwork, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        l0prune.prune(dense, X, **{"target_sparsity": 0.5, **settings})


@pytest.mark.parametrize("more", [{"compaction": True, "target_sparsity": 0.5}, {"elastic": (0.25, 1.0)}])
def test_a_graph_is_cut_once(dense: FixedNetwork, more: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="a graph is cut once"):
        l0prune.wrap(copied(dense), X, form="graph", **more)


def test_a_module_is_not_cut_by_the_plan_of_a_graph(dense: FixedNetwork, pruned: fx.GraphModule) -> None:
    with pytest.raises(PlanError, match="the plan cuts the graph of a network"):
        apply_plan(copied(dense), plan_of(pruned))


def test_a_forward_function_that_never_calls_the_model() -> None:
    with pytest.raises(TraceError, match="needs a call of the model"):
        l0prune.inspect(Branching(), X, form="graph", forward_fn=lambda model, x: model.down(model.up(x)))


def test_a_module_is_not_saved_by_the_plan_of_a_graph(pruned: fx.GraphModule, tmp_path: Path) -> None:
    other = nn.Module()
    for name, child in pruned.named_children():
        other.add_module(name, child)
    with pytest.raises(PlanError, match="not the network that the plan leaves"):
        l0prune.save(other, plan_of(pruned), tmp_path)


def named(data: dict[str, Any], op: str) -> dict[str, Any]:
    return next(node for node in data["nodes"] if node["op"] == op)


BAD = {
    "no graph": lambda data: data.pop("nodes"),
    "another version": lambda data: data.update(version=99),
    "no operator": lambda data: data["nodes"][-2].update(target="builtins.exec"),
    "a file": lambda data: data["nodes"][-2].update(target="aten.from_file.default"),
    "a module": lambda data: data["nodes"][-2].update(op="call_method"),
    "source in a name": lambda data: data["names"].append("x=print(1)"),
    "source in a tensor": lambda data: data["tensors"][0].update(name='a")+print(1)+("'),
    "source in a keyword": lambda data: data["nodes"][-2]["kwargs"].update({"a=print(1), b": 1}),
    "source in a placeholder": lambda data: named(data, "placeholder").update(target="x=1"),
    "another dtype": lambda data: data["tensors"][0].update(dtype="nn"),
    "a node that is not there": lambda data: data["nodes"][-1].update(args=[{"node": "nowhere"}]),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_damaged_graph_is_refused(pruned: fx.GraphModule, tmp_path: Path, fault: str) -> None:
    data = json.loads(json.dumps(graph_to_json(pruned)))
    BAD[fault](data)
    with pytest.raises(RunError, match="graph"):
        graph_from_json(data, model_shapes(pruned), "graph.json")


def test_a_changed_graph_file_is_refused(pruned: fx.GraphModule, tmp_path: Path) -> None:
    l0prune.save(pruned, plan_of(pruned), tmp_path)
    file = tmp_path / "graph.json"
    file.write_text(file.read_text().replace("aten.sigmoid.default", "aten.relu.default"))
    with pytest.raises(RunError, match="damaged or missing graph"):
        l0prune.load(tmp_path)
    file.unlink()
    with pytest.raises(RunError):
        l0prune.load(tmp_path)


class OtherWay(nn.Module):
    """In training mode without a layer of evaluation mode: no graph of both can be made."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(3, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(x).relu()
        return self.down(x if self.training else x.clamp(max=1.0))


def test_a_graph_of_one_mode_says_so() -> None:
    found = l0prune.inspect(OtherWay(), X, form="graph")
    assert any("the graph does in training mode what it does in evaluation mode" in note for note in found.notes)
    assert found.graph is not None


def test_lengths_that_the_network_fixes_are_checked() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(3, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.down(self.up(x.reshape(BATCH * LENGTH, 3)).relu())

    smaller = l0prune.prune(Fixed(), X, target_sparsity=0.5, form="graph", round_to=1)
    with pytest.raises(RuntimeError, match=r"has to be|is invalid for input"):
        smaller(sequences(1, 2 * BATCH * LENGTH))


class Cast(nn.Module):
    """A norm in float32, whatever the weights are, whose outputs have the dtype of its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head = nn.Linear(3, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inner(x)
        y = x.to(torch.float32)
        return self.head((y * y.abs().mean(1, keepdim=True).rsqrt()).to(x.dtype).relu())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_what_follows_the_weights_dtype_does_so_in_the_graph(dtype: torch.dtype, tmp_path: Path) -> None:
    x = sequences()
    torch.manual_seed(0)
    wide = l0prune.prune(Cast(), x, target_sparsity=0.5, form="graph").eval()
    half = copied(wide).to(dtype)
    assert half(x.to(dtype)).dtype is dtype
    assert relative_difference(wide(x), half(x.to(dtype)).float()) < 2e-2
    l0prune.save(half, plan_of(half), tmp_path / "half")
    assert torch.equal(l0prune.load(tmp_path / "half")(x.to(dtype)), half(x.to(dtype)))
    # A network in half precision is proved in float32.
    made = l0prune.prune(Cast().to(dtype), x.to(dtype), target_sparsity=0.5, form="graph")
    assert parameters(made) < parameters(Cast())
    assert made(x.to(dtype)).dtype is dtype
