"""`l0prune cut`."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from l0prune_cli import factories, options


def command(
    run: Annotated[Path, typer.Argument(help="The folder of an elastic run.")],
    target: Annotated[
        str,
        typer.Option(metavar="METRIC=VALUE,...", help="What is to be left at most: params=25%,macs=30%."),
    ],
    out: Annotated[Path, typer.Option(help="Run directory to make.")],
    polish: Annotated[
        int | None,
        typer.Option(help="Steps of distillation after the cut; 0 measures the loss alone.", show_default="none"),
    ] = None,
    build: options.BuildFlag = None,
    as_json: options.JsonFlag = False,
) -> None:
    """Cut a network of any size out of an elastic run, in seconds."""
    import l0prune
    from l0prune.adapters.console import make_console
    from l0prune.adapters.terminal import TerminalObserver
    from l0prune.size import parse_targets

    asked = parse_targets(target)
    dense = factories.builder(build)
    with TerminalObserver(make_console(stderr=as_json)) as observer:
        report = l0prune.cut(run, asked, out=out, polish=polish, build=dense, observer=observer)
    if as_json:
        json.dump(report.to_json(), sys.stdout, indent=1)
        print()
