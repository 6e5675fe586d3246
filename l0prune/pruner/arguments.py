"""What a caller gives to `wrap` and to what it returns, checked."""

from typing import Any, Literal

from torch import nn

from l0prune.config import CompactionConfig, ControllerConfig, GateConfig
from l0prune.errors import ConfigError
from l0prune.size import Limits


def matrices_of(model: nn.Module) -> list[nn.Parameter]:
    """Parameters with two dimensions that no embedding holds."""
    embeddings = [part for part in model.modules() if isinstance(part, nn.Embedding | nn.EmbeddingBag)]
    looked_up = {id(parameter) for part in embeddings for parameter in part.parameters()}
    return [parameter for parameter in model.parameters() if parameter.ndim == 2 and id(parameter) not in looked_up]


def loss_of(found: Any) -> float:
    """What the caller's `evaluate` gives, as a number."""
    try:
        return float(found)
    except (TypeError, ValueError, RuntimeError) as error:
        got, expected = type(found).__name__, "a number: your loss on held-out data"
        raise ConfigError("evaluate gives no number", got=got, expected=expected) from error


def checked_settings(
    gates: GateConfig | None,
    controller: ControllerConfig,
    compaction: CompactionConfig | bool | None,
    *,
    round_to: int | Literal["auto"] | None,
    uniform: bool,
    limits: Limits | None,
) -> tuple[GateConfig, CompactionConfig]:
    """Settings of gates and of compaction, from a caller's own objects or from the arguments that say the same.

    Args:
        gates: A caller's own.
        controller: As it will be used.
        compaction: A caller's own, or whether units leave.
        round_to: As `wrap` takes it.
        uniform: As `wrap` takes it.
        limits: As `wrap` takes them.

    Raises:
        ConfigError: One is of another type, or something is given twice.
    """
    gates = gates or GateConfig(round_to=round_to, uniform=uniform, limits=limits or {})
    compaction = CompactionConfig(enabled=bool(compaction)) if isinstance(compaction, bool | None) else compaction
    for name, given, kind in (
        ("gates", gates, GateConfig),
        ("controller", controller, ControllerConfig),
        ("compaction", compaction, CompactionConfig),
    ):
        if not isinstance(given, kind):
            raise ConfigError(f"{name} has the wrong type", got=repr(given), expected=f"{kind.__name__}(...)")
    if round_to not in (None, gates.round_to):
        raise ConfigError("round_to is given twice", got=f"{round_to} and gates.round_to {gates.round_to}")
    if uniform and not gates.uniform:
        raise ConfigError("uniform is given twice", got="uniform=True and gates.uniform False")
    if limits not in (None, gates.limits):
        raise ConfigError("limits are given twice", got="limits and gates.limits", expected="one of them")
    return gates, compaction
