"""How plugins are found: by the entry points of installed packages."""

from dataclasses import is_dataclass
from importlib.metadata import entry_points

from l0prune.errors import PluginError, nearest
from l0prune.plugin.protocols import Plugin

ENTRY_POINT_GROUP = "l0prune.plugins"


def plugin_names() -> list[str]:
    """Names of the installed plugins."""
    return sorted({entry.name for entry in entry_points(group=ENTRY_POINT_GROUP)})


def get_plugin(name: str) -> Plugin:
    """Find and check a plugin.

    Raises:
        PluginError: There is none of that name, it cannot be imported, or it lacks something.
    """
    found = {entry.name: entry for entry in entry_points(group=ENTRY_POINT_GROUP)}
    if name not in found:
        raise PluginError("no such plugin", where=name, hint=nearest(name, found))
    try:
        plugin = found[name].load()()
    except Exception as error:
        raise PluginError(
            "plugin cannot be loaded", where=f"{name} ({found[name].value})", got=f"{type(error).__name__}: {error}"
        ) from error
    where = f"{name} ({found[name].value})"
    missing = [
        attribute
        for attribute in ("name", "description", "options", "recipes", "prepare", "build")
        if not hasattr(plugin, attribute)
    ]
    if missing:
        raise PluginError("plugin is incomplete", where=where, expected=f"attributes {', '.join(missing)}")
    if not is_dataclass(plugin.options):
        raise PluginError("plugin's options are no dataclass", where=where, got=repr(plugin.options))
    if not plugin.recipes:
        raise PluginError("plugin has no recipe", where=where, expected="at least one, the default")
    return plugin
