"""When gates measure, close and settle, in shares of a run."""

from dataclasses import replace

from l0prune.config import ControllerConfig
from l0prune.errors import ConfigError

CONTROLLER = ControllerConfig(kind="projected", warmup_steps=100)
"""What `wrap` starts from if it is not told how long the run is."""
GATED_SHARE = 0.5
"""Share of `total_steps` after which the choice of units is final."""
LOOK_SHARE = 0.08
"""Share of `total_steps` that measures before the first unit closes; no more steps than `look_steps`."""
_LEAST_STEPS = 10


def scheduled(total_steps: int, share: float = GATED_SHARE) -> ControllerConfig:
    """The default controller with a schedule in shares of a run.

    Args:
        total_steps: Optimizer steps of the whole run.
        share: Of them, after which the choice of units is final.

    Raises:
        ConfigError: They are too few, or no whole number.
    """
    if not isinstance(total_steps, int) or total_steps < _LEAST_STEPS:
        raise ConfigError("total_steps out of range", got=repr(total_steps), expected=f"{_LEAST_STEPS} or more")
    gated = int(total_steps * share)
    look = min(CONTROLLER.look_steps, max(1, int(total_steps * LOOK_SHARE)))
    # Longer runs may look further back, and choose with less noise.
    memory = min(0.98, max(0.9, 1 - 5 / max(gated, 1)))
    return replace(
        CONTROLLER, warmup_steps=max(gated - 1, look + 1), settle_steps=gated, look_steps=look, memory=memory
    )


def controller_for(total_steps: int | None, controller: ControllerConfig | None) -> ControllerConfig:
    """The controller's settings: those that are given, or those for the length of the run.

    Raises:
        ConfigError: Both are given, or the length is out of range.
    """
    if total_steps is None:
        return CONTROLLER if controller is None else controller
    if controller is not None:
        got = f"total_steps={total_steps} and controller=..."
        raise ConfigError("two schedules", got=got, hint="give controller its warmup_steps and settle_steps instead")
    return scheduled(total_steps)
