"""The `l0prune` command. Commands import what they need when they run, so that `--help` is instant."""

import os
import shlex
import signal
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from l0prune.errors import FailedElsewhere, Interrupted, L0PruneError
from l0prune.support import safe_children
from l0prune_cli import (
    bench,
    compress,
    cut,
    doctor,
    evaluate,
    export,
    groups,
    options,
    pareto,
    plugin_flags,
    plugins,
    push,
    report,
    verify,
)

_OF_PLUGINS = {"compress": compress.command, "groups": groups.command}
"""Commands that a plugin adds flags to."""
_OTHERS = {
    "bench": bench.command,
    "cut": cut.command,
    "doctor": doctor.command,
    "evaluate": evaluate.command,
    "export": export.command,
    "pareto": pareto.command,
    "plugins": plugins.command,
    "push": push.command,
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
        context_settings={"help_option_names": ["-h", "--help"]},
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback()(_l0prune)
    plugin, recipe = (plugin_flags.named(arguments[1:], flag) for flag in ("--plugin", "--recipe"))
    for name, command in sorted({**_OF_PLUGINS, **_OTHERS}.items(), key=lambda pair: (pair[0] != "compress", pair[0])):
        if name in _OTHERS:
            app.command(name)(command)
        elif plugin is not None and arguments[0] == name:
            app.command(name)(plugin_flags.with_flags_of(command, plugin, recipe))
        else:
            app.command(name)(plugin_flags.without_flags(command))
    return app


def _show_version(asked: bool) -> None:
    if asked:
        import l0prune

        print(f"l0prune {l0prune.__version__}")
        raise typer.Exit


_VersionFlag = Annotated[
    bool, typer.Option("--version", help="Print the version and stop.", is_eager=True, callback=_show_version)
]


def _l0prune(version: _VersionFlag = False) -> None:
    """What stands before a command."""


_COMPLETING = ("_TYPER_COMPLETE_ARGS", "COMP_WORDS")
"""Where a shell that asks for completions puts the command line, as typer's scripts have it."""


def _arguments() -> list[str]:
    """The command line, or what there is of the one that a shell is to complete."""
    if "_L0PRUNE_COMPLETE" in os.environ:
        text = next(filter(None, map(os.environ.get, _COMPLETING)), "")
        try:
            return shlex.split(text)[1:]
        except ValueError:
            return []  # A quotation is open.
    return sys.argv[1:] or ["--help"]


# What typer raises for a wrong command line; it has no public name, and was click's own in earlier versions.
_UsageError: Any = typer.BadParameter.__bases__[0]


def main() -> None:
    """Run the command line: exit status 0, 2 for a user's error with one line on stderr, 1 for a bug.

    128 and the signal's number where SIGINT or SIGTERM broke off the work.
    """
    arguments = _arguments()
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
        known = {**_OF_PLUGINS, **_OTHERS}
        shown = [error.ctx.command_path] if error.ctx else ["l0prune", *(a for a in arguments[:1] if a in known)]
        if arguments[0] in _OF_PLUGINS:
            plugin = plugin_flags.named(arguments[1:])
            # The flags of a plugin are known where it is named.
            shown += ["--plugin", plugin or "NAME"]
        status = _refuse(f"{message[:1].lower()}{message[1:]}; see {' '.join(shown)} --help")
    sys.exit(status)


def _refuse(message: str) -> int:
    print(f"l0prune: error: {' '.join(message.split())}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
