"""The commands on a run of one's own training loop, which no plugin opens."""

import json
from pathlib import Path

import pytest
import torch
from command_line import call

import l0prune

CODE = """
import torch
from torch import nn
def make():
    return nn.Sequential(nn.Linear(6, 40), nn.ReLU(), nn.Linear(40, 3))
def with_inputs():
    return make(), torch.ones(4, 6)
def wrong():
    return nn.Sequential(nn.Linear(6, 30), nn.ReLU(), nn.Linear(30, 3))
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run folder in a folder that has the code, which is the current one."""
    (tmp_path / "own_network.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    from own_network import make  # pyright: ignore[reportMissingImports]

    model = make()
    pruner = l0prune.wrap(model, torch.randn(4, 6), target_sparsity=0.5, total_steps=10)
    for _ in range(10):
        model(torch.randn(4, 6)).square().mean().backward()
        pruner.step()
    pruner.finalize()
    return pruner.save_run("run")


def test_each_command_takes_it(run: Path) -> None:
    assert json.loads(call("report", run, "--json").succeeded().out)["runs"][0]["complete"]
    held = json.loads(call("verify", run, "--build", "own_network:make", "--json").succeeded().out)[0]
    assert all(check["holds"] for check in held["checks"]), held
    held = json.loads(call("verify", run, "--repeat", "--json").succeeded().out)[0]
    assert {check["name"]: check["holds"] for check in held["checks"]} == {
        **dict.fromkeys(("description", "weights", "plan", "report"), True),
        **dict.fromkeys(("network", "size", "outputs", "repeat")),
    }
    words = ("bench", run, "own_network:with_inputs", "--build", "own_network:make", "--seconds", "0.05", "--json")
    models = json.loads(call(*words).succeeded().out)["models"]
    report = json.loads((run / "report.json").read_text())
    assert models["run"]["parameters"] == report["params_after"]
    assert models["own_network:with_inputs"]["parameters"] == report["params_before"]
    names = {row["name"] for row in json.loads(call("export", run, "--list", "--json").succeeded().out)}
    assert {"onnx", "torch.export"} <= names
    words = ("export", run, "--to", "torch.export", "--build", "own_network:with_inputs", "--json")
    written = json.loads(call(*words).succeeded().out)
    assert (written["source"], written["parameters"]) == ("run", report["params_after"])
    assert Path(written["path"]) == run / "exports" / "torch.export.pt2"
    assert torch.export.load(written["path"]).module()(torch.randn(7, 6)).shape == (7, 3)


def test_what_it_cannot_do_is_said(run: Path) -> None:
    for command in (("bench", run), ("export", run, "--to", "onnx")):
        call(*command).refused("nothing tells how to build the dense network: run", "--build MODULE:FUNCTION")
    call("evaluate", run).refused("no plugin knows scores for this run: run")
    call("export", "nowhere", "--to", "onnx").refused("where to?: nowhere", "there is no run at this place")
    begun = run.with_name("begun")
    begun.mkdir()
    (begun / "config.toml").write_text("")
    call("export", begun, "--to", "onnx").refused("the run has no model yet: begun", "--resume")
    call("export", run, "--to", "onx", "--build", "own_network:make").refused("no such format: onx", "onnx")
    call("verify", run, "--build", "own_network").refused("--build", "MODULE:FUNCTION")
    call("bench", run, "--build", "own_network:nothing").refused("own_network:nothing", "AttributeError")
    call("bench", run, "--build", "own_network:wrong").refused("0.weight")
    call("compress", "--plugin", "speech", "--resume", "--out", run).refused("the run is complete")
    (run / "probe.safetensors").unlink()
    call("export", run, "--to", "onnx", "--build", "own_network:make").refused("no example inputs were kept")
