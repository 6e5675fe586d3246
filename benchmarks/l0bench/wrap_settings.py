"""Settings of `l0prune.wrap` in a loop of one's own, as the benchmarks' `--set NAME=VALUE` gives them."""

import ast
import dataclasses
from collections.abc import Mapping
from typing import Any

from l0prune import ConfigError, GateConfig
from l0prune.pruner import GATED_SHARE, scheduled


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

    Without settings it is told the number of steps, as a user would, and gates settle when it says. With a `start` that
    needs calibration batches the caller gives those that pruning at once looks at, too.

    Args:
        steps: In all.
        settings: `start`, `gated_share`, `controller.NAME` and `gates.NAME` for fields of the two configurations, and
            any other argument of `wrap`.
    """
    given = dict(settings)
    share = given.pop("gated_share", GATED_SHARE)
    gated_steps = min(steps, max(1, int(steps * share)))
    parts: dict[str, dict[str, Any]] = {"controller": {}, "gates": {}}
    for name in list(given):
        part, point, field = name.partition(".")
        if point and part in parts:
            parts[part][field] = given.pop(name)
    if parts["controller"] or share != GATED_SHARE:
        controller = dataclasses.replace(scheduled(steps, share), **parts["controller"])
        given.setdefault("controller", controller)
    if "controller" not in given:
        given.setdefault("total_steps", steps)
    if parts["gates"]:
        given["gates"] = GateConfig(**parts["gates"])
    return gated_steps, given
