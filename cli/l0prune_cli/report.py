"""`l0prune report`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from l0prune_cli import options


def command(
    runs: Annotated[list[Path], typer.Argument(help="Run directories, finished or not.")],
    out: Annotated[
        Path | None, typer.Option(help="HTML file; by default report.html in the run, for several in this folder.")
    ] = None,
    as_json: options.JsonFlag = False,
) -> None:
    """Write a page about runs: what is left, training, size, losses; several side by side."""
    import l0prune
    from l0prune_cli.rendering import make_console

    written = l0prune.write_report(runs, out)
    if as_json:
        print(json.dumps(written.to_json(), indent=1))
    else:
        count = len(written.runs)
        what = f"{count} run{'s' if count > 1 else ''}, {len(written.figures)} figures"
        make_console().print(f"{written.page}: {what}")
