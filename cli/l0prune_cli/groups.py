"""`l0prune groups`."""

import json

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
    from l0prune_cli.rendering import group_table, make_console

    chosen = l0prune.get_plugin(plugin)
    layers = [l0prune.read_toml(config)] if config else []
    flags = options.plugin_settings(plugin, teacher=teacher, data=data, units=units)
    run = l0prune.resolve(chosen, *layers, flags, recipe=recipe)
    task = chosen.prepare(l0prune.build(chosen.options, run.options), run)
    table = l0prune.inspect_groups(task)
    if as_json:
        print(json.dumps(table, indent=1))
    else:
        make_console().print(group_table(table))
