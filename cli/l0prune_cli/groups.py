"""`l0prune groups`."""

from l0prune_cli import options


def command(
    plugin: options.PluginFlag,
    teacher: options.TeacherFlag = None,
    data: options.DataFlag = None,
    units: options.UnitsFlag = None,
    recipe: options.RecipeFlag = None,
    config: options.ConfigFlag = None,
    as_json: options.JsonFlag = False,
) -> None:
    """List the prune groups of a network, each proved on it."""
    import l0prune
    from l0prune_cli.tables import group_table, print_result

    chosen = l0prune.get_plugin(plugin)
    layers = [l0prune.read_toml(config)] if config else []
    flags = options.plugin_settings(plugin, teacher=teacher, data=data, units=units)
    run = l0prune.resolve(chosen, *layers, flags, recipe=recipe)
    task = chosen.prepare(l0prune.build(chosen.options, run.options), run)
    table = l0prune.inspect_groups(task)
    print_result(table, group_table(table), as_json=as_json)
