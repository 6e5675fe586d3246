"""Each folder has a face: others import what its `__init__.py` gives, never from the files behind it."""

import ast
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "l0prune": ROOT / "l0prune",
    "l0prune_speech": ROOT / "plugins/speech/l0prune_speech",
    "l0prune_cli": ROOT / "cli/l0prune_cli",
}
OPEN = ("l0prune", "l0prune_speech", "l0prune_cli", "l0prune.adapters")
"""Folders whose files are faces themselves."""


def files() -> Iterator[tuple[Path, str]]:
    """Every file, and the package that it is in; benchmarks are in none."""
    for name, folder in PACKAGES.items():
        for file in folder.rglob("*.py"):
            yield file, ".".join([name, *file.relative_to(folder).parent.parts])
    for file in (ROOT / "benchmarks").rglob("*.py"):
        yield file, ""


def home(module: str) -> Path | None:
    """Where a module of ours is: a folder, or a file without its ending."""
    first, *rest = module.split(".")
    return PACKAGES[first].joinpath(*rest) if first in PACKAGES else None


def is_file(module: str) -> bool:
    path = home(module)
    return path is not None and path.with_suffix(".py").is_file() and not path.is_dir()


def imported(file: Path) -> Iterator[tuple[int, str]]:
    """The lines on which a file imports one of our modules that are files."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for name in (node.module, *(f"{node.module}.{alias.name}" for alias in node.names)):
                if is_file(name):
                    yield node.lineno, name
        elif isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names if is_file(alias.name))


def test_folders_are_used_through_their_faces() -> None:
    behind = []
    for file, inside in files():
        for line, module in imported(file):
            holder = module.rpartition(".")[0]
            if holder not in OPEN and not f"{inside}.".startswith(f"{holder}."):
                behind.append(f"{file.relative_to(ROOT)}:{line} imports {module}: take it from {holder}")
    assert behind == []


def faces() -> list[str]:
    found = []
    for name, folder in PACKAGES.items():
        for file in folder.rglob("__init__.py"):
            package = ".".join([name, *file.relative_to(folder).parent.parts])
            if hasattr(import_module(package), "__all__"):
                found.append(package)
    return sorted(found)


@pytest.mark.parametrize("package", faces())
def test_a_face_gives_what_it_names_and_no_name_of_a_file(package: str) -> None:
    face, folder = import_module(package), home(package)
    assert folder is not None
    behind = {path.stem for path in folder.iterdir()}
    assert not behind & set(face.__all__)
    assert [name for name in face.__all__ if getattr(face, name, None) is None] == []
    assert set(face.__all__) <= set(dir(face))


@pytest.mark.parametrize("package", [name for name in faces() if hasattr(import_module(name), "_HOMES")])
def test_what_type_checkers_see_of_a_lazy_face_is_what_it_gives(package: str) -> None:
    face = import_module(package)
    assert face.__file__ is not None
    tree = ast.parse(Path(face.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        (node.module.removeprefix(f"{package}."), alias.name)
        for node in block.body
        # Folders that are attributes, too, are no names that have a home.
        if isinstance(node, ast.ImportFrom) and node.module and node.module != package
        for alias in node.names
    }
    assert seen == {(module, name) for module, names in face._HOMES.items() for name in names}
    # In a package that says it is typed, a name that `__all__` lacks is private to type checkers.
    listed = next(node.value for node in block.body if isinstance(node, ast.Assign))
    assert sorted(ast.literal_eval(listed)) == face.__all__


def test_a_lazy_face_has_no_other_names() -> None:
    with pytest.raises(AttributeError, match="module 'l0prune' has no attribute 'nothing'"):
        _ = import_module("l0prune").nothing
