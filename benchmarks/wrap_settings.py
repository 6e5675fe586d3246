"""Settings of `l0prune.wrap` in a loop of one's own, as the benchmarks' `--set NAME=VALUE` gives them."""

import ast
import dataclasses
from collections.abc import Mapping
from typing import Any

from l0prune import ConfigError, GateConfig
from l0prune.pruner import CONTROLLER

GATED_SHARE = 0.5
"""Of the steps, with gates; the others train the pruned network."""
WARMUP_SHARE = 2 / 3
"""Of the gated steps, over which the target rises."""


def parsed(text: str) -> tuple[str, Any]:
    """NAME=VALUE as a name and a Python value, or else the text.

    Raises:
        ConfigError: There is no `=`.
    """
    name, equals, value = text.partition("=")
    if not equals:
        raise ConfigError("not a setting", got=text, expected="NAME=VALUE")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def wrap_settings(steps: int, settings: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
    """How many of the steps have gates, and the further arguments of `l0prune.wrap`.

    Args:
        steps: In all.
        settings: `gated_share`, `warmup_share`, `controller.NAME` and `gates.NAME` for fields of the two
            configurations, and any other argument of `wrap`.
    """
    given = dict(settings)
    gated_steps = min(steps, max(1, round(steps * given.pop("gated_share", GATED_SHARE))))
    warmup = round(gated_steps * given.pop("warmup_share", WARMUP_SHARE))
    parts: dict[str, dict[str, Any]] = {"controller": {"warmup_steps": warmup}, "gates": {}}
    for name in list(given):
        part, point, field = name.partition(".")
        if point and part in parts:
            parts[part][field] = given.pop(name)
    given.setdefault("controller", dataclasses.replace(CONTROLLER, **parts["controller"]))
    if parts["gates"]:
        given["gates"] = GateConfig(**parts["gates"])
    return gated_steps, given
