"""Each folder has a face: others import what its `__init__.py` gives, never from the files behind it."""

import ast
import re
import subprocess
import sys
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


PRIVATE = re.compile(r"_[a-z]\w*")


def private_names(file: Path) -> Iterator[tuple[int, str]]:
    """Names of ours that begin with an underscore, where a file imports, replaces or reads them."""
    tree, ours = ast.parse(file.read_text(encoding="utf-8")), set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(("l0prune", "l0bench")):
            ours.update(alias.asname or alias.name for alias in node.names)
            yield from ((node.lineno, alias.name) for alias in node.names if PRIVATE.fullmatch(alias.name))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and re.fullmatch(r"l0(prune|bench)[\w.]*\._[a-z]\w*", str(node.value)):
            yield node.lineno, str(node.value)
        # A file, or a function or class of ours; what an object keeps is not seen.
        if isinstance(node, ast.Attribute) and getattr(node.value, "id", None) in ours and PRIVATE.fullmatch(node.attr):
            yield node.lineno, ast.unparse(node)


def test_tests_take_no_private_name_of_a_file() -> None:
    here = Path(__file__)
    files = [file for file in here.parent.rglob("*.py") if file != here]
    assert len(files) > 200
    assert [f"{file.relative_to(ROOT)}:{line} {name}" for file in files for line, name in private_names(file)] == []


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
    homes = [*face._HOMES.items(), *getattr(face, "_MORE", {}).items()]
    assert seen == {(module, name) for module, names in homes for name in names}
    # In a package that says it is typed, a name that `__all__` lacks is private to type checkers.
    listed = next(node.value for node in block.body if isinstance(node, ast.Assign))
    assert sorted(ast.literal_eval(listed)) == face.__all__


def test_the_first_page_of_the_package_is_short() -> None:
    """Every other public name is on the face of a folder, and the folders need no import of their own."""
    import l0prune

    assert l0prune.__all__ == [
        *("L0PruneError", "L0Pruner", "__version__", "compress", "discover", "evaluate", "export", "inspect", "load"),
        *("measure", "prune", "save", "wrap", "write_report"),
    ]
    for module, names in l0prune._MORE.items():
        face = import_module(f"l0prune.{module}")
        for name in names:
            assert getattr(l0prune, name) is getattr(face, name)
    program = "import l0prune; [getattr(l0prune, name) for name in l0prune._FOLDERS]"
    subprocess.run([sys.executable, "-c", program], check=True)
    folders = {path.parent.name for path in (ROOT / "l0prune").glob("*/__init__.py")}
    assert set(l0prune._FOLDERS) == folders | {"config", "errors", "groups"}


def test_a_lazy_face_has_no_other_names() -> None:
    with pytest.raises(AttributeError, match="module 'l0prune' has no attribute 'nothing'"):
        _ = import_module("l0prune").nothing


def test_the_page_of_names_is_right() -> None:
    """Each folder of the reference has the names beside it, and what the package lists is in it."""
    page = (ROOT / "docs/reference/python.md").read_text(encoding="utf-8")
    subjects, errors = page.partition("## By subject")[2].split("## Errors")
    rows = [re.findall(r"`([\w.]+)`", cell) for line in subjects.splitlines() for cell in line.split("|")[1:3]]
    pairs = [(folders, names) for folders, names in zip(rows[::2], rows[1::2], strict=True) if names]
    assert len(pairs) >= 15
    for folders, names in pairs:
        faces_of_row = [import_module(folder) for folder in folders]
        assert [name for name in names if not any(hasattr(face, name) for face in faces_of_row)] == []
    kinds = re.findall(r"^\| `(\w+)`", errors, re.MULTILINE)
    assert all(issubclass(getattr(import_module("l0prune.errors"), name), Exception) for name in kinds)
    listed = set(import_module("l0prune").__all__) - {"__version__"}
    assert {name for name in listed if not re.search(rf"\b{name}\b", page)} == set()
