"""`l0prune verify`."""

from typing import Annotated

import typer

from l0prune_cli import factories, options


def command(
    sources: Annotated[list[str], typer.Argument(help="Run directories, or exported files and folders.")],
    against: Annotated[
        str | None,
        typer.Option(help="Apply the plan of each run to this teacher anew, and compare.", show_default="none"),
    ] = None,
    repeat: Annotated[
        bool, typer.Option("--repeat", help="Make each run again in a temporary folder, and compare the weights.")
    ] = False,
    plugin: Annotated[str, typer.Option("--plugin", help="Who opens what is no run directory.")] = "speech",
    build: options.BuildFlag = None,
    as_json: options.JsonFlag = False,
) -> None:
    """Check that runs and exports are whole, and are what they say."""
    import l0prune
    from l0prune_cli.tables import print_result, verification_table

    dense = factories.builder(build)
    found = [l0prune.verify(source, build=dense, against=against, repeat=repeat, plugin=plugin) for source in sources]
    print_result([each.to_json() for each in found], *map(verification_table, found), as_json=as_json)
    for each in found:
        if each.broken:
            where = f"{each.source}, {each.broken.name}"
            raise l0prune.RunError("does not hold", where=where, got=each.broken.said)
