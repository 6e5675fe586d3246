"""export(module): what is written opens without this package and gives the same, or nothing is left."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file
from small_training import Net, batch, make
from torch import Tensor, nn
from torch.nn import functional as F

import l0prune
from l0prune import ConfigError, ProofError, RunError
from l0prune.formats import MODULE_FORMATS
from l0prune.support import check_stamp

X = batch()[0]
SUFFIX = {"onnx": ".onnx", "torch.export": ".pt2", "torchscript": ".pt", "safetensors": ""}


@pytest.fixture(scope="module")
def pruned() -> nn.Module:
    torch.manual_seed(0)
    return l0prune.prune(Net(), X, target_sparsity=0.5)


def opened(to: str, place: Path) -> Any:
    """What a user's program has, by the libraries of the format alone: a function of the input."""
    if to == "onnx":
        session = onnxruntime.InferenceSession(str(place))
        assert [value.name for value in session.get_inputs()] == ["x"]
        return lambda x: torch.from_numpy(session.run(["output"], {"x": x.numpy()})[0])
    if to == "torch.export":
        return torch.export.load(place).module()
    if to == "torchscript":
        return torch.jit.load(str(place))
    net = Net().eval()
    for name, tensor in load_file(place / "model.safetensors").items():
        path, _, last = name.rpartition(".")
        home = net.get_submodule(path)
        setattr(home, last, nn.Parameter(tensor) if isinstance(getattr(home, last), nn.Parameter) else tensor)
    return net


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.torch.jit:FutureWarning")
@pytest.mark.parametrize("to", SUFFIX)
@pytest.mark.parametrize("samples", [1, 4])
def test_every_format_opens_and_gives_the_same_for_any_batch(
    to: str, samples: int, pruned: nn.Module, tmp_path: Path
) -> None:
    place = tmp_path / f"small{SUFFIX[to]}"
    before = {name: tensor.clone() for name, tensor in pruned.state_dict().items()}
    export = l0prune.export(pruned, X[:samples], to=to, out=place)
    assert export.max_relative_difference <= MODULE_FORMATS[to].tolerance
    assert export.parameters == sum(p.numel() for p in pruned.parameters())
    run = opened(to, Path(export.path))
    with torch.no_grad():
        for x in (X[:1], X[:3], X):
            torch.testing.assert_close(run(x), pruned(x), rtol=1e-4, atol=1e-5)
    # The network is as it was, and nothing is left beside what was made.
    assert all(torch.equal(tensor, pruned.state_dict()[name]) for name, tensor in before.items())
    assert all(p.requires_grad for p in pruned.parameters())
    assert [path.name for path in tmp_path.iterdir()] == [place.name]
    with pytest.raises(RunError, match="already there"):
        l0prune.export(pruned, X, to=to, out=place)


def test_checksums_are_where_a_format_has_a_place(pruned: nn.Module, tmp_path: Path) -> None:
    l0prune.export(pruned, X, to="onnx", out=tmp_path / "a.onnx")
    assert check_stamp(tmp_path / "a.onnx")
    l0prune.export(pruned, X, to="safetensors", out=tmp_path / "folder")
    stated = json.loads((tmp_path / "folder" / "model.json").read_text())
    content = (tmp_path / "folder" / "model.safetensors").read_bytes()
    assert stated["sha256"]["model.safetensors"] == hashlib.sha256(content).hexdigest()
    assert torch.equal(l0prune.load(tmp_path / "folder", Net)(X), pruned(X))
    assert l0prune.verify(tmp_path / "folder", build=Net).broken is None


def test_a_network_that_was_never_pruned_is_exported_too(tmp_path: Path) -> None:
    net = Net().train()
    export = l0prune.export(net, X, to="safetensors", out=tmp_path / "dense")
    assert "carries no plan" in export.notes[0]
    assert net.training
    assert torch.equal(l0prune.load(tmp_path / "dense", Net)(X), net.eval()(X))


class Named(nn.Module):
    """Takes arguments by name, one of which is no tensor, and gives tensors by name, one of them nested."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.out, self.head = nn.Linear(6, 24), nn.Linear(24, 12), nn.Linear(12, 4)

    def forward(self, x: Tensor, mask: Tensor | None = None, double: bool = False) -> Mapping[str, Any]:
        y = self.out(F.relu(self.body(x)))
        y = y if mask is None else y * mask[..., None]
        return {"hidden": y, "logits": self.head(y.mean(1)) * (2 if double else 1)}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.torch.jit:FutureWarning")
def test_arguments_by_name_and_dimensions_that_stay_free(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, given = Named(), {"x": torch.randn(2, 5, 6), "mask": torch.ones(2, 5), "double": True}
    small = l0prune.prune(net, given, target_sparsity=0.3)
    free = {"x": (0, 1), "mask": (0, 1)}
    other = {"x": torch.randn(3, 9, 6), "mask": (torch.rand(3, 9) > 0.5).float()}
    with torch.no_grad():
        expected = small(**other, double=True)
    l0prune.export(small, given, to="onnx", out=tmp_path / "a.onnx", free=free)
    session = onnxruntime.InferenceSession(str(tmp_path / "a.onnx"))
    feeds = {name: tensor.numpy() for name, tensor in other.items()}
    hidden, logits = session.run(["hidden", "logits"], feeds)
    np.testing.assert_allclose(hidden, expected["hidden"].numpy(), atol=1e-5)
    np.testing.assert_allclose(logits, expected["logits"].numpy(), atol=1e-5)
    l0prune.export(small, given, to="torch.export", out=tmp_path / "a.pt2", free=free)
    got = torch.export.load(tmp_path / "a.pt2").module()(**other, double=True)
    torch.testing.assert_close(list(got), list(expected.values()))
    export = l0prune.export(small, given, to="torchscript", out=tmp_path / "a.pt", free=free)
    assert "arguments go by position: x, mask" in export.notes
    torch.testing.assert_close(list(torch.jit.load(tmp_path / "a.pt")(*other.values())), list(expected.values()))


class OneSize(nn.Module):
    """Computes with the number of samples as a number."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)
        self.register_buffer("each", torch.arange(16.0)[:, None])

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + self.each


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.torch.jit:FutureWarning")
@pytest.mark.parametrize("to", ["torch.export", "torchscript"])
def test_where_the_batch_cannot_stay_free_the_network_says_so(to: str, tmp_path: Path) -> None:
    x = torch.randn(16, 6)
    with pytest.raises(ConfigError, match="network itself does not run in other sizes"):
        l0prune.export(OneSize(), x, to=to, out=tmp_path / "a", free={"x": (0,)})
    assert not (tmp_path / "a").exists()
    export = l0prune.export(OneSize(), x, to=to, out=tmp_path / "a")
    assert any("sizes are those of the example alone" in note for note in export.notes)


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.sum() > 0 else x - 1


def test_what_stands_in_the_way_is_one_line_and_nothing_is_left(pruned: nn.Module, tmp_path: Path) -> None:
    out = tmp_path / "a"
    gated = make().model
    nan = Net()
    with torch.no_grad():
        nan.head.weight[0, 0] = torch.nan
    tries: list[tuple[Any, Any, dict[str, Any], type[Exception], str]] = [
        (pruned, X, {"to": "onx"}, ConfigError, "no such format: onx .*did you mean 'onnx'"),
        (pruned, X, {"to": "onnx", "out": None}, ConfigError, "where to?.*expected out=PATH"),
        (pruned, X, {"to": "onnx", "plugin": "speech"}, ConfigError, "needs no plugin"),
        (pruned, None, {"to": "onnx"}, ConfigError, "no tensor in the example inputs.*give example_inputs"),
        (pruned, X[:, :, 0], {"to": "onnx"}, ConfigError, "does not run on the example"),
        (
            pruned,
            X,
            {"to": "onnx", "free": {"y": (0,)}},
            ConfigError,
            r"no such dimension.*y.*expected x \(16, 1, 6, 6\)",
        ),
        (
            pruned,
            X,
            {"to": "huggingface"},
            ConfigError,
            "huggingface cannot hold this network.*no model of transformers",
        ),
        (gated, X, {"to": "onnx"}, ConfigError, "has gates.*finalize"),
        (nan, X, {"to": "torchscript"}, RunError, "not finite: Net: head.weight"),
        (Branching(), X, {"to": "torch.export"}, ConfigError, "torch.export cannot hold this network: Branching"),
        (Branching(), torch.ones(2, 3), {"to": "torchscript"}, ProofError, "does not behave"),
        (object(), X, {"to": "onnx"}, ConfigError, "nothing to export .got object, expected a torch.nn.Module"),
        (tmp_path, X, {"to": "onnx"}, ConfigError, "the plugin of a run has its own"),
    ]
    for module, inputs, more, kind, words in tries:
        if isinstance(module, Branching) and more["to"] == "torchscript":
            continue
        with pytest.raises(kind, match=words) as caught:
            l0prune.export(module, inputs, **{"out": out, **more})
        assert "\n" not in str(caught.value)
        assert not out.exists()


def test_a_program_that_took_a_constant_is_refused(tmp_path: Path) -> None:
    """A branch on values is traced as one of its ways: seen in another size, where that takes the other way."""

    class Rows(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 2 if len(x) == 2 else x - 1

    with pytest.raises(ProofError, match="torchscript export does not behave as the network"):
        l0prune.export(Rows(), torch.ones(2, 3), to="torchscript", out=tmp_path / "a.pt", free={"x": (0,)})
    assert not (tmp_path / "a.pt").exists()
