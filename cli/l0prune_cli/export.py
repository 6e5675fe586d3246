"""`l0prune export`."""

from pathlib import Path
from typing import Annotated

import typer

from l0prune_cli import factories, options


def command(
    source: Annotated[str | None, typer.Argument(help="A run directory, or anything that --teacher takes.")] = None,
    to: Annotated[str | None, typer.Option("--to", help="The format: see --list.", show_default="none")] = None,
    out: Annotated[
        Path | None, typer.Option(help="File or folder to make.", show_default="for a run, below its exports/")
    ] = None,
    plugin: options.ReaderFlag = None,
    build: options.BuildFlag = None,
    calibration: Annotated[
        list[Path] | None,
        typer.Option(
            "--calibration",
            help="Data to find int8 scales on, several times if needed.",
            show_default="the run's, or the plugin's",
        ),
    ] = None,
    show: Annotated[bool, typer.Option("--list", help="Say what each format can hold, and stop.")] = False,
    as_json: options.JsonFlag = False,
) -> None:
    """Write a network in another stack's format, and check that it still is the same network."""
    import l0prune
    from l0prune.formats import MODULE_FORMATS
    from l0prune.workflows import formats_of_run, is_run
    from l0prune_cli.tables import export_lines, format_table, print_result

    plugin = options.plugin_of([source] if source else [], plugin)
    if show:
        chosen = l0prune.get_plugin(plugin)
        formats = chosen.formats if isinstance(chosen, l0prune.Exporter) else MODULE_FORMATS
        formats = formats_of_run(source) if source and is_run(source) else formats
        rows = [{"name": name, "suffix": form.suffix, "holds": form.holds} for name, form in formats.items()]
        print_result(rows, format_table(rows), as_json=as_json)
        return
    if source is None or to is None:
        what = "--to FORMAT" if source else "a run directory or a teacher, and --to FORMAT"
        raise l0prune.ConfigError("nothing to export", expected=what, hint="see l0prune export --list")
    dense = factories.builder(build)
    written = l0prune.export(source, to=to, out=out, plugin=plugin, build=dense, calibration=calibration)
    print_result(written.to_json(), export_lines(written), as_json=as_json)
