"""The `l0prune` command. Commands import what they need when they run, so that `--help` is instant."""

import sys
from typing import Any

import typer

from l0prune.errors import FailedElsewhere, Interrupted, L0PruneError
from l0prune_cli import bench, compress, evaluate, export, groups, options, plugins, report

app = typer.Typer(
    name="l0prune",
    help="Prune networks to an exact budget, and HuBERT or WavLM to a quarter of their size.",
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


# What typer raises for a wrong command line; it has no public name, and was click's own in earlier versions.
_UsageError: Any = typer.BadParameter.__bases__[0]


def main() -> None:
    """Run the command line: exit status 0, 2 for a user's error with one line on stderr, 1 for a bug.

    128 and the signal's number where SIGINT or SIGTERM broke off the work.
    """
    try:
        status = app(sys.argv[1:] or ["--help"], prog_name="l0prune", standalone_mode=False)
    except Interrupted as error:
        # All processes of a run stop together: one says so.
        if options.is_main_process():
            print(f"l0prune: {error}", file=sys.stderr)
        status = 128 + error.signal_number
    except FailedElsewhere:
        status = 2
    except L0PruneError as error:
        status = _refuse(str(error))
    except _UsageError as error:
        message = error.format_message().strip().removesuffix(".")
        command = error.ctx.command_path if error.ctx else "l0prune"
        status = _refuse(f"{message[:1].lower()}{message[1:]}; see {command} --help")
    sys.exit(status)


def _refuse(message: str) -> int:
    print(f"l0prune: error: {' '.join(message.split())}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
