"""What stands where a flag is not given, for the help: the settings of a recipe."""

import copy
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import MISSING
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, get_args

if TYPE_CHECKING:
    from l0prune import Plugin


def defaults_of(plugin: "Plugin | None", recipe: str | None) -> dict[str, dict[str, str]]:
    """The default of each setting in words: those of the run under "", a plugin's under its name.

    Args:
        plugin: Whose recipes and options; None where none is named.
        recipe: Its name; by default, and where there is none of that name, the plugin's first.
    """
    import l0prune
    from l0prune.support import fields_of

    name = recipe if plugin and recipe in plugin.recipes else next(iter(plugin.recipes)) if plugin else None
    values: Mapping[str, Any] = plugin.recipes[name] if plugin and name else {}
    run = {field.name: in_words(values.get(field.name, field.default)) for field in fields_of(l0prune.RunConfig)}
    if plugin is None:
        return {"": {**run, "steps": "the recipe's", "recipe": "the plugin's first"}}
    stages = {field.name: field.default for field in fields_of(l0prune.RunConfig)}
    steps = sum(values.get(stage, {}).get("steps", stages[stage].steps) for stage in ("joint", "further"))
    own = values.get(plugin.name, {})
    options = {field.name: in_words(own.get(field.name, field.default)) for field in fields_of(plugin.options)}
    return {"": {**run, "steps": str(steps), "recipe": str(name)}, plugin.name: options}


def with_defaults(parameters: Sequence[inspect.Parameter], words: Mapping[str, str]) -> list[inspect.Parameter]:
    """Parameters of a command, whose help shows the defaults of settings.

    Args:
        parameters: Those whose own default is None stand for a setting.
        words: By the parameter's name.
    """
    shown = []
    for parameter in parameters:
        if parameter.default is None and parameter.name in words:
            kind, option, *rest = get_args(parameter.annotation)
            option = copy.copy(option)
            # Written here, because typer puts what it is told in parentheses.
            option.show_default, option.help = False, f"{option.help}  [default: {words[parameter.name]}]"
            annotation = Annotated[(kind, option, *rest)]  # type: ignore[valid-type]
            parameter = parameter.replace(annotation=annotation)
        shown.append(parameter)
    return shown


def in_words(value: Any) -> str:
    """A value as a flag takes it."""
    if isinstance(value, Enum):
        value = value.value
    if value is None or value is MISSING or value in ("", ()):
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple | set | frozenset):
        return ",".join(map(in_words, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
