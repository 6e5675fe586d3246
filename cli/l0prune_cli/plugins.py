"""`l0prune plugins`."""

from l0prune_cli import options


def command(as_json: options.JsonFlag = False) -> None:
    """List the installed plugins and their recipes."""
    import l0prune
    from l0prune_cli.tables import plugin_table, print_result

    rows = []
    for name in l0prune.plugin_names():
        try:
            plugin = l0prune.get_plugin(name)
        except l0prune.PluginError as error:
            # One broken plugin must not hide the others.
            rows.append({"name": name, "description": str(error), "recipes": []})
        else:
            rows.append({"name": name, "description": plugin.description, "recipes": list(plugin.recipes)})
    print_result(rows, plugin_table(rows), as_json=as_json)
