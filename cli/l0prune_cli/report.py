"""`l0prune report`."""

from pathlib import Path
from typing import Annotated

import typer

from l0prune_cli import options


def command(
    runs: Annotated[list[Path], typer.Argument(help="Run directories, finished or not.")],
    out: Annotated[
        Path | None,
        typer.Option(help="HTML file.", show_default="report.html in the run; of several runs, in this folder"),
    ] = None,
    as_json: options.JsonFlag = False,
) -> None:
    """Write a page about runs: what is left, training, size, losses; several side by side."""
    import l0prune
    from l0prune_cli.tables import print_result

    written = l0prune.write_report(runs, out)
    what = f"{l0prune.counted(len(written.runs), 'run')}, {l0prune.counted(len(written.figures), 'figure')}"
    print_result(written.to_json(), f"{written.page}: {what}", as_json=as_json)
