"""From recipe, TOML and flags to the settings of a run, and back."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from l0prune.config import RunConfig, StageConfig
from l0prune.errors import ConfigError, nearest
from l0prune.plugin.protocols import Plugin
from l0prune.support import build, fields_of, merge, table_of, to_mapping

if TYPE_CHECKING:
    from l0prune.size import Wish


STAGES: Mapping[str, str] = {
    "joint": "joint stage (distil and prune)",
    "further": "further stage (distil further)",
}
"""The stages of a run by name, the same in code, TOML, terminal and report; and what people read."""

_OTHER_NAMES = {
    "".join(words): stage
    for numbers, stage in zip((("1", "one", "first"), ("2", "two", "second")), STAGES, strict=True)
    for number in (*numbers, stage)
    for word in ("step", "stage")
    for words in ((word, number), (number, word))
}
"""What the tables of the stages are not called, in small letters without signs between words."""


def resolve(plugin: Plugin, *layers: Mapping[str, Any], recipe: str | None = None) -> RunConfig:
    """Settings of a run: the recipe's, overlaid by others.

    Args:
        plugin: The plugin; its own settings stand in the table of its name.
        layers: Nested tables, later ones win; a `recipe` key in one names the recipe, and a `steps` key says how many
            steps both stages make together. Where a stage gets fewer steps than the recipe warms it up for, its warm-up
            keeps the share that it has in the recipe.
        recipe: A recipe of the plugin; by default what the layers say, else the plugin's first.

    Raises:
        ConfigError: The recipe or a setting does not exist or has a wrong value.
    """
    for layer in layers:
        if not isinstance(layer, Mapping):
            raise ConfigError(
                "settings are not a table", got=repr(layer), expected='a mapping: {"joint": {"steps": 5}}'
            )
    given = merge(*layers)
    recipe = str(recipe or given.get("recipe") or next(iter(plugin.recipes)))
    if recipe not in plugin.recipes:
        raise ConfigError("no such recipe", where=recipe, hint=nearest(recipe, plugin.recipes))
    values = merge(
        plugin.recipes[recipe], given, _warm_ups(plugin, recipe, given), {"plugin": plugin.name, "recipe": recipe}
    )
    options = values.pop(plugin.name, {})
    if not isinstance(options, Mapping):
        raise ConfigError("setting is not a table", where=plugin.name, got=repr(options))
    if "options" in values:
        raise ConfigError("no such setting", where="options", hint=f"the plugin's settings stand in [{plugin.name}]")
    steps = values.pop("steps", None)
    settings = {field.name for field in fields(RunConfig)} - {"options"}
    for name in sorted(map(str, values.keys() - settings)):
        raise ConfigError("no such setting", where=name, hint=_hint(name, {*settings, "steps"}, plugin))
    # Checked here, so that a wrong key is found before anything is loaded.
    values["options"] = to_mapping(build(plugin.options, options, where=plugin.name))
    config = build(RunConfig, values)
    # Imported here, because settings are read before anything heavy is loaded.
    from l0prune.size import metric_named, read_targets

    if config.target:
        read_targets(config.target)
    else:
        metric_named(config.metric).check(wish_of(config))
    config = config if steps is None else in_steps(config, steps)
    return config if config.elastic.ends is None else _elastic(config, given)


def _hint(name: str, settings: set[str], plugin: Plugin) -> str:
    """What to say of a setting that there is not: the name that a stage has, or the nearest one."""
    plain = re.sub(r"[\W_]", "", name).lower()
    if stage := _OTHER_NAMES.get(plain):
        return f"the table is called [{stage}]"
    own = {field.name for field in fields_of(plugin.options)}
    if name in own:
        return f"did you mean '{plugin.name}.{name}'?"
    return nearest(name, {*settings, plugin.name})


def _warm_ups(plugin: Plugin, recipe: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe's warm-ups, where a caller gives a stage fewer steps than they have: they keep their share of it."""
    found = {}
    for stage in STAGES:
        named, table = plugin.recipes[recipe].get(stage, {}), given.get(stage)
        steps = table.get("steps") if isinstance(table, Mapping) and "warmup_steps" not in table else None
        warmup = named.get("warmup_steps", 0)
        if type(steps) is int and 0 <= steps < warmup:
            planned = max(warmup, named.get("steps", getattr(RunConfig(plugin=plugin.name), stage).steps))
            found[stage] = {"warmup_steps": warmup * steps // planned}
    return found


def _elastic(config: RunConfig, given: Mapping[str, Any]) -> RunConfig:
    """The settings of an elastic run: its target is the smallest size, and no unit leaves before the end.

    Raises:
        ConfigError: There is another target, no stage that learns an order, or a setting that does not go with it.
    """
    from l0prune.size import metric_named

    sparsity, controller, joint = 1 - config.elastic.ends[0], config.controller, config.joint.steps  # pyright: ignore[reportOptionalSubscript]
    other = next((name for name in ("target", "target_speedup", "target_ms") if getattr(config, name)), None)
    if other is None and given.get("target_sparsity", sparsity) != sparsity:
        other = "target_sparsity"
    if other is not None:
        hint = "the smallest size is the target of an elastic run; other sizes are cut out afterwards"
        raise ConfigError("two targets", got=f"elastic.smallest and {other}", expected="one of them", hint=hint)
    if metric_named(config.metric).measured_at_cut:
        hint = "train with params or macs"
        raise ConfigError("an elastic run needs a size that is counted", where="metric", got=config.metric, hint=hint)
    if not joint:
        hint = "the joint stage learns the order of the units"
        raise ConfigError("an elastic run needs a joint stage", where="joint.steps", got=0, hint=hint)
    if config.compile:
        raise ConfigError("an elastic run cannot be compiled", where="compile", got=True, hint="leave out --compile")
    settle = joint if controller.settle_steps is None else controller.settle_steps
    if not controller.warmup_steps <= settle <= joint:
        got, expected = f"{settle} of {joint} steps", f"{controller.warmup_steps} (the warm-up) to {joint}"
        where = "controller.settle_steps"
        raise ConfigError(
            "the order is not final at the end of the joint stage",
            where=where,
            got=got,
            expected=expected,
            hint="raise joint.steps, or lower controller.warmup_steps" if controller.warmup_steps > joint else None,
        )
    return replace(
        config,
        target_sparsity=sparsity,
        controller=replace(controller, kind="projected", settle_steps=settle),
        compaction=replace(config.compaction, enabled=False),
    )


def wish_of(config: RunConfig) -> "Wish":
    """What a run's settings ask for."""
    from l0prune.size import Wish

    return Wish(sparsity=config.target_sparsity, speedup=config.target_speedup, ms=config.target_ms)


def in_steps(config: RunConfig, steps: int) -> RunConfig:
    """The same schedule in another number of steps: both stages keep their shares, and warm-ups theirs.

    Args:
        config: Settings whose stages make some steps.
        steps: Of both stages together; 0 prunes without training.

    Raises:
        ConfigError: `steps` is no whole number from 0 on, or the stages of `config` make none.
    """
    if type(steps) is not int or steps < 0:
        raise ConfigError("steps out of range", got=repr(steps), expected="a whole number from 0 on")
    planned = config.joint.steps + config.further.steps
    if steps and not planned:
        raise ConfigError("steps cannot be shared out", got=steps, hint="give joint.steps and further.steps instead")
    # The joint stage is not lost to rounding.
    joint = max(steps * config.joint.steps // max(planned, 1), min(steps, config.joint.steps, 1))
    return replace(
        config,
        joint=_in(config.joint, joint),
        further=_in(config.further, steps - joint),
        controller=replace(config.controller, warmup_steps=_share(config.controller.warmup_steps, config.joint, joint)),
    )


def _in(stage: StageConfig, steps: int) -> StageConfig:
    return replace(stage, steps=steps, warmup_steps=_share(stage.warmup_steps, stage, steps))


def _share(warmup: int, stage: StageConfig, steps: int) -> int:
    return warmup * steps // stage.steps if stage.steps else 0


def describe(config: RunConfig) -> dict[str, Any]:
    """The nested tables of `config`, as they stand in a TOML file."""
    values = to_mapping(config)
    options = values.pop("options")
    return {**values, config.plugin: options}


def may_change(plugin: Plugin) -> frozenset[str]:
    """Dotted names of the settings in which a resumed run may differ: `Setting(may_change=True)` marks them."""
    return frozenset((*_may_change(RunConfig), *_may_change(plugin.options, f"{plugin.name}.")))


def came_later(plugin: Plugin) -> dict[str, Any]:
    """Dotted names of settings that came after the plugin's first runs, and what those did: `Setting(later=True)`."""
    fields = [field for field in fields_of(plugin.options) if field.setting.later]
    done = {field.name: field.default if field.setting.before is None else field.setting.before for field in fields}
    return {f"{plugin.name}.{name}": json.loads(json.dumps(value)) for name, value in done.items()}


def as_before(plugin: Plugin, began: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a run goes on with because it began before they were there: `Setting(before=...)`.

    Args:
        plugin: The run's.
        began: The nested settings with which the run began.

    Returns:
        A layer for `resolve`; what a caller gives goes over it.
    """
    own = began.get(plugin.name, {})
    later = {field.name: field.setting.before for field in fields_of(plugin.options) if field.setting.later}
    return {plugin.name: {name: value for name, value in later.items() if value is not None and name not in own}}


def _may_change(cls: type, prefix: str = "") -> Iterator[str]:
    for field in fields_of(cls):
        if table := table_of(field.hint):
            yield from _may_change(table, f"{prefix}{field.name}.")
        elif field.setting.may_change:
            yield f"{prefix}{field.name}"
