"""The `l0prune` command. Commands import what they need when they run, so that `--help` is instant."""

import signal
import sys
from collections.abc import Sequence
from typing import Any

import typer

from l0prune.errors import FailedElsewhere, Interrupted, L0PruneError
from l0prune.support import safe_children
from l0prune_cli import bench, compress, evaluate, export, groups, options, plugin_flags, plugins, report, verify

_OF_PLUGINS = {"compress": compress.command, "groups": groups.command}
"""Commands that a plugin adds flags to."""
_OTHERS = {
    "bench": bench.command,
    "evaluate": evaluate.command,
    "export": export.command,
    "plugins": plugins.command,
    "report": report.command,
    "verify": verify.command,
}


def make_app(arguments: Sequence[str] = ()) -> typer.Typer:
    """The command line, with the flags of the plugin that `arguments` name.

    Raises:
        L0PruneError: There is no such plugin, or it is broken.
    """
    app = typer.Typer(
        name="l0prune",
        help="Prune networks to an exact budget, and HuBERT or WavLM to a quarter of their size.",
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    plugin = plugin_flags.named_plugin(arguments[1:])
    for name, command in sorted({**_OF_PLUGINS, **_OTHERS}.items(), key=lambda pair: (pair[0] != "compress", pair[0])):
        if name in _OTHERS:
            app.command(name)(command)
        elif plugin is not None and arguments[0] == name:
            app.command(name)(plugin_flags.with_flags_of(command, plugin))
        else:
            app.command(name)(plugin_flags.without_flags(command))
    return app


# What typer raises for a wrong command line; it has no public name, and was click's own in earlier versions.
_UsageError: Any = typer.BadParameter.__bases__[0]


def main() -> None:
    """Run the command line: exit status 0, 2 for a user's error with one line on stderr, 1 for a bug.

    128 and the signal's number where SIGINT or SIGTERM broke off the work.
    """
    arguments = sys.argv[1:] or ["--help"]
    try:
        with safe_children():
            status = make_app(arguments)(arguments, prog_name="l0prune", standalone_mode=False)
    except Interrupted as error:
        # All processes of a run stop together: one says so.
        if options.is_main_process():
            print(f"l0prune: {error}", file=sys.stderr)
        status = 128 + error.signal_number
    except FailedElsewhere:
        status = 2
    except L0PruneError as error:
        status = _refuse(str(error))
    except KeyboardInterrupt:
        # While a plugin is loaded: later ones are typer's.
        status = 128 + signal.SIGINT
    except _UsageError as error:
        message = error.format_message().strip().removesuffix(".")
        shown = [error.ctx.command_path if error.ctx else "l0prune"]
        if arguments[0] in _OF_PLUGINS:
            plugin = plugin_flags.named_plugin(arguments[1:])
            # The flags of a plugin are known where it is named.
            shown += ["--plugin", plugin or "NAME"]
        status = _refuse(f"{message[:1].lower()}{message[1:]}; see {' '.join(shown)} --help")
    sys.exit(status)


def _refuse(message: str) -> int:
    print(f"l0prune: error: {' '.join(message.split())}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
