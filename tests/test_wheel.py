"""What people install: the wheel, its version, and what a type checker sees of it in a user's own file."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import l0prune

ROOT = Path(__file__).parents[1]
PACKAGES = ("l0prune", "l0prune_speech", "l0prune_cli")
USER = """
# pyright: strict
from pathlib import Path
from typing import assert_type

import torch
from torch import nn

import l0prune
import l0prune_cli.main
import l0prune_speech.plugin


def build() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


model, inputs = build(), torch.randn(3, 4)
found = l0prune.inspect(model, inputs)
assert_type(found, l0prune.Inspection)
assert_type([row.reason for row in found.rows if not row.proved], list[str])

pruner = l0prune.wrap(model, inputs, target_sparsity=0.5, metric="macs", total_steps=100)
assert_type(pruner, l0prune.L0Pruner)
optimizer = torch.optim.AdamW(pruner.parameter_groups(lr=1e-3))
(model(inputs).mean() + pruner.penalty()).backward()
optimizer.step()  # pyright: ignore[reportUnknownMemberType]
pruner.step()
assert_type(pruner.sparsity.expected, float)
smaller = pruner.finalize()
assert_type(smaller, nn.Module)
assert_type(pruner.report.params_after, int)
assert_type(l0prune.prune(model, inputs, target_sparsity=0.5), nn.Module)

l0prune.save(smaller, pruner.plan, Path("smaller"))
assert_type(l0prune.load("smaller", build), nn.Module)
plan: l0prune.RemovalPlan | None = l0prune.plan_of(smaller)

report = l0prune.compress("speech", settings={"joint": {"steps": 5}}, out="run")
assert_type(report, l0prune.CompressionReport)
try:
    l0prune.load(report.run_directory)
except l0prune.L0PruneError as error:
    print(error)
print(l0prune.__version__, l0prune_speech.plugin.SpeechPlugin.name, l0prune_cli.main.main)
"""
WRONG = {
    "l0prune.wrap(model, inputs, target_sparsity='half')": '"Literal[\'half\']" is not assignable to "float"',
    "l0prune.prune(model, inputs, target_sparsity='half')": '"Literal[\'half\']" is not assignable to "float"',
    "l0prune.load(3)": '"Literal[3]"',
    "l0prune.compress('speech', steps=3)": 'No parameter named "steps"',
    "l0prune.wrapped(model)": '"wrapped" is not a known attribute of module "l0prune"',
}


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel, that sees all else that is installed here."""
    folder = tmp_path_factory.mktemp("wheel")

    def run(*command: str | Path) -> None:
        subprocess.run([sys.executable, "-m", *command], check=True, cwd=ROOT, capture_output=True)

    run("hatchling", "build", "-t", "wheel", "-d", folder)
    run("venv", "--without-pip", folder / "venv")
    site = next((folder / "venv/lib").glob("python*")) / "site-packages"
    options = ["--quiet", "--no-deps", "--no-index", "--disable-pip-version-check", "--target", site]
    run("pip", "install", *options, next(folder.glob("*.whl")))
    others = [path for path in sys.path if path.endswith("site-packages")]
    (site / "others.pth").write_text("\n".join(others))
    return folder / "venv/bin/python"


@pytest.fixture(scope="module")
def checked(python: Path) -> dict[str, list[tuple[int, str]]]:
    """What pyright says of files by name: lines, counted from 1, and messages."""
    folder = python.parents[2]
    texts = {"user.py": USER, "wrong.py": USER + "\n".join(WRONG)}
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", python, *texts]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    found = json.loads(done.stdout)
    assert found["summary"]["filesAnalyzed"] == len(texts)
    said: dict[str, list[tuple[int, str]]] = {name: [] for name in texts}
    for one in found["generalDiagnostics"]:
        line, message = one["range"]["start"]["line"] + 1, one["message"].replace("\n", " ")
        said[Path(one["file"]).name].append((line, message))
    return said


def test_a_users_file_has_the_types_of_the_wheel(checked: dict[str, list[tuple[int, str]]]) -> None:
    assert checked["user.py"] == []


def test_wrong_calls_are_errors(checked: dict[str, list[tuple[int, str]]]) -> None:
    begins = len(USER.splitlines()) + 1
    said = checked["wrong.py"]
    assert {line for line, _ in said} == {*range(begins, begins + len(WRONG))}
    for line, message in enumerate(WRONG.values(), begins):
        assert any(message in text for at, text in said if at == line), (message, said)


def test_the_version_stands_in_one_place(python: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "version" not in project["project"]
    assert project["tool"]["hatch"]["version"] == {"path": "l0prune/__init__.py"}
    code = "import importlib.metadata as m, l0prune; print(l0prune.__file__, l0prune.__version__, m.version('l0prune'))"
    done = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=True)
    file, said, installed = done.stdout.split()
    assert Path(file).is_relative_to(python.parents[1])
    assert said == installed == l0prune.__version__
    citation = ROOT / "CITATION.cff"
    if citation.exists():
        assert f"\nversion: {l0prune.__version__}\n" in citation.read_text(encoding="utf-8")


def test_each_package_says_that_it_is_typed(python: Path) -> None:
    site = next((python.parents[1] / "lib").glob("python*")) / "site-packages"
    assert [name for name in PACKAGES if not (site / name / "py.typed").is_file()] == []


def test_what_an_index_shows_of_it(python: Path) -> None:
    site = next((python.parents[1] / "lib").glob("python*")) / "site-packages"
    (metadata,) = site.glob("l0prune-*.dist-info/METADATA")
    lines = metadata.read_text(encoding="utf-8").splitlines()
    assert "Author: The l0prune authors" in lines
    assert next(line for line in lines if line.startswith("Requires-Python:")).endswith(
        (">=3.11,<3.15", "<3.15,>=3.11")
    )
    for minor in range(11, 15):
        assert f"Classifier: Programming Language :: Python :: 3.{minor}" in lines
    assert any(line.startswith("Keywords:") and "pruning" in line for line in lines)
