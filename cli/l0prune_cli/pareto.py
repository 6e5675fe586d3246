"""`l0prune pareto`."""

import warnings
from pathlib import Path
from typing import Annotated

import typer

from l0prune_cli import options


def command(
    runs: Annotated[list[Path], typer.Argument(help="Finished run directories.")],
    out: Annotated[Path, typer.Option(help="Folder to make: pareto.png, pareto.svg and pareto.csv.")],
    x: Annotated[str, typer.Option("--x", help="params, macs, latency, file_bytes or another number.")] = "params",
    y: Annotated[str, typer.Option("--y", help="loss, or a task of the runs' evaluation.json.")] = "loss",
    as_json: options.JsonFlag = False,
) -> None:
    """Draw the quality of runs against their size, and mark those that another run dominates."""
    import l0prune
    from l0prune_cli.tables import make_console, pareto_table, print_result

    with warnings.catch_warnings():
        # They are in the result, and shown below.
        warnings.simplefilter("ignore", UserWarning)
        drawn = l0prune.write_pareto(runs, out, x=x, y=y)
    console = make_console(stderr=True)
    for line in drawn.warnings:
        console.print(f"warning: {line}")
    files = f"{drawn.png}, {drawn.svg}, {drawn.csv}"
    print_result(drawn.to_json(), pareto_table(drawn), files, as_json=as_json)
