"""Flags that several commands share, and how they become settings."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

PluginFlag = Annotated[str, typer.Option("--plugin", help="What to compress: see `l0prune plugins`.")]
RecipeFlag = Annotated[str | None, typer.Option("--recipe", help="Named settings: see `l0prune plugins`.")]
ConfigFlag = Annotated[Path | None, typer.Option("--config", help="TOML file over the recipe.", dir_okay=False)]
TeacherFlag = Annotated[str | None, typer.Option("--teacher", help="The network to compress.")]
DataFlag = Annotated[list[str] | None, typer.Option("--data", help="Training data; may be repeated.")]
UnitsFlag = Annotated[str | None, typer.Option("--units", help="Kinds of unit to prune, comma-separated.")]
SparsityFlag = Annotated[float | None, typer.Option("--target-sparsity", help="Share of the size to remove.")]
JsonFlag = Annotated[bool, typer.Option("--json", help="One JSON document on stdout; everything else on stderr.")]


def plugin_settings(
    plugin: str, *, teacher: str | None = None, data: list[str] | None = None, units: str | None = None
) -> dict[str, Any]:
    """The plugin's table as far as flags set it."""
    values = {
        "teacher": teacher,
        "data": data or None,
        "units": list(names(units)) if units is not None else None,
    }
    given = {key: value for key, value in values.items() if value is not None}
    return {plugin: given} if given else {}


def given(**settings: Any) -> dict[str, Any]:
    """The settings that were given: those that are not None."""
    return {key: value for key, value in settings.items() if value is not None}


def is_main_process() -> bool:
    """Whether this is the one of several processes, started by torchrun, that speaks for all."""
    return os.environ.get("RANK", "0") == "0"


def names(text: str | None) -> tuple[str, ...]:
    """The names of a comma-separated list."""
    return tuple(name.strip() for name in (text or "").split(",") if name.strip())
