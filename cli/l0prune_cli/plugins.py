"""`l0prune plugins`."""

import json

from l0prune_cli import options


def command(as_json: options.JsonFlag = False) -> None:
    """List the installed plugins and their recipes."""
    import l0prune
    from l0prune_cli.rendering import make_console, plugin_table

    rows = []
    for name in l0prune.plugin_names():
        try:
            plugin = l0prune.get_plugin(name)
        except l0prune.PluginError as error:
            # One broken plugin must not hide the others.
            rows.append({"name": name, "description": str(error), "recipes": []})
        else:
            rows.append({"name": name, "description": plugin.description, "recipes": list(plugin.recipes)})
    if as_json:
        print(json.dumps(rows, indent=1))
    else:
        make_console().print(plugin_table(rows))
