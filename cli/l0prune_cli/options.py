"""Flags that several commands share, and how they become settings."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

PluginFlag = Annotated[str, typer.Option("--plugin", help="What to compress: see `l0prune plugins`.")]
RecipeFlag = Annotated[
    str | None,
    typer.Option("--recipe", help="Named settings: see `l0prune plugins`.", show_default="the plugin's first"),
]
ConfigFlag = Annotated[
    Path | None, typer.Option("--config", help="TOML file over the recipe.", dir_okay=False, show_default="none")
]
SetFlag = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Any setting, joint.steps=100 for example; may be repeated.",
        show_default="none",
    ),
]
SparsityFlag = Annotated[float | None, typer.Option("--target-sparsity", help="Share of the size to remove.")]
JsonFlag = Annotated[bool, typer.Option("--json", help="One JSON document on stdout; everything else on stderr.")]


ReaderFlag = Annotated[
    str | None,
    typer.Option("--plugin", help="Who reads the models.", show_default="that of the run, else speech"),
]
BuildFlag = Annotated[
    str | None,
    typer.Option(
        "--build",
        metavar="MODULE:FUNCTION",
        help="For runs that name no plugin: the function in Python that makes the dense network.",
        show_default="none",
    ),
]
_READER = "speech"
"""Of what is no run."""


def plugin_of(sources: Sequence[str], given: str | None) -> str:
    """Who reads some models: who is named, else the plugin of the runs among them.

    Args:
        sources: Run directories, and what else a plugin takes.
        given: By `--plugin`.

    Raises:
        ConfigError: The runs are of several plugins.
    """
    import l0prune
    from l0prune.storage import run_plugin

    if given is not None:
        return given
    of_runs = {plugin: source for source in sources if (plugin := run_plugin(source))}
    if len(of_runs) > 1:
        got = " and ".join(f"{source} of {plugin}" for plugin, source in sorted(of_runs.items()))
        raise l0prune.ConfigError("runs of several plugins", got=got, expected="one", hint="give each its own command")
    return next(iter(of_runs), _READER)


def settings_of(
    plugin: str,
    flags: Mapping[str, Any],
    own: Mapping[str, Any],
    assignments: Sequence[str] | None,
    names: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The settings that a command line gives, as nested tables.

    Args:
        plugin: Its name, which is that of its table.
        flags: Settings of the run that flags set.
        own: Settings of the plugin that its flags set.
        assignments: What `--set` gives.
        names: The flags of settings that have another name.

    Raises:
        ConfigError: `--set` is given something else than KEY=VALUE, or the same as another one or as a flag.
    """
    import l0prune
    from l0prune.support import merge, read_assignments

    assigned = read_assignments(assignments or ())
    table = assigned.get(plugin)
    both = [(key, key) for key in flags if key in assigned]
    both += [(key, f"{plugin}.{key}") for key in own if isinstance(table, Mapping) and key in table]
    both += [("plugin", "plugin")] if "plugin" in assigned else []
    for key, path in both:
        flag = (names or {}).get(key, f"--{key.replace('_', '-')}")
        raise l0prune.ConfigError("setting is given twice", where=path, got=f"{flag} and --set", expected="one of them")
    if "steps" in {**flags, **assigned}:
        _check_steps(assigned, "--steps" if "steps" in flags else "--set steps")
    return merge(flags, {plugin: own} if own else {}, assigned)


_SHARED_OUT = ("joint.steps", "joint.warmup_steps", "further.steps", "further.warmup_steps", "controller.warmup_steps")
"""Settings that follow from `steps`."""


def _check_steps(assigned: Mapping[str, Any], flag: str) -> None:
    """Refuse what `steps` would overrule."""
    import l0prune

    for path in _SHARED_OUT:
        table, _, key = path.partition(".")
        if isinstance(assigned.get(table), Mapping) and key in assigned[table]:
            got = f"{flag} and --set {path}"
            hint = f"{flag} shares steps and warm-ups out as the recipe does"
            raise l0prune.ConfigError("setting is given twice", where=path, got=got, expected="one of them", hint=hint)


def given(**settings: Any) -> dict[str, Any]:
    """The settings that were given: those that are not None."""
    return {key: value for key, value in settings.items() if value is not None}


def is_main_process() -> bool:
    """Whether this is the one of several processes, started by torchrun, that speaks for all."""
    return os.environ.get("RANK", "0") == "0"


def names(text: str | None, separator: str = ",") -> tuple[str, ...]:
    """The names of a list in one text."""
    return tuple(name.strip() for name in (text or "").split(separator) if name.strip())
