"""From recipe, TOML and flags to the settings of a run, and back."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from l0prune.config import RunConfig
from l0prune.errors import ConfigError, nearest
from l0prune.plugin import Plugin
from l0prune.tables import build, merge, to_mapping


def resolve(plugin: Plugin, *layers: Mapping[str, Any], recipe: str | None = None) -> RunConfig:
    """Settings of a run: the recipe's, overlaid by others.

    Args:
        plugin: The plugin; its own settings stand in the table of its name.
        layers: Nested tables, later ones win; a `recipe` key in one names the recipe.
        recipe: A recipe of the plugin; by default what the layers say, else the plugin's first.

    Raises:
        ConfigError: The recipe or a setting does not exist or has a wrong value.
    """
    given = merge(*layers)
    recipe = str(recipe or given.get("recipe") or next(iter(plugin.recipes)))
    if recipe not in plugin.recipes:
        raise ConfigError("no such recipe", where=recipe, hint=nearest(recipe, plugin.recipes))
    values = merge(plugin.recipes[recipe], given, {"plugin": plugin.name, "recipe": recipe})
    options = values.pop(plugin.name, {})
    if not isinstance(options, Mapping):
        raise ConfigError("setting is not a table", where=plugin.name, got=repr(options))
    if "options" in values:
        raise ConfigError("no such setting", where="options", hint=f"the plugin's settings stand in [{plugin.name}]")
    settings = {field.name for field in fields(RunConfig)} - {"options"}
    if unknown := sorted(values.keys() - settings):
        raise ConfigError("no such setting", where=unknown[0], hint=nearest(unknown[0], {*settings, plugin.name}))
    # Checked here, so that a wrong key is found before anything is loaded.
    values["options"] = to_mapping(build(plugin.options, options, where=plugin.name))
    return build(RunConfig, values)


def describe(config: RunConfig) -> dict[str, Any]:
    """The nested tables of `config`, as they stand in a TOML file."""
    values = to_mapping(config)
    options = values.pop("options")
    return {**values, config.plugin: options}
