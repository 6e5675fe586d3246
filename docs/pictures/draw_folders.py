"""Draw the folders of a package as text, with the number of imports between each two of them.

python docs/pictures/draw_folders.py                          # l0prune and l0prune_speech of this checkout
python docs/pictures/draw_folders.py --checkout OTHER_FOLDER  # the same for another commit, unpacked there

Each row is a folder, or a file beside the folders, and each column the folder that it imports from. Rows follow the
floors that `pyproject.toml` states, so an import upwards would be left of the diagonal. One import is one file that
imports another, as grimp counts them. The faces of whole packages (`l0prune/__init__.py`) are left out, since they hold
public names only.
"""

import argparse
import sys
import tomllib
from collections import Counter
from pathlib import Path

import grimp

HERE = Path(__file__).parents[2]
PACKAGES = {"l0prune": ".", "l0prune_speech": "plugins/speech"}


def floors(package: str) -> list[str]:
    """The folders of a package from the top floor to the lowest, as the import contract of this checkout states."""
    project = tomllib.loads((HERE / "pyproject.toml").read_text(encoding="utf-8"))
    for contract in project["tool"]["importlinter"]["contracts"]:
        if contract.get("containers") == [package]:
            return [name.strip() for floor in contract["layers"] for name in floor.split("|")]
    return []


def room(module: str) -> str:
    """The folder or file of the first level that a module is in; "" for the package's face."""
    return module.split(".")[1] if "." in module else ""


def imports_between(graph: grimp.ImportGraph) -> Counter[tuple[str, str]]:
    """How many files of one room import files of another."""
    pairs = (
        (room(importer), room(imported))
        for importer in graph.modules
        for imported in graph.find_modules_directly_imported_by(importer)
    )
    return Counter(pair for pair in pairs if all(pair) and pair[0] != pair[1])


def matrix(rooms: list[str], between: Counter[tuple[str, str]]) -> str:
    """Rows import columns; columns carry the number of their row."""
    wide = max(map(len, rooms))
    lines = [" " * (wide + 4) + "".join(f"{number:4}" for number in range(1, len(rooms) + 1))]
    for number, importer in enumerate(rooms, start=1):
        cells = ["   -" if importer == imported else f"{between[importer, imported] or '.':>4}" for imported in rooms]
        lines.append(f"{number:3} {importer:{wide}}" + "".join(cells).rstrip())
    return "\n".join(lines)


def in_circles(rooms: list[str], between: Counter[tuple[str, str]]) -> int:
    """How many rooms can be reached from themselves."""
    beyond = {a: {b for x, b in between if x == a} for a in rooms}

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        todo = [start]
        while todo:
            new = beyond[todo.pop()] - seen
            seen |= new
            todo += new
        return seen

    return sum(start in reached(start) for start in rooms)


def main() -> None:
    """Print the drawings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkout", type=Path, default=HERE)
    checkout = parser.parse_args().checkout.resolve()
    for package, parent in PACKAGES.items():
        sys.path.insert(0, str(checkout / parent))
        graph = grimp.build_graph(package, cache_dir=None)
        between = imports_between(graph)
        rooms = sorted({room(module) for module in graph.modules} - {""})
        files = sum(1 for _ in (checkout / parent / package).rglob("*.py"))
        ordered = [name for name in floors(package) if name in rooms]
        upwards = sum(
            count for (a, b), count in between.items() if {a, b} <= set(ordered) and ordered.index(a) > ordered.index(b)
        )
        print(
            f"{package}: {files} files in {len(rooms)} folders and files of the first level; "
            f"{between.total()} imports between these, on {len(between)} arrows; "
            f"{in_circles(rooms, between)} of them are in circles"
        )
        if set(ordered) == set(rooms):
            print(f"{upwards} imports go upwards\n\n{matrix(ordered, between)}\n")


if __name__ == "__main__":
    main()
