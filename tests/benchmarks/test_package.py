"""benchmarks/: what is shared is in one package, and a command is a script that no module imports."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import BENCHMARKS, command

COMMANDS = sorted(
    path.relative_to(BENCHMARKS).with_suffix("").as_posix()
    for folder in (".", "real_material", "teacher")
    for path in (BENCHMARKS / folder).glob("*.py")
)


def imported(file: Path) -> set[str]:
    """The first parts of the names of all modules that a file imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return {name.partition(".")[0] for name in names}


def test_no_module_imports_a_command() -> None:
    stems = {name.rpartition("/")[2] for name in COMMANDS}
    assert {"latency", "training", "whisper"} <= stems
    files = [*BENCHMARKS.rglob("*.py"), *Path(__file__).parents[1].rglob("*.py")]
    assert {str(file): found for file in files if (found := imported(file) & stems)} == {}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_finds_what_it_imports(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Commands in folders put `benchmarks/` on the path.
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert callable(command(name).main)


@pytest.mark.parametrize("line", [["ablations.py", "--list"], ["real_material/speech.py", "--help"]])
def test_a_command_runs_from_any_folder_by_its_path(line: list[str], tmp_path: Path) -> None:
    script, *arguments = line
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if "helpers" not in path)
    done = subprocess.run(
        [sys.executable, BENCHMARKS / script, *arguments],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout
