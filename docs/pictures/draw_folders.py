"""Draw the folders of a package as text, with the number of imports between each two of them.

python docs/pictures/draw_folders.py                          # l0prune and l0prune_speech of this checkout
python docs/pictures/draw_folders.py --write                  # the same, put into docs/contributing.md
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
BEGINS, ENDS = "<!-- draw_folders.py: begin -->", "<!-- draw_folders.py: end -->"
"""Around what `--write` puts into the page."""
BEFORE = {
    "l0prune": {
        "files and folders of the first level": 82,
        "imports between them": 382,
        "pairs of them with an import": 352,
        "files and folders in circles": 0,
    },
    "l0prune_speech": {
        "files and folders of the first level": 18,
        "imports between them": 68,
        "pairs of them with an import": 44,
        "files and folders in circles": 0,
    },
}
"""What this script counted at commit 30f697c, the last one with all files side by side."""


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


def counted(package: str, checkout: Path) -> tuple[dict[str, int], str]:
    """The numbers of a package, and its drawing: empty where the floors are not those of this checkout."""
    sys.path.insert(0, str(checkout / PACKAGES[package]))
    graph = grimp.build_graph(package, cache_dir=None)
    between = imports_between(graph)
    rooms = sorted({room(module) for module in graph.modules} - {""})
    ordered = [name for name in floors(package) if name in rooms]
    place = {name: number for number, name in enumerate(ordered)}
    numbers = {
        "files and folders of the first level": len(rooms),
        "imports between them": between.total(),
        "pairs of them with an import": len(between),
        "files and folders in circles": in_circles(rooms, between),
    }
    if set(ordered) != set(rooms):
        return numbers, ""
    numbers["imports upwards"] = sum(count for (a, b), count in between.items() if place[a] > place[b])
    return numbers, matrix(ordered, between)


def page(checkout: Path) -> str:
    """The part of the page that is made here."""
    rows, drawings = ["| | before | now |", "|---|---|---|"], []
    for package in PACKAGES:
        numbers, drawing = counted(package, checkout)
        rows += [f"| {package}: {what} | {BEFORE[package].get(what, '')} | {now} |" for what, now in numbers.items()]
        drawings.append(f"{package}:\n\n```\n{drawing}\n```")
    return "\n\n".join(["\n".join(rows), *drawings])


def main() -> None:
    """Print the drawings, or put them into the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkout", type=Path, default=HERE)
    parser.add_argument("--write", action="store_true", help="put them into docs/contributing.md")
    options = parser.parse_args()
    drawn = page(options.checkout.resolve())
    if options.write:
        path = HERE / "docs" / "contributing.md"
        head, begins, rest = path.read_text(encoding="utf-8").partition(BEGINS)
        _, ends, tail = rest.partition(ENDS)
        path.write_text(f"{head}{begins}\n\n{drawn}\n\n{ends}{tail}", encoding="utf-8")
    else:
        print(drawn)


if __name__ == "__main__":
    main()
