"""`l0prune verify`: what is whole holds, and of what is not the first thing that does not hold is named."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import l0prune
from l0prune.support import file_digest, json_digest

Call = Callable[..., Any]
CHECKS = ["description", "weights", "plan", "network", "size", "outputs", "report"]


@pytest.fixture
def run(finished, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(finished.folder, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints")))


def signed(folder: Path, change: Callable[[dict[str, Any]], object] = lambda _: None) -> None:
    """Change model.json and make its checksums right again, as somebody who means it."""
    path = folder / "model.json"
    content = json.loads(path.read_text())
    change(content)
    content["sha256"] = {p.name: file_digest(p) for p in folder.glob("*.safetensors")}
    content["sha256"]["model.json"] = json_digest(content)
    path.write_text(json.dumps(content))


def reported(folder: Path, **changes: object) -> None:
    path = folder / "report.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_run_holds_and_nothing_is_written(run: Path, l0prune_call: Call) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    for path in (*before, run):
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        (found,) = json.loads(l0prune_call("verify", run, "--json").succeeded().out)
        shown = l0prune_call("verify", run).succeeded().out
    finally:
        run.chmod(0o755)
    assert found["holds"]
    assert [check["name"] for check in found["checks"]] == CHECKS
    assert all(check["holds"] for check in found["checks"])
    assert "multiply-accumulates" in found["checks"][-1]["said"]
    assert "counted = predicted = reported" in shown
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def weights(folder: Path, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    tensors = load_file(folder / "model.safetensors")
    name = max(tensors, key=lambda name: tensors[name].numel())
    save_file({**tensors, name: change(tensors[name])}, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("check", "damage", "words"),
    [
        ("description", lambda run: (run / "model.json").unlink(), "the run has no model yet"),
        ("weights", lambda run: (run / "model.safetensors").unlink(), "damaged or missing weights"),
        ("weights", lambda run: weights(run, lambda tensor: tensor + 1e-6), "damaged or missing weights"),
        ("weights", lambda run: (weights(run, lambda t: t / 0), signed(run)), "weights are not finite"),
        ("network", lambda run: (weights(run, lambda t: t.to(torch.int8)), signed(run)), "got int8, expected float32"),
        ("network", lambda run: (weights(run, lambda t: t[1:].clone()), signed(run)), "weights do not fit the plan"),
        ("plan", lambda run: signed(run, lambda content: content["plan"].update(version=9)), "unknown plan version"),
        ("size", lambda run: reported(run, params_after=5), "parameters differ"),
        ("outputs", lambda run: (weights(run, lambda t: t.flip(0)), signed(run)), "outputs are not those"),
        ("outputs", lambda run: (run / "probe.safetensors").unlink(), "damaged or missing probe"),
        ("report", lambda run: reported(run, macs_after=5), "macs_after differ"),
        ("report", lambda run: reported(run, sparsity=0.9), "report.json contradicts itself"),
        ("report", lambda run: reported(run, seed=5), "seed differ"),
        ("report", lambda run: reported(run, teacher="another"), "teacher differ"),
        ("report", lambda run: reported(run, kept_units=5), "not understood"),
        ("report", lambda run: (run / "report.json").unlink(), "the run has no report"),
    ],
)
def test_the_first_thing_that_does_not_hold_is_named(
    run: Path, l0prune_call: Call, check: str, damage: Callable[[Path], object], words: str
) -> None:
    damage(run)
    done = l0prune_call("verify", run, "--json")
    assert done.code == 2
    (found,) = json.loads(done.out)
    assert not found["holds"]
    names = [each["name"] for each in found["checks"]]
    assert names == CHECKS[: len(names)]
    assert names[-1] == check
    assert all(each["holds"] for each in found["checks"][:-1])
    assert words in found["checks"][-1]["said"]
    assert done.err.startswith(f"l0prune: error: does not hold: {run}, {check} (got ")
    assert words in done.err


def test_a_run_of_before_there_were_checksums(run: Path, l0prune_call: Call) -> None:
    content = json.loads((run / "model.json").read_text())
    del content["sha256"], content["counted_on"]
    (run / "model.json").write_text(json.dumps(content))
    (found,) = json.loads(l0prune_call("verify", run, "--json").succeeded().out)
    holds = {check["name"]: check["holds"] for check in found["checks"]}
    assert [name for name, each in holds.items() if each is None] == ["description", "weights", "outputs"]
    assert "multiply-accumulates" not in found["checks"][-1]["said"]
    # Commands that read it say so.
    out = run.parent / "student.pth"
    assert "before there were checksums" in l0prune_call("export", run, "--to", "dphubert", "--out", out).out


def test_a_teacher_and_a_second_run(finished, bench, l0prune_call: Call) -> None:
    done = l0prune_call("verify", finished.folder, "--against", bench.teacher, "--repeat", "--json").succeeded()
    *_, against, repeat = json.loads(done.out)[0]["checks"]
    assert f"{finished.report['params_after']:,} parameters" in against["said"]
    assert "bit for bit" in repeat["said"]
    other = l0prune_call("verify", finished.folder, "--against", "embedded")
    assert other.code == 2
    assert "plan was made for another architecture" in other.err


def test_a_run_that_cannot_be_repeated(run: Path, l0prune_call: Call) -> None:
    text = (run / "config.toml").read_text()
    (run / "config.toml").write_text(text.replace("learning_rate = 0.3", "learning_rate = 0.2"))
    reported(run, versions={"torch": "1.0"})
    signed(run, lambda content: content["provenance"].update(versions={"torch": "1.0"}))
    done = l0prune_call("verify", run, "--repeat")
    assert done.code == 2
    assert "made again, the run gives other weights" in done.err
    assert "versions differ: torch 1.0 ->" in done.err


@pytest.mark.parametrize(
    ("form", "checksum"),
    [
        ("huggingface", "SHA-256 of model.safetensors in config.json"),
        ("dphubert", "CRC-32 of"),
        ("s3prl", "CRC-32 of each part of model.pt"),
        ("onnx", "SHA-256 in its metadata"),
        ("torchscript", "CRC-32 of"),
    ],
)
def test_exports(finished, tmp_path: Path, l0prune_call: Call, form: str, checksum: str) -> None:
    out = tmp_path / f"export{'.onnx' if form == 'onnx' else ''}"
    l0prune_call("export", finished.folder, "--to", form, "--out", out).succeeded()
    (found,) = json.loads(l0prune_call("verify", out, "--json").succeeded().out)
    assert [check["name"] for check in found["checks"]] == ["checksum", "network"]
    assert checksum in found["checks"][0]["said"]
    if form not in ("onnx", "torchscript"):
        assert f"{finished.report['params_after']:,} parameters" in found["checks"][1]["said"]
    file = out if out.is_file() else max(out.iterdir(), key=lambda path: path.stat().st_size)
    whole = file.read_bytes()
    half = len(whole) // 2
    file.write_bytes(whole[:half] + bytes([whole[half] ^ 1]) + whole[half + 1 :])
    done = l0prune_call("verify", out)
    assert done.code == 2
    assert done.err.startswith(f"l0prune: error: does not hold: {out}, checksum (got ")
    # And no command reads it.
    if form == "onnx":
        l0prune_call("bench", out, "--backends", "onnxruntime").refused("the checksum is wrong")
    if form in ("huggingface", "dphubert"):
        l0prune_call("export", out, "--to", "dphubert", "--out", tmp_path / "again").refused("damaged")


def test_a_folder_that_transformers_saved_again_is_read(finished, tmp_path: Path, l0prune_call: Call) -> None:
    """After more training its config.json still states the checksum of the export."""
    folder = tmp_path / "export"
    l0prune_call("export", finished.folder, "--to", "huggingface", "--out", folder).succeeded()
    tensors = load_file(folder / "model.safetensors")
    save_file({name: tensor * 1.01 for name, tensor in tensors.items()}, folder / "model.safetensors", {"format": "pt"})
    (found,) = json.loads(l0prune_call("verify", folder, "--json").succeeded().out)
    assert [check["holds"] for check in found["checks"]] == [None, True]


def test_wrong_requests_are_refused(bench, finished, tmp_path: Path, l0prune_call: Call) -> None:
    l0prune_call("verify", tmp_path / "nothing").refused("no such file or folder")
    l0prune_call("verify", "e" * 5_000).refused("no such file or folder")
    l0prune_call("verify", bench.teacher, "--repeat").refused("only a run can be made again")
    (tmp_path / "config.toml").touch()
    assert "the run has no model yet" in l0prune_call("verify", tmp_path).err


def test_a_saved_network_with_example_inputs(tmp_path: Path) -> None:
    def build() -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))

    x = torch.randn(3, 8)
    small = l0prune.prune(build(), x, target_sparsity=0.5)
    l0prune.save(small, l0prune.plan_of(small), tmp_path, example_inputs=x)
    found = l0prune.verify(tmp_path, build=build)
    assert {check.name: check.holds for check in found.checks} == dict.fromkeys(CHECKS, True) | {"report": None}
    # Without `build` the files alone are checked.
    found = l0prune.verify(tmp_path)
    assert [check.name for check in found.checks if check.holds] == ["description", "weights", "plan"]
    with torch.no_grad():
        small[0].weight += 0.1  # pyright: ignore
    l0prune.save(small, l0prune.plan_of(small), tmp_path / "other")
    os.replace(tmp_path / "other/model.safetensors", tmp_path / "model.safetensors")
    signed(tmp_path)
    broken = l0prune.verify(tmp_path, build=build).broken
    assert broken is not None
    assert broken.name == "outputs"
