"""From run directories to a page, its figures as PNG files, and the same as JSON."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from l0prune.errors import RunError
from l0prune.report.facts import RunFacts, run_facts
from l0prune.report.figures import MARK
from l0prune.report.page import make_page
from l0prune.support import check_inside, known_arguments, shortest_endings, write_atomic, write_text


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was reported, and where."""

    page: str
    """The HTML file."""
    figures: tuple[dict[str, str], ...]
    """Title, alternative text and PNG file of each figure of the page, in its order."""
    runs: tuple[RunFacts, ...]

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return asdict(self)


@known_arguments
def write_report(runs: str | Path | Sequence[str | Path], out: str | Path | None = None) -> Report:
    """Write a page about runs, finished or not; one that is there already is replaced.

    Args:
        runs: A run directory, or several.
        out: The HTML file; by default report.html in the run directory of a single run, else in the current folder.
            Its figures go into the folder beside it that is named after it, `report-figures` say; those of an earlier
            report there are replaced or removed.

    Returns:
        The figures that the page shows, and all else that it says.

    Raises:
        L0PruneError: One is no run directory, a file in one is damaged, or `out` cannot be written.
    """
    several = [runs] if isinstance(runs, str | Path) else runs
    paths = list({Path(run).resolve(): Path(run) for run in several}.values())
    if not paths:
        raise RunError("no run to report on", expected="one run directory or more")
    page_path = Path(out) if out else (paths[0] if len(paths) == 1 else Path()) / "report.html"
    names = {path: str(path.resolve()) for path in paths}
    short = shortest_endings([*names.values()])
    facts = tuple(run_facts(path, short[name]) for path, name in names.items())
    try:
        if page_path.is_dir():
            raise RunError("a folder is there", where=page_path, expected="a file to write", hint="name an .html file")
    except OSError as error:
        raise RunError("cannot write", where=page_path, got=error.strerror, hint="choose another place") from error
    page, drawings = make_page(facts)
    folder = page_path.with_name(f"{page_path.stem}-figures")
    check_inside(folder, page_path.parent)
    figures = []
    for drawing in drawings:
        place = folder / f"{drawing.name}.png"
        write_atomic(place, lambda temporary, png=drawing.png: temporary.write_bytes(png))
        figures.append({"title": drawing.title, "alt": drawing.alt, "png": str(place)})
    written = {figure["png"] for figure in figures}
    for old in folder.glob("*.png"):
        if str(old) not in written and _is_figure(old):
            old.unlink()
    write_text(page_path, page)
    return Report(page=str(page_path), figures=tuple(figures), runs=facts)


def _is_figure(path: Path) -> bool:
    """Whether a PNG file was drawn for a report; others that lie there are not ours to remove."""
    try:
        with path.open("rb") as file:
            return MARK.encode() in file.read(1024)
    except OSError:
        return False
