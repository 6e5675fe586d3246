"""`l0prune groups`."""

from collections.abc import Mapping
from typing import Any

from l0prune_cli import options


def command(
    plugin: options.PluginFlag,
    recipe: options.RecipeFlag = None,
    config: options.ConfigFlag = None,
    assignments: options.SetFlag = None,
    as_json: options.JsonFlag = False,
    *,
    own: Mapping[str, Any],
) -> None:
    """List the prune groups of a network, each proved on it."""
    import l0prune
    from l0prune_cli.tables import group_table, make_console, print_result

    chosen = l0prune.get_plugin(plugin)
    layers = [l0prune.read_toml(config)] if config else []
    settings = options.settings_of(plugin, options.given(recipe=recipe), own, assignments)
    run = l0prune.resolve(chosen, *layers, settings)
    task = chosen.prepare(l0prune.build(chosen.options, run.options), run)
    console = make_console(stderr=True)
    for name, value in task.facts.items():
        # Heads that the network came with and that were left out, for example.
        console.print(f"{name}: {value}")
    table = l0prune.inspect_groups(task)
    print_result(table, group_table(table), as_json=as_json)
