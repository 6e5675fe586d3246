"""The `l0prune` command. Commands import what they need when they run, so that `--help` is instant."""

import sys

import typer

from l0prune.errors import FailedElsewhere, Interrupted, L0PruneError
from l0prune_cli import bench, compress, evaluate, export, groups, options, plugins, report

app = typer.Typer(
    name="l0prune",
    help="Prune networks to an exact budget, and HuBERT or WavLM to a quarter of their size.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("compress")(compress.command)
app.command("bench")(bench.command)
app.command("evaluate")(evaluate.command)
app.command("export")(export.command)
app.command("groups")(groups.command)
app.command("plugins")(plugins.command)
app.command("report")(report.command)


def main() -> None:
    """Run the command line: exit status 0, 2 for a user's error with one line on stderr, 1 for a bug."""
    try:
        app()
    except Interrupted as error:
        # All processes of a run stop together: one says so.
        if options.is_main_process():
            print(f"l0prune: {error}", file=sys.stderr)
        sys.exit(128 + error.signal_number)
    except FailedElsewhere:
        sys.exit(2)
    except L0PruneError as error:
        print(f"l0prune: error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
