"""What other distributions add by one registration each: installed by pip, in one file, with public names alone."""

import ast
import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from command_line import call
from installed import installed
from tiny_teacher import TEACHER
from torch import Tensor, nn

import l0prune
from l0prune.errors import TargetError

HERE = Path(__file__).parent
PACKAGES = ("activation_memory", "band_encoder", "fused_linear", "maxout", "npz", "smooth_l1")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed the packages."""
    return installed([HERE / name for name in PACKAGES], tmp_path_factory.mktemp("extensions"))


@pytest.fixture
def package(site: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """An installed package; importing it registers what it adds, until the test is over."""
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.delitem(sys.modules, f"l0prune_{request.param}", raising=False)
    return import_module(f"l0prune_{request.param}")


@pytest.mark.parametrize("name", PACKAGES)
def test_an_extension_is_one_file_and_takes_no_private_name(name: str) -> None:
    (file,) = (HERE / name).glob("*.py")
    tree = ast.parse(file.read_text(encoding="utf-8"))
    ours = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("l0prune")
    ]
    assert ours
    for node in ours:
        home, names = import_module(str(node.module)), {alias.name for alias in node.names}
        # A file has no list: what begins with no underscore is public.
        assert names <= set(getattr(home, "__all__", [name for name in dir(home) if not name.startswith("_")]))
    attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert [a for a in attributes if a.startswith("_") and not a.startswith("__")] == []


def cut_to_half(model: nn.Module, x: Tensor) -> nn.Module:
    """Half of a model's parameters go by `prune`, and by gates that are trained; the latter's result."""
    dense = sum(p.numel() for p in model.parameters())
    found = l0prune.inspect(model, (x,))
    assert [row.name for row in found.rows if not row.proved] == []
    step = max(row.unit_parameters for row in found.rows)
    pruned = l0prune.prune(model, (x,), target_sparsity=0.5, importance="magnitude")
    assert 0.5 * dense - step <= sum(p.numel() for p in pruned.parameters()) <= 0.5 * dense

    pruner = l0prune.wrap(model, (x,), target_sparsity=0.5)
    optimizer = torch.optim.Adam(pruner.parameter_groups(lr=1e-3))
    target = torch.randn(len(x), 4)
    for _ in range(20):
        loss = nn.functional.mse_loss(pruner.model(x), target) + pruner.penalty()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        pruner.step()
    gated = pruner.model.eval()(x)
    student = pruner.finalize()
    assert 0.5 * dense - step <= sum(p.numel() for p in student.parameters()) <= 0.5 * dense
    torch.testing.assert_close(student(x), gated, rtol=1e-5, atol=1e-6)
    return student


@pytest.mark.parametrize("package", ["fused_linear"], indirect=True)
@pytest.mark.filterwarnings("ignore:the gates are at an expected sparsity")
def test_an_operator_of_ones_own(package: ModuleType) -> None:
    make = package.FusedLinear
    model = nn.Sequential(make(16, 32), make(32, 24), nn.Linear(24, 4))
    x = torch.randn(8, 16)
    found = l0prune.inspect(model, (x,))
    assert [(row.name, row.units, row.unit_parameters) for row in found.rows] == [("0", 32, 41), ("1", 24, 37)]
    # Multiply-accumulates on eight rows.
    assert [row.unit_macs for row in found.rows] == [8 * (16 + 24), 8 * (32 + 4)]
    student = cut_to_half(model, x)
    assert isinstance(student, nn.Sequential)
    first, second, last = student
    assert first.out_features == second.in_features == len(first.weight)
    assert second.out_features == last.in_features == len(second.weight)
    # Mixed precision and exports are the operator's own matter; the package shows how it does them.
    with torch.autocast("cpu", torch.bfloat16):
        student(x).float().sum().backward()
    assert all(parameter.grad is not None for parameter in student.parameters())
    program = torch.export.export(student, (x,)).module()
    torch.testing.assert_close(program(x), student(x))


@pytest.mark.parametrize("package", ["maxout"], indirect=True)
@pytest.mark.filterwarnings("ignore:the gates are at an expected sparsity")
def test_a_layer_class_with_units_of_its_own(package: ModuleType) -> None:
    make = package.Maxout
    model = nn.Sequential(make(16, 32, 3), make(32, 24, 2), nn.Linear(24, 4))
    x = torch.randn(8, 16)
    found = l0prune.inspect(model, (x,))
    kinds = [(row.name, row.kind, row.units, row.unit_parameters) for row in found.rows]
    assert kinds == [("0", "maxout", 32, 3 * 17 + 48), ("1", "maxout", 24, 2 * 33 + 4)]
    student = cut_to_half(model, x)
    assert isinstance(student, nn.Sequential)
    first, second, last = student
    assert first.units == second.inputs == len(first.weight) // 3 == second.weight.shape[1]
    assert second.units == last.in_features == len(second.weight) // 2


def peak_of(model: nn.Module, x: Tensor) -> int:
    """The most bytes that a layer reads and writes, by walking through a chain of layers."""
    most = 0
    for layer in model.children():
        y = layer(x)
        most, x = max(most, x.nbytes + y.nbytes), y
    return most


def chain() -> nn.Sequential:
    """Its peak is between the second and third layer, and moves once their units go."""
    convolutions = nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 24, 3, padding=1), nn.ReLU()
    return nn.Sequential(*convolutions, nn.MaxPool2d(4), nn.Conv2d(24, 32, 1), nn.Flatten(), nn.Linear(128, 4))


@pytest.mark.parametrize("package", ["activation_memory"], indirect=True)
@pytest.mark.parametrize("by_name", [True, False])
def test_a_metric_of_ones_own_is_met_without_training(package: ModuleType, by_name: bool) -> None:
    model, x = chain(), torch.randn(2, 3, 8, 8)
    assert peak_of(model, x) == 2 * (24 + 24) * 64 * 4
    metric = package.PeakActivationMemory()
    asked: dict[str, Any] = {"target_sparsity": 0.4, "importance": "magnitude"}
    pruned = l0prune.prune(model, (x,), metric=metric.name if by_name else metric, **asked)
    # A channel of the convolution before the peak is 2 * 64 * 4 bytes, read and written by the activation.
    assert 0.6 * peak_of(model, x) - 2 * 512 <= peak_of(pruned, x) <= 0.6 * peak_of(model, x)
    with pytest.raises(TargetError, match="peak cannot be lowered so far"):
        l0prune.prune(model, (x,), metric=metric, **{**asked, "target_sparsity": 0.95})


@pytest.mark.parametrize("package", ["activation_memory"], indirect=True)
def test_a_metric_of_ones_own_is_met_by_gates(package: ModuleType) -> None:
    model, x = chain(), torch.randn(2, 3, 8, 8)
    pruner = l0prune.wrap(model, (x,), target_sparsity=0.4, metric=package.PeakActivationMemory.name, total_steps=20)
    optimizer = torch.optim.Adam(pruner.parameter_groups(lr=1e-3))
    for _ in range(20):
        optimizer.zero_grad()
        (pruner.model(x).square().mean() + pruner.penalty()).backward()
        optimizer.step()
        pruner.step()
    student = pruner.finalize()
    before, after = peak_of(chain(), x), peak_of(student, x)
    assert 0.6 * before - 2 * 512 <= after <= 0.6 * before
    with torch.no_grad():
        torch.testing.assert_close(student.eval()(x), pruner.model.eval()(x), rtol=1e-5, atol=1e-6)


COMPRESS = "compress --plugin speech --steps 4 --target-sparsity 0.5 --device cpu --json".split()
SHORT = ("batch_seconds=4", "evaluation_seconds=5", "workers=0", "l1_weight=0", "cosine_weight=0", "terms.smooth_l1=1")


def command(*arguments: object, site: Path) -> subprocess.CompletedProcess[str]:
    """Run the command line where the packages are installed, in a process of its own."""
    folders = [os.environ.get("PYTHONPATH", ""), str(site)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, folders))}
    line = [sys.executable, "-P", "-m", "l0prune_cli", *map(str, arguments)]
    return subprocess.run(line, env=environment, capture_output=True, text=True, check=False)


def test_a_format_and_a_distillation_term_on_the_command_line(site: Path, tmp_path: Path) -> None:
    from l0prune_speech.encoder import build_encoder
    from l0prune_speech.formats import from_encoder

    checkpoint = from_encoder(build_encoder({**TEACHER, "family": "hubert"}))
    arrays = {name: tensor.detach().numpy() for name, tensor in checkpoint.tensors.items()}
    np.savez(tmp_path / "teacher.npz", **arrays, **{"config.json": np.array(json.dumps(dict(checkpoint.config)))})
    own = [part for setting in SHORT for part in ("--set", f"speech.{setting}")]
    compress = (*COMPRESS, "--teacher", tmp_path / "teacher.npz", *own)

    done = command(*compress, "--out", tmp_path / "run", site=site)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    # No other term has a weight.
    assert report["distill_loss_final"] > 0
    assert 0.4 < report["params_after"] / report["params_before"] <= 0.5
    assert "smooth_l1 = 1" in (tmp_path / "run" / "config.toml").read_text()

    done = command("export", tmp_path / "run", "--to", "npz", "--json", site=site)
    assert done.returncode == 0, done.stderr
    written = json.loads(done.stdout)
    assert written["path"] == str(tmp_path / "run" / "exports" / "npz.npz")
    assert written["parameters"] == report["params_after"]
    assert written["max_relative_difference"] <= 1e-6
    assert "opened again by l0prune_npz" in written["notes"]

    # Where the packages are not installed, as in this process, nobody knows the names.
    call(*compress, "--out", tmp_path / "other").refused("no such term: speech.terms.smooth_l1")
    call("export", tmp_path / "run", "--to", "npz").refused("no such format: npz")


def test_a_family_of_speech_networks(
    site: Path, tmp_path: Path, labelled_sound: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bands.json").write_text(json.dumps({"width": 8, "inner": 32}))
    flags = ("--teacher", tmp_path, "--data", labelled_sound, "--target-sparsity", "0.2", "--min-seconds", "0.1")
    flags = (*COMPRESS, *flags, "--batch-seconds", "10", "--workers", "0")
    # Where the package is not installed, as in this process until now, nobody knows such a folder.
    refused = call(*flags, "--out", tmp_path / "other")
    assert refused.code == 2
    assert "not a run or a checkpoint" in refused.err or "folder" in refused.err

    monkeypatch.syspath_prepend(str(site))
    package = import_module("l0prune_band_encoder")
    torch.save(package.BandEncoder(8, 32).state_dict(), tmp_path / "bands.pt")
    done = command(*flags, "--out", tmp_path / "run", site=site)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    student = l0prune.load(tmp_path / "run")
    assert type(student) is package.BandEncoder
    assert sum(p.numel() for p in student.parameters()) == report["params_after"] < report["params_before"]
    assert student.up.out_features < 32
